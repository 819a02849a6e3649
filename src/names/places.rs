//! Where leases are: the places that the configuration names, or the well-known ones of Debian and NixOS. Each is read
//! again when it changed, what was good before is kept, and what cannot be read is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock::{self, Moment};
use super::kea_socket::{Answered, Asking};
use super::lease::{LEASES_MAX, Leases};
use super::lease_file::{self, Content, Stamps};
use crate::config::printable;

/// Kea's memfiles: its own default names, and those that NixOS's examples use.
const KEA_FILES: [&str; 4] = [
    "/var/lib/kea/kea-leases4.csv",
    "/var/lib/kea/dhcp4.leases",
    "/var/lib/kea/kea-leases6.csv",
    "/var/lib/kea/dhcp6.leases",
];
/// Asked where the files cannot be read, as on NixOS, or say nothing, as beside a database.
const KEA_SOCKETS: &str = "/run/kea";
/// dnsmasq's on Debian and on NixOS.
const DNSMASQ_FILES: [&str; 2] = [
    "/var/lib/misc/dnsmasq.leases",
    "/var/lib/dnsmasq/dnsmasq.leases",
];
/// Directories in which systemd-networkd has a file for each interface that it serves.
const NETWORKD_DIRECTORIES: [&str; 2] = [
    "/var/lib/systemd/network/dhcp-server-lease",
    "/run/systemd/netif/dhcp-server-lease",
];

/// So many files of a directory are read: more interfaces have no DHCP server.
const DIRECTORY_FILES_MAX: usize = 256;
/// What took long to read is not read again before this many times as long has passed.
const REST: u32 = 20;
/// A socket does not tell whether anything changed, and Kea serves nobody else while it answers.
const SOCKET_REST: Duration = Duration::from_secs(10);

/// All places, in the order in which they are believed.
#[derive(Debug)]
pub struct Places {
    groups: Vec<Group>,
}

/// Places of one server.
#[derive(Debug)]
struct Group {
    /// Whether someone wrote it down: then it is there, or something is wrong.
    configured: bool,
    places: Vec<Place>,
}

/// A file, a socket, or a directory of them.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Only sockets of Kea, and only while the places before it in the group have no lease.
    last_resort: bool,
    /// A directory that cannot be listed.
    trouble: Option<String>,
    sources: BTreeMap<PathBuf, Source>,
}

/// One file or socket.
#[derive(Debug, Default)]
struct Source {
    stamps: Option<Stamps>,
    leases: Leases,
    state: State,
    /// A socket that has not answered yet.
    asking: Option<Asking>,
    /// Not to be read before.
    again_at: Duration,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Missing,
    /// A socket that was asked for the first time.
    Asked,
    Read,
    Unreadable(String),
}

impl Places {
    /// The places that are configured, or the well-known ones. Reads nothing.
    pub fn new(configured: Option<&[PathBuf]>) -> Places {
        let group = |configured, paths: &[&Path]| Group {
            configured,
            places: paths.iter().map(|path| Place::new(path, false)).collect(),
        };
        if let Some(paths) = configured {
            let groups = paths.iter().map(|path| group(true, &[path]));
            return Places {
                groups: groups.collect(),
            };
        }
        let mut kea = group(false, &KEA_FILES.map(Path::new));
        kea.places.push(Place::new(Path::new(KEA_SOCKETS), true));
        let others = DNSMASQ_FILES.iter().chain(&NETWORKD_DIRECTORIES);
        let others = others.map(|path| group(false, &[Path::new(path)]));
        Places {
            groups: std::iter::once(kea).chain(others).collect(),
        }
    }

    /// Reads what changed; returns what could not be read, a sentence each. A socket's answer is waited for at most
    /// `patience`; what comes later is taken the next time.
    pub fn refresh(&mut self, now: &Moment, patience: Duration) -> Vec<String> {
        let mut troubles = Vec::new();
        for index in 0..self.groups.len() {
            let elsewhere = self.groups.iter().enumerate();
            let elsewhere = elsewhere.filter(|(other, _)| *other != index);
            let taken: usize = elsewhere.map(|(_, group)| group.count()).sum();
            self.groups[index].refresh(now, patience, LEASES_MAX.saturating_sub(taken));
            troubles.extend(self.groups[index].troubles());
        }
        troubles
    }

    /// All that is known, the most believed first.
    pub fn leases(&self) -> impl Iterator<Item = &Leases> {
        let places = self.groups.iter().flat_map(|group| &group.places);
        places.flat_map(|place| place.sources.values().map(|source| &source.leases))
    }
}

impl Group {
    fn count(&self) -> usize {
        self.places.iter().map(Place::count).sum()
    }

    fn refresh(&mut self, now: &Moment, patience: Duration, room: usize) {
        for index in 0..self.places.len() {
            let counts = || self.places.iter().map(Place::count);
            let before: usize = counts().take(index).sum();
            let behind: usize = counts().skip(index + 1).sum();
            let place = &mut self.places[index];
            if place.last_resort && before > 0 {
                place.sources.clear();
                place.trouble = None;
            } else {
                place.refresh(now, patience, room.saturating_sub(before + behind));
            }
        }
    }

    /// Of places that nobody wrote down only one must be readable, and none must be there.
    fn troubles(&self) -> Vec<String> {
        let sources = || self.places.iter().flat_map(|place| &place.sources);
        let any_read = sources().any(|(_, source)| source.state == State::Read);
        let mut troubles: Vec<String> = (sources())
            .filter(|(_, source)| source.leases.left_out())
            .map(|(path, _)| {
                format!(
                    "{} has more leases than are read: {LEASES_MAX} in all",
                    shown(path)
                )
            })
            .collect();
        if self.configured || !any_read {
            troubles.extend(self.places.iter().filter_map(|place| place.trouble.clone()));
            troubles.extend(sources().filter_map(|(path, source)| {
                match &source.state {
                    State::Unreadable(reason) => Some(cannot_read(path, reason)),
                    State::Missing => self
                        .configured
                        .then(|| cannot_read(path, "it does not exist")),
                    State::Asked | State::Read => None,
                }
            }));
        }
        troubles
    }
}

impl Place {
    fn new(path: &Path, last_resort: bool) -> Place {
        Place {
            path: path.to_owned(),
            last_resort,
            trouble: None,
            sources: BTreeMap::new(),
        }
    }

    fn count(&self) -> usize {
        self.sources
            .values()
            .map(|source| source.leases.len())
            .sum()
    }

    fn refresh(&mut self, now: &Moment, patience: Duration, room: usize) {
        let found = match self.found() {
            Ok(found) => found,
            Err(error) => {
                self.trouble = Some(cannot_read(&self.path, &error.to_string()));
                return;
            }
        };
        self.trouble = None;
        self.sources.retain(|path, _| found.contains(path));
        for path in found {
            let taken = self.count();
            let source = self.sources.entry(path.clone()).or_default();
            let room = (room + source.leases.len()).saturating_sub(taken);
            source.refresh(&path, now, patience, room);
        }
    }

    /// The files and sockets of a directory, or whatever else is there, or should be.
    fn found(&self) -> std::io::Result<Vec<PathBuf>> {
        let is_directory = fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_dir());
        if !is_directory {
            let nothing = self.last_resort;
            return Ok(if nothing {
                Vec::new()
            } else {
                vec![self.path.clone()]
            });
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A file that is about to replace another has a dot before its name.
            if !name.starts_with('.') && self.wants(&path, &name) {
                found.push(path);
            }
        }
        found.sort();
        found.truncate(DIRECTORY_FILES_MAX);
        Ok(found)
    }

    fn wants(&self, path: &Path, name: &str) -> bool {
        if self.last_resort {
            // Not those of its servers for dynamic DNS and for control.
            is_socket(path) && name.contains(['4', '6'])
        } else {
            !path.is_dir()
        }
    }
}

impl Source {
    fn refresh(&mut self, path: &Path, now: &Moment, patience: Duration, room: usize) {
        if let Some(asking) = self.asking.take() {
            self.hear(asking, patience);
            return;
        }
        if now.uptime < self.again_at {
            return;
        }
        if is_socket(path) {
            if self.state == State::Missing {
                self.state = State::Asked;
            }
            match Asking::begin(path, now.wall, room) {
                Ok(asking) => self.hear(asking, patience),
                Err(error) => self.state = State::Unreadable(error.to_string()),
            }
            return;
        }
        let stamps = lease_file::stamps(path);
        if self.state == State::Read && self.stamps == Some(stamps) {
            return;
        }
        let begun = clock::uptime();
        match lease_file::read(path, now.wall, room) {
            Ok(Some(content)) => self.take(content, stamps),
            Ok(None) => *self = Source::default(),
            Err(error) => self.state = State::Unreadable(error.to_string()),
        }
        let took = clock::uptime().saturating_sub(begun);
        self.again_at = begun + took + took * REST;
    }

    fn hear(&mut self, asking: Asking, patience: Duration) {
        match asking.wait(patience) {
            Ok(Answered { leases, took }) => {
                match leases {
                    Ok(leases) => self.became(leases),
                    Err(error) => self.state = State::Unreadable(error.to_string()),
                }
                self.again_at = clock::uptime() + SOCKET_REST.max(took * REST);
            }
            Err(asking) => self.asking = Some(asking),
        }
    }

    fn became(&mut self, leases: Leases) {
        self.leases = leases;
        self.state = State::Read;
    }

    /// Half of a file is better than nothing only where nothing was known.
    fn take(&mut self, content: Content, stamps: Stamps) {
        if content.whole || self.leases.is_empty() {
            self.became(content.leases);
        }
        self.stamps = content.whole.then_some(stamps);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A sentence.
pub fn cannot_read(path: &Path, reason: &str) -> String {
    format!("cannot read {}: {reason}", shown(path))
}

#[cfg(test)]
mod tests {
    use super::super::kea_socket::SocketError;
    use super::super::lease::Lease;
    use super::super::lease::tests::shown;
    use super::*;
    use crate::units::HostName;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::sync_channel;

    const HEADER: &str = "address,valid_lifetime,expire,hostname\n";

    struct Bench {
        folder: tempfile::TempDir,
        uptime: Duration,
        /// For sockets.
        patience: Duration,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                folder: tempfile::tempdir().unwrap(),
                uptime: clock::uptime(),
                patience: Duration::from_secs(10),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        /// Troubles, and all that is known, long after the last time.
        fn refresh(&mut self, places: &mut Places) -> (Vec<String>, Vec<String>) {
            self.uptime += Duration::from_secs(100);
            let now = Moment {
                wall: 100,
                uptime: self.uptime,
            };
            let troubles = places.refresh(&now, self.patience).into_iter();
            let folder = format!("{}/", self.folder.path().display());
            (
                troubles
                    .map(|trouble| trouble.replace(&folder, ""))
                    .collect(),
                places
                    .leases()
                    .flat_map(|leases| shown(leases, 100))
                    .collect(),
            )
        }

        fn configured(&self, names: &[&str]) -> Places {
            let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
            Places::new(Some(&paths))
        }

        /// A group of places that nobody wrote down, the last of which is for sockets.
        fn well_known(&self, names: &[&str], sockets: &str) -> Places {
            let mut places: Vec<Place> = names
                .iter()
                .map(|name| Place::new(&self.path(name), false))
                .collect();
            places.push(Place::new(&self.path(sockets), true));
            Places {
                groups: vec![Group {
                    configured: false,
                    places,
                }],
            }
        }
    }

    fn lease(last: u8, name: &str) -> String {
        format!("0 02:00:00:00:00:0{last} 10.0.0.{last} {name} *\n")
    }

    fn nothing() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn what_is_configured_and_not_there_is_told() {
        let mut bench = Bench::new();
        let mut places = bench.configured(&["a", "b"]);
        bench.write("b", &lease(1, "nas"));
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!(troubles, ["cannot read a: it does not exist"]);
        assert_eq!(known, ["10.0.0.1 nas 02:00:00:00:00:01"]);
        bench.write("a", &lease(2, "tv"));
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!((troubles, known.len()), (nothing(), 2));
    }

    #[test]
    fn what_was_good_is_kept_while_it_cannot_be_read_or_is_being_rewritten() {
        let mut bench = Bench::new();
        let mut places = bench.configured(&["a"]);
        bench.write("a", &lease(1, "nas"));
        let known = bench.refresh(&mut places);
        for torn in ["0 02:00:00", "0 02:00:00:00:00:02 10.0.0.2 tv *"] {
            bench.write("a", torn);
            assert_eq!(bench.refresh(&mut places), known, "{torn}");
        }
        bench.write("a", "what is this\n");
        let (troubles, kept) = bench.refresh(&mut places);
        assert!(troubles[0].starts_with("cannot read a: it is no lease file"));
        assert_eq!(kept, known.1);
        bench.write("a", &lease(2, "tv"));
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!((troubles, known.len()), (nothing(), 1));
        assert!(known[0].starts_with("10.0.0.2 tv"));
    }

    #[test]
    fn the_files_of_a_directory_come_and_go() {
        let mut bench = Bench::new();
        let mut places = bench.configured(&["."]);
        bench.write("br-lan", &lease(1, "nas"));
        bench.write("wlan0", &lease(2, "tv"));
        bench.write(".#wlan0f00", "half\n");
        fs::create_dir(bench.path("below")).unwrap();
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!((troubles, known.len()), (nothing(), 2));
        fs::remove_file(bench.path("br-lan")).unwrap();
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!((troubles, known.len()), (nothing(), 1));
    }

    #[test]
    fn well_known_places_need_not_be_there_and_one_that_can_be_read_is_enough() {
        let mut bench = Bench::new();
        let mut places = bench.well_known(&["a", "b"], "run");
        assert_eq!(bench.refresh(&mut places), (nothing(), nothing()));
        bench.write("a", "what is this\n");
        let (troubles, _) = bench.refresh(&mut places);
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        bench.write("b", &lease(1, "nas"));
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!((troubles, known.len()), (nothing(), 1));
    }

    #[test]
    fn sockets_are_the_last_resort_and_those_of_other_servers_are_left_alone() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("run")).unwrap();
        let listen = |name: &str| UnixListener::bind(bench.path(name)).unwrap();
        let dead = listen("run/kea4-ctrl-socket");
        drop(dead);
        let ddns = listen("run/kea-ddns-ctrl-socket");
        ddns.set_nonblocking(true).unwrap();
        bench.write("run/kea4-ctrl-socket.lock", "");
        let mut places = bench.well_known(&["a"], "run");
        let (troubles, _) = bench.refresh(&mut places);
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].starts_with("cannot read run/kea4-ctrl-socket: cannot connect: "));
        bench.write("a", HEADER);
        let (troubles, _) = bench.refresh(&mut places);
        assert_eq!(
            troubles,
            nothing(),
            "the file can be read, if only it said anything"
        );
        bench.write("a", &format!("{HEADER}10.0.0.1,9,200,nas\n"));
        bench.refresh(&mut places);
        let asked = places.groups[0].places[1].sources.len();
        assert_eq!(asked, 0, "nobody is asked for what a file says");
        assert!(ddns.accept().is_err(), "nor those of other servers");
    }

    #[test]
    fn a_socket_that_is_slow_is_heard_later_and_is_no_trouble_meanwhile() {
        let mut bench = Bench::new();
        bench.patience = Duration::ZERO;
        let _listener = UnixListener::bind(bench.path("kea")).unwrap();
        let mut places = bench.configured(&["kea"]);
        bench.refresh(&mut places);
        let (first, answer) = sync_channel(1);
        let source = places.groups[0].places[0].sources.values_mut().next();
        let source = source.unwrap();
        assert_ne!(source.state, State::Missing, "it is there");
        (source.state, source.asking) = (State::Asked, Some(Asking::of(answer)));
        assert_eq!(bench.refresh(&mut places), (nothing(), nothing()));
        let mut leases = Leases::new(100, 9);
        let nas = Lease {
            mac: None,
            name: HostName::reduced("nas"),
            expires: None,
        };
        leases.put([10, 0, 0, 1].into(), nas);
        let answer = |leases| Answered {
            leases,
            took: Duration::ZERO,
        };
        first.send(answer(Ok(leases))).unwrap();
        let known = vec!["10.0.0.1 nas -".to_owned()];
        assert_eq!(bench.refresh(&mut places), (nothing(), known.clone()));
        let (second, silence) = sync_channel(1);
        let source = places.groups[0].places[0].sources.values_mut().next();
        source.unwrap().asking = Some(Asking::of(silence));
        second.send(answer(Err(SocketError::Silent))).unwrap();
        let troubles = vec!["cannot read kea: Kea does not answer".to_owned()];
        assert_eq!(bench.refresh(&mut places), (troubles, known), "is kept");
    }

    #[test]
    fn what_stands_still_is_not_read_again_and_what_is_slow_not_soon() {
        let mut bench = Bench::new();
        let mut places = bench.configured(&["a"]);
        bench.write("a", &lease(1, "nas"));
        bench.refresh(&mut places);
        let source = |places: &mut Places| {
            let source = places.groups[0].places[0].sources.values_mut();
            std::mem::take(&mut source.into_iter().next().unwrap().leases).len()
        };
        assert_eq!(source(&mut places), 1);
        bench.refresh(&mut places);
        assert_eq!(source(&mut places), 0, "nothing was read");
        let resting = places.groups[0].places[0].sources.values_mut();
        resting.for_each(|source| source.again_at = Duration::MAX);
        bench.write("a", &lease(2, "tv"));
        bench.refresh(&mut places);
        assert_eq!(source(&mut places), 0, "it took long the last time");
    }

    #[test]
    fn there_is_room_for_so_many_leases_in_all_places_together() {
        let mut bench = Bench::new();
        let many = |network: u32, count: u32| {
            let line = |n: u32| format!("0 - 10.{network}.{}.{} a *\n", n >> 8, n & 255);
            (0..count).map(line).collect::<String>()
        };
        bench.write("a", &many(1, 50_000));
        bench.write("b", &many(2, 50_000));
        let mut places = bench.configured(&["a", "b"]);
        let (troubles, known) = bench.refresh(&mut places);
        assert_eq!(known.len(), LEASES_MAX);
        assert_eq!(troubles, ["b has more leases than are read: 65536 in all"]);
    }
}
