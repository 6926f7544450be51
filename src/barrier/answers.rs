//! The replica's side of a barrier.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use parking_lot::Mutex;

use super::question::{Question, TABLE, TOPIC, is_question};
use super::replicas::{Detail, REPLICAS};
use crate::clock;
use crate::error::Result;
use crate::identity::{host_name, new_epoch};
use crate::registry::{Keep, Member, Registration, RegistryOptions, Watch};
use crate::store::{Store, TableVersion};
use crate::subscriber::{OwnTopic, Subscriber};
use crate::thread::{self, Thread};
use crate::update::{DbUpdate, Name, Topic};

/// Access to the state of a replica.
pub(crate) trait Applied: Send + Sync {
    /// Its tables.
    fn tables(&self) -> Vec<Name>;

    /// Its topics.
    fn topics(&self) -> Vec<Topic>;

    /// The age of the oldest proof that nothing of a topic is missing; `None` if one is without.
    fn staleness(&self) -> Option<Duration>;

    /// The standing to a write; `None` if this topic of the table is not held.
    fn standing(&self, table: &str, topic: &Topic, asked: &Asked) -> Option<Standing>;

    /// Makes the replica ask the store for its versions now; returns at once.
    fn check(&self, table: &str);

    /// Makes the replica catch up now, since a writer waits; returns at once.
    fn hurry(&self, table: &str, topic: &Topic);
}

/// A write that a writer waits for.
pub(crate) struct Asked {
    pub(crate) at: TableVersion,
    /// The table's version when the writer asked, if it said.
    pub(crate) stands: Option<u64>,
    /// When the question came, by [`clock::now`].
    pub(crate) since: Instant,
}

/// A replica's standing to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everything up to it is applied.
    Applied,
    Behind,
    /// The replica is ahead of the table: others have written since, or the store went back and has the versions again.
    /// Only a proof that is newer than the question shows which.
    Doubted,
}

/// Registers a replica and answers questions for it, until dropped.
pub(crate) struct Answers {
    // Dropped in this order: once the topic is gone the thread ends.
    _topic: OwnTopic,
    _thread: Thread,
    registration: Arc<Registration>,
    watch: Watch,
}

/// The most questions that wait for the thread; others are lost, and asked again.
const QUESTIONS: usize = 1024;

/// The most topics that the row names; a replica with more may hold any.
const NAMED_TOPICS: usize = 64;

/// The number of last answers in the row; newer ones than [`FRESH`] stay, too.
const KEPT: usize = 64;

/// A writer that waits has looked at the row within this time.
const FRESH: Duration = Duration::from_millis(200);

/// The interval of looks at unanswered questions.
const LOOK: Duration = Duration::from_millis(2);

/// An update under way arrives within this time; after it the replica catches up.
const PATIENCE: Duration = Duration::from_millis(50);

/// An unanswered question is forgotten after this time, unless it is asked again.
const FORGOTTEN: Duration = Duration::from_secs(5);

impl Answers {
    /// Registers the replica under this unique id.
    pub(crate) fn new(
        id: &str,
        store: &Arc<dyn Store>,
        subscriber: &Arc<Subscriber>,
        applied: Arc<dyn Applied>,
        options: RegistryOptions,
    ) -> Result<Answers> {
        let member = Member {
            id: id.to_owned(),
            epoch: new_epoch(),
            address: TOPIC.to_owned(),
            ..Member::default()
        };
        let answers = Arc::new(Mutex::new(VecDeque::<Given>::new()));
        let (told, about) = (Arc::clone(&answers), Arc::clone(&applied));
        let (host, timeout) = (host_name(), options.timeout);
        let renewal = move |member: &mut Member| {
            let detail = Detail {
                host: host.clone(),
                tables: about.tables(),
                topics: Some(about.topics())
                    .filter(|topics| topics.len() <= NAMED_TOPICS)
                    .map(|topics| topics.iter().map(|topic| topic.as_str().into()).collect()),
                staleness_ms: about.staleness().and_then(|age| u64::try_from(age.as_millis()).ok()),
                timeout_ms: u64::try_from(timeout.as_millis()).ok(),
                answers: told
                    .lock()
                    .iter()
                    .map(|given| (given.id.clone(), given.has_it))
                    .collect(),
                ..Detail::default()
            };
            member.detail = serde_json::to_string(&detail).unwrap_or_default();
        };
        let hook = options.hook.clone();
        let seldom = RegistryOptions {
            interval: options.timeout / 4,
            ..options.clone()
        };
        let registration =
            Registration::with_renewal(Arc::clone(store), REPLICAS, member, options, Keep::Present, renewal)?;
        let (questions, asked) = bounded(QUESTIONS);
        let sink = move |update: DbUpdate| {
            if is_question(&update) {
                let _ = questions.try_send(update);
            }
        };
        let registration = Arc::new(registration);
        let mut unanswered = Unanswered {
            applied,
            pending: Vec::new(),
            answers,
            registration: Arc::clone(&registration),
        };
        let body = move || {
            unanswered.run(&asked);
            Ok(())
        };
        Ok(Answers {
            _thread: thread::spawn_fallible("tc-barrier", hook, body)?,
            _topic: OwnTopic::register(subscriber, Topic::new(TOPIC)?, Some((TABLE.into(), Box::new(sink))))?,
            registration,
            // Removes the rows of killed replicas, so that writers stop waiting for them.
            watch: Watch::new(Arc::clone(store), REPLICAS, seldom, true, |_| ())?,
        })
    }
}

impl Answers {
    /// Renews the row at once, with the tables and topics now held.
    pub(crate) fn renew(&self) {
        self.registration.renew();
    }

    /// Tells the threads that use the store to stop, and does not wait.
    pub(crate) fn tell(&self) {
        self.registration.tell();
        self.watch.tell();
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// The questions without answers.
struct Unanswered {
    applied: Arc<dyn Applied>,
    pending: Vec<Pending>,
    answers: Arc<Mutex<VecDeque<Given>>>,
    registration: Arc<Registration>,
}

/// A given answer.
struct Given {
    id: Name,
    has_it: bool,
    at: Instant,
}

struct Pending {
    id: Name,
    table: Name,
    topic: Topic,
    asked: Asked,
    /// When it was last asked.
    last: Instant,
    is_checked: bool,
    is_hurried: bool,
}

impl Unanswered {
    fn run(&mut self, asked: &Receiver<DbUpdate>) {
        loop {
            let question = match self.pending.is_empty() {
                true => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => asked.recv_timeout(LOOK),
            };
            match question {
                Ok(update) => std::iter::once(update)
                    .chain(asked.try_iter())
                    .for_each(|update| self.take(&update)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.answer(Instant::now()) {
                self.registration.renew();
            }
        }
    }

    fn take(&mut self, update: &DbUpdate) {
        let question = update.value.as_deref().map(serde_json::from_str::<Question>);
        let Some(Ok(question)) = question else { return };
        let Ok(topic) = Topic::new(question.topic.clone()) else {
            return;
        };
        let before = self.pending.extract_if(.., |pending| pending.id == update.key);
        let since = before.map(|pending| pending.asked.since).next();
        self.answers.lock().retain(|given| given.id != update.key);
        if self.pending.len() < QUESTIONS {
            self.pending.push(Pending {
                id: update.key.clone(),
                asked: Asked {
                    at: question.at(),
                    stands: question.stands,
                    since: since.unwrap_or_else(clock::now),
                },
                table: question.table,
                topic,
                last: Instant::now(),
                is_checked: false,
                is_hurried: false,
            });
        }
    }

    /// Answers the questions that it can; returns true if there was one.
    fn answer(&mut self, now: Instant) -> bool {
        let mut answered = Vec::new();
        self.pending.retain_mut(|pending| {
            let (table, topic) = (&pending.table, &pending.topic);
            let waited = now.saturating_duration_since(pending.last);
            let standing = self.applied.standing(table, topic, &pending.asked);
            if matches!(standing, None | Some(Standing::Applied)) {
                answered.push(Given {
                    id: pending.id.clone(),
                    has_it: standing.is_some(),
                    at: now,
                });
                return false;
            }
            if standing == Some(Standing::Doubted) && !std::mem::replace(&mut pending.is_checked, true) {
                self.applied.check(table);
            }
            if waited > PATIENCE && !std::mem::replace(&mut pending.is_hurried, true) {
                self.applied.hurry(table, topic);
            }
            waited <= FORGOTTEN
        });
        let is_news = !answered.is_empty();
        let mut answers = self.answers.lock();
        answers.extend(answered);
        forget(&mut answers, now);
        is_news
    }
}

/// Forgets the oldest answers.
fn forget(answers: &mut VecDeque<Given>, now: Instant) {
    let is_fresh = |given: &Given| now.saturating_duration_since(given.at) < FRESH;
    while answers.len() > KEPT && (answers.len() > QUESTIONS || !answers.front().is_some_and(is_fresh)) {
        answers.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many answers at once are all in the row until their writers have looked.
    #[test]
    fn answers_stay_until_they_can_have_been_read() {
        let now = Instant::now();
        let give = |answers: &mut VecDeque<Given>, count: usize, at| {
            let given = |number: usize| Given {
                id: number.to_string().into(),
                has_it: true,
                at,
            };
            answers.extend((0..count).map(given));
            forget(answers, at);
            answers.len()
        };
        let mut answers = VecDeque::new();
        assert_eq!(give(&mut answers, 200, now), 200);
        assert_eq!(give(&mut answers, 1, now + FRESH / 2), 201);
        assert_eq!(give(&mut answers, 1, now + FRESH), KEPT);
        assert_eq!(give(&mut answers, 2 * QUESTIONS, now + FRESH), QUESTIONS);
    }
}
