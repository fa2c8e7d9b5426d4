//! An exchange in small, without a socket, a clock or a bus: given a seed, the same orders give the same events.
//!
//! ```text
//! flow ──Command──▶ matching (one book an instrument) ──Event──▶ the matching engine's lane
//!   ▲                  │                                              │ trades, read back from the bus
//!   └── MarketView ────┘                                              ▼
//!                                                       ledger ──▶ desk (risk)
//! ```
//!
//! Money is counted in whole cents and prices in whole ticks, so that "what one side lost the other side won" can be
//! checked to the cent.

pub(crate) mod book;
pub(crate) mod desk;
pub(crate) mod flow;
pub(crate) mod ledger;
pub(crate) mod market;
pub(crate) mod matching;

/// A trader, by number. [`user_id`] is his name on the bus.
pub(crate) type User = u32;

/// An order, by number, from 1. [`order_number`] finds the number in an order id.
pub(crate) type OrderNumber = u64;

/// The trader's name on the bus, for example `user_007`.
pub(crate) fn user_id(user: User) -> String {
    format!("user_{user:03}")
}

/// The trader with that name; `None` if it is not one of ours.
pub(crate) fn user_number(user_id: &str) -> Option<User> {
    user_id.strip_prefix("user_")?.parse().ok()
}

/// The number in an order id such as `O-00001234`.
pub(crate) fn order_number(order_id: &str) -> Option<OrderNumber> {
    order_id.strip_prefix("O-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_numbers() {
        assert_eq!(user_number(&user_id(7)), Some(7));
        assert_eq!(user_number(&user_id(12_345)), Some(12_345));
        assert_eq!(user_number("*"), None);
        assert_eq!(order_number("O-00001234"), Some(1234));
        assert_eq!(order_number("00001234"), None);
    }
}
