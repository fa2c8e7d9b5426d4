//! Prometheus' text format, version 0.0.4: families with help and type, samples with escaped labels.

use std::fmt::{Display, Write as _};

use crate::counts::Histogram;

/// Buckets of a histogram: powers of two from 16 µs to 33 s.
const BUCKETS: std::ops::RangeInclusive<u32> = 4..=25;

/// Collects the text.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.begin(name, "counter", help)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.begin(name, "gauge", help)
    }

    /// Times in seconds.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.begin(name, "histogram", help)
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Self {
        self.family = name;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// A sample of the family that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, value)
    }

    /// The samples of one histogram: over several threads, their sum.
    pub(super) fn times<'a>(
        &mut self,
        labels: &[(&str, &str)],
        threads: impl Iterator<Item = &'a Histogram>,
    ) -> &mut Self {
        let mut below: Vec<(u64, u64)> = Vec::new();
        let (mut count, mut sum_us) = (0, 0);
        for histogram in threads {
            let (powers, all) = histogram.below_powers(BUCKETS);
            below.resize(powers.len(), (0, 0));
            for (sum, (end_us, seen)) in below.iter_mut().zip(powers) {
                *sum = (end_us, sum.1 + seen);
            }
            count += all;
            sum_us += histogram.sum_us();
        }
        let ends = below.iter().map(|&(end_us, seen)| (format!("{}", end_us as f64 / 1e6), seen));
        for (end, seen) in ends.chain([("+Inf".to_owned(), count)]) {
            let with_end: Vec<_> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            self.line("_bucket", &with_end, seen);
        }
        self.line("_sum", labels, sum_us as f64 / 1e6);
        self.line("_count", labels, count)
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if index == 0 { '{' } else { ',' });
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_histograms_are_sums_over_threads() {
        let threads = [Histogram::default(), Histogram::default()];
        threads[0].record_ns(20_000);
        threads[1].record_many(100_000_000, 3);
        let mut exposition = Exposition::default();
        exposition.counter("a_total", "What.").sample(&[("of", "a\"b\\c\nd")], 7);
        exposition.histogram("t_seconds", "How long.").times(&[("class", "P0")], threads.iter());
        let text = exposition.into_text();
        assert!(text.contains("a_total{of=\"a\\\"b\\\\c\\nd\"} 7\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{class=\"P0\",le=\"0.000016\"} 0\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{class=\"P0\",le=\"0.000032\"} 1\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{class=\"P0\",le=\"+Inf\"} 4\n"), "{text}");
        assert!(
            text.contains("t_seconds_sum{class=\"P0\"} 0.30002\nt_seconds_count{class=\"P0\"} 4\n"),
            "{text}"
        );
    }
}
