//! What root does in the directories of another user, such as the state directory of a service: what it makes there
//! belongs to that user, so that the service is not shut out, and no link that user put there leads what it writes
//! elsewhere. Links are followed in the path of a directory that the administrator named, in root's own directories, and
//! to what is only read. A file that was there before is never given away.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, fsync, mkdirat, openat,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;

const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Whoever a user namespace has no number for. What is theirs cannot be given to them.
const NOBODY: u32 = 65_534;
/// Of the user namespace of this process: one range a line, of which the last number is the length.
const USER_MAP: &str = "/proc/self/uid_map";
/// All users there can be; the last 32-bit number is none.
const USERS: u64 = u32::MAX as u64;

/// What may be written to in another user's directory.
const USABLE: &str = "regular file of that user or of root";

/// A directory, whatever becomes of its name.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    /// Whose it is, where this process is root and that is another user.
    owner: Option<Owner>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    user: Uid,
    /// `None` where this user namespace has no number for it.
    group: Option<Gid>,
}

impl Directory {
    /// The one at `path`, which the administrator named: through whatever links.
    pub fn open(path: &Path) -> io::Result<Directory> {
        Directory::of(openat(CWD, path, DIRECTORY, Mode::empty())?)
    }

    /// The one at `path` as seen from `base`, which is opened as by [`Directory::open`], unless `path` is absolute: then
    /// that is `/`. Of the links in `path` itself, those in another user's directory are not followed.
    pub fn reach(base: &Path, path: &Path) -> io::Result<Directory> {
        Directory::walk(base, path, Directory::below)
    }

    /// The same, and it is made (0750) with all of `path` above it where they are missing.
    pub fn make(base: &Path, path: &Path) -> io::Result<Directory> {
        Directory::walk(base, path, Directory::below_or_made)
    }

    fn walk(
        base: &Path,
        path: &Path,
        step: impl Fn(&Directory, &OsStr) -> io::Result<Directory>,
    ) -> io::Result<Directory> {
        let base = if path.is_absolute() {
            Path::new("/")
        } else {
            base
        };
        let mut directory = Directory::open(base)?;
        for component in path.components() {
            directory = match component {
                Component::CurDir | Component::RootDir | Component::Prefix(_) => directory,
                Component::ParentDir => directory.below(OsStr::new(".."))?,
                Component::Normal(name) => step(&directory, name)?,
            };
        }
        Ok(directory)
    }

    fn of(descriptor: OwnedFd) -> io::Result<Directory> {
        let found = fstat(&descriptor)?;
        let is_another = found.st_uid != 0 && !is_nameless(found.st_uid);
        let is_guest = is_another && rustix::process::geteuid().is_root();
        let owner = is_guest.then(|| Owner {
            user: Uid::from_raw(found.st_uid),
            group: (found.st_gid != NOBODY).then(|| Gid::from_raw(found.st_gid)),
        });
        Ok(Directory { descriptor, owner })
    }

    fn below(&self, name: &OsStr) -> io::Result<Directory> {
        let flags = DIRECTORY | self.no_link();
        match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Directory::of(descriptor),
            Err(Errno::NOTDIR) => Err(self.not_a("directory", name)),
            Err(error) => Err(error.into()),
        }
    }

    fn below_or_made(&self, name: &OsStr) -> io::Result<Directory> {
        match self.below(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        match mkdirat(&self.descriptor, name, DIRECTORY_MODE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.below(name),
            Err(error) => return Err(error.into()),
        }
        let mut made = self.below(name)?;
        self.give(&made.descriptor, name, AtFlags::REMOVEDIR)?;
        made.owner = self.owner;
        Ok(made)
    }

    /// Gives what was just made here to the directory's owner, unless that one has it already; where that is refused, it
    /// is removed.
    fn give(&self, made: impl AsFd, name: &OsStr, removal: AtFlags) -> io::Result<()> {
        let Some(Owner { user, group }) = self.owner else {
            return Ok(());
        };
        let found = fstat(&made)?;
        let has_group = group.is_none_or(|group| found.st_gid == group.as_raw());
        if found.st_uid == user.as_raw() && has_group {
            return Ok(());
        }
        let given = chownat(&made, "", Some(user), group, AtFlags::EMPTY_PATH);
        if given.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(&self.descriptor, name, removal);
        }
        Ok(given?)
    }

    /// Makes a file (0640) that was not there.
    pub fn make_new(&self, name: &OsStr, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.descriptor, name, flags, FILE_MODE)?;
        self.give(&file, name, AtFlags::empty())?;
        Ok(file.into())
    }

    /// Opens a file, or makes it (0640). In another user's directory it has to be a regular file of that user, or one of
    /// root's that has no other name.
    pub fn open_or_make(&self, name: &OsStr, access: OFlags) -> io::Result<File> {
        match self.make_new(name, access) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let Some(owner) = self.owner else {
            // A link that leads to no file yet is as it was made to be.
            let flags = access | OFlags::CREATE | OFlags::CLOEXEC;
            return Ok(openat(&self.descriptor, name, flags, FILE_MODE)?.into());
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::NXIO) => {
                return Err(self.not_a(USABLE, name));
            }
            Err(error) => return Err(error.into()),
        };
        let found = fstat(&file)?;
        let is_theirs = found.st_uid == owner.user.as_raw();
        let is_roots = found.st_uid == 0 && found.st_nlink == 1;
        if !is_regular(&found) || !(is_theirs || is_roots) {
            return Err(self.not_a(USABLE, name));
        }
        Ok(file.into())
    }

    /// What is there under that name.
    pub fn look(&self, name: &OsStr) -> io::Result<Stat> {
        let flags = match self.owner {
            Some(_) => AtFlags::SYMLINK_NOFOLLOW,
            None => AtFlags::empty(),
        };
        Ok(statat(&self.descriptor, name, flags)?)
    }

    /// Whether the name is taken, be it by a link that leads nowhere.
    pub fn has(&self, name: &OsStr) -> bool {
        statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives what is called `from` another name, whoever had that.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Removes a file, a link or whatever else is no directory.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Returns when its names are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(fsync(openat(&self.descriptor, ".", flags, Mode::empty())?)?)
    }

    fn no_link(&self) -> OFlags {
        match self.owner {
            Some(_) => OFlags::NOFOLLOW,
            None => OFlags::empty(),
        }
    }

    fn not_a(&self, what: &str, name: &OsStr) -> io::Error {
        let name = name.to_string_lossy();
        io::Error::other(match self.owner {
            Some(owner) => format!(
                "{name}, in a directory of user {}, is a link or not a {what}: root does not use it",
                owner.user.as_raw()
            ),
            None => format!("{name} is not a {what}"),
        })
    }
}

/// Opens a file to read it. Whoever opens a FIFO otherwise waits until somebody writes to it.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    if !is_regular(&fstat(&file)?) {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file.into())
}

/// Whether that may be a user without a number here. Where every user has one, it is the one called nobody.
fn is_nameless(user: u32) -> bool {
    let has_all = |map: String| lengths(&map) == USERS;
    user == NOBODY && !fs::read_to_string(USER_MAP).is_ok_and(has_all)
}

fn lengths(map: &str) -> u64 {
    let lengths = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    lengths.sum()
}

fn is_regular(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    const WRITE: OFlags = OFlags::WRONLY;
    /// Where nothing can begin; an absolute path does not.
    const NOWHERE: &str = "/nonexistent";

    /// Another user's directory; `None` where this is not root.
    fn of_another() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        if chown(directory.path(), Some(4321), Some(1234)).is_err() {
            eprintln!("SKIPPED, no privileges: this is not root");
            return None;
        }
        Some(directory)
    }

    fn make(path: &Path) -> io::Result<Directory> {
        Directory::make(NOWHERE.as_ref(), path)
    }

    fn owner(path: &Path) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    }

    #[test]
    fn a_new_file_is_made_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let place = Directory::open(directory.path()).unwrap();
        let make = |name: &str| place.make_new(name.as_ref(), WRITE);
        make("new").unwrap();
        assert_eq!(owner(&directory.path().join("new")).2, 0o640);
        symlink("elsewhere", directory.path().join("link")).unwrap();
        for there in ["new", "link"] {
            let error = make(there).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{there}");
        }
        assert!(!directory.path().join("elsewhere").exists());
    }

    #[test]
    fn in_ones_own_directory_a_link_leads_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        symlink("elsewhere", path.join("link")).unwrap();
        fs::create_dir(path.join("there")).unwrap();
        symlink("there", path.join("below")).unwrap();
        let place = Directory::make(path, "below/deeper".as_ref()).unwrap();
        place.open_or_make("log".as_ref(), WRITE).unwrap();
        assert!(path.join("there/deeper/log").exists());
        assert_eq!(owner(&path.join("there/deeper")).2, 0o750);
        let place = make(path).unwrap();
        place.open_or_make("link".as_ref(), WRITE).unwrap();
        assert!(path.join("elsewhere").exists());
    }

    #[test]
    fn what_root_makes_belongs_to_the_directorys_owner() {
        let Some(directory) = of_another() else {
            return;
        };
        let path = directory.path();
        let place = make(&path.join("a/b")).unwrap();
        place.open_or_make("new".as_ref(), WRITE).unwrap();
        place.open_or_make("new".as_ref(), WRITE).unwrap();
        assert_eq!(owner(&path.join("a")), (4321, 1234, 0o750));
        assert_eq!(owner(&path.join("a/b")), (4321, 1234, 0o750));
        assert_eq!(owner(&path.join("a/b/new")), (4321, 1234, 0o640));
    }

    #[test]
    fn root_is_led_nowhere_by_what_another_user_put_into_a_directory() {
        let Some(directory) = of_another() else {
            return;
        };
        let path = directory.path();
        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "of root").unwrap();
        symlink(&victim, path.join("link")).unwrap();
        fs::hard_link(&victim, path.join("hard")).unwrap();
        symlink(elsewhere.path(), path.join("folder")).unwrap();
        let place = make(path).unwrap();
        rustix::fs::mkfifoat(&place.descriptor, "fifo", FILE_MODE).unwrap();
        for name in ["link", "hard", "fifo", "folder"] {
            let error = place.open_or_make(name.as_ref(), WRITE).unwrap_err();
            assert!(
                error.to_string().contains("of user 4321"),
                "{name}: {error}"
            );
        }
        let below = path.join("folder/made");
        for reached in [make(&below), Directory::reach(NOWHERE.as_ref(), &below)] {
            let error = reached.unwrap_err();
            assert!(error.to_string().contains("of user 4321"), "{error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of root");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_roots_own_is_used_and_stays_roots() {
        let Some(directory) = of_another() else {
            return;
        };
        let file = directory.path().join("rotated");
        fs::write(&file, "").unwrap();
        let place = make(directory.path()).unwrap();
        place.open_or_make("rotated".as_ref(), WRITE).unwrap();
        assert_eq!(owner(&file).0, 0);
        chown(&file, Some(5678), None).unwrap();
        let error = place.open_or_make("rotated".as_ref(), WRITE).unwrap_err();
        assert!(error.to_string().contains("or of root"), "{error}");
    }

    #[test]
    fn a_group_without_a_number_is_left_alone_and_nobody_is_a_user_where_all_have_one() {
        let Some(directory) = of_another() else {
            return;
        };
        let path = directory.path();
        chown(path, Some(4321), Some(NOBODY)).unwrap();
        make(path).unwrap().make_new("new".as_ref(), WRITE).unwrap();
        let (user, group, _) = owner(&path.join("new"));
        assert_eq!((user, group), (4321, 0));
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        let is_whole = lengths(&fs::read_to_string(USER_MAP).unwrap()) == USERS;
        assert_eq!(make(path).unwrap().owner.is_some(), is_whole);
        assert_eq!(lengths("         0          0 4294967295\n"), USERS);
        assert_eq!(lengths("0 1000 1\n1 100000 65536\n"), 65_537);
    }

    #[test]
    fn what_cannot_be_given_is_not_left_behind_and_what_is_theirs_already_need_not_be() {
        let Some(directory) = of_another() else {
            return;
        };
        let place = make(directory.path()).unwrap();
        let theirs = place.make_new("theirs".as_ref(), WRITE).unwrap();
        let attempt = || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::CHOWN);
            set_capabilities(None, sets).unwrap();
            let given = place.give(&theirs, "theirs".as_ref(), AtFlags::empty());
            given.unwrap();
            let file = place.make_new("file".as_ref(), WRITE).map(drop);
            [file, place.below_or_made("folder".as_ref()).map(drop)]
        };
        // Capabilities are those of a thread.
        let attempts = std::thread::scope(|scope| scope.spawn(attempt).join().unwrap());
        for attempt in attempts {
            assert_eq!(attempt.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        let left = fs::read_dir(directory.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["theirs"]);
    }
}
