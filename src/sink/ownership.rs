//! What root does in the directories of another user, such as the state directory of a service: what it makes there
//! belongs to that user, so that the service is not shut out, and what that user put there leads it nowhere else. A
//! file that was there before is never given away.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchown, fstat, fsync, mkdirat,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Whoever a user namespace has no number for. What is theirs cannot be given to them.
const NOBODY: u32 = 65_534;

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
    group: Gid,
}

impl Directory {
    /// The one at `path`, through whatever links.
    pub fn open(path: &Path) -> io::Result<Directory> {
        Directory::of(openat(CWD, path, DIRECTORY, Mode::empty())?)
    }

    /// The one at `path`; in another user's directory no link is followed.
    pub fn reach(path: &Path) -> io::Result<Directory> {
        Directory::walk(path, Directory::below)
    }

    /// The same, and it is made (0750) with all above it where they are missing.
    pub fn make(path: &Path) -> io::Result<Directory> {
        Directory::walk(path, Directory::below_or_made)
    }

    fn walk(
        path: &Path,
        step: impl Fn(&Directory, &OsStr) -> io::Result<Directory>,
    ) -> io::Result<Directory> {
        let mut directory = Directory::open(Path::new("."))?;
        for component in path.components() {
            directory = match component {
                Component::CurDir => directory,
                Component::RootDir | Component::Prefix(_) => Directory::open(Path::new("/"))?,
                Component::ParentDir => directory.below(OsStr::new(".."))?,
                Component::Normal(name) => step(&directory, name)?,
            };
        }
        Ok(directory)
    }

    fn of(descriptor: OwnedFd) -> io::Result<Directory> {
        let found = fstat(&descriptor)?;
        let is_another = found.st_uid != 0 && found.st_uid != NOBODY;
        let is_guest = is_another && rustix::process::geteuid().is_root();
        let owner = is_guest.then(|| Owner {
            user: Uid::from_raw(found.st_uid),
            group: Gid::from_raw(found.st_gid),
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
        if let Some(owner) = self.owner {
            let (user, group) = (Some(owner.user), Some(owner.group));
            chownat(&made.descriptor, "", user, group, AtFlags::EMPTY_PATH)?;
            made.owner = self.owner;
        }
        Ok(made)
    }

    /// Makes a file (0640) that was not there.
    pub fn make_new(&self, name: &OsStr, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.descriptor, name, flags, FILE_MODE)?;
        if let Some(owner) = self.owner {
            fchown(&file, Some(owner.user), Some(owner.group))?;
        }
        Ok(file.into())
    }

    /// Opens a file, or makes it (0640). In another user's directory it has to be a regular file of that user.
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
                return Err(self.not_a("regular file of that user", name));
            }
            Err(error) => return Err(error.into()),
        };
        let found = fstat(&file)?;
        if !is_regular(&found) || found.st_uid != owner.user.as_raw() {
            return Err(self.not_a("regular file of that user", name));
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

fn is_regular(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    const WRITE: OFlags = OFlags::WRONLY;

    /// Another user's directory; `None` where this is not root.
    fn of_another() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        if chown(directory.path(), Some(4321), Some(1234)).is_err() {
            eprintln!("SKIPPED, no privileges: this is not root");
            return None;
        }
        Some(directory)
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
        let place = Directory::make(&path.join("below/deeper")).unwrap();
        place.open_or_make("log".as_ref(), WRITE).unwrap();
        assert!(path.join("there/deeper/log").exists());
        assert_eq!(owner(&path.join("there/deeper")).2, 0o750);
        let place = Directory::make(path).unwrap();
        place.open_or_make("link".as_ref(), WRITE).unwrap();
        assert!(path.join("elsewhere").exists());
    }

    #[test]
    fn what_root_makes_belongs_to_the_directorys_owner() {
        let Some(directory) = of_another() else {
            return;
        };
        let path = directory.path();
        let place = Directory::make(&path.join("a/b")).unwrap();
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
        let place = Directory::make(path).unwrap();
        rustix::fs::mkfifoat(&place.descriptor, "fifo", FILE_MODE).unwrap();
        for name in ["link", "hard", "fifo", "folder"] {
            let error = place.open_or_make(name.as_ref(), WRITE).unwrap_err();
            assert!(
                error.to_string().contains("of user 4321"),
                "{name}: {error}"
            );
        }
        let below = path.join("folder/made");
        for reached in [Directory::make(&below), Directory::reach(&below)] {
            let error = reached.unwrap_err();
            assert!(error.to_string().contains("of user 4321"), "{error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of root");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }
}
