//! The real binary as a service of a booted systemd, on a router of the lab with real traffic: what an operator does
//! with systemctl, and what becomes of the counts meanwhile. Skipped without root or the programs, except where CI is
//! `true`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests, where a panic is the report"
)]

mod access;
mod drilldown;
mod failures;
mod flush;
mod machine;
mod reload;
mod removal;
mod restart;
mod root;
mod router;
mod start;
mod static_rules;
mod teardown;
mod unit;
#[path = "../common/waiting.rs"]
mod waiting;
