//! The last N message ids, exactly: first in, first out.
//!
//! An id gets in when its record is journalled and not before, so that a retry after a failure is never taken for a
//! duplicate. At the bound the oldest id leaves; a record that comes again after that is not recognised by its id.

use std::collections::VecDeque;

use bellwire::MessageId;
use hashbrown::HashSet;

/// How many ids are remembered unless the configuration says otherwise.
pub const DEDUP_WINDOW_DEFAULT: usize = 10_000;
/// Most ids that the configuration may ask for: about 600 MB.
pub const DEDUP_WINDOW_MAX: usize = 16 << 20;

/// The window.
pub(super) struct Dedup {
    /// Oldest first; never longer than `window`.
    order: VecDeque<MessageId>,
    ids: HashSet<MessageId>,
    window: usize,
}

impl Dedup {
    /// An empty window for that many ids; with 0 nothing is ever a duplicate.
    pub(super) fn new(window: usize) -> Self {
        // Twice the room: ids come and go for ever, and a table that is nearly full has to be cleaned up all the time.
        Self { order: VecDeque::with_capacity(window), ids: HashSet::with_capacity(2 * window), window }
    }

    /// Whether that id is in the window.
    #[inline]
    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }

    /// Remembers the id of a record that was journalled. An id that is in the window already keeps its place.
    #[inline]
    pub(super) fn remember(&mut self, id: MessageId) {
        if self.window == 0 || !self.ids.insert(id) {
            return;
        }
        if self.order.len() == self.window
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId::compose(1, number, 1)
    }

    #[test]
    fn the_window_forgets_the_oldest_id_and_no_other() {
        let mut dedup = Dedup::new(3);
        for number in 1..=4 {
            dedup.remember(id(number));
        }
        let known: Vec<_> = (1..=5).filter(|number| dedup.contains(id(*number))).collect();
        assert_eq!(known, [2, 3, 4]);
    }

    #[test]
    fn a_window_of_zero_knows_nothing() {
        let mut dedup = Dedup::new(0);
        dedup.remember(id(1));
        assert!(!dedup.contains(id(1)));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_the_last_n(window in 1usize..20, ids in prop::collection::vec(0u64..40, 0..300)) {
            let mut dedup = Dedup::new(window);
            let mut list: Vec<u64> = Vec::new();
            for number in ids {
                let is_known = list.iter().rev().take(window).any(|known| *known == number);
                prop_assert_eq!(dedup.contains(id(number)), is_known);
                if !is_known {
                    dedup.remember(id(number));
                    list.push(number);
                }
            }
        }
    }
}
