//! The control socket's place in the file system. It never answers with a wider mode than 0660, takes the place of a
//! dead daemon's socket only, and vanishes with the value that stands for it.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Owner and group talk to the daemon, nobody else.
const MODE: u32 = 0o660;
/// Clients the kernel queues before the server takes them.
const BACKLOG: i32 = 128;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon answers there.
    #[error("{path}: another flowctl answers on this socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is not ours to remove.
    #[error("{path}: exists and is not a socket; move it away or name another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{path}: cannot {operation}: {source}; name another path with --socket")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

/// The socket's file; removed when dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode and the moment it was made: a number may be given again as soon as its file is gone.
type Identity = (u64, u64, i64, i64);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && identity(&found) == self.identity
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening, non-blocking socket at `path`. A missing parent directory is made (0755).
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ControlError> {
    let failed = |operation| {
        move |source: io::Error| ControlError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    // A socket may be moved to a longer name, where nobody could connect to it.
    SocketAddrUnix::new(path).map_err(|error| failed("use it")(error.into()))?;
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(failed("make the directory"))?;
    }
    refuse_unless_free(path)?;

    let temporary = temporary_name(path);
    let _ = fs::remove_file(&temporary);
    let socket = new_socket().map_err(failed("make the socket"))?;
    let put = || {
        let address = SocketAddrUnix::new(&temporary)?;
        rustix::net::bind(&socket, &address)?;
        // Before listen nobody can connect: the mode is narrow before the first client.
        fs::set_permissions(&temporary, Permissions::from_mode(MODE))?;
        rustix::net::listen(&socket, BACKLOG)?;
        let made = fs::symlink_metadata(&temporary)?;
        fs::rename(&temporary, path)?;
        Ok(made)
    };
    let made = put().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed("bind")(source)
    })?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&made),
    };
    Ok((UnixListener::from(socket), file))
}

/// Takes away the socket that a daemon left when it was killed; one on which somebody answers stays.
pub fn clear(path: &Path) {
    if refuse_unless_free(path).is_ok() {
        // Where there is none, or it may not be removed, the next start deals with it.
        let _ = fs::remove_file(path);
    }
}

fn new_socket() -> Result<OwnedFd, io::Error> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket)
}

/// In the same directory, so that a rename is atomic, and short: a socket's path has at most 107 bytes.
fn temporary_name(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", std::process::id()))
}

fn refuse_unless_free(path: &Path) -> Result<(), ControlError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ControlError::Io {
                operation: "look at it",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NotASocket {
            path: path.to_owned(),
        });
    }
    let knock = || {
        let socket = new_socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok::<(), io::Error>(())
    };
    let refused = Errno::CONNREFUSED.raw_os_error();
    match knock() {
        Err(error) if error.raw_os_error() == Some(refused) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(ControlError::Io {
            operation: "ask whether a daemon answers",
            path: path.to_owned(),
            source: error,
        }),
        // Ok, or EAGAIN from a full backlog: somebody listens.
        Ok(()) | Err(_) => Err(ControlError::InUse {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_narrow_and_vanishes_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/control.sock");
        let (listener, file) = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing temporary is left");
        drop(file);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (listener, file) = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(ControlError::InUse { .. })));
        drop(listener);
        clear(&path);
        assert!(!path.exists(), "nobody answers there any more");
        let (_second, second_file) = bind(&path).unwrap();
        drop(file);
        clear(&path);
        assert!(path.exists(), "the first one's file removes its own only");
        drop(second_file);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_no_client_could_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = bind(&directory.path().join("s".repeat(120))).unwrap_err();
        assert!(error.to_string().contains("File name too long"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
