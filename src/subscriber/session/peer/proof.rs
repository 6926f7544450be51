//! The state of an address as others see it, and its proofs.

use std::time::Instant;

use crate::subscriber::status::AddressState;
use crate::update::Name;

use super::{Peer, Phase};

/// Maximum of confirmations kept for an address.
const MAX_CONFIRMATIONS: usize = 64;

/// The proof that an address gives about messages sent from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::subscriber::session) enum Proof {
    /// The address does not answer.
    None,
    /// An answer may come soon.
    Awaited,
    /// Everything sent by then has arrived, or is lost.
    Until(Instant),
}

impl Peer {
    /// The state that programs see: live only if all current topics are in force.
    pub(in crate::subscriber::session) fn state(&self, generation: u64) -> AddressState {
        match self.phase {
            Phase::Down { .. } => AddressState::Connecting,
            Phase::Unconfirmed | Phase::Stalled { .. } => AddressState::Unconfirmed,
            Phase::Live { .. } if self.generation() < generation || !self.told => AddressState::Unconfirmed,
            Phase::Live { .. } => AddressState::Live,
            Phase::NoHello { .. } => AddressState::NoHello,
        }
    }

    /// True if the address answers, or is assumed to send no hellos.
    pub(in crate::subscriber::session) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Live { .. } | Phase::NoHello { .. })
    }

    /// True if there is a connection and an event about it comes soon.
    pub(in crate::subscriber::session) fn is_unsure(&self) -> bool {
        self.live_at.is_some() || matches!(self.phase, Phase::Unconfirmed | Phase::Stalled { .. })
    }

    /// True if the address was reported live on this connection.
    pub(in crate::subscriber::session) fn is_told(&self) -> bool {
        self.told
    }

    /// True if the address was ever reported live.
    pub(in crate::subscriber::session) fn was_live(&self) -> bool {
        self.was_live
    }

    pub(in crate::subscriber::session) fn owner(&self) -> Option<(&Name, u64)> {
        self.owner.as_ref().map(|(publisher, epoch)| (publisher, *epoch))
    }

    /// True if the publisher there has said goodbye.
    pub(in crate::subscriber::session) fn is_at_peace(&self) -> bool {
        self.is_at_peace
    }

    /// True if the address answers, and no question is unanswered.
    pub(in crate::subscriber::session) fn is_askable(&self) -> bool {
        self.is_live() && self.probe.is_none()
    }

    /// True if the address has answered on this connection and was not found dead since.
    pub(in crate::subscriber::session) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// The generation of topics in force at the address.
    pub(in crate::subscriber::session) fn generation(&self) -> u64 {
        self.confirmed.last().map_or(0, |(generation, _)| *generation)
    }

    /// Since when topics of this generation are in force at the address; `None` if they are not.
    pub(in crate::subscriber::session) fn in_force_since(&self, generation: u64) -> Option<Instant> {
        let at = self.confirmed.partition_point(|(confirmed, _)| *confirmed < generation);
        self.confirmed.get(at).map(|(_, since)| *since)
    }

    /// The proof about messages sent from the address.
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
            // The second entry's topics now count as in force from the first one's time: a loss is reported rather than
            // not.
            let (_, since) = self.confirmed.remove(0);
            if let Some(first) = self.confirmed.first_mut() {
                first.1 = since;
            }
        }
    }
}
