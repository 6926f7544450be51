//! Histories with hand-made times.

use super::*;
use crate::update::Action;

const ACK: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

struct Rig {
    in_flight: InFlight,
    start: Instant,
}

impl Rig {
    fn new(window: usize, listeners: &[&str]) -> Rig {
        let mut rig = Rig {
            in_flight: InFlight::new(ACK, window, TIMEOUT),
            start: Instant::now(),
        };
        rig.present(0, listeners);
        rig
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn present(&mut self, millis: u64, listeners: &[&str]) {
        let (may, waiting) = (true, 0);
        let present = listeners.iter().map(|name| ((*name).into(), Standing { may, waiting }));
        self.in_flight.listeners(present.collect(), self.at(millis));
        self.tick(millis);
    }

    fn add(&mut self, millis: u64, number: u64, key: &str) {
        let update = DbUpdate::new("lport", key, Action::Set);
        self.in_flight.add(number, update, self.at(millis));
        self.tick(millis);
    }

    fn tick(&mut self, millis: u64) {
        self.in_flight.tick(self.at(millis));
    }

    fn say(&mut self, millis: u64, number: u64, listener: &str, attempt: u32, state: EventState, owner: Option<&str>) {
        let leaving = state == EventState::Back;
        let owner = owner.map(Name::from);
        let about = vec![Answer {
            number,
            attempt,
            state,
            owner,
        }];
        let answers = Answers {
            listener: listener.into(),
            waiting: 0,
            leaving,
            about,
        };
        self.in_flight.answered(answers, self.at(millis));
        self.tick(millis);
    }

    fn done(&mut self, millis: u64, number: u64, listener: &str, attempt: u32) {
        self.say(millis, number, listener, attempt, EventState::Done, None);
    }

    /// After 8 s of unanswered questions, the event is sent to another listener.
    fn give_up(&mut self) {
        [1000, 2000, 4000, 8000].into_iter().for_each(|at| self.tick(at));
        assert!(matches!(
            self.in_flight.steps().last(),
            Some(Step::Send { attempt: 5, .. })
        ));
    }

    /// Asserts that the only action is this send; returns the listener.
    #[track_caller]
    fn sent(&mut self, number: u64, attempt: u32) -> String {
        let steps = self.in_flight.steps();
        let [
            Step::Send {
                number: n,
                attempt: a,
                listener,
                ..
            },
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!((*n, *a), (number, attempt));
        listener.to_string()
    }

    #[track_caller]
    fn asked(&mut self, listener: &str, about: (u64, u32, bool)) {
        let about = vec![Question::from(about)];
        let listener = listener.into();
        assert_eq!(self.in_flight.steps(), [Step::Ask { about, listener }]);
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
    let mut rig = Rig::new(9, &["a"]);
    rig.add(0, 1, "k");
    assert_eq!(rig.sent(1, 1), "a");
    assert_eq!(rig.in_flight.low(), 1);
    rig.done(30, 1, "a", 1);
    rig.processed(30);
    assert_eq!(rig.in_flight.low(), 2);
    rig.tick(129);
    rig.idle();
    rig.tick(130);
    rig.confirmed("a", &[1]);
    assert_eq!(rig.in_flight.due(), None);
}

#[test]
fn without_an_answer_it_is_asked_and_then_another_is_chosen() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    rig.tick(999);
    rig.idle();
    rig.tick(1000);
    rig.asked(&first, (1, 2, false));
    rig.tick(2000);
    rig.asked(&first, (1, 3, false));
    rig.tick(4000);
    rig.asked(&first, (1, 4, false));
    rig.tick(7999);
    rig.idle();
    rig.tick(8000);
    assert_eq!(rig.sent(1, 5), other(&first));
    // Now the first question comes after twice the time.
    rig.tick(9999);
    rig.idle();
    rig.tick(10_000);
    rig.asked(other(&first), (1, 6, false));
}

#[test]
fn one_that_has_it_is_not_sent_it_again_but_asked_ever_more_rarely() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    rig.say(5, 1, &first, 1, EventState::Held, None);
    let (mut now, mut attempt) = (5, 1);
    for seconds in [1, 2, 4, 8, 16, 16, 16] {
        now += seconds * 1000;
        rig.tick(now - 1);
        rig.idle();
        rig.tick(now);
        attempt += 1;
        rig.asked(&first, (1, attempt, false));
        rig.say(now, 1, &first, attempt, EventState::Held, None);
    }
    // The listener has lost it after all.
    rig.say(now + 1, 1, &first, attempt, EventState::Unknown, None);
    assert_eq!(rig.sent(1, attempt + 1), other(&first));
}

#[test]
fn what_was_lost_is_sent_again_when_the_answer_says_so() {
    let mut rig = Rig::new(9, &["a"]);
    rig.add(0, 1, "k");
    rig.sent(1, 1);
    rig.tick(1000);
    rig.asked("a", (1, 2, false));
    rig.say(1001, 1, "a", 2, EventState::Unknown, None);
    assert_eq!(rig.sent(1, 3), "a");
    // An answer to an earlier try proves nothing about this one.
    rig.say(1002, 1, "a", 2, EventState::Unknown, None);
    rig.idle();
}

#[test]
fn a_copy_that_is_not_answered_for_keeps_the_claim() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    rig.give_up();
    let second = other(&first);
    rig.done(8100, 1, second, 5);
    rig.processed(8100);
    // The first may still have its copy: it is asked, and not sent the event again.
    rig.tick(9100);
    rig.asked(&first, (1, 6, true));
    // Neither an answer to an earlier question is enough, nor that it has the event.
    rig.say(9200, 1, &first, 4, EventState::Taken, Some(second));
    rig.say(9200, 1, &first, 6, EventState::Held, None);
    rig.tick(9400);
    rig.idle();
    rig.say(9500, 1, &first, 6, EventState::Unknown, None);
    rig.tick(9600);
    rig.confirmed(second, &[1]);
}

#[test]
fn who_is_never_heard_of_again_leaves_the_claim_to_time() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    rig.give_up();
    rig.done(8000, 1, other(&first), 5);
    rig.processed(8000);
    for (attempt, at) in (6..).zip([9000, 11_000, 15_000]) {
        rig.tick(at);
        rig.asked(&first, (1, attempt, true));
    }
    rig.tick(23_000);
    rig.idle();
    assert_eq!(rig.in_flight.due(), None);
}

#[test]
fn who_is_gone_has_no_copy_and_what_it_had_goes_to_another_at_once() {
    for (number, state) in [(1, None), (2, Some(EventState::Held))] {
        let mut rig = Rig::new(9, &["a", "b"]);
        rig.add(0, number, "k");
        let first = rig.sent(number, 1);
        let second = other(&first);
        if let Some(state) = state {
            rig.say(5, number, &first, 1, state, None);
        }
        rig.present(10, &[second]);
        assert_eq!(rig.sent(number, 2), second);
        rig.done(20, number, second, 2);
        rig.processed(20);
        rig.tick(200);
        rig.confirmed(second, &[number]);
    }
}

#[test]
fn what_was_confirmed_to_one_that_is_gone_is_confirmed_to_another() {
    let mut rig = Rig::new(9, &["a"]);
    for (at, number) in [(0, 1), (30_000, 2)] {
        rig.add(at, number, "k");
        rig.sent(number, 1);
        rig.done(at, number, "a", 1);
        rig.processed(0);
        rig.tick(at + 100);
        rig.confirmed("a", &[number]);
    }
    // The first confirmation is so old that the listener has received it; otherwise its end would have been noticed
    // before.
    rig.present(31_000, &["b"]);
    rig.tick(31_100);
    rig.confirmed("b", &[2]);
    rig.present(32_000, &["b", "c"]);
    assert_eq!(rig.in_flight.due(), None);
}

#[test]
fn the_owner_of_what_is_claimed_is_asked_and_others_whether_it_is_there() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let owner = rig.sent(1, 1);
    rig.give_up();
    let second = other(&owner);
    rig.say(8001, 1, second, 5, EventState::Taken, Some(&owner));
    rig.idle();
    rig.tick(10_001);
    rig.asked(&owner, (1, 6, false));
    // It has the claim and does not know it: only this listener can process the event.
    rig.say(10_002, 1, &owner, 6, EventState::Unknown, None);
    assert_eq!(rig.sent(1, 7), owner);
    rig.say(10_003, 1, second, 5, EventState::Taken, Some(&owner));
    // It is gone.
    rig.present(10_004, &[second]);
    assert_eq!(rig.sent(1, 8), second);
    rig.done(10_005, 1, second, 8);
    rig.processed(10_005);
    rig.tick(10_105);
    rig.confirmed(second, &[1]);
}

#[test]
fn what_is_sent_back_goes_to_another_at_once_and_nothing_follows() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    let second = other(&first);
    rig.say(5, 1, &first, 1, EventState::Back, None);
    assert_eq!(rig.sent(1, 2), second);
    for number in 2..20 {
        rig.add(6, number, &number.to_string());
        rig.done(7, number, second, 1);
    }
    let to_first = |step: &Step| matches!(step, Step::Send { listener, .. } if *listener == *first);
    assert!(!rig.in_flight.steps().iter().any(to_first));
    // It is the only one still registered.
    rig.present(8, &[&first]);
    assert_eq!(rig.in_flight.steps(), [Step::NoListener]);
    rig.present(9, &[]);
    rig.present(10, &["c"]);
    assert_eq!(rig.sent(1, 3), "c");
}

#[test]
fn what_cannot_be_claimed_goes_to_another_after_a_while() {
    let mut rig = Rig::new(9, &["a", "b"]);
    rig.add(0, 1, "k");
    let first = rig.sent(1, 1);
    let about = vec![Answer {
        number: 1,
        attempt: 1,
        state: EventState::Back,
        owner: None,
    }];
    let answers = Answers {
        listener: first.as_str().into(),
        waiting: 0,
        leaving: false,
        about,
    };
    rig.in_flight.answered(answers, rig.at(5));
    rig.tick(1004);
    rig.idle();
    rig.tick(1005);
    assert_eq!(rig.sent(1, 2), other(&first));
}

#[test]
fn updates_of_a_row_go_one_after_the_other() {
    let mut rig = Rig::new(9, &["a"]);
    for number in 1..=3 {
        rig.add(0, number, "k");
    }
    rig.add(0, 4, "other");
    let steps = rig.in_flight.steps();
    assert!(matches!(
        steps[..],
        [Step::Send { number: 1, .. }, Step::Send { number: 4, .. }]
    ));
    rig.done(1, 1, "a", 1);
    assert!(matches!(rig.in_flight.steps()[..], [_, Step::Send { number: 2, .. }]));
    rig.done(2, 2, "a", 1);
    assert!(matches!(rig.in_flight.steps()[..], [_, Step::Send { number: 3, .. }]));
    rig.done(3, 3, "a", 1);
    rig.processed(3);
    rig.add(4, 5, "k");
    assert_eq!(rig.sent(5, 1), "a");
    let pending = rig.in_flight.into_pending().into_iter();
    assert_eq!(pending.map(|update| update.key).collect::<Vec<_>>(), ["other", "k"]);
}

#[test]
fn before_the_first_look_nothing_is_said_of_missing_listeners() {
    let mut rig = Rig {
        in_flight: InFlight::new(ACK, 9, TIMEOUT),
        start: Instant::now(),
    };
    rig.add(0, 1, "k");
    rig.idle();
    rig.present(5, &[]);
    assert_eq!(rig.in_flight.steps(), [Step::NoListener]);
}

#[test]
fn without_listeners_everything_waits_and_it_is_said_once() {
    let mut rig = Rig::new(9, &[]);
    rig.add(0, 1, "k");
    rig.add(0, 2, "l");
    assert_eq!(rig.in_flight.steps(), [Step::NoListener]);
    rig.present(5, &["a"]);
    assert_eq!(rig.in_flight.steps().len(), 2);
    rig.present(6, &[]);
    assert_eq!(rig.in_flight.steps(), [Step::NoListener]);
    rig.tick(10_000);
    rig.idle();
    // A late answer still counts.
    rig.done(10_001, 1, "a", 1);
    rig.processed(10_001);
    rig.present(10_002, &["b"]);
    let steps = rig.in_flight.steps();
    assert!(matches!(steps[..], [Step::Send { number: 2, .. }]), "{steps:?}");
    rig.tick(10_200);
    rig.confirmed("b", &[1]);
}

#[test]
fn no_more_are_on_their_way_than_the_window() {
    let mut rig = Rig::new(2, &["a"]);
    for number in 1..=4 {
        rig.add(0, number, &number.to_string());
    }
    assert_eq!(rig.in_flight.steps().len(), 2);
    rig.done(1, 2, "a", 1);
    let steps = rig.in_flight.steps();
    assert!(
        matches!(steps[..], [Step::Processed { .. }, Step::Send { number: 3, .. }]),
        "{steps:?}"
    );
}

#[test]
fn while_all_listeners_are_busy_a_few_updates_make_one_message() {
    let mut rig = Rig::new(256, &["a", "b"]);
    let busy = |rig: &mut Rig, millis, listener: &str, waiting| {
        let (listener, leaving, about) = (listener.into(), false, Vec::new());
        let answers = Answers {
            listener,
            waiting,
            leaving,
            about,
        };
        rig.in_flight.answered(answers, rig.at(millis));
        rig.tick(millis);
    };
    busy(&mut rig, 0, "a", 1000);
    // One of them has nothing to do.
    (1..=3).for_each(|number| rig.add(0, number, &number.to_string()));
    assert_eq!(rig.in_flight.steps().len(), 3);
    busy(&mut rig, 5, "b", 1000);
    (4..=6).for_each(|number| rig.add(10, number, &number.to_string()));
    assert!(rig.in_flight.steps().is_empty());
    assert_eq!(rig.in_flight.due(), Some(rig.at(110)));
    rig.tick(109);
    assert!(rig.in_flight.steps().is_empty());
    rig.tick(110);
    let to = |steps: Vec<Step>| -> Vec<Name> {
        let to = steps.into_iter().map(|step| match step {
            Step::Send { listener, .. } => listener,
            step => panic!("{step:?}"),
        });
        to.collect()
    };
    let gathered = to(rig.in_flight.steps());
    assert!(gathered.len() == 3 && gathered.iter().all(|name| *name == gathered[0]));
    // As many as a hand go at once, and two hands go to different listeners.
    let mut hand = |first: u64| {
        (first..first + HAND as u64).for_each(|number| rig.add(120, number, &number.to_string()));
        let hand = to(rig.in_flight.steps());
        assert!(hand.len() == HAND && hand.iter().all(|name| *name == hand[0]));
        hand[0].clone()
    };
    assert_ne!(hand(7), hand(7 + HAND as u64));
    // With no event under way, an event is sent at once.
    let mut rig = Rig::new(256, &["a"]);
    busy(&mut rig, 0, "a", 1000);
    rig.add(1, 1, "k");
    assert_eq!(rig.sent(1, 1), "a");
}
