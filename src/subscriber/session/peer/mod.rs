//! State of one listen address: its connection, its liveness, and since when topics are in force there. Pure.
//!
//! An address is alive as long as anything is received from it. It is probed when nothing has come for longer than a
//! hello period, and from time to time in any case. Since the answer may stand behind a backlog, an unanswered probe
//! counts only if nothing at all has come since, or if a hello without delay has overtaken the question.

mod due;
mod proof;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::event::SyncReason;
use crate::update::{Name, Topic};

use super::delay::Delay;
use super::probe::Probe;
use super::times::Times;
pub(super) use due::Due;
pub(super) use proof::Proof;

/// Hello periods until an address is asked: after its last input, and after its last answer. Ranges, so that many
/// subscribers do not ask at once.
const ASK: (f64, f64) = (1.1, 1.3);
const ASK_AGAIN: (f64, f64) = (0.9, 1.1);

/// About how many questions a second all subscribers of a publisher ask together. The more subscribers there are, the
/// more rarely each asks while input comes.
const ASKED_A_SECOND: f64 = 300.0;

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

/// The sender of a hello.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) publisher: Name,
    /// Identifies the run of the publisher.
    pub(super) epoch: u64,
    /// When it was sent, by the publisher's own clock.
    pub(super) at: Option<Duration>,
    /// For a hello of a round, which no question caused: the longest time until the next one.
    pub(super) next: Option<Duration>,
}

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

    /// Called for a hello: if the address was assumed to send none, it is asked again soon.
    pub(super) fn hint(&mut self, now: Instant, times: &Times) {
        if let (Phase::NoHello { .. }, Some(probe)) = (self.phase, &mut self.probe) {
            let soon = after(probe.asked, times.live_timeout * 2).max(now);
            probe.again_at = probe.again_at.min(soon);
        }
    }

    /// How long the answer to the next probe may take. On a new connection without an answer by then, the address
    /// counts as one that sends no hellos. An address that has answered before gets more time, since it may be
    /// overloaded.
    pub(super) fn patience(&self, times: &Times) -> Duration {
        match (&self.probe, self.phase) {
            (Some(probe), _) => probe.longer(),
            (None, Phase::Unconfirmed) if self.has_answered => times.live_timeout * 5,
            (None, _) => times.live_timeout,
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

    /// Notes a probe that was sent, for topics up to `generation`.
    pub(super) fn probed(&mut self, topic: Topic, generation: u64, patience: Duration, now: Instant) {
        let mut probe = Probe::new(topic, generation, patience, now);
        if let Some(before) = self.probe.as_ref().filter(|_| self.is_live()) {
            probe.first_asked = self.unanswered_since().unwrap_or(now);
            probe.unread_since = before.unread_since;
        }
        self.probe = Some(probe);
    }

    /// The unanswered question.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Option<Topic> {
        self.probe.as_ref().map(|probe| probe.topic.clone())
    }

    /// Limits the unanswered question to topics up to this generation, since the later ones were refused.
    pub(super) fn limit(&mut self, generation: u64) {
        if let Some(probe) = &mut self.probe {
            probe.generation = probe.generation.min(generation);
        }
        if let Phase::NoHello {
            assume: Some((assumed, _)),
        } = &mut self.phase
        {
            *assumed = generation.min(*assumed);
        }
    }

    /// True if the address is to be probed for topics up to this generation. While a question is unanswered there is no
    /// other: with a probe after each topic no answer would ever count.
    pub(super) fn is_unasked(&mut self, generation: u64, now: Instant, times: &Times) -> bool {
        if self.generation() >= generation {
            return false;
        }
        match &mut self.phase {
            Phase::Unconfirmed | Phase::Live { .. } => self.probe.is_none(),
            Phase::NoHello { assume } => {
                assume.get_or_insert((generation, after(now, times.live_timeout)));
                false
            }
            Phase::Down { .. } | Phase::Stalled { .. } => false,
        }
    }

    /// Handles an answer, with a greeting if the publisher names itself. Returns true if the answer counts.
    pub(super) fn answered(
        &mut self,
        probe: &[u8],
        greeting: Option<Greeting>,
        now: Instant,
        times: &Times,
        jitter: &mut fastrand::Rng,
    ) -> bool {
        let answered = self.probe.take_if(|asked| asked.topic.as_str().as_bytes() == probe);
        let Some(probe) = answered else { return false };
        let crowd = Duration::from_secs_f64(f64::from(self.crowd) / ASKED_A_SECOND);
        let again = within(times.hello_interval.max(crowd), ASK_AGAIN, jitter);
        self.is_deaf = false;
        self.took = now.saturating_duration_since(probe.asked);
        self.heard = now;
        self.phase = Phase::Live {
            ask_at: after(now, again),
            patience: within(times.hello_interval, ASK, jitter),
        };
        self.confirm(probe.generation, now);
        let at = greeting.as_ref().and_then(|greeting| greeting.at);
        self.period = greeting.as_ref().and_then(|greeting| greeting.next);
        let owner = greeting.map(|greeting| (greeting.publisher, greeting.epoch));
        if self.owner != owner {
            self.delay = Delay::default();
        }
        if let Some(at) = at {
            self.delay.answer(at, self.took, now);
        }
        (self.has_answered, self.owner) = (true, owner);
        self.proven = probe.asked;
        if !self.told {
            let held = times.hello_interval.mul_f64(MOST_HELD * jitter.f64());
            self.live_at = Some(if self.was_live { after(now, held) } else { now });
        }
        true
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

/// A random duration within this range of periods.
fn within(period: Duration, (least, most): (f64, f64), jitter: &mut fastrand::Rng) -> Duration {
    period.mul_f64(least + (most - least) * jitter.f64())
}
