//! Nothing is built here: the two dependencies are fetched for the files they contain.
