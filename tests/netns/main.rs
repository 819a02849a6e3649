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
mod dhcp;
mod discover;
mod disk;
mod drill;
mod exact;
mod exact_accounts;
mod exact_plan;
mod existing;
mod flow_events;
mod follow;
mod full;
mod instances;
mod interfaces;
mod interrupted;
mod kept;
mod listing;
mod manager;
mod memory;
mod naive;
mod names;
mod paths;
mod printed;
mod probe;
mod probe_table;
mod protected;
mod random;
mod reinstall;
mod reload;
mod reload_command;
mod scenes_age;
mod scenes_crowds;
mod scenes_dropped;
mod scenes_hostile;
mod scenes_names;
mod scenes_nat;
mod scenes_places;
mod scenes_protocols;
mod scenes_short;
mod scenes_stage;
mod scenes_traffic;
mod scenes_views;
mod service;
mod static_rules;
mod sums;
mod support;
mod told;
mod truth;
mod verdicts;
#[path = "../common/waiting.rs"]
mod waiting;
