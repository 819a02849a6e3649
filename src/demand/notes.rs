//! What somebody who asks for a drilldown must know beforehand: where nobody can be named, or not for certain, and what
//! would help. No threshold may have asked for what drilldowns need of conntrack.

use super::About;
use crate::config::Config;

/// What the kernel knows of flows in this network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// nf_conntrack_acct; `None` where the kernel has no conntrack.
    pub accounting: Option<u64>,
    /// Flows it follows.
    pub flows: u64,
}

/// What makes an answer less than it could be, a sentence each. Where a threshold asks for drilldowns, health says the
/// rest.
pub fn notes(config: &Config, about: &About, conntrack: Conntrack) -> Vec<String> {
    let remedy = "a threshold that asks for a drilldown, on any counter, sees to it";
    let mut notes = Vec::new();
    match conntrack.accounting {
        None => notes.push(
            "the kernel has no connection tracking here, so nobody can be named: load the modules nf_conntrack and \
             nf_conntrack_netlink"
                .to_owned(),
        ),
        Some(0) => notes.push(format!(
            "conntrack does not count bytes, so nobody can be named: set net.netfilter.nf_conntrack_acct=1, for flows \
             that are created from then on{}",
            match config.wants_conntrack() {
                true => String::new(),
                false => format!("; {remedy}"),
            }
        )),
        Some(_) => {}
    }
    if config.wants_conntrack() || conntrack.accounting.is_none() {
        return notes;
    }
    if conntrack.flows == 0 {
        notes.push(format!(
            "conntrack knows no flow here, so nobody can be named: unless another table's rules ask for it or \
             translate addresses, it is off; {remedy}"
        ));
    }
    let selectors = |name| config.counter(name).map(|counter| &counter.selectors);
    let selectors = about.counter().and_then(selectors);
    if selectors.is_some_and(|selectors| selectors.in_.is_some() || selectors.out.is_some()) {
        notes.push(format!(
            "no rule labels flows by interface, so the routes of this moment say which flows belong, uncertainly; \
             {remedy}, for flows that are created from then on"
        ));
    }
    notes
}
