//! Whoever consumes what the daemon knows. Each sink takes finished values, never the daemon's state, and a slow or
//! failing sink loses its own output only: it never delays a tick.

pub mod ask;
pub mod control;
pub mod conversation;
pub mod drill;
pub mod log;
pub mod log_reader;
pub mod ownership;
pub mod reload;
pub mod service;
pub mod service_text;
pub mod socket;
pub mod state;
