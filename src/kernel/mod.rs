//! The only door to Linux: pure codecs for what goes over netlink, and the thin files that own the sockets.
//! flowctl never resets a counter, never zeroes conntrack, and runs no program.

pub mod addresses;
pub mod attr;
pub mod batch;
pub mod conntrack;
pub mod default_routes;
pub mod devices;
pub mod error;
pub mod expression;
pub mod facts;
pub mod flow_events;
pub mod flow_request;
pub mod flows;
pub mod handed;
mod install;
pub mod link_speed;
pub mod links;
pub mod listener;
pub mod monitor;
pub mod neighbours;
pub mod network;
pub mod network_monitor;
pub mod nft;
pub mod nftables;
pub mod probe;
mod probe_batch;
pub mod routes;
mod set;
pub mod socket;
