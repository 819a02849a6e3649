//! The thread that hears of changes of devices and addresses, and looks at the network once they have settled: a
//! network that flaps is looked at now and then, one that stands still not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Message, Trouble, clock};
use crate::kernel::error::KernelError;
use crate::kernel::link_speed;
use crate::kernel::links::Link;
use crate::kernel::network::{Network, NetworkReader};
use crate::kernel::network_monitor::{Heard, NetworkMonitor};

/// A change is looked at when no other has followed it for so long, since one brings others: a device its addresses.
const SETTLED: Duration = Duration::from_millis(200);
/// Or when so much time has passed since the first of them.
const SETTLED_AT_LATEST: Duration = Duration::from_millis(600);

/// The running thread.
pub struct Lookout {
    /// Closed to end it.
    call: UnixStream,
    thread: JoinHandle<()>,
}

/// What was seen when changes had settled.
#[derive(Debug, Default)]
pub struct Sighting {
    /// Devices and addresses.
    pub network: Network,
    /// Indexes of devices that were deleted since the sighting before.
    pub deleted: BTreeSet<u32>,
    /// Indexes of devices that had another name for some time.
    pub renamed: BTreeSet<u32>,
    /// Names of devices that came and went unseen.
    pub fleeting: BTreeSet<String>,
    /// Whether events were lost, so that there may be others of all these.
    pub lost: bool,
}

impl Lookout {
    /// Listens from before it looks for the first time, so that no later change is missed.
    pub fn start(inbox: SyncSender<Message>) -> Result<(Self, Network), KernelError> {
        let failed = |source| KernelError::Socket {
            operation: "start the lookout",
            source,
        };
        let monitor = NetworkMonitor::open()?;
        let mut reader = NetworkReader::open()?;
        let network = reader.read()?;
        let (call, called) = UnixStream::pair().map_err(failed)?;
        let mut worker = Worker {
            monitor,
            reader,
            called,
            inbox,
            names_by_index: names_by_index(&network),
            strangers: BTreeMap::new(),
        };
        let spawned = std::thread::Builder::new()
            .name("lookout".into())
            .spawn(move || worker.run());
        let thread = spawned.map_err(failed)?;
        Ok((Lookout { call, thread }, network))
    }

    /// Ends the thread.
    pub fn finish(self) {
        drop(self.call);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

struct Worker {
    monitor: NetworkMonitor,
    reader: NetworkReader,
    called: UnixStream,
    inbox: SyncSender<Message>,
    /// The devices of the last look.
    names_by_index: BTreeMap<u32, String>,
    /// Devices that were heard of since, by all their names.
    strangers: BTreeMap<u32, BTreeSet<String>>,
}

/// Why there is nothing more to do.
enum End {
    /// The daemon ends.
    Called,
    /// Something does not work.
    Failed(KernelError),
}

impl Worker {
    fn run(&mut self) {
        let End::Failed(error) = self.work() else {
            return;
        };
        // A loop that has ended wants nothing more.
        let _ = self.inbox.send(Message::Died {
            thread: "lookout",
            error: error.to_string(),
        });
    }

    fn work(&mut self) -> End {
        loop {
            if let Err(end) = self.read_speeds() {
                return end;
            }
            let sighting = match self.next() {
                Ok(sighting) => sighting,
                Err(end) => return end,
            };
            if self
                .inbox
                .send(Message::Network(Box::new(sighting)))
                .is_err()
            {
                return End::Called;
            }
        }
    }

    /// Waits for a change, says so, and looks when it has settled.
    fn next(&mut self) -> Result<Sighting, End> {
        let mut sighting = Sighting::default();
        while !self.hear(None, &mut sighting)? {}
        // What was counted up to here is not the change's.
        let stirred = Message::Stirred {
            at: clock::uptime(),
            wall: clock::wall(),
        };
        self.inbox.send(stirred).map_err(|_| End::Called)?;
        let latest = clock::monotonic() + SETTLED_AT_LATEST;
        let mut settled = clock::monotonic() + SETTLED;
        loop {
            let until = settled.min(latest);
            let wait = until.saturating_duration_since(clock::monotonic());
            if wait.is_zero() {
                break;
            }
            if self.hear(Some(wait), &mut sighting)? {
                settled = clock::monotonic() + SETTLED;
            }
        }
        sighting.network = self.read(&mut sighting)?;
        self.names_by_index = names_by_index(&sighting.network);
        let strangers = std::mem::take(&mut self.strangers);
        let unseen = (strangers.into_iter())
            .filter(|(index, _)| !self.names_by_index.contains_key(index))
            .flat_map(|(_, names)| names);
        sighting.fleeting.extend(unseen);
        Ok(sighting)
    }

    /// Drivers may take their time to answer, so it is asked here.
    fn read_speeds(&mut self) -> Result<(), End> {
        let read = link_speed::read();
        let trouble = Trouble {
            code: "speeds_unreadable",
            error: read.as_ref().err().map(ToString::to_string),
        };
        let told = self.inbox.send(Message::Trouble(trouble));
        told.map_err(|_| End::Called)?;
        let speeds = read.unwrap_or_default();
        (self.inbox.send(Message::Speeds(speeds))).map_err(|_| End::Called)
    }

    /// Reads until it can be read.
    fn read(&mut self, sighting: &mut Sighting) -> Result<Network, End> {
        loop {
            let read = self.reader.read();
            let trouble = Trouble {
                code: "network_unreadable",
                error: read.as_ref().err().map(ToString::to_string),
            };
            let told = self.inbox.send(Message::Trouble(trouble));
            told.map_err(|_| End::Called)?;
            if let Ok(network) = read {
                return Ok(network);
            }
            self.hear(Some(SETTLED_AT_LATEST), sighting)?;
        }
    }

    /// Whether there was something to hear.
    fn hear(&mut self, patience: Option<Duration>, sighting: &mut Sighting) -> Result<bool, End> {
        let heard = self.monitor.listen(self.called.as_fd(), patience);
        match heard.map_err(End::Failed)? {
            Heard::Silence => return Ok(false),
            Heard::Called => return Err(End::Called),
            Heard::Lost => sighting.lost = true,
            Heard::Change => {}
            Heard::Device { link, gone } => self.note(*link, gone, sighting),
        }
        Ok(true)
    }

    fn note(&mut self, link: Link, gone: bool, sighting: &mut Sighting) {
        if gone {
            sighting.deleted.insert(link.index);
        }
        match self.names_by_index.get(&link.index) {
            Some(known) if *known != link.name => drop(sighting.renamed.insert(link.index)),
            Some(_) => {}
            None => {
                let names = self.strangers.entry(link.index).or_default();
                names.insert(link.name);
            }
        }
    }
}

fn names_by_index(network: &Network) -> BTreeMap<u32, String> {
    let links = network.links.iter();
    links.map(|link| (link.index, link.name.clone())).collect()
}
