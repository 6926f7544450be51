//! Histories with hand-made times, and random ones with a model of what listeners do.

use super::*;
use crate::update::Action;

const ACK: Duration = Duration::from_secs(1);

struct Desk {
    in_flight: InFlight,
    start: Instant,
}

impl Desk {
    fn new(window: usize, listeners: &[&str]) -> Desk {
        let mut desk = Desk {
            in_flight: InFlight::new(ACK, window),
            start: Instant::now(),
        };
        desk.present(0, listeners);
        desk
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn present(&mut self, millis: u64, listeners: &[&str]) {
        let present = listeners.iter().map(|name| ((*name).into(), true));
        self.in_flight.listeners(present.collect(), self.at(millis));
    }

    fn add(&mut self, millis: u64, number: u64, key: &str) {
        let update = DbUpdate::new("lport", key, Action::Set);
        self.in_flight.add(number, update, self.at(millis));
    }

    fn tick(&mut self, millis: u64) {
        self.in_flight.tick(self.at(millis));
    }

    fn answer(&mut self, millis: u64, number: u64, listener: &str, attempt: u32, state: State, owner: &str) {
        let answer = Answer {
            listener: listener.into(),
            attempt,
            state,
            owner: owner.into(),
        };
        self.in_flight.answered(number, answer, self.at(millis));
    }

    fn done(&mut self, millis: u64, number: u64, listener: &str, attempt: u32) {
        self.answer(millis, number, listener, attempt, State::Done, listener);
    }

    /// The only thing to do is to send this; to whom?
    #[track_caller]
    fn sent(&mut self, number: u64, attempt: u32) -> String {
        let steps = self.in_flight.steps();
        let [
            Step::Send {
                number: n,
                attempt: a,
                listener,
            },
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!((*n, *a), (number, attempt));
        listener.to_string()
    }

    #[track_caller]
    fn processed(&mut self, millis: u64) {
        let took = Duration::from_millis(millis);
        assert_eq!(self.in_flight.steps(), [Step::Processed { failed: false, took }]);
    }

    #[track_caller]
    fn confirmed(&mut self, listener: &str, numbers: &[u64]) {
        let (listener, numbers) = (listener.into(), numbers.to_vec());
        assert_eq!(self.in_flight.steps(), [Step::Confirm { numbers, listener }]);
    }

    #[track_caller]
    fn idle(&mut self) {
        assert_eq!(self.in_flight.steps(), []);
    }
}

fn other(name: &str) -> &'static str {
    if name == "a" { "b" } else { "a" }
}

#[test]
fn an_event_is_sent_acknowledged_and_confirmed() {
    let mut desk = Desk::new(9, &["a"]);
    desk.add(0, 1, "k");
    assert_eq!(desk.sent(1, 1), "a");
    desk.done(30, 1, "a", 1);
    desk.processed(30);
    desk.tick(129);
    desk.idle();
    desk.tick(130);
    desk.confirmed("a", &[1]);
    assert_eq!(desk.in_flight.due(), None);
}

#[test]
fn without_an_answer_another_is_chosen_and_then_it_backs_off() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    let first = desk.sent(1, 1);
    desk.tick(999);
    desk.idle();
    desk.tick(1000);
    let second = desk.sent(1, 2);
    assert_eq!(second, other(&first));
    // Now there is twice the time, and so on, but not for ever.
    let mut now = 1000;
    for (attempt, seconds) in (3..).zip([2, 4, 8, 16, 16]) {
        now += seconds * 1000;
        desk.tick(now - 1);
        desk.idle();
        desk.tick(now);
        desk.sent(1, attempt);
    }
}

#[test]
fn a_copy_that_is_not_answered_for_keeps_the_claim() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    let first = desk.sent(1, 1);
    desk.tick(1000);
    let second = desk.sent(1, 2);
    desk.done(1100, 1, &second, 2);
    desk.processed(1100);
    // The first may have its copy still: it is asked, rather than given the event again.
    desk.tick(2100);
    let listener = first.as_str().into();
    assert_eq!(
        desk.in_flight.steps(),
        [Step::Ask {
            number: 1,
            attempt: 3,
            listener
        }]
    );
    // An answer to what was before is not enough.
    desk.answer(2200, 1, &first, 1, State::Taken, &second);
    desk.tick(2400);
    desk.idle();
    desk.answer(2500, 1, &first, 3, State::Done, &second);
    desk.tick(2600);
    desk.confirmed(&second, &[1]);
}

#[test]
fn who_is_never_heard_of_again_leaves_the_claim_to_time() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    desk.sent(1, 1);
    desk.tick(1000);
    let second = desk.sent(1, 2);
    desk.done(1000, 1, &second, 2);
    desk.processed(1000);
    for at in [2000, 4000, 8000] {
        desk.tick(at);
        assert!(matches!(desk.in_flight.steps()[..], [Step::Ask { .. }]), "{at}");
    }
    desk.tick(16_000);
    desk.idle();
    assert_eq!(desk.in_flight.due(), None);
}

#[test]
fn who_is_gone_has_no_copy_and_what_it_had_goes_to_another_at_once() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    let first = desk.sent(1, 1);
    let second = other(&first);
    desk.present(10, &[second]);
    assert_eq!(desk.sent(1, 2), second);
    desk.done(20, 1, second, 2);
    desk.processed(20);
    desk.tick(200);
    desk.confirmed(second, &[1]);
}

#[test]
fn the_owner_of_what_is_claimed_is_asked_and_others_whether_it_is_there() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    let owner = desk.sent(1, 1);
    desk.tick(1000);
    let second = desk.sent(1, 2);
    desk.answer(1001, 1, &second, 2, State::Taken, &owner);
    desk.idle();
    desk.tick(3001);
    assert_eq!(desk.sent(1, 3), owner);
    // It does not answer: another one looks whether it is there, and so on.
    desk.tick(7001);
    assert_eq!(desk.sent(1, 4), second);
    desk.answer(7002, 1, &second, 4, State::Taken, &owner);
    desk.tick(15_002);
    assert_eq!(desk.sent(1, 5), owner);
    // It is gone.
    desk.present(15_003, &[&second]);
    assert_eq!(desk.sent(1, 6), second);
    desk.done(15_004, 1, &second, 6);
    desk.processed(15_004);
    desk.tick(15_104);
    desk.confirmed(&second, &[1]);
}

#[test]
fn what_is_sent_back_goes_to_another_at_once_and_nothing_follows() {
    let mut desk = Desk::new(9, &["a", "b"]);
    desk.add(0, 1, "k");
    let first = desk.sent(1, 1);
    let second = other(&first);
    desk.answer(5, 1, &first, 1, State::Moved, &first);
    assert_eq!(desk.sent(1, 2), second);
    for number in 2..20 {
        desk.add(6, number, &number.to_string());
        desk.done(7, number, second, 1);
    }
    let to_first = |step: &Step| matches!(step, Step::Send { listener, .. } if *listener == *first);
    assert!(!desk.in_flight.steps().iter().any(to_first));
    // It is still registered, but nobody else is.
    desk.present(8, &[&first]);
    assert_eq!(desk.in_flight.steps(), [Step::Nobody]);
    desk.present(9, &[]);
    desk.present(10, &["c"]);
    assert_eq!(desk.sent(1, 3), "c");
}

#[test]
fn updates_of_a_row_go_one_after_the_other() {
    let mut desk = Desk::new(9, &["a"]);
    for number in 1..=3 {
        desk.add(0, number, "k");
    }
    desk.add(0, 4, "other");
    let steps = desk.in_flight.steps();
    assert!(matches!(
        steps[..],
        [Step::Send { number: 1, .. }, Step::Send { number: 4, .. }]
    ));
    desk.done(1, 1, "a", 1);
    assert!(matches!(desk.in_flight.steps()[..], [_, Step::Send { number: 2, .. }]));
    desk.done(2, 2, "a", 1);
    assert!(matches!(desk.in_flight.steps()[..], [_, Step::Send { number: 3, .. }]));
    desk.done(3, 3, "a", 1);
    desk.processed(3);
    desk.add(4, 5, "k");
    assert_eq!(desk.sent(5, 1), "a");
    let pending: Vec<_> = desk
        .in_flight
        .into_pending()
        .into_iter()
        .map(|update| update.key)
        .collect();
    assert_eq!(pending, ["other", "k"]);
}

#[test]
fn without_listeners_everything_waits_and_it_is_said_once() {
    let mut desk = Desk::new(9, &[]);
    desk.add(0, 1, "k");
    desk.add(0, 2, "l");
    assert_eq!(desk.in_flight.steps(), [Step::Nobody]);
    desk.present(5, &["a"]);
    assert_eq!(desk.in_flight.steps().len(), 2);
    desk.present(6, &[]);
    assert_eq!(desk.in_flight.steps(), [Step::Nobody]);
    desk.tick(10_000);
    desk.idle();
    // A late answer counts all the same.
    desk.done(10_001, 1, "a", 1);
    desk.processed(10_001);
    desk.present(10_002, &["b"]);
    let steps = desk.in_flight.steps();
    assert!(matches!(steps[..], [Step::Send { number: 2, .. }]), "{steps:?}");
    desk.tick(10_200);
    desk.confirmed("b", &[1]);
}

#[test]
fn no_more_are_on_their_way_than_the_window() {
    let mut desk = Desk::new(2, &["a"]);
    for number in 1..=4 {
        desk.add(0, number, &number.to_string());
    }
    assert_eq!(desk.in_flight.steps().len(), 2);
    desk.done(1, 2, "a", 1);
    let steps = desk.in_flight.steps();
    assert!(
        matches!(steps[..], [Step::Processed { .. }, Step::Send { number: 3, .. }]),
        "{steps:?}"
    );
}

/// A listener as it is meant to be: its messages in order, and what it knows.
#[derive(Default)]
struct Model {
    messages: VecDeque<Step>,
    done: BTreeSet<u64>,
    is_leaving: bool,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// Messages are lost, listeners die, leave and come, answers are late: each event is processed, once but for those whose
/// processor died, and no claim is removed while a copy of its event is on its way.
#[test]
fn whatever_happens_each_event_is_processed_once() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut desk = Desk::new(1 + random.below(8) as usize, &[]);
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        // The store: who has claimed what, and whether that is marked as done.
        let mut claims: BTreeMap<u64, (String, bool)> = BTreeMap::new();
        let mut processed: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut killed: BTreeSet<String> = BTreeSet::new();
        let (mut now, mut next, mut finished) = (0, 1, 0);
        for round in 0..10_000 {
            let is_calm = round > 600;
            if next <= 40 && random.below(4) == 0 {
                desk.add(now, next, &(next % 30).to_string());
                next += 1;
            }
            // Somebody comes, dies, leaves.
            let roll = if is_calm { 3 } else { random.below(60) };
            let names: Vec<String> = models.keys().cloned().collect();
            if models.is_empty() || roll == 0 && models.len() < 4 {
                models.insert(format!("l{round}"), Model::default());
            } else if roll == 1 {
                let name = &names[random.below(names.len() as u64) as usize];
                models.remove(name);
                killed.insert(name.clone());
            } else if roll == 2 {
                let name = &names[random.below(names.len() as u64) as usize];
                models.get_mut(name).unwrap().is_leaving = true;
            } else if roll == 3 {
                for name in names {
                    let left = models.remove(&name).unwrap();
                    if !left.is_leaving {
                        models.insert(name, left);
                        continue;
                    }
                    for number in left.done {
                        claims.entry(number).and_modify(|claim| claim.1 = true);
                    }
                }
            }
            if random.below(3) == 0 {
                let present: Vec<&str> = models.keys().map(String::as_str).collect();
                desk.present(now, &present);
            }
            // A listener handles a message.
            let names: Vec<String> = models.keys().cloned().collect();
            if let Some(name) = names.get(random.below(1 + names.len() as u64) as usize)
                && let Some(message) = models.get_mut(name).unwrap().messages.pop_front()
            {
                let model = models.get_mut(name).unwrap();
                let answer = match message {
                    Step::Send { number, attempt, .. } if model.done.contains(&number) => {
                        Some((number, attempt, State::Done, name.clone()))
                    }
                    Step::Send { number, attempt, .. } if model.is_leaving => {
                        Some((number, attempt, State::Moved, name.clone()))
                    }
                    Step::Send { number, attempt, .. } => match claims.get(&number).cloned() {
                        Some((owner, true)) => Some((number, attempt, State::Done, owner)),
                        Some((owner, false)) if models.contains_key(&owner) => {
                            Some((number, attempt, State::Taken, owner))
                        }
                        _ => {
                            claims.insert(number, (name.clone(), false));
                            models.get_mut(name).unwrap().done.insert(number);
                            processed.entry(number).or_default().push(name.clone());
                            Some((number, attempt, State::Done, name.clone()))
                        }
                    },
                    Step::Ask { number, attempt, .. } => Some((number, attempt, State::Done, name.clone())),
                    Step::Confirm { numbers, .. } => {
                        for number in numbers {
                            models.get_mut(name).unwrap().done.remove(&number);
                            claims.remove(&number);
                            let copies = models.iter().filter(|(_, model)| {
                                let is_copy = |m: &Step| matches!(m, Step::Send { number: n, .. } if *n == number);
                                model.messages.iter().any(is_copy)
                            });
                            assert_eq!(copies.count(), 0, "seed {seed}: {number} is settled, but on its way");
                        }
                        None
                    }
                    Step::Processed { .. } | Step::Nobody => None,
                };
                if let Some((number, attempt, state, owner)) = answer
                    && (is_calm || random.below(5) > 0)
                {
                    desk.answer(now, number, name, attempt, state, &owner);
                }
            }
            now += random.below(if is_calm { 50 } else { 300 });
            desk.tick(now);
            for step in desk.in_flight.steps() {
                let to = match &step {
                    Step::Processed { .. } => {
                        finished += 1;
                        continue;
                    }
                    Step::Nobody => continue,
                    Step::Send { listener, .. } | Step::Ask { listener, .. } | Step::Confirm { listener, .. } => {
                        listener
                    }
                };
                if let Some(model) = models.get_mut(to.as_str())
                    && (is_calm || random.below(8) > 0)
                {
                    model.messages.push_back(step);
                }
            }
            if next > 40 && finished == 40 && desk.in_flight.events.is_empty() {
                break;
            }
        }
        assert_eq!((finished, desk.in_flight.flying), (40, 0), "seed {seed}");
        assert!(
            desk.in_flight.rows.is_empty() && desk.in_flight.timers.is_empty(),
            "seed {seed}"
        );
        for (number, by) in &processed {
            let alive = by.iter().filter(|name| !killed.contains(*name)).count();
            assert!(alive <= 1, "seed {seed}: {number} by {by:?}");
        }
        assert_eq!(processed.len(), 40, "seed {seed}");
    }
}
