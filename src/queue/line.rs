//! The senders that wait for room.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender};

/// Senders that wait for room, by number: the first to come is served first, and no other one is woken.
#[derive(Default)]
pub(super) struct Line {
    came: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    wanted: usize,
    granted: Sender<usize>,
}

impl Line {
    /// Adds a sender that wants room for this many updates. It hears on the channel how much it got, and must
    /// [leave](Line::leave) before it gives up.
    pub(super) fn join(&mut self, wanted: usize) -> (u64, Receiver<usize>) {
        let (granted, hears) = crossbeam_channel::bounded(1);
        self.came += 1;
        self.waiting.insert(self.came, Waiting { wanted, granted });
        (self.came, hears)
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Serves the senders in turn until `reserve` returns 0 for one.
    pub(super) fn serve(&mut self, reserve: impl Fn(usize) -> usize) {
        while let Some(first) = self.waiting.first_entry() {
            let room = reserve(first.get().wanted);
            if room == 0 {
                return;
            }
            let _ = first.remove().granted.send(room);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn room_is_given_in_turn() {
        let mut line = Line::default();
        let [(_, first), (number, second), (_, third)] = [3, 4, 2].map(|wanted| line.join(wanted));
        let room = Cell::new(0);
        let reserve = |wanted| {
            let got = if wanted <= room.get() { wanted } else { 0 };
            room.set(room.get() - got);
            got
        };
        let heard = || [&first, &second, &third].map(|granted| granted.try_recv().ok());
        let mut serve = |more, leaves| {
            room.set(room.get() + more);
            if leaves {
                line.leave(number);
            }
            line.serve(reserve);
            (heard(), line.is_empty())
        };
        assert_eq!(serve(2, false), ([None; 3], false));
        assert_eq!(serve(4, false), ([Some(3), None, None], false));
        // Enough for the third one, which has to wait for the second.
        assert_eq!(serve(0, false), ([None; 3], false));
        assert_eq!(serve(0, true), ([None, None, Some(2)], true));
    }
}
