//! Turns of sync events and updates when both wait. Without a clock.

use std::time::{Duration, Instant};

use super::alerts::Alerts;
use crate::event::SyncReason;

/// How long the updates' turn lasts.
const TURN: Duration = Duration::from_secs(1);

/// Sync events go first, but not for ever: those that arrive while others are handed out wait for the end of the
/// updates' turn, which lasts a second, or until none is left.
///
/// An overflow always lets the updates go first: once the queue is drained the burst is over, so that it is reported
/// once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: Turn,
    /// Until when the pending overflow waits.
    overflow_due: Option<Instant>,
}

#[derive(Debug, Default)]
enum Turn {
    /// Sync events go first, if there are any.
    #[default]
    Free,
    /// This many more sync events go first.
    Syncs(usize),
    /// Updates go first until then.
    Updates(Instant),
}

impl Turns {
    /// True right after a sync event: the next event may begin the updates' turn.
    pub(super) fn is_of_syncs(&self) -> bool {
        matches!(self.turn, Turn::Syncs(_))
    }

    /// The sync event, if any, that goes before the waiting updates.
    pub(super) fn before_updates(&mut self, alerts: &mut Alerts, now: Instant) -> Option<SyncReason> {
        if let Some(overflow) = self.due_overflow(alerts, now) {
            return Some(overflow);
        }
        let left = match self.turn {
            Turn::Updates(until) if now < until => return None,
            Turn::Syncs(left) => left,
            _ if alerts.waiting() == 0 => return None,
            _ => alerts.waiting(),
        };
        let reason = if left > 0 { alerts.pop() } else { None };
        self.turn = match &reason {
            Some(_) => Turn::Syncs(left - 1),
            None => Turn::Updates(now + TURN),
        };
        reason
    }

    /// Called when no update is left.
    pub(super) fn end(&mut self) {
        self.turn = Turn::Free;
    }

    /// The next sync event when no update is left.
    pub(super) fn without_updates(&mut self, alerts: &mut Alerts) -> Option<SyncReason> {
        let reason = alerts.pop();
        if reason.is_some() {
            self.turn = Turn::Syncs(alerts.waiting());
        }
        reason.or_else(|| self.overflow(alerts))
    }

    /// The overflow, if it has waited long enough.
    pub(super) fn due_overflow(&mut self, alerts: &mut Alerts, now: Instant) -> Option<SyncReason> {
        if !alerts.has_overflow() {
            return None;
        }
        let due = *self.overflow_due.get_or_insert(now + TURN);
        if now < due { None } else { self.overflow(alerts) }
    }

    /// The overflow, without waiting.
    pub(super) fn overflow(&mut self, alerts: &mut Alerts) -> Option<SyncReason> {
        self.overflow_due = None;
        let dropped = alerts.pop_overflow()?;
        Some(SyncReason::Overflow { dropped })
    }

    /// Until when the overflow waits, if one was looked at.
    pub(super) fn overflow_due(&self) -> Option<Instant> {
        self.overflow_due
    }
}
