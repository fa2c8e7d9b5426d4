//! What is traded: a handful of futures with real-looking terms.

/// The terms of one contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instrument {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The smallest price step, in cents.
    pub(crate) tick_cents: i64,
    /// How many units one lot is.
    pub(crate) multiplier: i64,
    /// Margin of a position, in per mille of its value.
    pub(crate) margin_permille: i64,
    /// Commission for one lot, in cents.
    pub(crate) commission_cents: i64,
    /// Price of the last trading day, in ticks.
    pub(crate) reference: u64,
}

/// Every contract of this exchange.
pub(crate) const INSTRUMENTS: [Instrument; 4] = [
    Instrument {
        id: "IX2401",
        title: "Stock index",
        tick_cents: 20,
        multiplier: 50,
        margin_permille: 120,
        commission_cents: 1_300,
        reference: 19_250,
    },
    Instrument {
        id: "AU2406",
        title: "Gold",
        tick_cents: 2,
        multiplier: 100,
        margin_permille: 80,
        commission_cents: 500,
        reference: 24_010,
    },
    Instrument {
        id: "CU2403",
        title: "Copper",
        tick_cents: 1_000,
        multiplier: 1,
        margin_permille: 90,
        commission_cents: 600,
        reference: 6_815,
    },
    Instrument {
        id: "RB2405",
        title: "Steel bar",
        tick_cents: 100,
        multiplier: 10,
        margin_permille: 70,
        commission_cents: 400,
        reference: 3_950,
    },
];

/// Orders further than this from the reference price are refused, in per mille.
pub(crate) const BAND_PERMILLE: u64 = 100;

/// The most lots of one order.
pub(crate) const ORDER_LOTS_MAX: u64 = 100;

impl Instrument {
    /// The contract with that id.
    pub(crate) fn index_of(id: &str) -> Option<usize> {
        INSTRUMENTS.iter().position(|instrument| instrument.id == id)
    }

    /// A price in account currency.
    pub(crate) fn price(&self, ticks: u64) -> f64 {
        money(ticks as i64 * self.tick_cents)
    }

    /// The ticks of a price in account currency.
    pub(crate) fn ticks(&self, price: f64) -> u64 {
        (price * 100.0 / self.tick_cents as f64).round().max(0.0) as u64
    }

    /// What `lots` are worth at that price, in cents.
    pub(crate) fn value_cents(&self, ticks: u64, lots: u64) -> i64 {
        ticks as i64 * self.tick_cents * self.multiplier * lots as i64
    }

    /// The margin of `lots` at that price, in cents.
    pub(crate) fn margin_cents(&self, ticks: u64, lots: u64) -> i64 {
        self.value_cents(ticks, lots) / 1000 * self.margin_permille
    }

    /// Lowest and highest price that an order may have, in ticks.
    pub(crate) fn band(&self) -> (u64, u64) {
        let width = self.reference * BAND_PERMILLE / 1000;
        (self.reference - width, self.reference + width)
    }
}

/// Cents as account currency.
pub(crate) fn money(cents: i64) -> f64 {
    cents as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_keeps_its_ticks_through_the_wire() {
        for instrument in INSTRUMENTS {
            let (low, high) = instrument.band();
            for ticks in [low, low + 1, instrument.reference, high - 1, high] {
                assert_eq!(instrument.ticks(instrument.price(ticks)), ticks, "{}", instrument.id);
            }
        }
    }
}
