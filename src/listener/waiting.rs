//! The order of claims: the most urgent events first; within a priority, notifiers take turns.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::messages::EventId;
use crate::update::Topic;

#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<i32, Turns>);

/// The events of one priority.
#[derive(Debug, Default)]
struct Turns {
    order: VecDeque<Topic>,
    numbers: HashMap<Topic, VecDeque<u64>>,
}

/// The most events of a notifier in one turn: their acknowledgements make one message.
const TURN: usize = 32;

impl Waiting {
    pub(super) fn push(&mut self, id: EventId, priority: i32) {
        let EventId { notifier, number } = id;
        let Turns { order, numbers } = self.0.entry(priority).or_default();
        match numbers.get_mut(&notifier) {
            Some(numbers) => numbers.push_back(number),
            None => {
                order.push_back(notifier.clone());
                numbers.insert(notifier, VecDeque::from([number]));
            }
        }
    }

    /// The next events, at most `count`.
    pub(super) fn pop(&mut self, count: usize) -> Vec<EventId> {
        let mut next = Vec::new();
        while next.len() < count
            && let Some(mut entry) = self.0.first_entry()
        {
            let Turns { order, numbers } = entry.get_mut();
            let Some(notifier) = order.pop_front() else {
                entry.remove();
                continue;
            };
            let Some(mut left) = numbers.remove(&notifier) else {
                continue;
            };
            let taken = left.drain(..left.len().min(TURN).min(count - next.len()));
            next.extend(taken.map(|number| EventId {
                notifier: notifier.clone(),
                number,
            }));
            if !left.is_empty() {
                order.push_back(notifier.clone());
                numbers.insert(notifier, left);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_go_first_and_notifiers_take_turns() {
        let mut waiting = Waiting::default();
        let id = |notifier, number| EventId {
            notifier: Topic::new(notifier).unwrap(),
            number,
        };
        for number in 0..TURN as u64 + 2 {
            waiting.push(id("a", number), 5);
        }
        waiting.push(id("b", 1), 5);
        waiting.push(id("b", 2), -5);
        let mut next = waiting.pop(10);
        assert_eq!(next[0], id("b", 2));
        next.extend(waiting.pop(1000));
        let expected: Vec<_> = (0..9).map(|number| id("a", number)).collect();
        assert_eq!(next[1..10], expected);
        assert_eq!(next[10], id("b", 1));
        assert_eq!(next.len(), TURN + 4);
        assert_eq!(next.last(), Some(&id("a", TURN as u64 + 1)));
        assert!(waiting.pop(1).is_empty() && waiting.0.is_empty());
    }
}
