//! flowctl tells the operator of a Linux router what its links are doing, for almost nothing, and who did it the
//! moment it matters. The modules stand in the order in which data flows; docs/architecture.md has the picture.

// Words that everything speaks.
pub mod units;

// A file becomes a valid configuration, and that becomes a ruleset.
pub mod config;

pub mod plan;

// The only door to Linux: codecs without I/O, and thin files that own the sockets.
pub mod kernel;

// Readings become deltas and rates; rates move thresholds; thresholds, and those who ask,
// begin and end drilldowns.
pub mod meter;

pub mod threshold;

pub mod ask;

pub mod watch;

pub mod demand;

pub mod drilldown;

// What the addresses in it are called, and which of them are one device.
pub mod names;

pub mod engine;

// What is known at a tick, what happened, and what is wrong: all that anyone outside ever sees.
pub mod report;

pub mod interfaces;

pub mod event;

pub mod health;

// Where it goes: log, totals, control socket.
pub mod sink;

// The loop that knows the time and ties the above together.
pub mod daemon;

// One file for each command.
pub mod cli;

// A router in network namespaces, for the demo, the tests and the benchmarks.
pub mod lab;

pub mod demo;
