//! Messages that a service does not pass on, reported by count and kind from time to time: their number is up to peers.

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::error::{Error, ErrorKind};

/// Why a message is not passed on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    /// It has not the form of a message.
    Malformed,
    TooLarge,
    /// The network driver has not taken it.
    Refused,
    /// It was left when the service stopped.
    Left,
}

/// Messages that were not passed on since the last report.
#[derive(Debug, Default)]
pub(super) struct Losses {
    counts: [u64; 4],
    /// Why the network driver has not taken the last one.
    cause: Option<Error>,
    /// Time of the next report, if there was a loss since the last one or not long before it.
    report_at: Option<Instant>,
}

/// Time between two reports. The first loss is reported at once.
const PERIOD: Duration = Duration::from_secs(10);

impl Losses {
    pub(super) fn add(&mut self, loss: Loss, now: Instant) {
        self.add_all(loss, 1, now);
    }

    pub(super) fn refused(&mut self, cause: Error, count: u64, now: Instant) {
        self.cause = Some(cause);
        self.add_all(Loss::Refused, count, now);
    }

    fn add_all(&mut self, loss: Loss, count: u64, now: Instant) {
        self.counts[loss as usize] += count;
        self.report_at.get_or_insert(now);
    }

    /// When [`Losses::report`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.report_at
    }

    /// The report that is due.
    pub(super) fn report(&mut self, now: Instant) -> Option<Error> {
        self.report_at.filter(|at| *at <= now)?;
        let [malformed, too_large, refused, left] = std::mem::take(&mut self.counts);
        let cause = self.cause.take();
        let parts = [
            (malformed, ErrorKind::Malformed, "malformed"),
            (too_large, ErrorKind::TooLarge, "larger than max_message_bytes"),
            (refused, ErrorKind::Transport, "refused by the network driver"),
            (left, ErrorKind::Stopped, "left when the service stopped"),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|(count, ..)| *count > 0).collect();
        self.report_at = (!parts.is_empty()).then(|| after(now, PERIOD));
        let (_, kind, _) = *parts.last()?;
        let counted = parts.iter().map(|(count, _, what)| format!("{count} {what}"));
        let counted = counted.collect::<Vec<_>>().join(", ");
        let error = Error::new(
            kind,
            format!("messages of local processes were not passed on: {counted}"),
        );
        Some(match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_reported_at_once_and_then_once_a_period() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut losses = Losses::default();
        assert!(losses.deadline().is_none() && losses.report(at(0)).is_none());
        losses.add(Loss::TooLarge, at(5));
        assert_eq!(losses.deadline(), Some(at(5)));
        let first = losses.report(at(5)).unwrap();
        assert_eq!(first.kind(), ErrorKind::TooLarge);
        assert!(
            first.to_string().ends_with(": 1 larger than max_message_bytes"),
            "{first}"
        );
        for millis in 6..2_006 {
            losses.add(Loss::TooLarge, at(millis));
            losses.add(Loss::Malformed, at(millis));
            assert!(losses.report(at(millis)).is_none());
        }
        losses.refused(Error::new(ErrorKind::Timeout, "it is full"), 2, at(2_006));
        assert_eq!(losses.deadline(), Some(at(10_005)));
        let second = losses.report(at(10_005)).unwrap();
        let counts =
            ": 2000 malformed, 2000 larger than max_message_bytes, 2 refused by the network driver: it is full";
        assert!(second.to_string().ends_with(counts), "{second}");
        // Nothing more came: the next one is reported at once again.
        assert!(losses.report(at(20_005)).is_none() && losses.deadline().is_none());
        losses.add(Loss::Malformed, at(20_006));
        assert_eq!(losses.report(at(20_006)).unwrap().kind(), ErrorKind::Malformed);
    }
}
