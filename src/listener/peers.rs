//! The listeners as a notifier sees them: those it may choose, and how much it may have on its way to each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::envelope::Answers;
use crate::update::Name;

/// A listener's row: what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// True if it may be chosen.
    pub(super) may: bool,
    /// How many events it has waiting.
    pub(super) waiting: u64,
}

#[derive(Debug)]
pub(super) struct Peers {
    present: BTreeMap<Name, Peer>,
    choice: Choice,
    /// No window is larger.
    limit: usize,
    /// A listener that takes longer than this has too much to do.
    patience: Duration,
}

#[derive(Debug)]
struct Peer {
    may: bool,
    /// It has said that it is leaving.
    is_leaving: bool,
    waiting: u64,
    /// How many are on their way to it, or there.
    flying: usize,
    window: usize,
    /// When the window was last made smaller.
    shrunk: Option<Instant>,
}

/// A listener with this many events waiting gets only those that it must take, and one with this many more than another
/// is not chosen.
const CROWDED: u64 = 1024;
const BEHIND: u64 = 256;

/// It has something to do for longer than a message is on its way.
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

    /// The listeners registered now; true if one is gone.
    pub(super) fn set(&mut self, mut present: BTreeMap<Name, Standing>) -> bool {
        let before = self.present.len();
        self.present.retain(|name, peer| match present.remove(name) {
            Some(standing) => {
                peer.may = standing.may;
                // Its own report is newer, but it may have sent none for a while.
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
                shrunk: None,
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

    /// One to send a new event to, if one has room.
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

    /// How many events the one with the fewest has waiting.
    fn least_waiting(&self) -> u64 {
        let peers = self.present.values().filter(|peer| peer.may && !peer.is_leaving);
        peers.map(|peer| peer.waiting).min().unwrap_or(0)
    }

    /// True if every listener has enough waiting to do without another event.
    pub(super) fn are_busy(&self) -> bool {
        self.least_waiting() >= BUSY
    }

    /// True if one more may be sent to one that was chosen.
    pub(super) fn has_room(&self, name: &Name) -> bool {
        self.present.get(name).is_some_and(|peer| peer.flying < peer.window)
    }

    /// One for which `may` is true, however much it has.
    pub(super) fn draw(&mut self, may: impl Fn(&Name) -> bool) -> Option<Name> {
        self.choice.draw(may)
    }

    /// A listener's report about itself.
    pub(super) fn heard(&mut self, said: &Answers, now: Instant) {
        let Some(peer) = self.present.get_mut(&said.listener) else {
            return;
        };
        peer.waiting = said.waiting;
        if peer.waiting > CROWDED {
            peer.shrink(self.patience, now);
        }
        if said.leaving && !std::mem::replace(&mut peer.is_leaving, true) {
            self.choose_among();
        }
    }

    /// A listener has processed an event, `took` after it was sent there.
    pub(super) fn processed(&mut self, name: &Name, took: Duration, now: Instant) {
        let (limit, patience) = (self.limit, self.patience);
        let Some(peer) = self.present.get_mut(name) else {
            return;
        };
        if took > patience {
            peer.shrink(took, now);
        } else if peer.waiting <= CROWDED {
            peer.window = limit.min(peer.window.saturating_add(1));
        }
    }

    /// One more, or one less, is on its way to this listener.
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
        if self.shrunk.is_none_or(|at| now.saturating_duration_since(at) >= time) {
            self.shrunk = Some(now);
            self.window = (self.window - self.window.div_ceil(4)).max(1);
        }
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

    fn said(listener: &str, waiting: u64, leaving: bool) -> Answers {
        Answers {
            listener: listener.into(),
            waiting,
            leaving,
            about: Vec::new(),
        }
    }

    /// How many a listener gets before there is no room.
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
        let mut peers = peers(&[("a", 0)]);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(room(&mut peers), 8);
        let slow = PATIENCE + Duration::from_millis(1);
        peers.processed(&"a".into(), slow, at(0));
        assert_eq!(room(&mut peers), 6);
        // Events sent before it shrank say nothing new.
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
        // It says itself that much is waiting.
        peers.heard(&said("a", CROWDED + 1, false), at(30_000));
        peers.heard(&said("a", CROWDED + 1, false), at(30_001));
        assert_eq!(room(&mut peers), 6);
    }

    #[test]
    fn who_has_much_more_waiting_than_another_is_not_chosen() {
        let mut peers = peers(&[("a", 0), ("b", 2000)]);
        let now = Instant::now();
        assert!((0..5).all(|_| peers.next().is_some_and(|name| name == "a")));
        // If all have as much, each is.
        peers.heard(&said("a", 1000, false), now);
        let chosen: Vec<_> = (0..6).map(|_| peers.next().unwrap()).collect();
        assert!(chosen.iter().any(|name| name == "b"));
        peers.heard(&said("a", 1000, true), now);
        assert!((0..5).all(|_| peers.next().is_some_and(|name| name == "b")));
    }
}
