//! The heap against the simplest possible model.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::update::Action;

const MAX_OVERTAKE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
enum Step {
    /// Key, priority, timestamp, and whether the update has a version.
    Push(u8, i32, i64, bool),
    Pop,
    PopHeld,
    Release(usize),
    Wait(u64),
    /// Remove updates with a version.
    Remove,
    /// Check for each row whether it is pending.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..8u8, 0..3i32, 0..3i64, any::<bool>()).prop_map(|(key, priority, timestamp, is_stored)| {
            Step::Push(key, priority, timestamp, is_stored)
        }),
        5 => Just(Step::Pop),
        3 => Just(Step::PopHeld),
        3 => (0..8usize).prop_map(Step::Release),
        2 => (1..80u64).prop_map(Step::Wait),
        1 => Just(Step::Remove),
        1 => Just(Step::Look),
    ];
    vec(step, 0..200)
}

/// Pending updates in order of arrival, and the held keys.
#[derive(Default)]
struct Model {
    pending: Vec<(Duration, DbUpdate)>,
    held: Vec<Name>,
}

impl Model {
    fn pop(&mut self, now: Duration, hold: bool) -> Option<DbUpdate> {
        let is_free = |(_, update): &&(Duration, DbUpdate)| !self.held.contains(&update.key);
        let free = || self.pending.iter().filter(is_free);
        let (arrived, oldest) = free().next()?;
        let key = if now - *arrived > MAX_OVERTAKE {
            oldest.key.clone()
        } else {
            // The first of equal ones.
            let next = free().min_by_key(|(_, update)| (update.priority, update.timestamp));
            next?.1.key.clone()
        };
        let place = self.pending.iter().position(|(_, update)| update.key == key)?;
        if hold {
            self.held.push(key);
        }
        Some(self.pending.remove(place).1)
    }
}

proptest! {
    #[test]
    fn hands_out_what_the_model_hands_out(steps in steps(), holds in any::<bool>()) {
        let (mut heap, mut model) = (Heap::new(MAX_OVERTAKE), Model::default());
        let (start, mut now, mut count) = (Instant::now(), Duration::ZERO, 0);
        for step in steps {
            match step {
                Step::Push(key, priority, timestamp, is_stored) => {
                    count += 1;
                    let mut update = DbUpdate::new("t", key.to_string(), Action::Set).value(count.to_string());
                    (update.priority, update.timestamp) = (priority, timestamp);
                    update.version = is_stored.then_some(count);
                    model.pending.push((now, update.clone()));
                    heap.push(update, start + now);
                }
                Step::Pop => prop_assert_eq!(heap.pop(|| start + now, false), model.pop(now, false)),
                Step::PopHeld if !holds => {}
                Step::PopHeld => prop_assert_eq!(heap.pop(|| start + now, true), model.pop(now, true)),
                Step::Release(which) if !model.held.is_empty() => {
                    let key = model.held.swap_remove(which % model.held.len());
                    heap.release(&"t".into(), &key);
                }
                Step::Release(_) => heap.release(&"t".into(), &"0".into()),
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Look => {
                    for (_, update) in &model.pending {
                        prop_assert!(heap.is_pending(update));
                    }
                }
                Step::Remove => {
                    let before = model.pending.len();
                    model.pending.retain(|(_, update)| update.version.is_none());
                    prop_assert_eq!(heap.remove(|update| update.version.is_some()), before - model.pending.len());
                }
            }
        }
    }
}
