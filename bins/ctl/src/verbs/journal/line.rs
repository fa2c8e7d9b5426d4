//! One entry as it is shown.

use bellwire_journal::inspect::Found;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::filter::Filter;
use crate::output::JSON_SCHEMA;
use crate::output::render::Render;

/// What the gateway knew of a notification when it journalled it, and the notification.
#[derive(Serialize)]
struct Envelope<'a> {
    schema: u32,
    /// Place in the journal.
    offset: u64,
    journalled_at: i64,
    /// `user` or `all`, as in the protocol's frames.
    stream: &'static str,
    epoch: u32,
    seq: u64,
    /// Key of the lane, and number in it.
    lane: String,
    lane_sequence: u64,
    data: &'a RawValue,
}

/// How entries are shown.
pub(super) enum Shape {
    /// A line for people.
    Text(Render),
    /// The notification with what the gateway knew of it.
    Envelope,
    /// The notification alone.
    Bare(Render),
}

/// The text of an entry that the filter lets through. `Err`: its archive does not hold what its header says.
pub(super) fn of(found: &Found<'_>, filter: &Filter, shape: &mut Shape) -> Result<Option<Vec<u8>>, String> {
    let entry = &found.entry;
    if !filter.wants_priority_of(&entry.header) || !filter.wants_header(&entry.header) {
        return Ok(None);
    }
    let view = entry.header.view(entry.archive).map_err(|error| error.to_string())?;
    if !filter.wants(&view) {
        return Ok(None);
    }
    Ok(Some(match shape {
        Shape::Text(render) => render.of(&format!("#{}", entry.seq), &view),
        Shape::Bare(render) => render.of("", &view),
        Shape::Envelope => {
            let mut data = Vec::new();
            bellwire::json::write(&view, &mut data);
            let data = String::from_utf8(data).map_err(|error| error.to_string())?;
            let data = RawValue::from_string(data).map_err(|error| error.to_string())?;
            let envelope = Envelope {
                schema: JSON_SCHEMA,
                offset: entry.offset,
                journalled_at: entry.journalled_at,
                stream: if view.user_id() == bellwire::EVERYBODY { "all" } else { "user" },
                epoch: entry.epoch,
                seq: entry.seq,
                lane: format!("{:016x}", entry.lane),
                lane_sequence: entry.header.lane_sequence,
                data: &data,
            };
            serde_json::to_vec(&envelope).map_err(|error| error.to_string())?
        }
    }))
}
