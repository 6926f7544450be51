//! The writer's side of a barrier.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::question::{Question, TABLE, TOPIC};
use super::replicas::{Detail, REPLICAS, Rows};
use super::unrenewed::Unrenewed;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Store, Write};
use crate::thread;
use crate::update::{Action, DbUpdate, Name, Topic};

/// The result of a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Barrier {
    /// The number of replicas that have applied the write.
    pub applied: usize,
    /// The ids of the replicas that were present and did not answer that they have applied it, in order. One that hears
    /// this writer's publisher late or not at all may have applied it all the same.
    pub missing: Vec<Name>,
}

/// The pauses between two looks at the answers.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A question may get lost; it is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Barrier {
    /// The number of replicas that the wait was for.
    pub fn replicas(&self) -> usize {
        self.applied + self.missing.len()
    }
}

impl Database {
    /// Waits until every registered replica that holds this topic of the table has applied the write with this version,
    /// or the timeout ends. The wait is for replicas present at its beginning. It ignores those that end meanwhile; a
    /// killed replica counts as present until its registration expires.
    ///
    /// This database's publisher asks them. A replica that does not listen to it cannot answer, even if it has found
    /// the write in the store.
    ///
    /// Replicas without the option `id` are not registered, and are ignored.
    ///
    /// # Errors
    /// As [`Publisher::send_event`](crate::Publisher::send_event), and the store's errors. Missing replicas are no
    /// error; see [`Barrier::missing`].
    pub fn barrier(&self, table: &str, topic: &Topic, version: u64, timeout: Duration) -> Result<Barrier> {
        self.barrier_while(table, topic, version, timeout, || true)
    }

    /// As [`Database::barrier`], for as long as this is true.
    #[doc(hidden)]
    pub fn barrier_while(
        &self,
        table: &str,
        topic: &Topic,
        version: u64,
        timeout: Duration,
        go_on: impl Fn() -> bool,
    ) -> Result<Barrier> {
        let deadline = thread::deadline(timeout);
        let store = self.store();
        let rows = Rows::read(store)?;
        remove(store, &rows.left);
        let mut waiting = holding(rows, table, topic);
        if waiting.is_empty() {
            return Ok(Barrier::default());
        }
        let stands = store.table_version(table)?;
        let question = Question {
            table: table.into(),
            topic: topic.as_str().into(),
            incarnation: stands.unwrap_or_default().incarnation,
            version,
            stands: stands.map(|stands| stands.version),
        };
        let id = Name::from(format!("{:016x}", fastrand::u64(..)));
        let ask = question.to_update(&id)?;
        let (mut applied, mut look, mut ask_at) = (0, FIRST_LOOK, Instant::now());
        let (begun, mut unrenewed) = (ask_at, None);
        loop {
            let now = Instant::now();
            if now >= ask_at {
                self.publisher().send_own(&ask.topic, &ask)?;
                if ask_at > begun && unrenewed.is_none() {
                    unrenewed = Some(Unrenewed::load(store, now)?);
                }
                ask_at = now + ASK_AGAIN;
            }
            thread::pause(look.min(deadline.saturating_duration_since(now)));
            look = (look * 2).min(LAST_LOOK);
            let there = holding(Rows::read(store)?, table, topic);
            waiting.retain(|replica, _| match there.get(replica).map(|detail| detail.answer(&id)) {
                Some(None) => true,
                Some(Some(has_it)) => {
                    applied += usize::from(has_it);
                    false
                }
                // It has ended.
                None => false,
            });
            let late = there.iter().filter(|(replica, _)| waiting.contains_key(*replica));
            if let Some(unrenewed) = &mut unrenewed {
                unrenewed.look(store, late);
            }
            if waiting.is_empty() || Instant::now() >= deadline || !go_on() {
                if let Some(unrenewed) = &unrenewed {
                    unrenewed.leave(store);
                }
                let missing = waiting.into_keys().collect();
                return Ok(Barrier { applied, missing });
            }
        }
    }
}

/// The replicas that may hold this topic of the table.
fn holding(rows: Rows, table: &str, topic: &Topic) -> BTreeMap<Name, Detail> {
    let there = rows.there.into_iter();
    let there = there.filter(|(_, detail)| detail.may_hold(table, topic));
    there.map(|(member, detail)| (member.id.into(), detail)).collect()
}

/// Removes rows, unless they were written since they were seen.
fn remove(store: &dyn Store, rows: &[(Name, u64)]) {
    for (id, version) in rows {
        if let Err(e) = store.write(&Write::delete(REPLICAS, id).if_version(*version)) {
            log::debug!("the row of the replica {id}, which has ended: {e}");
        }
    }
}

impl Question {
    fn to_update(&self, id: &Name) -> Result<DbUpdate> {
        let value = serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a barrier").with_source(e))?;
        let update = DbUpdate::new(TABLE, id.clone(), Action::Other("ask".into())).value(value);
        // Ahead of waiting updates: the answer depends on the position, not on the order.
        Ok(update.topic(Topic::new(TOPIC)?).priority(0))
    }
}

impl Detail {
    /// The replica's answer to this question.
    fn answer(&self, id: &Name) -> Option<bool> {
        let answer = self.answers.iter().find(|(answered, _)| answered == id);
        answer.map(|(_, has_it)| *has_it)
    }
}
