//! The per-topic part of `Subscriber::status`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Continuity;
use super::run::RunState;
use crate::subscriber::session::Topics;
use crate::subscriber::status::{PublisherStatus, TopicState, TopicStatus};

impl Continuity {
    /// The state of every topic. Topics up to the generation `settled` are in force at every connected address;
    /// `is_whole` says that every connection is live.
    pub(in crate::subscriber::session) fn status(
        &self,
        topics: &Topics,
        settled: u64,
        is_whole: bool,
        now: Instant,
    ) -> Vec<TopicStatus> {
        let mut all: BTreeMap<_, _> = topics
            .iter()
            .map(|(topic, generation)| {
                let state = match generation <= settled && !topics.is_unnumbered(topic) {
                    true if is_whole => TopicState::Live,
                    true => TopicState::Stale,
                    false => TopicState::Unconfirmed,
                };
                (topic.clone(), (state, Vec::new()))
            })
            .collect();
        for (publisher, runs) in &self.publishers {
            for run in runs {
                let state = match (run.state, run.period) {
                    (RunState::Gone(_) | RunState::Left | RunState::Replaced(_), _) => continue,
                    (RunState::Silent, _) => TopicState::Stale,
                    (RunState::Running, None) => TopicState::Unconfirmed,
                    (RunState::Running, Some(_)) => TopicState::Live,
                };
                for (topic, sequence) in &run.topics {
                    if let Some((_, publishers)) = all.get_mut(topic) {
                        publishers.push(PublisherStatus {
                            publisher: publisher.clone(),
                            epoch: run.epoch,
                            state,
                            last: sequence.last(),
                            age: now.saturating_duration_since(run.heard),
                        });
                    }
                }
            }
        }
        all.into_iter()
            .map(|(topic, (state, publishers))| TopicStatus {
                topic,
                state,
                publishers,
            })
            .collect()
    }
}
