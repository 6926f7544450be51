//! Due work of an address.

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::event::SyncReason;
use crate::subscriber::session::probe::SOON;
use crate::subscriber::session::times::Times;
use crate::update::Name;

use super::{PASSING, Peer, Phase};

/// Hello periods without input after which an address that has sent something since its question is asked again, before
/// it counts as lost. Byte counts carry no times, so where the transport counts bytes they are read once per `LOOK`
/// periods, and a count that has not grown causes a question. So a cut is noticed within three periods in this case
/// too.
const QUIET: f64 = 1.1;
const LOOK: f64 = 0.6;

/// Periods without input after a question until the address is lost. In all, with the time until the report, less than
/// three.
const ANSWER: f64 = 1.3;

/// Periods without input until an address is lost whose regular hellos are the answers.
const UNASKED: f64 = 2.6;

/// Due work of an address.
#[derive(Debug, PartialEq)]
pub(in crate::subscriber::session) enum Due {
    /// Probe the address, and again after this time.
    Ask(Duration),
    /// Nothing has come since the question: [stall](Peer::stall) the address.
    Stall,
    /// The address is alive but does not receive questions: [stall](Peer::stall) it.
    Deaf,
    /// Ask the transport for the number of bytes received, for [`Peer::weighed`].
    Weigh,
    /// The address has not answered: probe it again with this patience, and emit the event.
    NoHello(Duration, Option<SyncReason>),
    /// Topics were assumed to be in force at the address.
    Assumed,
    /// Ask the driver for a connection again.
    Connect,
    /// Begin the connection anew.
    Renew,
    /// Report that there has been no connection since the address was registered or the subscriber started.
    Unreached,
    /// Report the loss of the address.
    TellLost,
    /// Report the address live.
    TellLive,
}

impl Peer {
    /// The next time at which [`Peer::expire`] returns something.
    pub(in crate::subscriber::session) fn deadline(&self, times: &Times) -> Option<Instant> {
        let again_at = self.probe.as_ref().map(|probe| probe.again_at);
        let phase = match self.phase {
            Phase::Down { retry_at } => retry_at,
            Phase::Unconfirmed => again_at,
            Phase::Live { ask_at, patience } => match &self.probe {
                None => Some(ask_at.min(after(self.heard, patience))),
                Some(probe) => {
                    let ends = [self.weigh_at(times), probe.passed_by, Some(probe.again_at)];
                    ends.into_iter().flatten().min()
                }
            },
            Phase::NoHello { assume } => assume.map(|(_, at)| at).into_iter().chain(again_at).min(),
            Phase::Stalled { renew_at, .. } => {
                let passed_by = self.probe.as_ref().and_then(|probe| probe.passed_by);
                passed_by.filter(|_| !self.is_deaf).into_iter().chain([renew_at]).min()
            }
        };
        let reports = [self.unreached_at, self.lost_at, self.live_at];
        reports.into_iter().flatten().chain(phase).min()
    }

    /// Takes out what is due; call it until it returns `None`. Input that had arrived by `drained` was read; later
    /// input may be unread, and is waited for.
    pub(in crate::subscriber::session) fn expire(
        &mut self,
        address: &Name,
        now: Instant,
        drained: Instant,
        times: &Times,
    ) -> Option<Due> {
        if let Some(at) = self.unreached_at.filter(|at| *at <= now) {
            // The word of its connection may be unread.
            self.unreached_at = (drained < at).then(|| after(now, SOON));
            if drained >= at {
                return Some(Due::Unreached);
            }
        }
        if self.lost_at.take_if(|at| *at <= now).is_some() {
            return Some(Due::TellLost);
        }
        if self.live_at.take_if(|at| *at <= now).is_some() {
            return Some(Due::TellLive);
        }
        if matches!(self.phase, Phase::Stalled { .. }) && self.is_overtaken(now, drained, times) {
            return Some(Due::Renew);
        }
        match self.phase {
            Phase::Down { retry_at } => {
                retry_at.filter(|at| *at <= now)?;
                self.phase = Phase::Down { retry_at: None };
                Some(Due::Connect)
            }
            Phase::Stalled { renew_at, .. } if renew_at > now => None,
            Phase::Stalled { renew_at, latest } if drained < renew_at && now < latest && !self.is_deaf => {
                let renew_at = after(now, SOON);
                self.phase = Phase::Stalled { renew_at, latest };
                None
            }
            Phase::Stalled { .. } => Some(Due::Renew),
            Phase::Unconfirmed => {
                let (generation, patience) = self.probe.as_mut()?.late(now, drained)?;
                self.phase = Phase::NoHello { assume: None };
                self.has_answered = false;
                self.confirm(generation, now);
                let reason = self.tell(address);
                Some(Due::NoHello(patience, reason))
            }
            Phase::NoHello { assume } => {
                if let Some((generation, _)) = assume.filter(|(_, at)| *at <= now) {
                    self.phase = Phase::NoHello { assume: None };
                    self.confirm(generation, now);
                    return Some(Due::Assumed);
                }
                let (_, patience) = self.probe.as_mut()?.late(now, drained)?;
                Some(Due::Ask(patience))
            }
            Phase::Live { ask_at, patience } if self.probe.is_none() => {
                let is_due = ask_at.min(after(self.heard, patience)) <= now;
                is_due.then_some(Due::Ask(times.live_timeout))
            }
            Phase::Live { .. } => self.expire_question(now, drained, times),
        }
    }

    /// Takes out what is due of a live address that was asked.
    fn expire_question(&mut self, now: Instant, drained: Instant, times: &Times) -> Option<Due> {
        if let Some(at) = self.weigh_at(times).filter(|at| *at <= now) {
            if self.excuses_lateness(at, now, times) {
                return None;
            }
            let probe = self.probe.as_mut()?;
            (probe.is_weighed, probe.is_unread) = (true, drained < at);
            return Some(Due::Weigh);
        }
        if self.is_overtaken(now, drained, times) {
            return Some(Due::Deaf);
        }
        let probe = self.probe.as_mut()?;
        (probe.again_at <= now).then(|| Due::Ask(probe.longer()))
    }

    /// Returns true, once, if hellos come although an earlier question was not answered: the address does not receive
    /// any.
    fn is_overtaken(&mut self, now: Instant, drained: Instant, times: &Times) -> bool {
        let margin = times.hello_interval.mul_f64(PASSING);
        let probe = self.probe.as_mut().filter(|_| !self.is_deaf);
        let is_overtaken = probe.is_some_and(|probe| probe.is_passed_by(margin, now, drained));
        self.is_deaf |= is_overtaken;
        is_overtaken
    }

    /// Handles that this process was stopped, or had no processor, and could not read since `at`. Half a wait of that
    /// time counts, and it is excused once: one that is always late judges as well. Returns true if it was excused now.
    fn excuses_lateness(&mut self, at: Instant, now: Instant, times: &Times) -> bool {
        let wait = self.longest_silence(times);
        let late = now.saturating_duration_since(at);
        if late <= wait / 2 || self.unanswered_since().is_none() {
            return false;
        }
        let Some(probe) = &mut self.probe else { return false };
        probe.unread_since = probe.unread_since.map(|since| after(since, late - wait / 2));
        if self.excused > self.heard {
            return false;
        }
        probe.looked = now;
        self.excuse(wait / 2, wait, now);
        true
    }

    /// Takes the number of bytes that the transport has received from the address so far. Returns the consequence.
    pub(in crate::subscriber::session) fn weighed(
        &mut self,
        received: Option<u64>,
        now: Instant,
        times: &Times,
    ) -> Option<Due> {
        let has_grown = received.is_some() && received != self.received;
        let before = std::mem::replace(&mut self.received, received);
        let (is_live, since, wait) = (self.is_live(), self.silent_since(), self.longest_silence(times));
        let probe = self.probe.as_mut()?;
        let is_weighed = std::mem::take(&mut probe.is_weighed);
        if has_grown {
            if is_weighed || before.is_some() {
                // Without a question to the transport, the bytes came before the probe was sent.
                let heard = if is_weighed { now } else { probe.asked };
                (self.heard, probe.unread_since) = (self.heard.max(heard), None);
            }
            return None;
        }
        if !is_weighed || !is_live {
            return None;
        }
        probe.looked = now;
        let Some(since) = since else {
            return Some(Due::Ask(probe.longer()));
        };
        if now < after(since, wait) {
            return None;
        }
        if received.is_none() && probe.is_unread {
            // There may be unread input. The wait is short, since no source starves another.
            let since = *probe.unread_since.get_or_insert(now);
            if now < after(since, wait * 2) {
                self.excuse(SOON, wait, now);
                return None;
            }
        }
        Some(Due::Stall)
    }

    /// When the transport is to be asked for its byte count, or the silence counts.
    fn weigh_at(&self, times: &Times) -> Option<Instant> {
        let probe = self.probe.as_ref().filter(|probe| !probe.is_weighed)?;
        let at = |since, periods| after(since, times.hello_interval.mul_f64(periods));
        let lost_at = |since| after(since, self.longest_silence(times));
        Some(match (self.silent_since(), self.received) {
            (Some(since), None) => lost_at(since),
            (Some(since), Some(_)) => lost_at(since).min(at(probe.looked, LOOK)),
            (None, Some(_)) => at(self.heard, LOOK),
            (None, None) => at(self.heard, QUIET),
        })
    }

    /// Since when silence counts, if nothing has come since a question.
    fn silent_since(&self) -> Option<Instant> {
        let asked = self.unanswered_since()?;
        let since = self.period.map_or(asked, |_| self.heard);
        Some(since.max(self.excused))
    }

    /// How long an address may then be silent.
    fn longest_silence(&self, times: &Times) -> Duration {
        match self.period {
            None => times.hello_interval.mul_f64(ANSWER),
            Some(period) => times.hello_interval.max(period).mul_f64(UNASKED),
        }
    }

    /// When the first question was asked after which nothing has come.
    pub(in crate::subscriber::session) fn unanswered_since(&self) -> Option<Instant> {
        let probe = self.probe.as_ref()?;
        [probe.first_asked, probe.asked]
            .into_iter()
            .find(|asked| *asked >= self.heard)
    }

    /// Makes silence count only after `time`, out of the `wait` for an answer.
    fn excuse(&mut self, time: Duration, wait: Duration, now: Instant) {
        self.excused = after(now, time).checked_sub(wait).unwrap_or(now);
    }
}
