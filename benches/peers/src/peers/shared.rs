//! A plain file in shared memory, for peers that bring nothing of the kind.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use memmap2::{MmapMut, MmapOptions};

fn path(link: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(link)
}

fn map(file: &File) -> MmapMut {
    // SAFETY: only the two ends of the link use the file, by the ring's rules.
    unsafe { MmapOptions::new().populate().map_mut(file) }.expect("a mapping")
}

pub fn create(link: &str, len: usize) -> MmapMut {
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(path(link)).expect("a new file");
    file.set_len(len as u64).expect("its length");
    map(&file)
}

pub fn open(link: &str) -> MmapMut {
    map(&OpenOptions::new().read(true).write(true).open(path(link)).expect("the file"))
}

pub fn remove(link: &str) {
    let _ = std::fs::remove_file(path(link));
}
