//! What of it is shown, in which order, and in which words: the same on a screen and in a script.

use super::rows::{ConsumerRow, LaneRow};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Out, human};

/// What stands at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// The most records a second
    Rate,
    /// The fullest ring
    Fill,
    /// The oldest unread record
    Age,
    /// The most refused publishes a second
    Refused,
    /// By name
    Name,
}

impl Sort {
    pub(super) const ALL: [Self; 5] = [Self::Rate, Self::Fill, Self::Age, Self::Refused, Self::Name];

    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Fill => "fill",
            Self::Age => "age",
            Self::Refused => "refused",
            Self::Name => "name",
        }
    }
}

/// A row that has a name.
pub(super) trait Named {
    fn name(&self) -> &str;
}

impl Named for LaneRow {
    fn name(&self) -> &str {
        &self.lane
    }
}

impl Named for ConsumerRow {
    fn name(&self) -> &str {
        &self.consumer
    }
}

/// Those whose name contains the filter.
pub(super) fn chosen<'a, T: Named>(rows: &'a [T], filter: &str) -> Vec<&'a T> {
    rows.iter().filter(|row| row.name().contains(filter)).collect()
}

/// The lanes that are shown, in order; equal ones by name.
pub(super) fn order<'a>(lanes: &'a [LaneRow], sort: Sort, reversed: bool, filter: &str) -> Vec<&'a LaneRow> {
    let mut lanes = chosen(lanes, filter);
    lanes.sort_by(|a, b| {
        let most_first = |of: fn(&LaneRow) -> f64| of(b).total_cmp(&of(a));
        let by = match sort {
            Sort::Rate => most_first(|lane| lane.records_per_s),
            Sort::Fill => most_first(LaneRow::fullest),
            Sort::Refused => most_first(|lane| lane.refused_per_s),
            Sort::Age => {
                let at = |lane: &LaneRow| lane.oldest_unread_at.unwrap_or(i64::MAX);
                at(a).cmp(&at(b))
            }
            Sort::Name => std::cmp::Ordering::Equal,
        };
        by.then_with(|| a.lane.cmp(&b.lane))
    });
    if reversed {
        lanes.reverse();
    }
    lanes
}

/// How the columns of lanes are called, and how wide they are on a screen.
pub(super) const LANE_COLUMNS: [(&str, u16); 11] = [
    ("LANE", 16),
    ("STATE", 5),
    (">PID", 8),
    (">RECORDS/S", 9),
    (">BYTES/S", 9),
    (">REFUSED/S", 9),
    (">P0", 4),
    (">P1", 4),
    (">P2", 4),
    (">P3", 4),
    (">AGE", 8),
];

pub(super) const CONSUMER_COLUMNS: [(&str, u16); 7] =
    [("CONSUMER", 16), ("STATE", 5), (">PID", 8), (">LANES", 5), (">UNREAD", 9), (">BYTES", 9), (">AGE", 8)];

pub(super) fn lane_cells(lane: &LaneRow) -> [String; 11] {
    let fill = |ring: usize| lane.fill[ring].map_or_else(dash, |fill| format!("{:.0}%", fill * 100.0));
    [
        lane.lane.clone(),
        lane.state.to_owned(),
        lane.pid.to_string(),
        number(lane.records_per_s),
        human::bytes(lane.bytes_per_s as u64),
        number(lane.refused_per_s),
        fill(0),
        fill(1),
        fill(2),
        fill(3),
        age(lane.oldest_unread_at),
    ]
}

pub(super) fn consumer_cells(consumer: &ConsumerRow) -> [String; 7] {
    let unread = if consumer.overtaken > 0 { "lost".to_owned() } else { consumer.unread.to_string() };
    [
        consumer.consumer.clone(),
        consumer.state.to_owned(),
        consumer.pid.to_string(),
        consumer.lanes.to_string(),
        unread,
        human::bytes(consumer.unread_bytes),
        age(consumer.oldest_unread_at),
    ]
}

/// The last of these as bars, each relative to the highest of them; newest to the right.
pub(super) fn spark(history: impl DoubleEndedIterator<Item = f64> + Clone, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = history.rev().take(width);
    let highest = last.clone().fold(0.0, f64::max);
    let bar = |value: f64| match value {
        value if value <= 0.0 => ' ',
        value => BARS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    let bars: Vec<char> = last.map(bar).collect();
    bars.into_iter().rev().collect()
}

fn dash() -> String {
    "-".to_owned()
}

pub(super) fn number(value: f64) -> String {
    format!("{value:.0}")
}

fn age(at: Option<i64>) -> String {
    at.map_or_else(dash, |at| human::age(at).map_or_else(|| "0 ns".to_owned(), human::duration))
}

/// As text.
pub(super) fn print(out: &mut Out, lanes: &[&LaneRow], consumers: &[&ConsumerRow]) -> Result<(), Failure> {
    let mut table = Table::new(&LANE_COLUMNS.map(|(name, _)| name));
    lanes.iter().for_each(|lane| table.row(lane_cells(lane)));
    table.print(out)?;
    if !consumers.is_empty() {
        out.line("")?;
        let mut table = Table::new(&CONSUMER_COLUMNS.map(|(name, _)| name));
        consumers.iter().for_each(|consumer| table.row(consumer_cells(consumer)));
        table.print(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_relative_to_the_highest_that_is_shown_and_the_newest_stands_at_the_right() {
        let history = [1000.0, 0.0, 1.0, 4.0, 8.0];
        assert_eq!(spark(history.into_iter(), 4), " ▁▄█");
        assert_eq!(spark(history.into_iter(), 9), "█ ▁▁▁");
        assert_eq!(spark(std::iter::empty(), 9), "");
        assert_eq!(spark([0.0, 0.0].into_iter(), 9), "  ");
    }

    #[test]
    fn s_leads_through_all_orders_and_back() {
        let seen = Sort::ALL.map(Sort::next);
        assert_eq!(seen.map(Sort::word), ["fill", "age", "refused", "name", "rate"]);
    }
}
