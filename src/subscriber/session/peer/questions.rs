//! The questions to an address, and its answers.

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::subscriber::session::delay::Delay;
use crate::subscriber::session::probe::Probe;
use crate::subscriber::session::times::Times;
use crate::update::{Name, Topic};

use super::{MOST_HELD, Peer, Phase};

/// Hello periods until an address is asked: after its last input, and after its last answer. Ranges, so that many
/// subscribers do not ask at once.
const ASK: (f64, f64) = (1.1, 1.3);
const ASK_AGAIN: (f64, f64) = (0.9, 1.1);

/// About how many questions a second all subscribers of a publisher ask together. The more subscribers there are, the
/// more rarely each asks while input comes.
const ASKED_A_SECOND: f64 = 300.0;

/// The sender of a hello.
#[derive(Debug)]
pub(in crate::subscriber::session) struct Greeting {
    pub(in crate::subscriber::session) publisher: Name,
    /// Identifies the run of the publisher.
    pub(in crate::subscriber::session) epoch: u64,
    /// When it was sent, by the publisher's own clock.
    pub(in crate::subscriber::session) at: Option<Duration>,
    /// For a hello of a round, which no question caused: the longest time until the next one.
    pub(in crate::subscriber::session) next: Option<Duration>,
}

impl Peer {
    /// Called for a hello: if the address was assumed to send none, it is asked again soon.
    pub(in crate::subscriber::session) fn hint(&mut self, now: Instant, times: &Times) {
        if let (Phase::NoHello { .. }, Some(probe)) = (self.phase, &mut self.probe) {
            let soon = after(probe.asked, times.live_timeout * 2).max(now);
            probe.again_at = probe.again_at.min(soon);
        }
    }

    /// How long the answer to the next probe may take. On a new connection without an answer by then, the address
    /// counts as one that sends no hellos. An address that has answered before gets more time, since it may be
    /// overloaded.
    pub(in crate::subscriber::session) fn patience(&self, times: &Times) -> Duration {
        match (&self.probe, self.phase) {
            (Some(probe), _) => probe.longer(),
            (None, Phase::Unconfirmed) if self.has_answered => times.live_timeout * 5,
            (None, _) => times.live_timeout,
        }
    }

    /// Notes a probe that was sent, for topics up to `generation`.
    pub(in crate::subscriber::session) fn probed(
        &mut self,
        topic: Topic,
        generation: u64,
        patience: Duration,
        now: Instant,
    ) {
        let mut probe = Probe::new(topic, generation, patience, now);
        if let Some(before) = self.probe.as_ref().filter(|_| self.is_live()) {
            probe.first_asked = self.unanswered_since().unwrap_or(now);
            probe.unread_since = before.unread_since;
        }
        self.probe = Some(probe);
    }

    /// The unanswered question.
    #[cfg(test)]
    pub(in crate::subscriber::session) fn asked(&self) -> Option<Topic> {
        self.probe.as_ref().map(|probe| probe.topic.clone())
    }

    /// Limits the unanswered question to topics up to this generation, since the later ones were refused.
    pub(in crate::subscriber::session) fn limit(&mut self, generation: u64) {
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
    pub(in crate::subscriber::session) fn is_unasked(&mut self, generation: u64, now: Instant, times: &Times) -> bool {
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
    pub(in crate::subscriber::session) fn answered(
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
}

/// A random duration within this range of periods.
fn within(period: Duration, (least, most): (f64, f64), jitter: &mut fastrand::Rng) -> Duration {
    period.mul_f64(least + (most - least) * jitter.f64())
}
