//! Journal records as frames, straight from the archive into the out buffer.
//!
//! The last check of who may see what stands here, on the send path: a record goes out only if its own user id is the
//! session's (or everybody's), whatever put its offset into the list.

use bellwire::{NotificationView, json};

use super::session::Session;
use super::users::{User, Users};
use crate::protocol::outbound::{Frame, Position, Why, notification};
use crate::protocol::{Epoch, Stream};
use crate::socket::{Out, Written};
use bellwire_journal::{Entry, JournalReader};

/// Most notifications that go into one write, or one batch.
pub(super) const RECORDS_MAX: usize = 100;

/// Bytes at which a write, or a batch, is long enough.
pub(super) const BYTES_MAX: usize = 64 * 1024;

/// Why a record does not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Retention has taken it.
    Gone,
    /// It is another user's.
    Foreign,
    /// The journal's file was damaged.
    Unreadable,
}

/// The JSON of the broadcasts that went out last: every session of the shard needs the same.
pub(super) struct Renderer {
    // As many as one write takes, by offset; the buffers are kept.
    broadcasts: Vec<(u64, Vec<u8>)>,
}

impl Default for Renderer {
    fn default() -> Self {
        Self { broadcasts: (0..BROADCASTS).map(|_| (0, Vec::new())).collect() }
    }
}

const BROADCASTS: usize = 64;

impl Renderer {
    /// Appends the notification's JSON.
    pub(super) fn json(
        &mut self,
        entry: &Entry<'_>,
        view: &NotificationView<'_>,
        stream: Stream,
        out: &mut Vec<u8>,
    ) {
        if stream == Stream::User {
            return json::write(view, out);
        }
        // Offsets are multiples of 16.
        let (offset, text) = &mut self.broadcasts[(entry.offset / 16) as usize % BROADCASTS];
        if *offset != entry.offset {
            text.clear();
            json::write(view, text);
            *offset = entry.offset;
        }
        out.extend_from_slice(text);
    }
}

/// Reads the record and checks that this session may see it.
pub(super) fn fetch<'j>(
    journal: &'j mut JournalReader,
    offset: u64,
    stream: Stream,
    user: Option<&User>,
) -> Result<(Entry<'j>, NotificationView<'j>), Unfit> {
    let entry = journal.entry(offset).ok_or(Unfit::Gone)?;
    let view = entry.view().ok_or(Unfit::Unreadable)?;
    let is_ours = match stream {
        Stream::All => view.is_broadcast(),
        Stream::User => user.is_some_and(|user| *user.id == *view.user_id()),
    };
    if is_ours { Ok((entry, view)) } else { Err(Unfit::Foreign) }
}

/// Renders what waits, as much as one write takes.
///
/// # Errors
/// A record that cannot go out; what was rendered before it is in `out`.
pub(super) fn pending(
    session: &mut Session,
    users: &Users,
    journal: &mut JournalReader,
    renderer: &mut Renderer,
    out: &mut Out,
) -> Result<(), Unfit> {
    let user = session.user.and_then(|index| users.get(index));
    for _ in 0..RECORDS_MAX {
        if out.len() >= BYTES_MAX {
            break;
        }
        let Some(next) = session.backlog.front() else { break };
        let stream = next.stream();
        let (entry, view) = fetch(journal, next.offset(), stream, user)?;
        let conflated = session.backlog.pop(entry.header.archive_len);
        // An unsubscribe may have come since it was put into the list.
        if !session.channels.contains(view.message_type().channel()) {
            continue;
        }
        if session.is_v1() {
            let cursor = &mut session.cursors[stream as usize];
            if cursor.epoch != entry.epoch {
                cursor.epoch = entry.epoch;
                cursor.announced = entry.seq - 1;
                resync(stream, entry.epoch, cursor.announced, Why::EpochChanged, out);
            }
            let position = Position { epoch: Epoch(entry.epoch), prev: cursor.announced, seq: entry.seq };
            out.text(|out| {
                notification(stream, position, conflated, out, |out| {
                    renderer.json(&entry, &view, stream, out);
                });
                Some(())
            });
            cursor.announced = entry.seq;
        } else {
            out.text(|out| {
                renderer.json(&entry, &view, stream, out);
                Some(())
            });
        }
        out.note(written(&entry));
    }
    session.backlog.settle();
    Ok(())
}

/// What is counted once the kernel has it.
pub(super) fn written(entry: &Entry<'_>) -> Written {
    Written { published_at: entry.header.published_at(), priority: entry.header.priority }
}

/// Appends a `resync` frame.
pub(super) fn resync(stream: Stream, epoch: u32, head: u64, why: Why, out: &mut Out) {
    out.text(|out| {
        Frame::Resync { stream, epoch: Epoch(epoch), head, why }.write(out);
        Some(())
    });
}
