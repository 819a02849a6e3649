//! flowctl tells the operator of a Linux router what its links are doing, for almost nothing, and who did it the
//! moment it matters. The modules below stand in the order in which data flows.

pub mod config;
pub mod daemon;
pub mod drilldown;
pub mod engine;
pub mod event;
pub mod health;
pub mod kernel;
pub mod meter;
pub mod plan;
pub mod report;
pub mod sink;
pub mod threshold;
pub mod units;
pub mod watch;

pub mod cli;
pub mod demo;
pub mod lab;
