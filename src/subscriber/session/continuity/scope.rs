//! The topics and addresses that decide whether a loss is reported.

use std::time::Instant;

use crate::subscriber::session::peer::Peers;
use crate::subscriber::session::topics::Topics;
use crate::update::{Name, Topic};

use super::run::{Run, RunState};

/// Maximum of publishers and sequences followed through one address (at most about 40 MiB), unless there are many
/// topics. Beyond it, the runs of that address that were not heard for longest are forgotten.
pub(in crate::subscriber::session) const MAX_SIZE: usize = 1 << 16;

/// With many topics, this many publishers may use all of them: to forget one of them while it is in use would report
/// updates as unproven that were not missed.
const MANY: usize = 16;

/// The registered topics and the state of the addresses, which decide whether a loss is reported.
#[derive(Debug, Clone, Copy)]
pub(in crate::subscriber::session) struct Scope<'a> {
    pub(in crate::subscriber::session) topics: &'a Topics,
    pub(in crate::subscriber::session) peers: &'a Peers,
}

impl Scope<'_> {
    /// Maximum of publishers and sequences followed through one address.
    pub(super) fn most(&self) -> usize {
        MAX_SIZE.max(MANY * (self.topics.len() + 1))
    }

    /// True if this run answers questions at its own address, and not at this one: what comes from here in its name is
    /// a copy, or forged.
    pub(super) fn is_elsewhere(&self, publisher: &Name, run: &Run, address: &str) -> bool {
        let answers_at = |address: &str| {
            let peer = self.peers.get(address);
            peer.is_some_and(|peer| peer.is_live() && peer.owner() == Some((publisher, run.epoch)))
        };
        run.state == RunState::Running && run.address != *address && answers_at(&run.address) && !answers_at(address)
    }

    /// True if some topic is not [covered](Scope::is_covered).
    pub(super) fn is_any_uncovered(&self, address: &str, sent_by: Instant) -> bool {
        let mut topics = self.topics.iter();
        topics.any(|(topic, _)| !self.is_covered(topic, address, sent_by))
    }

    /// True if the program knows, or soon will know, what was sent on the topic by `sent_by` and heard through this
    /// address.
    pub(super) fn is_covered(&self, topic: &Topic, address: &str, sent_by: Instant) -> bool {
        let Some((covered, generation)) = self.topics.covered(topic) else {
            return true;
        };
        let since = self.peers.get(address).and_then(|peer| peer.in_force_since(generation));
        since.is_none_or(|since| sent_by <= since.max(covered))
    }
}
