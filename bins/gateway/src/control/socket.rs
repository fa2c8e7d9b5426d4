//! The socket's file: made whole, never taken from somebody who still listens, and taken away at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::Gid;

use super::ControlError;

/// A socket that listens, and its file.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Bound {
    /// Listens on that path, for the owner and that group. What a dead gateway left there is replaced.
    pub(super) fn bind(path: &Path, group: Option<Gid>) -> Result<Self, ControlError> {
        let failed = |error| ControlError::Listen { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ControlError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(ControlError::InUse { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        // Under another name until nobody but those who may can open it.
        let mut made = path.as_os_str().to_owned();
        made.push(format!(".{}", std::process::id()));
        let made = PathBuf::from(made);
        let _ = std::fs::remove_file(&made); // of a dead process with our number
        let bind = || {
            let listener = UnixListener::bind(&made)?;
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            std::os::unix::fs::chown(&made, None, group.map(Gid::as_raw))?;
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(mode))?;
            listener.set_nonblocking(true)?;
            let of = std::fs::symlink_metadata(&made)?;
            std::fs::rename(&made, path)?;
            Ok(Self { listener, path: path.to_owned(), file: (of.dev(), of.ino()) })
        };
        bind().map_err(|error| {
            let _ = std::fs::remove_file(&made);
            failed(error)
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // A successor may have put its own there.
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|of| (of.dev(), of.ino()) == self.file);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        drop(UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(Bound::bind(&path, None), Err(ControlError::InUse { .. })));
        drop(bound);
        assert!(!path.exists());

        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Bound::bind(&path, None), Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let missing = dir.path().join("not/there");
        assert!(matches!(Bound::bind(&missing, None), Err(ControlError::Listen { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn the_successors_socket_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        let first = Bound::bind(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = Bound::bind(&path, None).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
