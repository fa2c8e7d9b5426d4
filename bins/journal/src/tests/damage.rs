//! A small journal with every bit flipped and cut at every length: what a start gives is exactly the whole entries before
//! the damage, and it says that something is missing, or it is an error that names the file. Never another record.
//!
//! `BELLWIRE_HOSTILE_FULL=1` flips every bit of a longer one, of two segments.

use super::*;

fn is_full() -> bool {
    std::env::var_os("BELLWIRE_HOSTILE_FULL").is_some()
}

/// A journal that can be put back as it was.
struct Small {
    _dir: tempfile::TempDir,
    config: JournalConfig,
    all: Vec<Kept>,
    /// Name, the bytes that are in use and some behind, length of the file.
    files: Vec<(PathBuf, Vec<u8>, u64)>,
}

impl Small {
    /// `first` entries; then, if `second` is not 0, the segment is closed and so many follow in another one.
    fn new(first: usize, second: usize) -> Self {
        // In memory: some ten thousand starts.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let config = config(dir.path());
        let mut journal = open(config.clone()).unwrap();
        let mut writer = Writer::new();
        let mut write = |journal: &mut Journal, count| -> Vec<Kept> {
            let all = (0..count).map(|index| writer.append(journal, index as u32 % 2, 3)).collect();
            journal.publish().unwrap();
            all
        };
        let mut all = write(&mut journal, first);
        if second > 0 {
            journal.begin_streams_anew(1).unwrap();
            all.extend(write(&mut journal, second));
        }
        drop(journal);
        let files = segment_files(&config)
            .into_iter()
            .map(|path| {
                let bytes = std::fs::read(&path).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                (path, bytes[..used + 64].to_vec(), bytes.len() as u64)
            })
            .collect();
        Self { _dir: dir, config, all, files }
    }

    /// As it was, but for what a start adds.
    fn restore(&self) {
        for path in segment_files(&self.config) {
            if self.files.iter().all(|(known, ..)| *known != path) {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes, len) in &self.files {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            file.set_len(*len).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        }
    }

    /// Starts; how many entries there are, or why not. Whatever is there is what was written.
    fn start(&self, what: &dyn std::fmt::Display) -> Result<(usize, Recovered), JournalError> {
        let (mut journal, found, recovered) = reopen(&self.config)?;
        assert!(
            found.len() <= self.all.len() && found[..] == self.all[..found.len()],
            "{what}: a wrong record"
        );
        assert_eq!(recovered.entries, found.len() as u64, "{what}");
        assert_eq!(read_all(&mut journal.reader()), found, "{what}: readers see something else");
        // And it goes on there.
        let mut writer = Writer::new();
        writer.count = 1000;
        let next = writer.append(&mut journal, 5, 3);
        journal.publish().unwrap();
        assert_eq!(read_all(&mut journal.reader()).last(), Some(&next), "{what}");
        Ok((found.len(), recovered))
    }
}

#[test]
fn a_journal_cut_at_every_length_gives_what_is_whole_and_says_so_or_an_error() {
    let small = Small::new(if is_full() { 12 } else { 3 }, 0);
    let (path, bytes, whole) = &small.files[0];
    // Every length with entries, then some of what is zeros.
    let lengths = (0..bytes.len() as u64).chain([4096, 4097, whole / 2, whole - 1, *whole]);
    let (mut errors, mut shorter, mut complete) = (0, 0, 0);
    for len in lengths {
        small.restore();
        OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
        match small.start(&format_args!("length {len}")) {
            Err(error) => {
                assert!(len < SEGMENT_HEADER_LEN as u64, "length {len}: {error}");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                errors += 1;
            }
            Ok((found, recovered)) if found < small.all.len() => {
                assert!(
                    recovered.was_truncated && recovered.streams_are_over,
                    "length {len}: {found} in silence"
                );
                shorter += 1;
            }
            Ok(_) => complete += 1,
        }
    }
    println!(
        "journal cut at {} lengths: {errors} errors, {shorter} shorter and said so, {complete} complete",
        bytes.len() + 5
    );
    assert!(errors == 128 && shorter > 300 && complete > 60);
}

#[test]
fn a_journal_with_any_bit_flipped_is_whole_or_shorter_and_says_so_or_an_error() {
    let small = if is_full() { Small::new(5, 4) } else { Small::new(2, 1) };
    let (mut flips, mut errors, mut shorter, mut whole) = (0, 0, 0, 0);
    for (path, bytes, _) in &small.files {
        // Without the full run every bit of what lies next to a number, and one of each other byte.
        for bit in 0..bytes.len() * 8 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            let is_one_of_few = bit % 8 == (byte * 5) % 8;
            let is_of_a_header = byte < SEGMENT_HEADER_LEN + 2 * ENTRY_HEADER_LEN;
            if !(is_full() || is_of_a_header || is_one_of_few) {
                continue;
            }
            flips += 1;
            small.restore();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[bytes[byte] ^ mask], byte as u64).unwrap();
            match small.start(&format_args!("{} byte {byte} mask {mask:#04x}", path.display())) {
                Err(error) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    errors += 1;
                }
                Ok((found, recovered)) if found < small.all.len() => {
                    assert!(recovered.cut.is_some(), "byte {byte} mask {mask:#04x}: {found} in silence");
                    assert!(found + 1 == small.all.len(), "only the last entry can be torn");
                    shorter += 1;
                }
                Ok(_) => whole += 1,
            }
        }
    }
    println!(
        "journal with a bit flipped: {flips} flips, {errors} errors, {shorter} shorter and said so, {whole} whole"
    );
    assert!(errors > 500 && shorter > 100, "{errors} {shorter} {whole}");
}

#[test]
fn foreign_files_in_the_directory_are_left_alone_or_named() {
    let small = Small::new(3, 2);
    let dir = &small.config.dir;
    // Not ours and not called so: left alone.
    std::fs::write(dir.join("notes.txt"), "hello").unwrap();
    std::fs::create_dir(dir.join("old")).unwrap();
    std::fs::write(dir.join("journal"), "no extension").unwrap();
    assert_eq!(small.start(&"foreign names").unwrap().0, 5);
    assert!(dir.join("notes.txt").exists() && dir.join("old").exists() && dir.join("journal").exists());

    // Called like a segment: an error that names it, whatever it is.
    let refused = |name: &str, make: &dyn Fn(&Path), remove: &dyn Fn(&Path)| {
        small.restore();
        let path = dir.join(name);
        make(&path);
        let error = small.start(&name).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        remove(&path);
    };
    let unlink = |path: &Path| std::fs::remove_file(path).unwrap();
    let (first, ..) = &small.files[0];
    refused("zz.journal", &|path| std::fs::write(path, b"").unwrap(), &unlink);
    refused("00.journal", &|path| std::fs::write(path, vec![0xff; 200_000]).unwrap(), &unlink);
    refused("0.journal", &|path| std::fs::create_dir(path).unwrap(), &|path| {
        std::fs::remove_dir(path).unwrap()
    });
    refused("zz.journal", &|path| std::os::unix::fs::symlink("/dev/null", path).unwrap(), &unlink);
    refused("zz.journal", &|path| std::os::unix::fs::symlink("nowhere", path).unwrap(), &unlink);
    refused("zz.journal", &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(), &unlink);
    // A segment twice: copied, and under a second name for the same file.
    refused("ff.journal", &|path| std::fs::copy(first, path).map(|_| ()).unwrap(), &unlink);
    refused("ff.journal", &|path| std::fs::hard_link(first, path).unwrap(), &unlink);
    // As long as it likes.
    refused("zz.journal", &|path| File::create(path).unwrap().set_len(1 << 40).unwrap(), &unlink);
    small.restore();
    assert_eq!(small.start(&"as it was").unwrap().0, 5);
}

#[test]
fn a_missing_or_exchanged_segment_is_named() {
    let small = Small::new(3, 2);
    let [(first, ..), (second, ..)] = &small.files[..] else { panic!("two segments") };
    std::fs::remove_file(first).unwrap();
    // Retention takes segments from the front: what is left stands for itself.
    assert!(reopen(&small.config).is_ok_and(|(_, found, _)| found[..] == small.all[3..]));
    small.restore();
    let other = Small::new(1, 1);
    std::fs::copy(&other.files[1].0, second).unwrap();
    let error = reopen(&small.config).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(second.to_str().unwrap()), "{error}");
    small.restore();
    std::fs::rename(first, second).unwrap();
    let error = reopen(&small.config).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(second.to_str().unwrap()), "{error}");
}
