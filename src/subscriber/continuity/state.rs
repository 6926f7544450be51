//! What is told to who asks how it stands.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Continuity;
use super::run::RunState;
use crate::subscriber::status::{PublisherStatus, TopicState, TopicStatus};

impl Continuity {
    /// How it stands with every topic; `is_whole` if every connection is live.
    pub(in crate::subscriber) fn status(&self, is_whole: bool, now: Instant) -> Vec<TopicStatus> {
        let mut topics: BTreeMap<_, _> = self
            .topics
            .iter()
            .map(|(topic, interest)| {
                let state = match interest.generation <= self.settled {
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
                    (RunState::Gone | RunState::Replaced(_), _) => continue,
                    (RunState::Silent, _) => TopicState::Stale,
                    (RunState::Running, None) => TopicState::Unconfirmed,
                    (RunState::Running, Some(_)) => TopicState::Live,
                };
                for (topic, sequence) in &run.topics {
                    if let Some((_, publishers)) = topics.get_mut(topic) {
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
        let topics = topics.into_iter();
        topics
            .map(|(topic, (state, publishers))| TopicStatus {
                topic,
                state,
                publishers,
            })
            .collect()
    }
}
