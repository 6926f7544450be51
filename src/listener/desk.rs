//! Where a listener's messages are handled, on the threads of the program's dispatcher.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::claims::{Claim, Claims};
use super::envelope::{self, Answer, EventId, Heard, State};
use super::options::ListenerStats;
use crate::error::{Error, ErrorHook, Result, contain, report};
use crate::publisher::Publisher;
use crate::registry::Registration;
use crate::update::{DbUpdate, Topic};

pub(super) type Handler = Box<dyn Fn(&DbUpdate) + Send + Sync>;

/// What all runs of a listener share.
pub(super) struct Desk {
    claims: Claims,
    publisher: Arc<Publisher>,
    handler: Handler,
    hook: Option<ErrorHook>,
    /// Where events go whose claims are to be removed.
    settled: Sender<Vec<EventId>>,
    book: Mutex<Book>,
    /// Signalled when something was done with an event.
    changed: Condvar,
    stopping: AtomicBool,
    /// Something fails again and again, and it was reported.
    is_failing: AtomicBool,
}

/// What is known of events.
#[derive(Default)]
struct Book {
    events: HashMap<EventId, Known>,
    /// When the last event came.
    heard: Option<Instant>,
    stats: ListenerStats,
}

/// An event that was begun here.
enum Known {
    Begun(Topic, ThreadId),
    /// Processed, by the run of this topic.
    Done {
        failed: bool,
        owner: Topic,
        since: Instant,
    },
}

/// One run of a listener: as long as others do not take it for dead.
pub(super) struct Run {
    pub(super) topic: Topic,
    pub(super) registration: OnceLock<Registration>,
}

impl Run {
    fn is_held(&self) -> bool {
        self.registration.get().is_some_and(Registration::is_held)
    }
}

impl Desk {
    pub(super) fn new(
        claims: Claims,
        publisher: Arc<Publisher>,
        handler: Handler,
        hook: Option<ErrorHook>,
        settled: Sender<Vec<EventId>>,
    ) -> Desk {
        Desk {
            claims,
            publisher,
            handler,
            hook,
            settled,
            book: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
        }
    }

    pub(super) fn stats(&self) -> ListenerStats {
        let book = self.book.lock();
        let claims = book.events.len() as u64;
        ListenerStats { claims, ..book.stats }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// From now on nothing new is begun.
    pub(super) fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the calling thread is inside the handler.
    pub(super) fn is_handling(&self) -> bool {
        let current = std::thread::current().id();
        let is_here = |known: &Known| matches!(known, Known::Begun(_, thread) if *thread == current);
        self.book.lock().events.values().any(is_here)
    }

    /// A message has come on the topic of this run.
    pub(super) fn hear(&self, run: &Run, update: &DbUpdate) -> Result<()> {
        match envelope::heard(update)? {
            Heard::Plain => {
                self.handle(update);
                Ok(())
            }
            Heard::Asked(id, attempt) => self.answer(run, &id, attempt, State::Done, &run.topic),
            Heard::Confirmed(ids) => {
                let mut book = self.book.lock();
                for id in &ids {
                    book.events.remove(id);
                }
                drop(book);
                self.changed.notify_all();
                // Without anybody to remove the claims they go with the time.
                let _ = self.settled.send(ids);
                Ok(())
            }
            Heard::Event(id, attempt, event) => match self.begin(run, &id) {
                Begin::Answer(state, owner) => self.answer(run, &id, attempt, state, &owner),
                Begin::Drop => Ok(()),
                Begin::Claim => {
                    let Some((state, owner)) = self.claim_and_handle(run, &id, &event) else {
                        return Ok(());
                    };
                    self.answer(run, &id, attempt, state, &owner)
                }
            },
        }
    }

    /// Looks whether the event is known, and if it is not, notes that it is begun.
    fn begin(&self, run: &Run, id: &EventId) -> Begin {
        let mut book = self.book.lock();
        book.heard = Some(Instant::now());
        match book.events.get(id) {
            Some(Known::Done { failed, owner, .. }) => {
                let answer = Begin::Answer(done(*failed), owner.clone());
                book.stats.repeated += 1;
                answer
            }
            Some(Known::Begun(owner, _)) => Begin::Answer(State::Taken, owner.clone()),
            None if self.is_stopping() => {
                book.stats.moved += 1;
                Begin::Answer(State::Moved, run.topic.clone())
            }
            None if !run.is_held() => {
                book.stats.dropped += 1;
                Begin::Drop
            }
            None => {
                let begun = Known::Begun(run.topic.clone(), std::thread::current().id());
                book.events.insert(id.clone(), begun);
                Begin::Claim
            }
        }
    }

    /// What is to be answered, if anything is.
    fn claim_and_handle(&self, run: &Run, id: &EventId, event: &DbUpdate) -> Option<(State, Topic)> {
        let claim = self.claims.claim(&id.to_string(), &run.topic);
        let (known, answer) = match &claim {
            // Asked once more: claiming may have taken long.
            Ok(Claim::Ours | Claim::TakenOver) if run.is_held() => {
                let failed = !self.handle(event);
                let owner = run.topic.clone();
                let answer = Some((done(failed), owner.clone()));
                let since = Instant::now();
                (Some(Known::Done { failed, owner, since }), answer)
            }
            Ok(Claim::Ours | Claim::TakenOver) | Err(_) => (None, None),
            Ok(Claim::Theirs(owner)) => (None, Some((State::Taken, owner.clone()))),
            Ok(Claim::Done(owner)) => (None, Some((State::Done, owner.clone()))),
        };
        let mut book = self.book.lock();
        match &claim {
            Ok(Claim::TakenOver) if known.is_some() => book.stats.taken_over += 1,
            Ok(Claim::Theirs(_)) => book.stats.left += 1,
            Ok(Claim::Done(_)) => book.stats.repeated += 1,
            _ if known.is_none() => book.stats.dropped += 1,
            _ => {}
        }
        match known {
            Some(known) => drop(book.events.insert(id.clone(), known)),
            None => drop(book.events.remove(id)),
        }
        drop(book);
        self.changed.notify_all();
        if let Err(e) = self.note(claim) {
            report(&e, self.hook.as_ref());
        }
        answer
    }

    /// Calls the program's handler; false if it panicked.
    fn handle(&self, update: &DbUpdate) -> bool {
        let what = || {
            format!(
                "the listener's handler, called with table {} key {}",
                update.table, update.key
            )
        };
        let handled = contain(what, || (self.handler)(update));
        let mut book = self.book.lock();
        book.stats.handled += 1;
        book.stats.failed += u64::from(handled.is_err());
        drop(book);
        handled.inspect_err(|e| report(e, self.hook.as_ref())).is_ok()
    }

    fn answer(&self, run: &Run, id: &EventId, attempt: u32, state: State, owner: &Topic) -> Result<()> {
        let answer = Answer {
            listener: run.topic.as_str().into(),
            attempt,
            state,
            owner: owner.as_str().into(),
        };
        let answer = envelope::answer(id, &answer)?;
        self.note(self.publisher.send_event_to(&id.notifier, &answer)).map(drop)
    }

    /// Of what fails again and again only the first failure is passed on.
    fn note<T>(&self, done: Result<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => {
                self.is_failing.store(false, Ordering::Relaxed);
                Ok(Some(done))
            }
            Err(e) if self.is_failing.swap(true, Ordering::Relaxed) => {
                log::debug!("{e}");
                Ok(None)
            }
            Err(e) => Err(Error::new(e.kind(), "a status update is left to other listeners").with_source(e)),
        }
    }

    /// Waits until nothing is begun, and until all is confirmed or `patience` is over; false if `give_up` says so before.
    pub(super) fn drain(&self, patience: Duration, mut give_up: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        let mut book = self.book.lock();
        loop {
            let is_begun = book.events.values().any(|known| matches!(known, Known::Begun(..)));
            let is_quiet = book.heard.is_none_or(|heard| heard.elapsed() > QUIET);
            let is_over = start.elapsed() >= patience;
            if !is_begun && (is_over || is_quiet && book.events.is_empty()) {
                return true;
            }
            self.changed.wait_for(&mut book, QUIET / 4);
            if parking_lot::MutexGuard::unlocked(&mut book, &mut give_up) {
                return false;
            }
        }
    }

    /// Says in the claims that are not confirmed yet that their events are processed, so that nobody does it again.
    pub(super) fn hand_over(&self) -> Result<()> {
        let book = self.book.lock();
        let done = book.events.iter().filter_map(|(id, known)| match known {
            Known::Done { owner, .. } => Some((id.to_string(), owner.clone())),
            Known::Begun(..) => None,
        });
        let done: Vec<_> = done.collect();
        drop(book);
        done.iter().try_for_each(|(id, owner)| self.claims.mark_done(id, owner))
    }

    /// Whether an event of this id was begun here, and is not settled.
    pub(super) fn knows(&self, event: &str) -> bool {
        EventId::parse(event).is_ok_and(|id| self.book.lock().events.contains_key(&id))
    }

    /// The events that were processed so long ago without a confirmation; they are forgotten.
    pub(super) fn expire(&self, retention: Duration) -> Vec<EventId> {
        let mut book = self.book.lock();
        let is_old = |known: &Known| matches!(known, Known::Done { since, .. } if since.elapsed() > retention);
        let old = book.events.iter().filter(|(_, known)| is_old(known));
        let old: Vec<EventId> = old.map(|(id, _)| id.clone()).collect();
        for id in &old {
            book.events.remove(id);
        }
        old
    }
}

/// A listener that stops waits so long for what is still on its way to it.
const QUIET: Duration = Duration::from_millis(100);

/// What is to be done about an event.
enum Begin {
    Answer(State, Topic),
    Drop,
    Claim,
}

fn done(failed: bool) -> State {
    if failed { State::Failed } else { State::Done }
}
