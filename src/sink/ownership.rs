//! New files belong to whom their directory belongs: what root does in the state directory of a service that runs as
//! another user, such as taking the table away, must not shut that service out. A file that was there before is never
//! given away, nor is one behind a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Makes a file (0640) that was not there, opened as `options` say; `None` if something is there.
pub fn make_new(path: &Path, options: &OpenOptions) -> io::Result<Option<File>> {
    let file = match options.clone().create_new(true).mode(0o640).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    if rustix::process::geteuid().is_root()
        && let Some(parent) = path.parent()
    {
        let (of_file, of_parent) = (file.metadata()?, fs::metadata(parent)?);
        if of_file.uid() != of_parent.uid() {
            fchown(&file, Some(of_parent.uid()), Some(of_parent.gid()))?;
        }
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn a_new_file_is_made_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let mut options = OpenOptions::new();
        options.write(true);
        assert!(make_new(&path, &options).unwrap().is_some());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(make_new(&path, &options).unwrap().is_none());
        let link = directory.path().join("link");
        symlink("elsewhere", &link).unwrap();
        assert!(make_new(&link, &options).unwrap().is_none());
        assert!(!directory.path().join("elsewhere").exists());
    }

    #[test]
    fn what_root_makes_belongs_to_the_directorys_owner() {
        let directory = tempfile::tempdir().unwrap();
        if chown(directory.path(), Some(4321), Some(1234)).is_err() {
            eprintln!("SKIPPED, no privileges: this is not root");
            return;
        }
        let path = directory.path().join("new");
        let mut options = OpenOptions::new();
        make_new(&path, options.write(true)).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid()), (4321, 1234));
    }
}
