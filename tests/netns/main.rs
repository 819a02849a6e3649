//! The real binary on the real kernel: everything here runs in network namespaces of the lab's own. Skipped
//! without privileges, except where CI is `true`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests, where a panic is the report"
)]

mod between_runs;
mod commands;
mod continuity;
mod crowd;
mod damage;
mod demo;
mod devices;
mod discover;
mod disk;
mod drill;
mod exact;
mod existing;
mod follow;
mod full;
mod instances;
mod interfaces;
mod interrupted;
mod listing;
mod memory;
mod naive;
mod paths;
mod protected;
mod random;
mod reinstall;
mod reload;

mod support;
mod truth;
mod verdicts;
