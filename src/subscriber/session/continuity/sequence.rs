//! The numbers of one run of a publisher on one topic: in order, duplicate, early, or missing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::codec::MOST_JOINED;

/// Early updates are held back until the overtaken ones have come, but for no longer than this...
pub(in crate::subscriber::session) const WINDOW: Duration = Duration::from_millis(50);

/// ... and for no more updates than this: two frames of a burst.
pub(in crate::subscriber::session) const MAX_HELD: usize = 2 * MOST_JOINED;

/// The state of one sequence; `T` is the numbered item.
#[derive(Debug, Clone)]
pub(in crate::subscriber::session) struct Sequence<T> {
    /// Everything up to this number was handed out, was given up, or precedes the first number.
    last: u64,
    early: Option<Box<Early<T>>>,
    told: Option<Box<Told>>,
}

/// Numbers above the last that were given up because a hello named them: it may have lied, so they may still come.
#[derive(Debug, Clone, Copy)]
struct Told {
    to: u64,
    /// What was sent later was not given up with them.
    by: Instant,
}

/// How much later than a hello what was sent before it may come. After a lie, losses of what is sent within this time
/// may never be noticed.
pub(in crate::subscriber::session) const LATE: Duration = Duration::from_secs(30);

/// State of numbers above one that has not come.
#[derive(Debug, Clone)]
struct Early<T> {
    held: BTreeMap<u64, Held<T>>,
    /// The highest number known to have been sent, and a time by which it had been sent.
    sent: u64,
    sent_by: Instant,
    since: Instant,
}

#[derive(Debug, Clone)]
struct Held<T> {
    item: T,
    /// A time by which the number before it had been sent.
    previous_by: Instant,
}

/// Outcome of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::subscriber::session) enum Accepted {
    /// It was handed out, with the items that had waited for it.
    InOrder,
    /// It had come before, or had been given up.
    Duplicate,
    /// It has overtaken others and waits for them.
    Early,
}

/// Numbers that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::subscriber::session) struct Missing {
    pub(in crate::subscriber::session) from: u64,
    pub(in crate::subscriber::session) to: u64,
    /// How many of them are missing; some in between may have come.
    pub(in crate::subscriber::session) count: u64,
    /// A time by which the last of them had been sent.
    pub(in crate::subscriber::session) sent_by: Instant,
}

impl<T> Sequence<T> {
    /// Creates a sequence that goes on after `last`.
    pub(in crate::subscriber::session) fn after(last: u64) -> Sequence<T> {
        Sequence {
            last,
            early: None,
            told: None,
        }
    }

    /// Creates a sequence of which only a hello has been heard, which named this number.
    pub(in crate::subscriber::session) fn told(to: u64, now: Instant) -> Sequence<T> {
        let by = now + LATE;
        Sequence {
            last: 0,
            early: None,
            told: Some(Box::new(Told { to, by })),
        }
    }

    /// The highest number that is not waited for.
    pub(in crate::subscriber::session) fn last(&self) -> u64 {
        self.told.as_ref().map_or(self.last, |told| told.to.max(self.last))
    }

    /// True if this number is the next and nothing waits, so that [`Sequence::accept`] would hand it out.
    pub(in crate::subscriber::session) fn is_next(&self, number: u64) -> bool {
        self.early.is_none() && Some(number) == self.last.checked_add(1)
    }

    /// Notes that the number that [is next](Sequence::is_next) was handed out, and those behind it: `count` in all.
    pub(in crate::subscriber::session) fn advance(&mut self, count: u64) {
        self.last += count;
    }

    /// True if numbers are missing that may still come.
    pub(in crate::subscriber::session) fn is_waiting(&self) -> bool {
        self.early.is_some()
    }

    /// Takes the item with this number, whose predecessor had been sent by `previous_by`. Appends the items that are in
    /// order to `out`.
    pub(in crate::subscriber::session) fn accept(
        &mut self,
        number: u64,
        item: T,
        previous_by: Instant,
        now: Instant,
        out: &mut Vec<T>,
    ) -> Accepted {
        if number <= self.last {
            return Accepted::Duplicate;
        }
        if number - self.last == 1 || self.is_excused_before(number, previous_by) {
            self.last = number;
            out.push(item);
            self.told.take_if(|told| told.to <= number);
            if self.early.is_some() {
                self.hand_out(out);
            }
            return Accepted::InOrder;
        }
        let early = self.early.get_or_insert_with(|| Box::new(Early::new(now)));
        if early.held.contains_key(&number) {
            return Accepted::Duplicate;
        }
        early.held.insert(number, Held { item, previous_by });
        early.learn(number, now);
        Accepted::Early
    }

    /// True if the numbers before this one were given up after they had been sent. If they were given up before, the
    /// hello that named them lied.
    fn is_excused_before(&mut self, number: u64, previous_by: Instant) -> bool {
        let told = self.told.as_ref().filter(|told| number - 1 <= told.to);
        // The first hello of a topic may be long ago when its next update comes.
        let is_first = |told: &Told| self.last == 0 && number - 1 == told.to;
        let is_excused = told.is_some_and(|told| previous_by <= told.by || is_first(told));
        if told.is_some() && !is_excused {
            self.told = None;
        }
        is_excused
    }

    /// Notes that `number` had been sent by `sent_by`.
    pub(in crate::subscriber::session) fn learn(&mut self, number: u64, sent_by: Instant, now: Instant) {
        let has_begun = self.last > 0;
        let lied = |told: &mut Box<Told>| {
            let is_within = number > self.last && (number < told.to || has_begun && number == told.to);
            is_within && sent_by > told.by
        };
        self.told.take_if(lied);
        if number > self.last() {
            let early = self.early.get_or_insert_with(|| Box::new(Early::new(now)));
            early.learn(number, sent_by);
        }
    }

    /// When missing numbers are to be given up; `None` if none are missing.
    pub(in crate::subscriber::session) fn deadline(&self) -> Option<Instant> {
        let early = self.early.as_ref()?;
        Some(if self.is_full() {
            early.since
        } else {
            early.since + WINDOW
        })
    }

    /// True if no more items can be held back.
    pub(in crate::subscriber::session) fn is_full(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.held.len() >= MAX_HELD)
    }

    /// Gives up the missing numbers, appends the items that waited for them to `out`, and returns what was given up.
    pub(in crate::subscriber::session) fn give_up(&mut self, now: Instant, out: &mut Vec<T>) -> Option<Missing> {
        let early = self.early.take()?;
        let from = self.last() + 1;
        let (mut to, mut count, mut sent_by) = (from - 1, 0, early.since);
        for (number, held) in early.held {
            let before = self.last();
            if number > before + 1 {
                (to, sent_by) = (number - 1, held.previous_by);
                count += number - before - 1;
            }
            self.last = number;
            out.push(held.item);
        }
        let before = self.last();
        if early.sent > before {
            (to, sent_by) = (early.sent, early.sent_by);
            count += early.sent - before;
            self.told = Some(Box::new(Told { to, by: now + LATE }));
        }
        (count > 0).then_some(Missing {
            from,
            to,
            count,
            sent_by,
        })
    }

    /// Appends the items that are now in order to `out`.
    fn hand_out(&mut self, out: &mut Vec<T>) {
        let Some(early) = &mut self.early else { return };
        while let Some(entry) = early.held.first_entry()
            && Some(*entry.key()) == self.last.checked_add(1)
        {
            self.last = *entry.key();
            out.push(entry.remove().item);
        }
        let told = self.told.as_ref().map_or(0, |told| told.to);
        if early.sent <= self.last.max(told) && early.held.is_empty() {
            self.early = None;
        }
    }
}

impl<T> Early<T> {
    fn new(now: Instant) -> Early<T> {
        Early {
            held: BTreeMap::new(),
            sent: 0,
            sent_by: now,
            since: now,
        }
    }

    fn learn(&mut self, number: u64, sent_by: Instant) {
        if number > self.sent {
            (self.sent, self.sent_by) = (number, sent_by);
        }
    }
}
