//! A journal of another time, damaged or written to: a start gives what was appended, or an error; never another record.
#![no_main]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use bellwire::{Level, Notification, RecordHeader, SystemNotice, to_record};
use bellwire_fuzz::edits::{Edit, Original, What};
use bellwire_fuzz::fields::{Fields, Record};
use bellwire_fuzz::{arbitrary, fuzz_target, place};
use bellwire_journal::{Entry, Facts, Journal, JournalConfig, JournalReader, SEGMENT_BYTES_MIN, SyncPolicy};

/// What is in an entry.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    offset: u64,
    facts: Facts,
    header: RecordHeader,
    archive: Vec<u8>,
}

impl Kept {
    fn of(entry: &Entry<'_>) -> Self {
        let Entry { seq, prev, epoch, slot, lane, journalled_at, .. } = *entry;
        let facts = Facts { seq, prev, epoch, slot, lane, journalled_at };
        Self { offset: entry.offset, facts, header: entry.header, archive: entry.archive.to_vec() }
    }
}

/// A journal, and what is in it.
struct Template {
    config: JournalConfig,
    files: Vec<Original>,
    all: Vec<Kept>,
}

static TEMPLATES: LazyLock<[Template; 3]> = LazyLock::new(|| {
    let dir = place::dir();
    [
        // One segment; a second one that was begun; two that are full.
        Template::new(dir.join("one"), &[10, 20, 30, 40, 50, 60], None),
        Template::new(dir.join("anew"), &[10, 20, 30, 40, 50], Some(3)),
        Template::new(dir.join("full"), &[60_000, 10, 60_000, 60_000, 20, 60_000, 10, 10], None),
    ]
});

fn config(dir: PathBuf) -> JournalConfig {
    JournalConfig {
        dir,
        segment_bytes: SEGMENT_BYTES_MIN,
        retain_bytes: 1 << 40,
        retain_age: None,
        sync: SyncPolicy::None,
        chain: None,
    }
}

impl Template {
    fn new(dir: PathBuf, lens: &[usize], anew_before: Option<usize>) -> Self {
        let config = config(dir);
        let mut journal = Journal::open(config.clone(), 1, &mut |_, _| Ok(())).expect("a new journal").0;
        let mut writer = Writer::default();
        for (index, len) in lens.iter().enumerate() {
            if Some(index) == anew_before {
                journal.begin_streams_anew(1).expect("room in /dev/shm");
                writer.heads.clear();
            }
            writer.append(&mut journal, *len);
        }
        journal.publish().expect("a file of ours");
        let all = read_all(&mut journal.reader());
        assert_eq!(all.len(), lens.len());
        drop(journal);
        let mut files: Vec<_> = std::fs::read_dir(&config.dir)
            .expect("a directory of ours")
            .map(|entry| entry.expect("a file of ours").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
            .collect();
        files.sort();
        let marked = |path: PathBuf| {
            let file = Original::of(path);
            let within = all.iter().filter_map(|kept: &Kept| kept.offset.checked_sub(base(&file)));
            let places: Vec<_> = within.filter(|at| *at < file.len()).map(|at| at as usize).collect();
            file.marked(places)
        };
        Self { files: files.into_iter().map(marked).collect(), config, all }
    }

    /// Takes away what the last start has made.
    fn clear(&self) {
        for entry in std::fs::read_dir(&self.config.dir).expect("a directory of ours").flatten() {
            if self.files.iter().all(|file| file.path() != entry.path()) {
                let _ = std::fs::remove_file(entry.path()); // what cannot be removed the start will name
            }
        }
    }

    /// Whether a byte of a checksum stands there.
    fn is_checksum(&self, number: usize, at: usize) -> bool {
        let offset = base(&self.files[number]) + at as u64;
        self.all.iter().any(|kept| (kept.offset + 4..kept.offset + 8).contains(&offset))
    }
}

/// Where a segment begins in the journal, which is its file's name.
fn base(file: &Original) -> u64 {
    let name = file.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    u64::from_str_radix(name, 16).expect("a segment is called by its base")
}

/// Appends the records of three users in turn.
#[derive(Default)]
struct Writer {
    count: u64,
    heads: HashMap<u32, (u64, u64)>,
}

impl Writer {
    fn append(&mut self, journal: &mut Journal, len: usize) {
        self.count += 1;
        let slot = (self.count % 3) as u32;
        let content = "x".repeat(len);
        let notice = SystemNotice { title: "title", content: &content, level: Level::Info, timestamp: 7 };
        let user = format!("user_{slot}");
        let record =
            to_record(&Notification::new(&user, "Test", notice), self.count, 1, 1).expect("a sound notice");
        let record = Record::new(&record);
        journal
            .room(record.archive().len(), 1)
            .expect("room in /dev/shm")
            .archive
            .copy_from_slice(record.archive());
        let head = self.heads.entry(slot).or_default();
        let facts = Facts {
            seq: head.0 + 1,
            prev: head.1,
            epoch: journal.generation(),
            slot,
            lane: 77,
            journalled_at: self.count as i64,
        };
        *head = (facts.seq, journal.append(&record.header, &facts));
    }
}

fn read_all(reader: &mut JournalReader) -> Vec<Kept> {
    let (mut all, mut at) = (Vec::new(), reader.start());
    while let Some(entry) = reader.entry(at) {
        assert!(entry.next > at, "a reader goes round in circles");
        if let Some(view) = entry.view() {
            let _ = Fields::of(&view);
        }
        all.push(Kept::of(&entry));
        at = entry.next;
    }
    all
}

#[derive(Arbitrary, Debug)]
enum Act {
    Edit(u8, Edit),
    Truncate(u8, u32),
    /// A file that belongs to another place, or none.
    Swap(u8, u8),
    Remove(u8),
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let template = bytes.choose(&*TEMPLATES)?;
    template.clear();
    let mut files: Vec<_> = template.files.iter().map(Original::restore).collect();
    // What only hits by chance, or what somebody has thought of: he can make records with the right checksum.
    let is_damage = bytes.ratio(3, 4)?;
    for _ in 0..bytes.int_in_range(1..=6)? {
        let pick = |number: u8| usize::from(number) % template.files.len();
        match bytes.arbitrary()? {
            Act::Edit(number, edit) => {
                let number = pick(number);
                // Four bytes that are written over a checksum are one that somebody has computed.
                let forges = matches!(edit.what, What::Byte(_) | What::Fill(..))
                    && template.is_checksum(number, files[number].resolve(edit.at));
                if !is_damage || edit.what.is_damage() && !forges {
                    files[number].apply(&edit);
                }
            }
            Act::Truncate(number, len) => files[pick(number)].truncate(u64::from(len)),
            Act::Swap(one, other) => {
                let (one, other) = (template.files[pick(one)].path(), template.files[pick(other)].path());
                let _ = std::fs::rename(one, other); // it may be gone already
            }
            Act::Remove(number) => {
                let _ = std::fs::remove_file(template.files[pick(number)].path()); // it may be gone already
            }
        }
    }
    start(template, is_damage);
    Ok(())
}

fn start(template: &Template, is_damage: bool) {
    let mut streams: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut found = Vec::new();
    let opened = Journal::open(template.config.clone(), 1, &mut |entry, goes_on| {
        let kept = Kept::of(entry);
        if goes_on {
            // As the broker does: a stream has no gaps, but where retention has taken its beginning.
            let head =
                streams.entry(kept.facts.slot).or_insert((kept.facts.seq.wrapping_sub(1), kept.facts.prev));
            if (head.0.wrapping_add(1), head.1) != (kept.facts.seq, kept.facts.prev) {
                return Err("a gap".to_owned());
            }
            *head = (kept.facts.seq, kept.offset);
        }
        found.push(kept);
        Ok(())
    });
    let (mut journal, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let dir = template.config.dir.to_string_lossy();
            return assert!(error.to_string().contains(&*dir), "an error that names no file: {error}");
        }
    };
    assert_eq!(recovered.entries, found.len() as u64);
    if is_damage {
        for kept in &found {
            assert!(template.all.contains(kept), "a record that nobody appended: {kept:?}");
        }
    }
    assert!(found.is_sorted_by_key(|kept| kept.offset), "records out of order");
    assert_eq!(read_all(&mut journal.reader()), found, "readers see something else");
    // And it goes on there.
    let mut writer = Writer { count: 1000, heads: HashMap::new() };
    writer.append(&mut journal, 10);
    journal.publish().expect("a file of ours");
    let all = read_all(&mut journal.reader());
    assert_eq!(all.len(), found.len() + 1, "what is appended is there");
    assert_eq!(all.last().map(|kept| kept.header.lane_sequence), Some(1001));
}
