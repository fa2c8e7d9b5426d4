//! Rounds over all lanes, for consumers that just want the notifications.

use super::LaneInfo;
use super::lanes::Lanes;
use crate::notification::{NotificationView, Priority};

/// How many notifications of each priority one round takes, over all lanes together.
///
/// What is there at the round's start is all that a round takes, so that no flood of one class starves the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most notifications of P0, P1, P2 and P3 in one round.
    pub records_max: [usize; 4],
}

impl Default for Budget {
    /// All of P0 and P1, 100 of P2, 50 of P3.
    fn default() -> Self {
        Self { records_max: [usize::MAX, usize::MAX, 100, 50] }
    }
}

pub(super) fn round(
    lanes: &mut Lanes,
    scratch: &mut Vec<u8>,
    budget: Budget,
    mut f: impl FnMut(&LaneInfo, NotificationView<'_>),
) -> usize {
    let attachment = lanes.attachment();
    let mut total = 0;
    for ring in Priority::ALL.map(Priority::index) {
        let mut left = budget.records_max[ring];
        for id in lanes.ids() {
            let lane = lanes.get_mut(id);
            // What is there now, before anything that comes meanwhile.
            let end = lane.rings[ring].committed();
            while left > 0 {
                let shown = match lane.next(attachment, ring, scratch) {
                    Ok(Some(found)) => {
                        let slot = lane.slot(ring, found, scratch);
                        if slot.position() >= end {
                            break;
                        }
                        slot.view().map(|view| f(&lane.info, view))
                    }
                    Ok(None) => break,
                    Err(fault) => Err(fault),
                };
                if let Err(fault) = shown {
                    lane.info.quarantined = Some(fault);
                    break;
                }
                lane.advance(ring);
                left -= 1;
                total += 1;
            }
        }
    }
    total
}
