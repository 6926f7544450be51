//! State of an address, and its proofs.

use std::time::Instant;

use crate::subscriber::status::AddressState;
use crate::update::Name;

use super::{Peer, Phase};

/// Maximum of confirmations of an address that are kept apart.
const MAX_CONFIRMATIONS: usize = 64;

/// Proof by an address about messages sent from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::subscriber::session) enum Proof {
    /// It answers nothing.
    None,
    /// It may soon.
    Awaited,
    /// Everything that was sent by then has come, or is lost.
    Until(Instant),
}

impl Peer {
    /// The state as programs see it: live only if all of today's topics are in force.
    pub(in crate::subscriber::session) fn state(&self, generation: u64) -> AddressState {
        match self.phase {
            Phase::Down { .. } => AddressState::Connecting,
            Phase::Unconfirmed | Phase::Stalled { .. } => AddressState::Unconfirmed,
            Phase::Live { .. } if self.generation() < generation || !self.told => AddressState::Unconfirmed,
            Phase::Live { .. } => AddressState::Live,
            Phase::NoHello { .. } => AddressState::NoHello,
        }
    }

    /// True if it answers, or is taken to be one that never does.
    pub(in crate::subscriber::session) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Live { .. } | Phase::NoHello { .. })
    }

    /// True if a connection is there and an event about it comes soon.
    pub(in crate::subscriber::session) fn is_unsure(&self) -> bool {
        self.live_at.is_some() || matches!(self.phase, Phase::Unconfirmed | Phase::Stalled { .. })
    }

    /// True if the program knows it as live.
    pub(in crate::subscriber::session) fn is_told(&self) -> bool {
        self.told
    }

    /// True if it was ever reported live.
    pub(in crate::subscriber::session) fn was_live(&self) -> bool {
        self.was_live
    }

    pub(in crate::subscriber::session) fn owner(&self) -> Option<(&Name, u64)> {
        self.owner.as_ref().map(|(publisher, epoch)| (publisher, *epoch))
    }

    /// True if the last publisher there has said goodbye.
    pub(in crate::subscriber::session) fn is_at_peace(&self) -> bool {
        self.is_at_peace
    }

    /// True if it answers, and is not being asked.
    pub(in crate::subscriber::session) fn is_askable(&self) -> bool {
        self.is_live() && self.probe.is_none()
    }

    /// True if it has answered on this connection, and nothing is known against it.
    pub(in crate::subscriber::session) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// The generation of topics that is in force there.
    pub(in crate::subscriber::session) fn generation(&self) -> u64 {
        self.confirmed.last().map_or(0, |(generation, _)| *generation)
    }

    /// Since when topics of this generation are in force there; `None` if they are not.
    pub(in crate::subscriber::session) fn in_force_since(&self, generation: u64) -> Option<Instant> {
        let at = self.confirmed.partition_point(|(confirmed, _)| *confirmed < generation);
        self.confirmed.get(at).map(|(_, since)| *since)
    }

    /// Proof about messages sent from there.
    pub(in crate::subscriber::session) fn proof(&self) -> Proof {
        match self.phase {
            Phase::Live { .. } => Proof::Until(self.proven),
            Phase::Unconfirmed => Proof::Awaited,
            Phase::Down { .. } | Phase::NoHello { .. } | Phase::Stalled { .. } => Proof::None,
        }
    }

    pub(super) fn confirm(&mut self, generation: u64, now: Instant) {
        if generation <= self.generation() && !self.confirmed.is_empty() {
            return;
        }
        self.confirmed.push((generation, now));
        if self.confirmed.len() > MAX_CONFIRMATIONS {
            // The topics of the second count as in force since the first: rather reported than not.
            let (_, since) = self.confirmed.remove(0);
            if let Some(first) = self.confirmed.first_mut() {
                first.1 = since;
            }
        }
    }
}
