//! Whether a segment whose owner is dead is of use to anybody. It takes a picture of the bus and changes nothing.

use std::time::{Duration, SystemTime};

use bellwire::inspect::{CursorsStatus, LaneStatus, Segment};
use bellwire::{OpenError, SegmentKind};

use crate::bus::{self, Picture, Waits};

/// What is to become of a segment, and why.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::verbs) enum Verdict {
    Remove(String),
    Keep(String),
}

use Verdict::{Keep, Remove};

/// Younger ones may be about to be filled.
const BLANK_AGE: Duration = Duration::from_secs(60);

/// Judges a segment whose owner is dead; whether he is, is for the caller to see to.
pub(in crate::verbs) fn judge(picture: &Picture, segment: &Segment) -> Verdict {
    let us = nix::unistd::geteuid();
    if !us.is_root() && segment.uid != us.as_raw() {
        return Keep(format!("owned by uid {}: only that user or root may remove it", segment.uid));
    }
    if let Some((_, error)) = picture.unreadable.iter().find(|(other, _)| other.path == segment.path) {
        return unreadable(segment, error);
    }
    match segment.kind {
        SegmentKind::Lane => match picture.lanes.iter().find(|lane| lane.name == segment.name) {
            Some(status) => lane(picture, status),
            None => Keep("it went while it was looked at".to_owned()),
        },
        SegmentKind::Cursors => match picture.consumers.iter().find(|one| one.name == segment.name) {
            Some(status) => consumer(picture, status),
            None => Keep("it went while it was looked at".to_owned()),
        },
    }
}

fn unreadable(segment: &Segment, error: &OpenError) -> Verdict {
    match error {
        OpenError::Corrupt { .. } | OpenError::Identity { .. } => match segment.stamp() {
            Ok(stamp) if stamp.blank => blank(segment),
            Ok(stamp) if stamp.kind.is_some() && !stamp.is_ours() => Keep(
                "of another build: use its bellwirectl, or remove the file if that build is gone".to_owned(),
            ),
            Ok(stamp) if stamp.kind.is_none() => Keep("no segment of ours: find out who made it".to_owned()),
            _ => Keep(format!("damaged, which somebody may want to look at: {error}")),
        },
        error => Keep(error.to_string()),
    }
}

fn blank(segment: &Segment) -> Verdict {
    let made = segment.path.symlink_metadata().and_then(|file| file.modified());
    let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    if age.is_some_and(|age| age >= BLANK_AGE) {
        Remove("blank, and nobody is making it".to_owned())
    } else {
        Keep("blank, but younger than a minute: somebody may be making it".to_owned())
    }
}

fn lane(picture: &Picture, lane: &LaneStatus) -> Verdict {
    if lane.rings.iter().all(|ring| ring.published == 0 && ring.position == 0) {
        return Remove("its producer is dead and nothing was ever published on it".to_owned());
    }
    // One that is to go itself keeps nothing.
    let readers: Vec<_> = picture
        .consumers
        .iter()
        .filter(|one| one.held || !matches!(consumer(picture, one), Remove(_)))
        .collect();
    if readers.is_empty() {
        return Keep("no consumer is there that could have read it; the next one will".to_owned());
    }
    // One that cannot be read may have something to read here.
    let unknown = picture.unreadable.iter().filter(|(segment, _)| segment.kind == SegmentKind::Cursors);
    if let Some((segment, _)) = unknown.into_iter().next() {
        return Keep(format!("it cannot be told whether consumer {} has read it", segment.name));
    }
    let behind: Vec<_> = readers
        .into_iter()
        .filter(|one| bus::lag(lane, one).is_none_or(|lags| lags.iter().any(|lag| lag.unread_bytes > 0)))
        .map(|one| &*one.name)
        .collect();
    if behind.is_empty() {
        Remove("its producer is dead and every consumer has read all of it".to_owned())
    } else {
        Keep(format!("not read to its end by {}", behind.join(", ")))
    }
}

fn consumer(picture: &Picture, consumer: &CursorsStatus) -> Verdict {
    let on = |wanted: &[Waits]| -> Vec<&str> {
        let lanes = picture.lanes.iter().filter(|lane| wanted.contains(&bus::waits(lane, consumer)));
        lanes.map(|lane| &*lane.name).collect()
    };
    let waiting = on(&[Waits::Yes, Waits::Unmet]);
    if !waiting.is_empty() {
        return Keep(format!(
            "dead, and waited for by {}: start it again, or `bellwirectl consumers forget {}`",
            waiting.join(", "),
            consumer.name
        ));
    }
    // What a lane that we may not read holds for it we do not know.
    if let Some((segment, _)) =
        picture.unreadable.iter().find(|(segment, _)| segment.kind == SegmentKind::Lane)
    {
        return Keep(format!("it cannot be told whether lane {} waits for it", segment.name));
    }
    if !on(&[Waits::GaveUp]).is_empty() {
        return Remove("dead for longer than the grace time: every producer has given it up".to_owned());
    }
    if !picture.lanes.iter().any(|lane| bus::cursor(lane, consumer).is_some()) {
        return Remove("dead, and none of the lanes that it read is left".to_owned());
    }
    Keep(format!(
        "dead, but it may come back and go on where it was; if not, `bellwirectl consumers forget {}`",
        consumer.name
    ))
}
