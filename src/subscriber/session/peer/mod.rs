//! State of one listen address: its connection, its liveness, and since when topics are in force there. Pure.
//!
//! An address is alive as long as anything is received from it. It is probed when nothing has come for longer than a
//! hello period, and from time to time in any case. Since the answer may stand behind a backlog, an unanswered probe
//! counts only if nothing at all has come since, or if a hello without delay has overtaken the question.

mod due;
mod proof;
mod questions;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::event::SyncReason;
use crate::update::Name;

use super::delay::Delay;
use super::probe::Probe;
use super::times::Times;
pub(super) use due::Due;
pub(super) use proof::Proof;
pub(super) use questions::Greeting;

/// Part of a period, in addition to the time that answers take, that a question is given to arrive, and its answer to
/// follow a hello that has overtaken it.
const PASSING: f64 = 0.2;

/// A hello delayed by less than this part of a hello period counts as not delayed.
const UNDELAYED: f64 = 0.3;

/// What a subscription takes at most on its way up a slow connection, and the most that are counted.
const SUBSCRIPTION: Duration = Duration::from_millis(1);
const MAX_AHEAD: u64 = 60_000;

/// Part of a hello period within which an address is reported lost, or live again, at a random moment: when many
/// subscribers lose a publisher, their programs do not all read the store at once.
pub(super) const MOST_HELD: f64 = 0.5;

/// How long an address may stay without a first connection until that is reported.
const UNREACHED: Duration = Duration::from_secs(10);

/// The longest wait before a silent connection is begun anew.
const MAX_RENEWAL: Duration = Duration::from_secs(5);

/// The registered addresses.
pub(super) type Peers = BTreeMap<Name, Peer>;

#[derive(Debug)]
pub(super) struct Peer {
    /// Identifies the registration of the address.
    pub(super) registration: u64,
    phase: Phase,
    /// The generations of topics that were confirmed on this connection, rising, each with its time.
    confirmed: Vec<(u64, Instant)>,
    /// The address was reported live.
    told: bool,
    was_live: bool,
    /// The publisher has said goodbye, and no new connection was made since.
    is_at_peace: bool,
    /// An answer has come since the address was registered.
    has_answered: bool,
    /// The publisher that answers at the address, and its run.
    owner: Option<(Name, u64)>,
    /// When something was last received.
    heard: Instant,
    /// When the last answered question was asked.
    proven: Instant,
    /// Silence before this moment does not count, since this process could not read.
    excused: Instant,
    /// The publisher's own period, if its regular hellos are the answers: over a multicast it hears no questions.
    period: Option<Duration>,
    /// The transport's byte count when the address was asked.
    received: Option<u64>,
    probe: Option<Probe>,
    delay: Delay,
    /// The publisher does not receive questions, so its messages are no reason to keep the connection.
    is_deaf: bool,
    /// How long the last answer took.
    took: Duration,
    /// The number of subscribers of the publisher.
    crowd: u32,
    /// When to report that there has been no connection yet.
    unreached_at: Option<Instant>,
    /// When to report that the address is lost, and that it is live.
    lost_at: Option<Instant>,
    live_at: Option<Instant>,
    retry_wait: Duration,
    /// Count of invalid frames; `None` after the first valid one.
    malformed: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected; the driver is asked again at this time.
    Down { retry_at: Option<Instant> },
    /// Connected, and waiting for the answer.
    Unconfirmed,
    /// The address has answered. It is asked again at this time, or after `patience` without input.
    Live { ask_at: Instant, patience: Duration },
    /// The address does not answer. Topics up to this generation are assumed to be in force at this time.
    NoHello { assume: Option<(u64, Instant)> },
    /// Nothing comes any more. The connection is begun anew at this time, unless something comes before; a little later
    /// if there is unread input.
    Stalled { renew_at: Instant, latest: Instant },
}

impl Peer {
    pub(super) fn new(registration: u64, was_live: bool, now: Instant, times: &Times) -> Peer {
        Peer {
            registration,
            phase: Phase::Down { retry_at: None },
            confirmed: Vec::new(),
            told: false,
            was_live,
            is_at_peace: false,
            has_answered: false,
            owner: None,
            heard: now,
            proven: now,
            excused: now,
            period: None,
            received: None,
            probe: None,
            delay: Delay::default(),
            is_deaf: false,
            took: Duration::ZERO,
            crowd: 0,
            unreached_at: Some(after(now, UNREACHED)),
            lost_at: None,
            live_at: None,
            retry_wait: times.retry_interval,
            malformed: Some(0),
        }
    }

    /// Notes input. Returns true if the address was stalled and is to be probed.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        self.heard = self.heard.max(now);
        if let Some(probe) = &mut self.probe {
            probe.unread_since = None;
        }
        match &mut self.phase {
            Phase::Stalled { renew_at, latest } => {
                if !self.is_deaf {
                    // It is alive: the answer to the last question may still be on its way.
                    *renew_at = after(now, MAX_RENEWAL);
                    *latest = after(*renew_at, MAX_RENEWAL);
                }
                self.probe.as_ref().is_none_or(|probe| probe.again_at <= now)
            }
            _ => false,
        }
    }

    /// Handles a round of hellos of this run, sent to `crowd` subscribers at `said` by the publisher's own clock, if
    /// that has read all questions.
    pub(super) fn hear_round(
        &mut self,
        from: (&Name, u64),
        said: Option<Duration>,
        crowd: u32,
        now: Instant,
        times: &Times,
    ) {
        if self.owner() != Some(from) {
            return;
        }
        self.crowd = crowd;
        let late = said.and_then(|said| self.delay.hear(said, now));
        let late = late.filter(|late| *late < times.hello_interval.mul_f64(UNDELAYED));
        let confirmed = self.generation();
        if let Some(probe) = &mut self.probe {
            // The question is behind the subscriptions that are not in force yet.
            let ahead = SUBSCRIPTION * (probe.generation.saturating_sub(confirmed).min(MAX_AHEAD) as u32);
            let margin = times.hello_interval.mul_f64(PASSING) + self.took * 2 + ahead;
            let has_passed = late.is_some_and(|late| now >= after(probe.asked, margin + late));
            match has_passed {
                true => probe.pass_by(margin, now),
                false => probe.forget_hellos(),
            }
        }
    }

    /// Counts valid and invalid frames. Returns true when it is to be reported that no frame was valid.
    pub(super) fn understood(&mut self, sense: bool) -> bool {
        /// Number of invalid frames in a row that are no accident.
        const SENSELESS: u32 = 100;
        match &mut self.malformed {
            malformed if sense => *malformed = None,
            Some(count) => {
                *count = count.saturating_add(1);
                return *count == SENSELESS;
            }
            None => {}
        }
        false
    }

    /// Handles a new connection. The caller probes it and calls [`Peer::probed`].
    pub(super) fn connected(&mut self, now: Instant, times: &Times) {
        self.phase = Phase::Unconfirmed;
        self.unreached_at = None;
        self.is_deaf = false;
        self.confirmed.clear();
        self.told = false;
        self.is_at_peace = false;
        // The present publisher is not known yet.
        self.owner = None;
        self.probe = None;
        self.heard = now;
        self.received = None;
        self.retry_wait = times.retry_interval;
        self.malformed = Some(0);
    }

    /// Called when the driver could not begin to connect; it is asked again.
    pub(super) fn refused(&mut self, now: Instant, times: &Times, jitter: &mut fastrand::Rng) {
        // The reason is reported.
        self.unreached_at = self.unreached_at.map(|_| after(now, UNREACHED));
        if let Phase::Down { retry_at } = &mut self.phase {
            *retry_at = Some(after(now, self.retry_wait.mul_f64(1.0 - 0.2 * jitter.f64())));
            self.retry_wait = self
                .retry_wait
                .saturating_mul(2)
                .min(times.retry_max.max(times.retry_interval));
        }
    }

    /// The event for an address that is live, or assumed to send no hellos; once for each connection.
    pub(super) fn tell(&mut self, address: &Name) -> Option<SyncReason> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let address = address.clone();
        Some(match std::mem::replace(&mut self.was_live, true) {
            false => SyncReason::Connected { address },
            true => SyncReason::Reconnected { address },
        })
    }

    /// Handles the end of the connection. Returns true if the address was reported live.
    pub(super) fn disconnected(&mut self, now: Instant, times: &Times) -> bool {
        // A transport that reconnects by itself ignores a second request.
        let retry_at = Some(after(now, times.retry_interval));
        self.end(Phase::Down { retry_at })
    }

    /// Called when the connection is about to be begun anew.
    pub(super) fn renewed(&mut self) {
        self.end(Phase::Down { retry_at: None });
    }

    /// Handles silence. Returns true if the address was reported live.
    pub(super) fn stall(&mut self, now: Instant, times: &Times, jitter: &mut fastrand::Rng) -> bool {
        let wait = times.hello_interval.min(MAX_RENEWAL);
        let renew_at = after(now, wait.mul_f64(0.3 + 0.7 * jitter.f64()));
        let mut probe = self.probe.take();
        let latest = after(renew_at, MAX_RENEWAL);
        let told = self.end(Phase::Stalled { renew_at, latest });
        // Only hellos that come from now on overtake it.
        probe.iter_mut().for_each(Probe::forget_hellos);
        self.probe = probe;
        told
    }

    fn end(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        self.live_at = None;
        self.confirmed.clear();
        self.probe = None;
        std::mem::take(&mut self.told)
    }

    /// Sets the time to report that the address is lost.
    pub(super) fn tell_lost_at(&mut self, at: Instant) {
        self.lost_at = Some(at);
    }

    /// Cancels the report of a loss. Returns true if one was due.
    pub(super) fn take_lost(&mut self) -> bool {
        self.lost_at.take().is_some()
    }

    /// Notes the publisher's goodbye.
    pub(super) fn rest(&mut self) {
        self.is_at_peace = true;
    }
}
