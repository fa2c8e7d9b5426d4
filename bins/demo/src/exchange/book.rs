//! One instrument's limit order book: orderbook-rs behind the three calls that the engine needs.

use bellwire::Direction;
use orderbook_rs::{OrderBook, OrderBookError};
use pricelevel::{Id, MatchResult, Side, TimeInForce};

use super::OrderNumber;

/// A match of the incoming order with one that was resting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) maker: OrderNumber,
    pub(crate) ticks: u64,
    pub(crate) lots: u64,
}

/// The book refused. Its own words say why.
#[derive(Debug, thiserror::Error)]
#[error("book of {instrument}, order {order}: {why}")]
pub(crate) struct BookError {
    pub(crate) instrument: String,
    pub(crate) order: OrderNumber,
    pub(crate) why: String,
}

pub(crate) struct Book(OrderBook<()>);

impl Book {
    pub(crate) fn new(instrument: &str) -> Self {
        Self(OrderBook::new(instrument))
    }

    /// Matches a limit order; what is left of it rests in the book.
    pub(crate) fn limit(
        &mut self,
        order: OrderNumber,
        direction: Direction,
        ticks: u64,
        lots: u64,
    ) -> Result<Vec<Fill>, BookError> {
        let id = Id::Sequential(order);
        let outcome = self.0.add_limit_order_with_result(
            id,
            u128::from(ticks),
            lots,
            side(direction),
            TimeInForce::Gtc,
            None,
        );
        match outcome {
            Ok((_, trade)) => trade.map_or(Ok(Vec::new()), |trade| self.fills(order, &trade.match_result)),
            Err(error) => Err(self.refused(order, &error)),
        }
    }

    /// Matches a market order; what is left of it does not rest.
    pub(crate) fn market(
        &mut self,
        order: OrderNumber,
        direction: Direction,
        lots: u64,
    ) -> Result<Vec<Fill>, BookError> {
        match self.0.submit_market_order(Id::Sequential(order), lots, side(direction)) {
            Ok(outcome) => self.fills(order, &outcome),
            Err(OrderBookError::InsufficientLiquidity { .. }) => Ok(Vec::new()),
            Err(error) => Err(self.refused(order, &error)),
        }
    }

    /// Takes an order out. `Ok(false)`: it was not in the book.
    pub(crate) fn cancel(&mut self, order: OrderNumber) -> Result<bool, BookError> {
        match self.0.cancel_order(Id::Sequential(order)) {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(self.refused(order, &error)),
        }
    }

    /// Best bid and best ask, in ticks.
    pub(crate) fn best(&self) -> (Option<u64>, Option<u64>) {
        let ticks = |price: u128| u64::try_from(price).ok();
        (self.0.best_bid().and_then(ticks), self.0.best_ask().and_then(ticks))
    }

    fn fills(&self, order: OrderNumber, outcome: &MatchResult) -> Result<Vec<Fill>, BookError> {
        let fill =
            |trade: &pricelevel::Trade| match (trade.maker_order_id(), trade.price().as_u128().try_into()) {
                (Id::Sequential(maker), Ok(ticks)) => {
                    Ok(Fill { maker, ticks, lots: trade.quantity().as_u64() })
                }
                (maker, _) => {
                    Err(self.refused(order, &format!("a trade with {maker}, which nobody placed here")))
                }
            };
        outcome.trades().as_vec().iter().map(fill).collect()
    }

    fn refused(&self, order: OrderNumber, why: &impl ToString) -> BookError {
        BookError { instrument: self.0.symbol().to_owned(), order, why: why.to_string() }
    }
}

fn side(direction: Direction) -> Side {
    match direction {
        Direction::Buy => Side::Buy,
        Direction::Sell => Side::Sell,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;

    /// A book as one would write it on a blackboard: the oracle for the real one.
    #[derive(Default)]
    struct Blackboard {
        bids: BTreeMap<u64, VecDeque<(OrderNumber, u64)>>,
        asks: BTreeMap<u64, VecDeque<(OrderNumber, u64)>>,
    }

    impl Blackboard {
        fn take(&mut self, direction: Direction, limit: Option<u64>, mut lots: u64) -> (Vec<Fill>, u64) {
            let mut fills = Vec::new();
            while lots > 0 {
                let (book, best) = match direction {
                    Direction::Buy => {
                        let best = self.asks.keys().next().copied();
                        (&mut self.asks, best)
                    }
                    Direction::Sell => {
                        let best = self.bids.keys().next_back().copied();
                        (&mut self.bids, best)
                    }
                };
                let Some(ticks) = best else { break };
                let beyond = |limit| match direction {
                    Direction::Buy => ticks > limit,
                    Direction::Sell => ticks < limit,
                };
                if limit.is_some_and(beyond) {
                    break;
                }
                let queue = book.get_mut(&ticks).unwrap();
                let first = queue.front_mut().unwrap();
                let taken = first.1.min(lots);
                fills.push(Fill { maker: first.0, ticks, lots: taken });
                first.1 -= taken;
                lots -= taken;
                if first.1 == 0 {
                    queue.pop_front();
                }
                if queue.is_empty() {
                    book.remove(&ticks);
                }
            }
            (fills, lots)
        }

        fn limit(&mut self, order: OrderNumber, direction: Direction, ticks: u64, lots: u64) -> Vec<Fill> {
            let (fills, left) = self.take(direction, Some(ticks), lots);
            if left > 0 {
                let book = match direction {
                    Direction::Buy => &mut self.bids,
                    Direction::Sell => &mut self.asks,
                };
                book.entry(ticks).or_default().push_back((order, left));
            }
            fills
        }

        fn cancel(&mut self, order: OrderNumber) -> bool {
            for book in [&mut self.bids, &mut self.asks] {
                let at = book.iter().find_map(|(ticks, queue)| {
                    queue.iter().position(|resting| resting.0 == order).map(|index| (*ticks, index))
                });
                if let Some((ticks, index)) = at {
                    let queue = book.get_mut(&ticks).unwrap();
                    queue.remove(index);
                    if queue.is_empty() {
                        book.remove(&ticks);
                    }
                    return true;
                }
            }
            false
        }
    }

    #[test]
    fn the_book_matches_as_the_blackboard_does() {
        // It pays to compare: another published book was seen to fill limit orders beyond their limit.
        let mut random = fastrand::Rng::with_seed(7);
        let (mut book, mut blackboard) = (Book::new("TEST"), Blackboard::default());
        let (mut live, mut fills) = (Vec::new(), 0);
        for order in 1..20_000 {
            let direction = if random.bool() { Direction::Buy } else { Direction::Sell };
            let lots = random.u64(1..=20);
            let (found, expected) = match random.u8(0..10) {
                0..6 => {
                    let ticks =
                        10_000 + random.u64(0..100) - if direction == Direction::Buy { 60 } else { 40 };
                    live.push(order);
                    (
                        book.limit(order, direction, ticks, lots).unwrap(),
                        blackboard.limit(order, direction, ticks, lots),
                    )
                }
                6 => (book.market(order, direction, lots).unwrap(), blackboard.take(direction, None, lots).0),
                _ if live.is_empty() => continue,
                _ => {
                    let gone = live.swap_remove(random.usize(0..live.len()));
                    assert_eq!(book.cancel(gone).unwrap(), blackboard.cancel(gone), "cancel of {gone}");
                    (Vec::new(), Vec::new())
                }
            };
            assert_eq!(found, expected, "order {order}");
            fills += found.len();
            let best = (blackboard.bids.keys().next_back().copied(), blackboard.asks.keys().next().copied());
            assert_eq!(book.best(), best, "after order {order}");
        }
        assert!(fills > 5_000, "the flow hardly traded: {fills} fills");
    }
}
