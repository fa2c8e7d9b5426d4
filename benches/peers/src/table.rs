//! What came out, as medians of the rounds and as ratios to the bare ring of the same run.

use std::collections::BTreeMap;

use crate::peers;
use crate::work::{Figures, Work};

pub struct Table {
    work: Work,
    figures: BTreeMap<&'static str, Vec<Figures>>,
    /// Rounds without figures.
    failed: BTreeMap<&'static str, usize>,
}

impl Table {
    pub fn new(work: Work) -> Self {
        Self { work, figures: BTreeMap::new(), failed: BTreeMap::new() }
    }

    pub fn add(&mut self, name: &'static str, figures: Figures) {
        self.figures.entry(name).or_default().push(figures);
    }

    pub fn add_failed(&mut self, name: &'static str) {
        *self.failed.entry(name).or_default() += 1;
    }

    pub fn print(&self) {
        if self.figures.is_empty() && self.failed.is_empty() {
            return;
        }
        let (title, columns) = self.work.columns();
        let better = if self.work.is_rate() { "more is better" } else { "less is better" };
        println!("{title} ({better})");
        print!("  {:<22}", "");
        columns.iter().for_each(|column| print!("{column:>12}"));
        let base = if self.figures.contains_key(peers::BARE) { peers::BARE } else { peers::BARE_PARKED };
        println!("{:>20}", format!("to {base}"));
        let bare = self.median(base, 0);
        for name in peers::NAMES {
            let failed = self.failed.get(name).copied().unwrap_or_default();
            let Some(rounds) = self.figures.get(name) else {
                if failed > 0 {
                    println!("  {name:<22}{:>12}", format!("failed, {failed} of {failed}"));
                }
                continue;
            };
            print!("  {name:<22}");
            for column in 0..rounds[0].len() {
                let figure = self.median(name, column).unwrap_or_default();
                if figure >= 100.0 { print!("{figure:>12.0}") } else { print!("{figure:>12.2}") }
            }
            match bare.zip(self.median(name, 0)) {
                Some((bare, ours)) => print!("{:>20.2}", ours / bare),
                None => print!("{:>20}", "-"),
            }
            if failed > 0 {
                print!("  failed, {failed} of {}", failed + rounds.len());
            }
            println!();
        }
        println!();
    }

    fn median(&self, name: &str, column: usize) -> Option<f64> {
        let mut found: Vec<f64> = self.figures.get(name)?.iter().map(|figures| figures[column]).collect();
        found.sort_by(f64::total_cmp);
        found.get(found.len() / 2).copied()
    }
}
