//! What the thread that follows flows has open while drilldowns go on: conntrack, counters, names, and the temporary
//! rules that count what is dropped. A door that stays shut is reported, and a drilldown knows less.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::conntrack::Conntrack;
use super::followed::Followed;
use super::{Message, Trouble, clock};
use crate::config::Config;
use crate::drilldown::set::DrilldownSet;
use crate::drilldown::shares::KnownHosts;
use crate::kernel::error::KernelError;
use crate::kernel::facts;
use crate::kernel::nftables::Nftables;
use crate::kernel::probe::Probe;
use crate::names::Names;

/// Names are looked for so often, and for every verdict.
const NAMES_EVERY: Duration = Duration::from_secs(5);
/// For a server that tells names: a healthy one answers in a few milliseconds, and events wait meanwhile.
const NAMES_PATIENCE: Duration = Duration::from_millis(250);
/// What no longer matters once no drilldown goes on.
const TROUBLES: [&str; 5] = [
    "drops_unmeasured",
    "events_unheard",
    "flows_unreadable",
    "names_unreadable",
    "routes_unreadable",
];
/// The health code of temporary rules.
const DROPS: &str = "drops_unmeasured";

/// The way to the loop.
pub struct Outbox(pub SyncSender<Message>);

impl Outbox {
    /// Something does not work, or works again.
    pub fn report(&self, code: &'static str, error: Option<&KernelError>) {
        self.send(Message::Trouble(Trouble {
            code,
            error: error.map(ToString::to_string),
        }));
    }

    /// Waits until the loop takes it.
    pub fn send(&self, message: Message) {
        // A loop that has ended wants nothing more.
        let _ = self.0.send(message);
    }
}

/// Open while drilldowns go on.
pub struct Doors {
    /// Flows and what becomes of them.
    pub conntrack: Conntrack,
    /// Counters.
    pub nftables: Nftables,
    names: Names,
    named_at: Option<Instant>,
    /// `None` before it is asked for, and where the kernel has no rules that go with their owner.
    probe: Option<Probe>,
}

impl Doors {
    /// In the network namespace of the calling thread. What is dropped is counted only once it is asked for.
    pub fn open(config: &Config) -> Result<Doors, KernelError> {
        Ok(Doors {
            conntrack: Conntrack::open()?,
            nftables: Nftables::open()?,
            names: Names::new(config),
            named_at: None,
            probe: None,
        })
    }

    /// Has what is dropped counted for these drilldowns too. Such rules ask for conntrack, which they would switch on for
    /// every packet: one on demand has none where no threshold has asked for that. Nor has any where only the
    /// configuration may change the ruleset.
    pub fn watch_drops<'a>(
        &mut self,
        followed: impl Iterator<Item = &'a Followed>,
        config: &Config,
        outbox: &Outbox,
    ) {
        if !config.wants_conntrack() || config.table.is_static {
            self.probe = None;
            return;
        }
        let mut followed = followed.peekable();
        if followed.peek().is_none() {
            return;
        }
        if self.probe.is_none() {
            let opened = Probe::open(&config.table.name);
            outbox.report(DROPS, opened.as_ref().err());
            self.probe = opened.ok().flatten();
        }
        let Some(probe) = &mut self.probe else {
            return;
        };
        let mut failed = None;
        for followed in followed {
            if let Some(selectors) = followed.selectors_in(config)
                && let Err(error) = probe.watch(followed.number, selectors, config)
            {
                failed = Some(error);
            }
        }
        outbox.report(DROPS, failed.as_ref());
    }

    /// The drilldown of that number is over.
    pub fn forget_drops(&mut self, number: u32, outbox: &Outbox) {
        if let Some(probe) = &mut self.probe {
            outbox.report(DROPS, probe.forget(number).as_ref().err());
        }
    }

    /// What was dropped meanwhile, for each drilldown.
    pub fn read_drops(&mut self, followed: &[Followed], set: &mut DrilldownSet, outbox: &Outbox) {
        let Some(probe) = &mut self.probe else {
            return;
        };
        let mut failed = None;
        for followed in followed {
            let Some(drilldown) = set.get_mut(&followed.id) else {
                continue;
            };
            match probe.read(followed.number) {
                Ok(missed) => drilldown.note_missed(missed),
                Err(error) => failed = Some(error),
            }
        }
        outbox.report(DROPS, failed.as_ref());
    }

    /// What the kernel does not keep at this moment, flows that begin now will lack; what may not be counted, they lack
    /// too.
    pub fn note_sysctls(&self, set: &mut DrilldownSet, config: &Config) {
        let [accounting, stamps, events] = ["acct", "timestamp", "events"].map(facts::conntrack);
        let (accounting, stamps) = (accounting == Some(0), stamps == Some(0));
        // 2: the kernel keeps what it takes to tell an end only for flows that begin while somebody listens.
        let ends_untold = events == Some(2);
        let events = events == Some(0) || !self.conntrack.listens();
        let drops_uncounted = config.table.is_static && config.wants_conntrack();
        for drilldown in set.drilldowns() {
            let circumstances = drilldown.circumstances();
            circumstances.accounting_off |= accounting;
            circumstances.stamps_off |= stamps;
            circumstances.events_off |= events;
            circumstances.ends_untold |= ends_untold;
            circumstances.drops_uncounted |= drops_uncounted;
        }
    }

    /// No drilldown goes on any more.
    pub fn shut(self, outbox: &Outbox) {
        for code in TROUBLES {
            outbox.report(code, None);
        }
    }

    /// Who is who, looked up anew where it is time to, or where it is `pressing`.
    pub fn look_up_names(&mut self, pressing: bool, outbox: &Outbox) -> &dyn KnownHosts {
        let now = clock::monotonic();
        if pressing || self.named_at.is_none_or(|at| at + NAMES_EVERY <= now) {
            let troubles = self.names.refresh(NAMES_PATIENCE);
            self.named_at = Some(now);
            outbox.send(Message::Trouble(Trouble {
                code: "names_unreadable",
                error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            }));
        }
        &self.names
    }

    /// Another configuration is in force: names are as it has them.
    pub fn forget_names(&mut self, config: &Config) {
        (self.names, self.named_at) = (Names::new(config), None);
    }
}
