//! What is published: how much, of which class, in which mix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Notifications a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rate {
    PerSecond(u32),
    /// As fast as the rings take them.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let (digits, unit) = match text.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1_000.0),
            None => (text, 1.0),
        };
        let rate = digits.parse::<f64>().map(|number| number * unit).unwrap_or(f64::NAN);
        if (1.0..=10_000_000.0).contains(&rate) {
            Ok(Self::PerSecond(rate as u32))
        } else {
            Err("expected notifications a second, as 5000, 20k or max".to_owned())
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
            Self::Max => f.write_str("max"),
        }
    }
}

/// How many of each class there are, relative to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mix([u16; 4]);

impl Mix {
    /// An exchange's day: orders and trades, what they do to accounts and positions, and a few of the others.
    pub(crate) const REALISTIC: Self = Self([10, 480, 500, 10]);

    /// The class for a number that was drawn at random.
    pub(crate) fn class(&self, random: u32) -> usize {
        let total: u32 = self.0.iter().map(|&share| u32::from(share)).sum();
        let mut rest = random % total.max(1);
        for (class, &share) in self.0.iter().enumerate() {
            match rest.checked_sub(u32::from(share)) {
                None => return class,
                Some(left) => rest = left,
            }
        }
        1
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "realistic" {
            return Ok(Self::REALISTIC);
        }
        let wrong = || "expected realistic, one class as P1, or shares as P0=1,P1=50,P2=49".to_owned();
        let mut shares = [0; 4];
        for part in text.split(',') {
            let (class, share) = part.split_once('=').unwrap_or((part, "1"));
            let class = crate::names::priority(class).map_err(|_| wrong())?;
            shares[class.index()] = share.parse().map_err(|_| wrong())?;
        }
        if shares.iter().all(|&share| share == 0) { Err(wrong()) } else { Ok(Self(shares)) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::REALISTIC {
            return f.write_str("realistic");
        }
        let shares = self.0.iter().enumerate().filter(|(_, share)| **share > 0);
        let shares: Vec<_> = shares.map(|(class, share)| format!("P{class}={share}")).collect();
        f.write_str(&shares.join(","))
    }
}

/// What a producer is told, a JSON object a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Notifications for random users at a rate.
    Load { rate: Rate, ms: u64, mix: Mix, seed: u64 },
    /// So many P1 for each of its users.
    Each { count: u32 },
    /// One for everybody.
    Broadcast,
}

/// What it answers when it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) published: u64,
    /// Publishes that found the ring full, and were tried again.
    pub(super) refused: u64,
    /// How many each user got.
    pub(super) by_user: Vec<u32>,
    /// How late the producer itself was, at p99.
    pub(super) late_p99_ns: u64,
    /// From its first publish to its last.
    pub(super) took_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_mixes_are_read_as_people_write_them() {
        assert_eq!("20k".parse(), Ok(Rate::PerSecond(20_000)));
        assert_eq!("2.5k".parse(), Ok(Rate::PerSecond(2_500)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for wrong in ["", "0", "fast", "-5", "1e12", "nan"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!("P1".parse(), Ok(Mix([0, 1, 0, 0])));
        assert_eq!("0=1,p2=3".parse(), Ok(Mix([1, 0, 3, 0])));
        for wrong in ["", "P4", "P0=0", "P0=x", "P1=70000"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mix_draws_each_class_as_often_as_its_share_says() {
        let mut drawn = [0; 4];
        for random in 0..3_000 {
            drawn[Mix::REALISTIC.class(random)] += 1;
        }
        assert_eq!(drawn, [30, 1_440, 1_500, 30]);
    }
}
