//! Reading the files that a configuration names.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a regular file of at most so many bytes. Something else in its place, a FIFO for example, is an error and does not
/// block.
///
/// # Errors
/// As the kernel says, or [`ErrorKind::InvalidInput`] with a sentence.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::InvalidInput, format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}
