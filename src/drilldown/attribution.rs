//! Decides which direction of a flow a counter counted, and which end is its host. It reasons with inside addresses:
//! at flowctl's hooks original packets go from the original source to the reply source, whatever NAT does outside.

use std::net::IpAddr;

use crate::drilldown::scope::{InterfaceChoice, LabelBits, Scope};
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::routes::Path;

/// Which directions of a flow belong to a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Belongs {
    /// From the original source to the reply source.
    pub original: bool,
    /// The other way.
    pub reply: bool,
    /// Label bits contradict each other, for the route changed within the flow; or there are none, and routes decided.
    pub approximate: bool,
}

impl Belongs {
    /// What either of them has.
    pub(super) fn or(self, other: Belongs) -> Belongs {
        Belongs {
            original: self.original || other.original,
            reply: self.reply || other.reply,
            approximate: self.approximate || other.approximate,
        }
    }
}

/// What is known of a flow and a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// The counter counted none of it.
    Foreign,
    /// The selectors ask for an interface and none of ours labelled the flow: older than the label rules, or by way
    /// of interfaces that are not configured. Here its path decides.
    Unlabelled,
    /// The counter counted at least one direction.
    Belongs(Belongs),
}

/// A flow's directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Original,
    Reply,
}

/// Where a packet meets an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Arrives,
    Leaves,
}

/// Who opened a flow and whom it reached, in inside addresses.
pub fn inside_ends(flow: &FlowRecord) -> (IpAddr, IpAddr) {
    (flow.original.source, flow.reply.source)
}

impl Scope {
    /// Whether and how far `flow` belongs to the counter.
    pub fn attribute(&self, flow: &FlowRecord) -> Attribution {
        let (opener, peer) = inside_ends(flow);
        let (original, reply) = self.directions(opener, peer);
        if !original && !reply {
            return Attribution::Foreign;
        }
        if self.in_.is_none() && self.out.is_none() {
            return Attribution::Belongs(Belongs {
                original,
                reply,
                approximate: false,
            });
        }
        match self.labels_on(flow) {
            0 => Attribution::Unlabelled,
            labels => self.attribute_by_labels(original, reply, labels),
        }
    }

    /// The same for an unlabelled flow, as if its packets had always gone the way that routes say now.
    pub fn attribute_by_path(&self, flow: &FlowRecord, path: &Path) -> Attribution {
        let (opener, peer) = inside_ends(flow);
        let (original, reply) = self.directions(opener, peer);
        match self.attribute_by_labels(original, reply, self.labels_of(path)) {
            Attribution::Belongs(belongs) => Attribution::Belongs(Belongs {
                approximate: true,
                ..belongs
            }),
            Attribution::Foreign | Attribution::Unlabelled => Attribution::Foreign,
        }
    }

    /// Which directions of a flow between the two the addresses alone allow.
    fn directions(&self, opener: IpAddr, peer: IpAddr) -> (bool, bool) {
        match self.host {
            Some(host) => (
                host == opener || host == peer,
                host == opener || host == peer,
            ),
            None => (
                self.addresses_match(opener, peer),
                self.addresses_match(peer, opener),
            ),
        }
    }

    fn attribute_by_labels(&self, original: bool, reply: bool, labels: u128) -> Attribution {
        let original = original && self.interfaces_match(labels, Direction::Original);
        let reply = reply && self.interfaces_match(labels, Direction::Reply);
        if !original && !reply {
            return Attribution::Foreign;
        }
        Attribution::Belongs(Belongs {
            original,
            reply,
            approximate: (original && self.contradicted(labels, Direction::Original))
                || (reply && self.contradicted(labels, Direction::Reply)),
        })
    }

    /// The host that bytes from `sender` to `receiver` are put down to.
    pub fn host(&self, sender: IpAddr, receiver: IpAddr) -> IpAddr {
        if let Some(host) = self.host {
            return host;
        }
        let by_sender = self.in_.is_some() || self.from.is_some();
        let preferred = if by_sender { sender } else { receiver };
        let inside = |test: &dyn Fn(IpAddr) -> bool| match (test(sender), test(receiver)) {
            (true, true) => Some(preferred),
            (true, false) => Some(sender),
            (false, true) => Some(receiver),
            (false, false) => None,
        };
        inside(&|end| self.in_subnet(end))
            .or_else(|| inside(&|end| self.is_own(end)))
            .unwrap_or_else(|| self.end_not_facing(sender, receiver))
    }

    /// Packets that leave by an interface have their receiver beyond it, those that arrive their sender. Without an
    /// interface the end that the counter names is the nearer one.
    fn end_not_facing(&self, sender: IpAddr, receiver: IpAddr) -> IpAddr {
        let sends = if self.out.is_some() {
            true
        } else if self.in_.is_some() {
            false
        } else {
            self.from.is_some()
        };
        if sends { sender } else { receiver }
    }

    fn addresses_match(&self, source: IpAddr, destination: IpAddr) -> bool {
        let sent_from = self.from.as_ref().is_none_or(|set| set.contains(source));
        let sent_to = self.to.as_ref().is_none_or(|set| set.contains(destination));
        sent_from && sent_to && self.passes_hook(source, destination)
    }

    /// Whether such packets come through the chain that the counter stands in at all.
    fn passes_hook(&self, source: IpAddr, destination: IpAddr) -> bool {
        let router_made = self.is_own(source);
        if !self.leaves {
            return !router_made;
        }
        // The output chain has no interface that packets arrived by.
        let from_output = router_made && self.in_.is_none();
        let delivered = self.is_own(destination);
        if router_made {
            from_output && !delivered
        } else {
            !delivered && !never_forwarded(destination)
        }
    }

    fn interfaces_match(&self, labels: u128, direction: Direction) -> bool {
        let met = |choice: &Option<InterfaceChoice>, passage| {
            choice
                .as_ref()
                .is_none_or(|choice| labels & bits(choice.chosen, direction, passage) != 0)
        };
        met(&self.in_, Passage::Arrives) && met(&self.out, Passage::Leaves)
    }

    fn contradicted(&self, labels: u128, direction: Direction) -> bool {
        let contradicted = |choice: &Option<InterfaceChoice>, passage| {
            choice.iter().flat_map(|choice| &choice.rivals).any(|pair| {
                labels & bits(pair.0, direction, passage) != 0
                    && labels & bits(pair.1, direction, passage) != 0
            })
        };
        contradicted(&self.in_, Passage::Arrives) || contradicted(&self.out, Passage::Leaves)
    }
}

/// Labels are set by packets of the original direction; replies go the same way back.
fn bits(bits: LabelBits, direction: Direction, passage: Passage) -> u128 {
    match (direction, passage) {
        (Direction::Original, Passage::Arrives) | (Direction::Reply, Passage::Leaves) => {
            bits.arrived
        }
        (Direction::Original, Passage::Leaves) | (Direction::Reply, Passage::Arrives) => bits.left,
    }
}

/// Limited broadcast (RFC 919) and link-local multicast (RFC 5771, RFC 4291): routers keep them to the link.
fn never_forwarded(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => {
            let [first, second, ..] = address.octets();
            first == 0xff && second & 0x0f <= 2 || address.is_unicast_link_local()
        }
    }
}
