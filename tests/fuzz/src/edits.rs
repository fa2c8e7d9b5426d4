//! Changes to the bytes of a file, as the fuzzer wants them, and what of the file they have touched.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use bellwire::{RECORD_ALIGN, RECORD_HEADER_LEN};
use libfuzzer_sys::arbitrary;

/// A file that can be put back as it was.
pub struct Original {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Length of the file; what is behind `bytes` are zeros.
    len: u64,
    /// Places of words that are not zero: where an edit is likely to mean something.
    words: Vec<usize>,
    /// Where records begin.
    marks: Vec<usize>,
}

impl Original {
    /// The file as it is now.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mut bytes = std::fs::read(&path).expect("a file that was just made");
        let len = bytes.len() as u64;
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let words = (0..bytes.len()).step_by(8).filter(|at| bytes[*at..].iter().take(8).any(|b| *b != 0));
        Self { words: words.collect(), marks: Vec::new(), path, bytes, len }
    }

    /// The same, and records begin at these places.
    pub fn marked(mut self, places: impl IntoIterator<Item = usize>) -> Self {
        self.marks.extend(places);
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the file back.
    pub fn restore(&self) -> Edited<'_> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&self.path).expect("our own file");
        file.write_all_at(&self.bytes, 0).expect("room in /dev/shm");
        file.set_len(self.len).expect("room in /dev/shm");
        Edited { original: self, file, touched: Vec::new() }
    }
}

/// The file in the hands of the fuzzer. It is written to by system calls: others have it mapped.
pub struct Edited<'a> {
    original: &'a Original,
    file: File,
    touched: Vec<Range<usize>>,
}

impl Edited<'_> {
    pub fn apply(&mut self, edit: &Edit) {
        let at = self.resolve(edit.at);
        let mut old = [0; 256];
        let have = self.read(at, &mut old);
        let (old, room) = (u64::from_le_bytes(old[..8].try_into().unwrap_or_default()), have);
        match edit.what {
            What::Flip(bit) => self.write(at, &[(old as u8) ^ 1 << (bit % 8)], room),
            What::Byte(byte) => self.write(at, &[byte], room),
            What::Word(word, len) => self.write(at, &word.to_le_bytes()[..usize::from(len % 8) + 1], room),
            What::Near(by, shift) => {
                let word = old.wrapping_add((i64::from(by) << (shift % 64)) as u64);
                self.write(at, &word.to_le_bytes(), room);
            }
            What::Lengths(archive_len) => {
                let archive_len = u32::from(archive_len);
                let len = (RECORD_HEADER_LEN as u32 + archive_len).next_multiple_of(RECORD_ALIGN as u32);
                self.write(at, &(u64::from(len) | u64::from(archive_len) << 32).to_le_bytes(), room);
            }
            What::Fill(byte, len) => self.write(at, &[byte; 256][..usize::from(len) + 1], room),
            What::Copy(from, len) => {
                let mut bytes = [0; 256];
                let from = self.resolve(from);
                let count = self.read(from, &mut bytes).min(usize::from(len) + 1);
                self.write(at, &bytes[..count], room);
            }
        }
    }

    /// Writes what stands at the same place of another file.
    pub fn mimic(&mut self, other: &Original, at: At, len: u8) {
        let at = self.resolve(at);
        let room = self.read(at, &mut [0; 256]);
        let bytes = other.bytes.get(at..).unwrap_or_default();
        self.write(at, &bytes[..bytes.len().min(usize::from(len) + 1)], room);
    }

    /// Cuts the file.
    pub fn truncate(&mut self, len: u64) {
        let len = len % self.original.len.max(1);
        self.file.set_len(len).expect("a shorter file");
        self.touched.push(len as usize..self.original.len as usize);
    }

    pub fn is_touched(&self, range: Range<usize>) -> bool {
        self.touched.iter().any(|touched| touched.start < range.end && range.start < touched.end)
    }

    /// The bytes that stand there now, as many as there are.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> usize {
        let mut count = 0;
        while count < bytes.len() {
            match self.file.read_at(&mut bytes[count..], (at + count) as u64) {
                Ok(0) | Err(_) => break,
                Ok(more) => count += more,
            }
        }
        count
    }

    /// Never makes the file longer.
    fn write(&mut self, at: usize, bytes: &[u8], room: usize) {
        let bytes = &bytes[..bytes.len().min(room)];
        self.file.write_all_at(bytes, at as u64).expect("within the file");
        self.touched.push(at..at + bytes.len());
    }

    /// Where that is.
    pub fn resolve(&self, at: At) -> usize {
        match at {
            At::Anywhere(at) => at as usize % self.original.len.max(1) as usize,
            At::InUse(index, byte) => pick(&self.original.words, usize::from(index)) + usize::from(byte % 8),
            At::Record(index, byte) => {
                pick(&self.original.marks, usize::from(index)) + usize::from(byte % 64)
            }
        }
    }
}

fn pick(places: &[usize], index: usize) -> usize {
    places.get(index % places.len().max(1)).copied().unwrap_or_default()
}

/// One change.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Edit {
    pub at: At,
    pub what: What,
}

/// A place in the file.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum At {
    Anywhere(u32),
    /// One of the words that are not zero, and a byte of it.
    InUse(u16, u8),
    /// One of the places where a record begins, or not far behind.
    Record(u8, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum What {
    Flip(u8),
    Byte(u8),
    Word(u64, u8),
    /// What stands there, and a little more or less.
    Near(i8, u8),
    /// The lengths of a record and of its archive, as they belong together.
    Lengths(u16),
    Fill(u8, u8),
    Copy(At, u8),
}

impl What {
    /// Whether disks and stray stores do such things: all but those that write a number which somebody has thought of.
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::Word(..) | Self::Near(..) | Self::Lengths(_))
    }
}
