//! The listeners as a notifier sees them: which it may choose, and how many events it may have under way to each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::messages::Answers;
use crate::update::Name;

/// A listener's state according to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// True if it may be chosen.
    pub(super) may: bool,
    /// The number of events waiting there.
    pub(super) waiting: u64,
}

#[derive(Debug)]
pub(super) struct Peers {
    present: BTreeMap<Name, Peer>,
    choice: Choice,
    /// The largest window.
    limit: usize,
    /// A listener that takes longer than this is overloaded.
    patience: Duration,
}

#[derive(Debug)]
struct Peer {
    may: bool,
    /// It has announced that it is leaving.
    is_leaving: bool,
    waiting: u64,
    /// The number of events under way to it, or there.
    flying: usize,
    window: usize,
    /// When the window last shrank, or grew in spite of slow events.
    changed: Option<Instant>,
}

/// A listener with this many events waiting shrinks its window, and one with this many more than another is not chosen.
const CROWDED: u64 = 1024;
const BEHIND: u64 = 256;

/// A listener with this many events waiting has work for longer than a message takes.
const BUSY: u64 = 256;

impl Peers {
    pub(super) fn new(limit: usize, patience: Duration) -> Peers {
        Peers {
            present: BTreeMap::new(),
            choice: Choice::default(),
            limit: limit.max(1),
            patience,
        }
    }

    /// Takes the registered listeners; returns true if one is gone.
    pub(super) fn set(&mut self, mut present: BTreeMap<Name, Standing>) -> bool {
        let before = self.present.len();
        self.present.retain(|name, peer| match present.remove(name) {
            Some(standing) => {
                peer.may = standing.may;
                // Its answers are newer than its row, but without events there are none.
                if peer.flying == 0 {
                    peer.waiting = standing.waiting;
                }
                true
            }
            None => false,
        });
        let is_one_gone = self.present.len() < before;
        for (name, Standing { may, waiting }) in present {
            let peer = Peer {
                may,
                is_leaving: false,
                waiting,
                flying: 0,
                window: self.limit,
                changed: None,
            };
            self.present.insert(name, peer);
        }
        self.choose_among();
        is_one_gone
    }

    fn choose_among(&mut self) {
        let may = |(_, peer): &(&Name, &Peer)| peer.may && !peer.is_leaving;
        let chosen = self.present.iter().filter(may).map(|(name, _)| name.clone());
        self.choice.set(chosen.collect());
    }

    pub(super) fn is_present(&self, name: &Name) -> bool {
        self.present.contains_key(name)
    }

    /// True if no listener may be chosen.
    pub(super) fn is_empty(&self) -> bool {
        self.choice.is_empty()
    }

    /// Chooses a listener for a new event, if one has room.
    pub(super) fn next(&mut self) -> Option<Name> {
        let least = self.least_waiting();
        let present = &self.present;
        self.choice.draw(|name| {
            let peer = present.get(name);
            peer.is_some_and(|peer| {
                peer.flying < peer.window && peer.waiting <= least.saturating_mul(2).saturating_add(BEHIND)
            })
        })
    }

    /// The smallest number of events waiting at a listener.
    fn least_waiting(&self) -> u64 {
        let peers = self.present.values().filter(|peer| peer.may && !peer.is_leaving);
        peers.map(|peer| peer.waiting).min().unwrap_or(0)
    }

    /// True if every listener has enough events waiting that a new one may wait here.
    pub(super) fn are_busy(&self) -> bool {
        self.least_waiting() >= BUSY
    }

    /// True if a chosen listener may get one more event.
    pub(super) fn has_room(&self, name: &Name) -> bool {
        self.present.get(name).is_some_and(|peer| peer.flying < peer.window)
    }

    /// Chooses a listener for which `may` is true, whatever its load.
    pub(super) fn draw(&mut self, may: impl Fn(&Name) -> bool) -> Option<Name> {
        self.choice.draw(may)
    }

    /// Takes a listener's load from its answers.
    pub(super) fn answered(&mut self, answers: &Answers, now: Instant) {
        let Some(peer) = self.present.get_mut(&answers.listener) else {
            return;
        };
        peer.waiting = answers.waiting;
        if peer.waiting > CROWDED {
            peer.shrink(self.patience, now);
        }
        if answers.leaving && !std::mem::replace(&mut peer.is_leaving, true) {
            self.choose_among();
        }
    }

    /// Notes that a listener has processed an event, `took` after it was sent.
    pub(super) fn processed(&mut self, name: &Name, took: Duration, now: Instant) {
        let (limit, patience) = (self.limit, self.patience);
        let Some(peer) = self.present.get_mut(name) else {
            return;
        };
        if took <= patience {
            if peer.waiting <= CROWDED {
                peer.widen(limit);
            }
        } else if peer.waiting > 0 {
            peer.shrink(took, now);
        } else if peer.may_change(took, now) {
            // Its handler takes the time, and some of its workers may be idle.
            peer.widen(limit);
        }
    }

    /// Counts one more, or one fewer, event under way to this listener.
    pub(super) fn count(&mut self, name: &Name, is_more: bool) {
        if let Some(peer) = self.present.get_mut(name) {
            peer.flying = match is_more {
                true => peer.flying + 1,
                false => peer.flying.saturating_sub(1),
            };
        }
    }
}

impl Peer {
    /// Takes a quarter off the window, but only once in `time`.
    fn shrink(&mut self, time: Duration, now: Instant) {
        if self.may_change(time, now) {
            self.window = (self.window - self.window.div_ceil(4)).max(1);
        }
    }

    fn widen(&mut self, limit: usize) {
        self.window = limit.min(self.window.saturating_add(1));
    }

    /// True once in `time`: events of the window before say nothing about the new one.
    fn may_change(&mut self, time: Duration, now: Instant) -> bool {
        let may = self.changed.is_none_or(|at| now.saturating_duration_since(at) >= time);
        if may {
            self.changed = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn peers(names: &[(&str, u64)]) -> Peers {
        let mut peers = Peers::new(8, PATIENCE);
        let may = true;
        let present = names
            .iter()
            .map(|&(name, waiting)| (name.into(), Standing { may, waiting }));
        peers.set(present.collect());
        peers
    }

    fn answers(listener: &str, waiting: u64, leaving: bool) -> Answers {
        Answers {
            listener: listener.into(),
            waiting,
            leaving,
            about: Vec::new(),
        }
    }

    /// The number of events that fit into the windows.
    fn room(peers: &mut Peers) -> usize {
        let mut given = Vec::new();
        while let Some(name) = peers.next() {
            peers.count(&name, true);
            given.push(name);
        }
        given.iter().for_each(|name| peers.count(name, false));
        given.len()
    }

    #[test]
    fn a_window_shrinks_for_a_slow_listener_and_grows_again() {
        let mut peers = peers(&[("a", 1)]);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(room(&mut peers), 8);
        let slow = PATIENCE + Duration::from_millis(1);
        peers.processed(&"a".into(), slow, at(0));
        assert_eq!(room(&mut peers), 6);
        // Events sent before it shrank do not shrink it again.
        peers.processed(&"a".into(), slow, at(10));
        assert_eq!(room(&mut peers), 6);
        for step in 1..20 {
            peers.processed(&"a".into(), slow, at(step * 600));
        }
        assert_eq!(room(&mut peers), 1);
        for _ in 0..20 {
            peers.processed(&"a".into(), PATIENCE, at(20_000));
        }
        assert_eq!(room(&mut peers), 8);
        // It announces a high load itself.
        peers.answered(&answers("a", CROWDED + 1, false), at(30_000));
        peers.answered(&answers("a", CROWDED + 1, false), at(30_001));
        assert_eq!(room(&mut peers), 6);
    }

    #[test]
    fn a_slow_handler_without_a_queue_shrinks_no_window() {
        let mut peers = peers(&[("a", 1)]);
        let (mut now, slow) = (Instant::now(), 2 * PATIENCE);
        let mut after = |waiting, count: u32| {
            peers.answered(&answers("a", waiting, false), now);
            for _ in 0..count {
                now += slow;
                // Several at a time count as one.
                (0..5).for_each(|_| peers.processed(&"a".into(), slow, now));
            }
            room(&mut peers)
        };
        assert_eq!(after(0, 3), 8);
        assert_eq!(after(1, 20), 1);
        assert_eq!(after(0, 3), 4);
        assert_eq!(after(0, 20), 8);
    }

    #[test]
    fn who_has_much_more_waiting_than_another_is_not_chosen() {
        let mut peers = peers(&[("a", 0), ("b", 2000)]);
        let now = Instant::now();
        assert!((0..5).all(|_| peers.next().is_some_and(|name| name == "a")));
        // With similar loads each is chosen.
        peers.answered(&answers("a", 1000, false), now);
        let chosen: Vec<_> = (0..6).map(|_| peers.next().unwrap()).collect();
        assert!(chosen.iter().any(|name| name == "b"));
        peers.answered(&answers("a", 1000, true), now);
        assert!((0..5).all(|_| peers.next().is_some_and(|name| name == "b")));
    }
}
