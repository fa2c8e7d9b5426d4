//! Whether a journal is as it was written.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bellwire::MessageId;

use super::walk::{Found, Step, Walk};
use super::{Listing, is_gone};
use crate::append::segment_name;
use crate::chain::{ChainHeaderError, ChainKey, Link, Links, chain_path, read_links};
use crate::error::JournalError;
use crate::layout::ENTRY_HEADER_LEN;

/// How far ahead it is looked where a record belongs that stands in the place of another.
const LOOK_AHEAD: usize = 100_000;

/// A link that was noted elsewhere: in the gateway's log, or by an earlier look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Base of the segment.
    pub base: u64,
    /// How many of its records the link vouches for.
    pub records: u64,
    pub link: Link,
}

/// `SEGMENT:RECORDS:LINK`, as in the log.
impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}:{}", self.base, self.records, self.link)
    }
}

/// A text that is no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an anchor is SEGMENT:RECORDS:LINK, with the numbers of a line \"journal chain\" in the gateway's log"
)]
pub struct NoAnchor;

impl FromStr for Anchor {
    type Err = NoAnchor;

    fn from_str(text: &str) -> Result<Self, NoAnchor> {
        let mut parts = text.split(':');
        let (Some(segment), Some(records), Some(link), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoAnchor);
        };
        let segment = segment.strip_suffix(".journal").unwrap_or(segment);
        Ok(Self {
            base: u64::from_str_radix(segment, 16).map_err(|_| NoAnchor)?,
            records: records.parse().ok().filter(|records| *records > 0).ok_or(NoAnchor)?,
            link: link.parse().map_err(|_| NoAnchor)?,
        })
    }
}

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    /// Which record of its segment, from 1.
    pub record: u64,
    /// Place in the file.
    pub at: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: record {} (byte {})", self.path.display(), self.record, self.at)
    }
}

/// What is wrong with a journal: the first thing that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("{path}: damaged at byte {at}, behind record {records}: {why}", path = .path.display())]
    Damaged { path: PathBuf, at: u64, records: u64, why: String },
    #[error("{place}, message {message_id}: altered since it was journalled")]
    Altered { place: Place, message_id: MessageId },
    #[error("{place}, message {message_id}: {missing} records before it are missing, or stand elsewhere")]
    Missing { place: Place, message_id: MessageId, missing: u64 },
    #[error("{path}: {missing} records are missing at its end, behind record {records}", path = .path.display())]
    MissingAtEnd { path: PathBuf, records: u64, missing: u64 },
    #[error("{path}: {missing} bytes of the journal are missing before it; a segment was removed", path = .path.display())]
    MissingBefore { path: PathBuf, missing: u64 },
    #[error("{place}, message {message_id}: number {found} of its stream, expected {expected}")]
    Number { place: Place, message_id: MessageId, found: u64, expected: u64 },
    #[error("{path}: it was removed; the segment before has one", path = .path.display())]
    NoChain { path: PathBuf },
    #[error("{path}: {why}", path = .path.display())]
    ChainHeader { path: PathBuf, why: ChainHeaderError },
    #[error("{path}: it is the chain of another journal or segment", path = .path.display())]
    ForeignChain { path: PathBuf },
    #[error("{path}: it does not follow the chain of the segment before", path = .path.display())]
    Unlinked { path: PathBuf },
    #[error(
        "anchor {anchor}: the link there is {found}; something at or before that record was altered, and the chain made anew"
    )]
    Anchor { anchor: Anchor, found: Link },
    #[error("anchor {anchor}: the journal has no such record, or no link for it; its end was removed")]
    AnchorBeyond { anchor: Anchor },
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub segments: u64,
    pub records: u64,
    /// Length of the entries that were read.
    pub bytes: u64,
    /// Records whose link was checked.
    pub linked: u64,
    /// Records before the place where the chain begins: journalled without one, or with another key.
    pub before_chain: u64,
    /// Records behind its newest link: it follows the journal, ten times a second.
    pub behind_chain: u64,
    /// The chain is interrupted here: these segments begin it anew. It was off meanwhile, or another key was given.
    pub begins: Vec<u64>,
    /// Anchors that hold.
    pub anchors_held: usize,
    /// Anchors of segments that have left the journal.
    pub anchors_gone: usize,
    /// The newest link.
    pub head: Option<Anchor>,
    /// The first thing that is wrong.
    pub finding: Option<Finding>,
}

/// A key that is not the one that a chain was made with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongKey {
    #[error("{path}: the chain was made with a key; without it nothing can be said", path = .path.display())]
    Needed { path: PathBuf },
    #[error("{path}: the chain was made with another key", path = .path.display())]
    Other { path: PathBuf },
    #[error("{path}: the chain was made without a key", path = .path.display())]
    NotNeeded { path: PathBuf },
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Key(#[from] WrongKey),
}

/// Reads a whole journal: every crc, every stream's numbers, every link of the chain, and the anchors. It ends at the first
/// thing that is wrong. `progress` is told, now and then, how many bytes of entries were read.
///
/// # Errors
/// [`VerifyError`]: the files cannot be read, or the chain needs another key.
pub fn verify(
    listing: Listing,
    key: &ChainKey,
    anchors: &[Anchor],
    progress: &mut dyn FnMut(u64),
) -> Result<Verdict, VerifyError> {
    let oldest = listing.segments.first().map_or(0, |segment| segment.base);
    let (anchors, gone): (Vec<Anchor>, Vec<Anchor>) =
        anchors.iter().partition(|anchor| anchor.base >= oldest);
    let mut check = Check {
        key,
        dir: listing.dir.clone(),
        anchors,
        base: None,
        in_segment: 0,
        chain: None,
        link: None,
        streams: HashMap::new(),
        verdict: Verdict { anchors_gone: gone.len(), ..Verdict::default() },
    };
    let mut walk = Walk::new(listing);
    let finding = loop {
        match walk.step()? {
            Step::Entry(found) => {
                if check.base != Some(found.base) {
                    progress(check.verdict.bytes);
                    if let Some(finding) = check.begin_segment(found.base)? {
                        break Some(finding);
                    }
                }
                if let Some(finding) = check.entry(&found) {
                    break Some(finding);
                }
            }
            Step::End => break check.end_segment().or_else(|| check.anchors_left()),
            Step::Gap { path, missing } => break Some(Finding::MissingBefore { path, missing }),
            Step::Bad { path, at, why, .. } => {
                break Some(Finding::Damaged { path, at, records: check.in_segment, why });
            }
        }
    };
    check.verdict.finding = finding;
    Ok(check.verdict)
}

struct Check<'a> {
    key: &'a ChainKey,
    dir: PathBuf,
    /// Not come by yet.
    anchors: Vec<Anchor>,
    /// The segment that is read, and how many of its records were.
    base: Option<u64>,
    in_segment: u64,
    /// The links of that segment, if it has a chain.
    chain: Option<Vec<Link>>,
    /// The newest link: what the next one follows.
    link: Option<Link>,
    /// Epoch and last number of each stream; bounded by the gateway's table of users.
    streams: HashMap<u32, (u32, u64)>,
    verdict: Verdict,
}

impl Check<'_> {
    fn segment_path(&self, base: u64) -> PathBuf {
        self.dir.join(segment_name(base))
    }

    fn begin_segment(&mut self, base: u64) -> Result<Option<Finding>, VerifyError> {
        if let Some(finding) = self.end_segment() {
            return Ok(Some(finding));
        }
        self.verdict.segments += 1;
        (self.base, self.in_segment, self.chain) = (Some(base), 0, None);
        let segment = self.segment_path(base);
        let path = chain_path(&segment);
        let Some(read) = links_of(&path, &segment)? else {
            let was_removed = self.link.is_some() && segment.exists();
            return Ok(was_removed.then_some(Finding::NoChain { path }));
        };
        let (header, links) = match read {
            Ok(read) => read,
            // Begun at this moment, or when the process was killed or the disk was full.
            Err(ChainHeaderError::Length { .. }) => return Ok(None),
            Err(why) => return Ok(Some(Finding::ChainHeader { path, why })),
        };
        if header.base != base {
            return Ok(Some(Finding::ForeignChain { path }));
        }
        match (header.key_mark, self.key.mark()) {
            (found, mark) if found == mark => {}
            (_, 0) => return Err(WrongKey::Needed { path }.into()),
            (0, _) => return Err(WrongKey::NotNeeded { path }.into()),
            _ => return Err(WrongKey::Other { path }.into()),
        }
        match self.link {
            Some(link) if header.before == link => {}
            Some(_) if header.before != Link::NONE => return Ok(Some(Finding::Unlinked { path })),
            // The oldest segment that is kept follows one that is gone: nothing can be said of that.
            None if header.before != Link::NONE => {}
            _ if self.verdict.records > 0 => self.verdict.begins.push(base),
            _ => {}
        }
        self.link = Some(self.key.start(&header));
        self.chain = Some(links);
        Ok(None)
    }

    fn entry(&mut self, found: &Found<'_>) -> Option<Finding> {
        let entry = &found.entry;
        let path = self.segment_path(found.base);
        let place = || Place { path: path.clone(), record: found.index + 1, at: found.at };
        let message_id = entry.header.message_id;
        if let Some(links) = &self.chain {
            let index = found.index as usize;
            match (links.get(index), &self.link) {
                (Some(expected), Some(before)) => {
                    let link = self.key.link(before, entry.body);
                    if link != *expected {
                        let missing = self.belongs_later(links, index, entry.body);
                        return Some(match missing {
                            Some(missing) => Finding::Missing { place: place(), message_id, missing },
                            None => Finding::Altered { place: place(), message_id },
                        });
                    }
                    self.link = Some(link);
                    self.verdict.linked += 1;
                    self.verdict.head = Some(Anchor { base: found.base, records: found.index + 1, link });
                }
                _ => self.verdict.behind_chain += 1,
            }
        } else if self.link.is_none() {
            self.verdict.before_chain += 1;
        } else {
            self.verdict.behind_chain += 1;
        }
        let (epoch, seq) =
            self.streams.get(&entry.slot).copied().unwrap_or((entry.epoch, entry.seq.wrapping_sub(1)));
        if epoch == entry.epoch && entry.seq != seq.wrapping_add(1) {
            let (found, expected) = (entry.seq, seq.wrapping_add(1));
            return Some(Finding::Number { place: place(), message_id, found, expected });
        }
        self.streams.insert(entry.slot, (entry.epoch, entry.seq));
        self.in_segment = found.index + 1;
        self.verdict.records += 1;
        self.verdict.bytes += (ENTRY_HEADER_LEN + entry.header.record_len as usize) as u64;
        self.anchors_here(found)
    }

    /// How many records are missing before the one with that body, if it is one that comes later.
    fn belongs_later(&self, links: &[Link], index: usize, body: &[u8]) -> Option<u64> {
        let later = links.get(index..)?.windows(2).take(LOOK_AHEAD);
        later
            .enumerate()
            .find(|(_, pair)| self.key.link(&pair[0], body) == pair[1])
            .map(|(skipped, _)| skipped as u64 + 1)
    }

    fn anchors_here(&mut self, found: &Found<'_>) -> Option<Finding> {
        let is_here = |anchor: &Anchor| anchor.base == found.base && anchor.records == found.index + 1;
        let linked = self.chain.as_ref().is_some_and(|links| links.len() as u64 > found.index);
        while let Some(index) = self.anchors.iter().position(is_here) {
            let anchor = self.anchors.swap_remove(index);
            match self.link.filter(|_| linked) {
                Some(link) if link == anchor.link => self.verdict.anchors_held += 1,
                Some(link) => return Some(Finding::Anchor { anchor, found: link }),
                None => return Some(Finding::AnchorBeyond { anchor }),
            }
        }
        None
    }

    fn end_segment(&self) -> Option<Finding> {
        let (base, links) = (self.base?, self.chain.as_ref()?);
        let missing = (links.len() as u64).checked_sub(self.in_segment).filter(|missing| *missing > 0)?;
        let path = self.segment_path(base);
        Some(Finding::MissingAtEnd { path, records: self.in_segment, missing })
    }

    fn anchors_left(&self) -> Option<Finding> {
        self.anchors.first().map(|anchor| Finding::AnchorBeyond { anchor: *anchor })
    }
}

/// The links of a segment: no more than entries fit into it.
pub(super) fn links_of(path: &Path, segment: &Path) -> Result<Option<Links>, JournalError> {
    let len = match std::fs::metadata(segment) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io(segment, "look at")(error)),
    };
    match read_links(path, len / ENTRY_HEADER_LEN as u64).map_err(JournalError::io(path, "read")) {
        Err(error) if is_gone(&error) => Ok(None),
        links => links.map(Some),
    }
}
