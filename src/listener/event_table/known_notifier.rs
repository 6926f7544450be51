//! A listener's knowledge of a notifier: which of its messages are stray copies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct KnownNotifier {
    /// Events below this are settled: any message with one is a stray copy.
    low: u64,
    /// The last try heard of for each event: an earlier one is a stray copy too.
    pub(super) tries: BTreeMap<u64, u32>,
    pub(super) heard: Instant,
    /// When the next receipt may go.
    next_receipt: Instant,
}

/// How long a receipt waits for others, and for an acknowledgement that makes it unnecessary, and how long the next one
/// waits after it.
pub(super) const RECEIPT: Duration = Duration::from_millis(20);
pub(super) const RECEIPTS_APART: Duration = Duration::from_millis(200);

/// The most tries known of all notifiers, but of each at least this many.
const MAX_TRIES: usize = 1 << 19;
const MIN_TRIES: usize = 64;

impl KnownNotifier {
    pub(super) fn new(now: Instant) -> KnownNotifier {
        KnownNotifier {
            low: 0,
            tries: BTreeMap::new(),
            heard: now,
            next_receipt: now,
        }
    }

    /// Notes that it has sent a message: all below `low` is settled. Returns the events of which that is news. `all`
    /// counts the tries of all notifiers.
    pub(super) fn receive(&mut self, low: u64, all: &mut usize, now: Instant) -> impl Iterator<Item = u64> + use<> {
        self.heard = now;
        let mut settled = BTreeMap::new();
        if low > self.low {
            self.low = low;
            let left = self.tries.split_off(&low);
            settled = std::mem::replace(&mut self.tries, left);
            *all -= settled.len();
        }
        settled.into_keys()
    }

    /// Takes note of a try; returns true if it is no stray copy.
    pub(super) fn is_new(&mut self, number: u64, attempt: u32, all: &mut usize) -> bool {
        if number < self.low {
            return false;
        }
        let before = self.tries.len();
        let last = self.tries.entry(number).or_insert(0);
        let is_new = attempt > *last;
        *last = attempt.max(*last);
        *all += self.tries.len() - before;
        if *all > MAX_TRIES && self.tries.len() > MIN_TRIES {
            self.tries.pop_first();
            *all -= 1;
        }
        is_new
    }

    /// When to send the receipt for an event that has just arrived.
    pub(super) fn receipt(&mut self, now: Instant) -> Instant {
        let soon = now + RECEIPT;
        if soon >= self.next_receipt {
            self.next_receipt = soon + RECEIPTS_APART;
            return soon;
        }
        self.next_receipt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tries_of_all_notifiers_are_bounded() {
        let now = Instant::now();
        let (mut one, mut other, mut all) = (KnownNotifier::new(now), KnownNotifier::new(now), 0);
        for number in 0..MAX_TRIES as u64 {
            assert!(one.is_new(number, 1, &mut all));
        }
        for number in 0..100 {
            assert!(other.is_new(number, 1, &mut all) && !other.is_new(number, 1, &mut all));
        }
        let (most, least) = (MAX_TRIES, MIN_TRIES);
        assert_eq!((one.tries.len(), other.tries.len(), all), (most, least, most + least));
        assert!(one.is_new(most as u64, 1, &mut all));
        assert_eq!((one.tries.len(), all), (most, most + least));
        assert_eq!(one.receive(most as u64 - 10, &mut all, now).count(), most - 11);
        assert_eq!((one.tries.len(), all), (11, 11 + least));
        assert!(!one.is_new(most as u64, 1, &mut all) && !one.is_new(0, 9, &mut all));
    }
}
