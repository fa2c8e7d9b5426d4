//! The live picture: keys, and what they do to what is shown.

use std::io;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row};
use ratatui::{DefaultTerminal, Frame};

use super::Top;
use super::rows::{Look, Table};
use super::view::{self, CONSUMER_COLUMNS, LANE_COLUMNS, Sort};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;
use crate::stop::Stop;

/// How soon a signal is noticed.
const PATIENCE: Duration = Duration::from_millis(100);
/// A chart narrower than this says nothing.
const SPARK_MIN: u16 = 8;
/// The longest filter.
const FILTER_MAX: usize = 64;

const KEYS: &str =
    "q end  s sort  r reverse  / filter  Esc all  space freeze  arrows, PgUp, PgDn move  ? keys";

/// What is shown, and how.
struct App<'a> {
    bus: &'a str,
    interval: Duration,
    table: Table,
    problems: Vec<String>,
    sort: Sort,
    reversed: bool,
    filter: String,
    /// The filter is being typed.
    is_typing: bool,
    is_frozen: bool,
    shows_keys: bool,
    /// Lanes above the window.
    above: usize,
    /// Lanes that fit: as of the last picture.
    page: usize,
    colors: bool,
}

/// Until q, Ctrl-C or SIGTERM; the terminal is left as it was found.
pub(super) fn run(global: &Global, args: &Top, first: Look, stop: &Stop) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Wrong, format!("the terminal: {error}"));
    let mut app = App {
        bus: global.bus(),
        interval: args.interval,
        table: Table::default(),
        problems: Vec::new(),
        sort: args.sort,
        reversed: false,
        filter: args.filter.clone(),
        is_typing: false,
        is_frozen: false,
        shows_keys: false,
        above: 0,
        page: 1,
        colors: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    app.add(first);
    // Restores the terminal also when something panics.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let outcome = app.live(global, &mut terminal, stop);
    let restored = ratatui::try_restore();
    outcome?;
    restored.map_err(failed)
}

impl App<'_> {
    fn live(&mut self, global: &Global, terminal: &mut DefaultTerminal, stop: &Stop) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Wrong, format!("the terminal: {error}"));
        let mut next = Instant::now() + self.interval;
        while !stop.asked() {
            terminal.draw(|frame| self.draw(frame)).map_err(failed)?;
            let wait = next.saturating_duration_since(Instant::now()).min(PATIENCE);
            match event::poll(wait) {
                Ok(true) => {
                    if let Event::Key(key) = event::read().map_err(failed)?
                        && key.kind != KeyEventKind::Release
                        && self.key(key)
                    {
                        return Ok(());
                    }
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
            if Instant::now() >= next {
                next = Instant::now() + self.interval;
                match Look::take(global) {
                    _ if self.is_frozen => {}
                    Ok(look) => self.add(look),
                    // A bus whose last segment goes may come back: what was seen last stays, and why.
                    Err(failure) => self.problems = vec![failure.to_string()],
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, look: Look) {
        self.table.add(&look);
        self.problems = look.problems;
    }

    /// Does what the key says; whether it says to end.
    fn key(&mut self, key: KeyEvent) -> bool {
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if has_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return true;
        }
        if self.is_typing {
            match key.code {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(char) if !has_control && self.filter.len() < FILTER_MAX => {
                    self.filter.push(char)
                }
                _ => {}
            }
            self.above = 0;
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char(' ' | 'f') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('?' | 'h') => self.shows_keys = !self.shows_keys,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.above += 1,
            KeyCode::PageUp => self.above = self.above.saturating_sub(self.page),
            KeyCode::PageDown => self.above += self.page,
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        false
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let lanes = view::order(&self.table.lanes, self.sort, self.reversed, &self.filter);
        let consumers = view::chosen(&self.table.consumers, &self.filter);
        let height = frame.area().height;
        let wanted = if consumers.is_empty() { 0 } else { consumers.len() as u16 + 2 };
        let [head, middle, below, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(2),
            Constraint::Length(wanted.min(height / 3)),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(lanes.len()), head);
        frame.render_widget(self.foot(), foot);

        self.page = usize::from(middle.height.saturating_sub(1)).max(1);
        self.above = self.above.min(lanes.len().saturating_sub(self.page));
        let columns = fitting(&LANE_COLUMNS, middle.width, &[2, 5, 4, 10]);
        let used: u16 = columns.iter().map(|column| LANE_COLUMNS[*column].1 + 1).sum();
        let spark = middle.width.saturating_sub(used);
        let rows = lanes.iter().skip(self.above).take(self.page).map(|lane| {
            let cells = view::lane_cells(lane);
            let mut row: Vec<_> = columns
                .iter()
                .map(|column| {
                    let style = match *column {
                        1 if lane.state == "dead" => self.color(Color::Red),
                        5 if lane.refused_per_s > 0.0 => self.color(Color::Red),
                        ring @ 6..=9 => self.fill(lane.fill[ring - 6]),
                        _ => Style::new(),
                    };
                    cell(&cells[*column], LANE_COLUMNS[*column].0).style(style)
                })
                .collect();
            if spark >= SPARK_MIN {
                let history = lane.history.iter().copied();
                row.push(Cell::new(view::spark(history, spark.into())).style(self.color(Color::Cyan)));
            }
            Row::new(row)
        });
        let rows: Vec<_> = rows.collect();
        table(frame, middle, &LANE_COLUMNS, &columns, (spark >= SPARK_MIN).then_some("RATE"), rows);

        if below.height > 1 {
            let below = Rect { y: below.y + 1, height: below.height - 1, ..below };
            let columns = fitting(&CONSUMER_COLUMNS, below.width, &[2, 3]);
            let rows = consumers.iter().map(|consumer| {
                let cells = view::consumer_cells(consumer);
                let is_bad = consumer.state == "dead" || consumer.overtaken > 0;
                let style = if is_bad { self.color(Color::Red) } else { Style::new() };
                Row::new(columns.iter().map(|column| cell(&cells[*column], CONSUMER_COLUMNS[*column].0)))
                    .style(style)
            });
            let rows: Vec<_> = rows.collect();
            table(frame, below, &CONSUMER_COLUMNS, &columns, None, rows);
        }
    }

    fn head(&self, shown: usize) -> Text<'static> {
        let (records, bytes, refused) = self.table.totals();
        let all = self.table.lanes.len();
        let lanes =
            if shown == all { human::count(all as u64, "lane") } else { format!("{shown} of {all} lanes") };
        let consumers = human::count(self.table.consumers.len() as u64, "consumer");
        let mut title = vec![
            Span::styled(format!("bus {}", self.bus), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {lanes}, {consumers}, every {}", human::duration(self.interval))),
        ];
        let order = if self.reversed { ", reversed" } else { "" };
        title.push(Span::raw(format!(", by {}{order}", self.sort.word())));
        if self.is_frozen {
            title.push(Span::styled("  FROZEN", Style::new().add_modifier(Modifier::REVERSED)));
        }
        let totals = format!(
            "{} records/s  {}/s  {} refused/s",
            view::number(records),
            human::bytes(bytes as u64),
            view::number(refused)
        );
        Text::from(vec![Line::from(title), Line::from(totals)])
    }

    fn foot(&self) -> Paragraph<'static> {
        if self.is_typing {
            return Paragraph::new(format!("/{}_", self.filter));
        }
        if let Some(problem) = self.problems.first().filter(|_| !self.shows_keys) {
            return Paragraph::new(problem.clone()).style(self.color(Color::Red));
        }
        let filter = if self.filter.is_empty() { String::new() } else { format!("only *{}*  ", self.filter) };
        let keys = if self.shows_keys { KEYS } else { "q end  s sort  / filter  space freeze  ? keys" };
        Paragraph::new(format!("{filter}{keys}")).style(Style::new().add_modifier(Modifier::DIM))
    }

    fn color(&self, color: Color) -> Style {
        if self.colors { Style::new().fg(color) } else { Style::new() }
    }

    fn fill(&self, fill: Option<f64>) -> Style {
        match fill {
            Some(fill) if fill >= 0.9 => self.color(Color::Red).add_modifier(Modifier::BOLD),
            Some(fill) if fill >= 0.5 => self.color(Color::Yellow),
            _ => Style::new(),
        }
    }
}

/// The columns that there is room for; those of `to_go` go first, in that order.
fn fitting(columns: &[(&str, u16)], width: u16, to_go: &[usize]) -> Vec<usize> {
    let mut all: Vec<_> = (0..columns.len()).collect();
    let is_too_wide = |all: &[usize]| {
        all.iter().map(|column| columns[*column].1 + 1).sum::<u16>() > width.saturating_add(1)
    };
    let mut to_go = to_go.iter();
    while is_too_wide(&all)
        && let Some(column) = to_go.next()
    {
        all.retain(|kept| kept != column);
    }
    all
}

fn cell(text: &str, heading: &str) -> Cell<'static> {
    let alignment = if heading.starts_with('>') { Alignment::Right } else { Alignment::Left };
    Cell::new(Text::from(text.to_owned()).alignment(alignment))
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    all: &[(&'static str, u16)],
    columns: &[usize],
    last: Option<&'static str>,
    rows: Vec<Row<'static>>,
) {
    let names = columns.iter().map(|column| all[*column].0).chain(last);
    let header = Row::new(names.map(|name| cell(name.trim_start_matches('>'), name)));
    let widths = columns.iter().map(|column| Constraint::Length(all[*column].1));
    let widths = widths.chain(last.map(|_| Constraint::Min(0)));
    let header = header.style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(ratatui::widgets::Table::new(rows, widths).header(header).column_spacing(1), area);
}
