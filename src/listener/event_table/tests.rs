//! Histories with hand-made times and store outcomes.

use super::known_notifier::{RECEIPT, RECEIPTS_APART};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::listener::claims::{Claim, Outcome, Step};
use crate::update::Action;

struct Rig {
    events: EventTable,
    now: Instant,
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn id(number: u64) -> EventId {
    let notifier = topic("notifier");
    EventId { notifier, number }
}

impl Rig {
    fn new() -> Rig {
        Rig {
            events: EventTable::new(topic("a")),
            now: Instant::now(),
        }
    }

    fn receive(&mut self, low: u64, body: Body) {
        let notifier = topic("notifier");
        let on = self.events.run().clone();
        let message = ListenerMessage {
            on,
            notifier,
            low,
            body,
        };
        self.events.receive(message, self.now);
    }

    fn event(&mut self, number: u64, attempt: u32) {
        let update = DbUpdate::new("lport", number.to_string(), Action::Set);
        self.receive(0, Body::Event(number, attempt, Box::new(update)));
    }

    fn ask(&mut self, number: u64, attempt: u32, settled: bool) {
        self.receive(0, Body::Questions(vec![Question::from((number, attempt, settled))]));
    }

    /// The answers, after the longest time that they wait.
    fn answers(&mut self) -> Vec<(u64, u32, EventState)> {
        let answers = self.events.answers(self.now + RECEIPT + RECEIPTS_APART).into_iter();
        let answers = answers.flat_map(|(_, about)| about);
        answers.map(|it| (it.number, it.attempt, it.state)).collect()
    }

    fn step(&mut self) -> Step {
        self.events.step(true, self.now)
    }

    fn end_step(&mut self, marks: Vec<Claim>, claims: Vec<Claim>) -> Vec<u64> {
        let marks = marks.into_iter().map(Ok).collect();
        let claims = claims.into_iter().map(Ok).collect();
        let (turns, errors) = self.events.end_step(Ok(Outcome { marks, claims }), self.now);
        assert!(errors.is_empty());
        turns.into_iter().map(|turn| turn.id.number).collect()
    }

    /// Claims an event, and begins it.
    fn begin(&mut self, number: u64, attempt: u32) {
        self.event(number, attempt);
        assert_eq!(self.step().claims.len(), 1);
        assert_eq!(self.end_step(vec![], vec![Claim::Ours(7)]), [number]);
        assert!(self.events.begin(&id(number), true, self.now).is_some());
        self.answers();
    }

    fn outage(&mut self) {
        let outage = Error::new(ErrorKind::Unavailable, "an outage");
        assert_eq!(self.events.end_step(Err(outage), self.now).1.len(), 1);
    }
}

#[test]
fn an_event_is_claimed_handled_marked_and_only_then_acknowledged() {
    let mut rig = Rig::new();
    assert!(!rig.events.has_step(rig.now));
    rig.event(1, 1);
    // The receipt waits a moment, since an acknowledgement would make it unnecessary.
    assert!(rig.events.answers(rig.now).is_empty());
    assert_eq!(rig.events.answers_due(), Some(rig.now + RECEIPT));
    assert_eq!(rig.answers(), [(1, 1, EventState::Held)]);
    assert!(rig.events.has_step(rig.now));
    let step = rig.step();
    assert_eq!(step.claims, ["notifier/1"]);
    assert_eq!(rig.events.load(), 1);
    assert_eq!(rig.end_step(vec![], vec![Claim::Ours(7)]), [1]);
    assert_eq!(rig.events.begin(&id(1), true, rig.now).unwrap().key, "1");
    assert_eq!(rig.events.begin(&id(1), true, rig.now), None);
    assert!(rig.events.is_handling(std::thread::current().id()));
    assert_eq!((rig.events.load(), rig.events.is_busy()), (0, true));
    rig.events.ended(id(1), false, rig.now);
    assert_eq!(rig.answers(), []);
    let step = rig.step();
    assert_eq!(step.marks, [("notifier/1".into(), topic("a"), 7)]);
    assert_eq!(rig.answers(), []);
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(rig.answers(), [(1, 1, EventState::Done)]);
    assert!(!rig.events.is_busy() && !rig.events.is_settled());
    rig.receive(2, Body::Confirmations(vec![1]));
    assert_eq!(rig.step().removals, ["notifier/1"]);
    rig.end_step(vec![], vec![]);
    assert!(rig.events.is_settled());
    assert_eq!(rig.events.stats().claims, 0);
    // A stray copy.
    rig.event(1, 9);
    assert_eq!((rig.answers(), rig.step().claims.len()), (vec![], 0));
}

#[test]
fn what_cannot_be_marked_is_not_acknowledged_before_it_can() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.events.ended(id(1), true, rig.now);
    for _ in 0..3 {
        assert_eq!(rig.step().marks.len(), 1);
        rig.outage();
        rig.ask(1, 2, false);
        assert_eq!(rig.answers(), [(1, 2, EventState::Held)]);
    }
    assert_eq!(rig.step().marks.len(), 1);
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(rig.answers(), [(1, 2, EventState::Failed)]);
}

#[test]
fn what_another_took_over_meanwhile_is_not_acknowledged() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.events.ended(id(1), false, rig.now);
    rig.step();
    rig.end_step(vec![Claim::Theirs(topic("b"))], vec![]);
    assert_eq!(rig.answers(), [(1, 1, EventState::Taken)]);
    assert!(!rig.events.is_busy());
}

#[test]
fn what_cannot_be_claimed_goes_back() {
    let mut rig = Rig::new();
    rig.event(1, 1);
    assert_eq!(rig.step().claims.len(), 1);
    rig.outage();
    assert_eq!(rig.answers(), [(1, 1, EventState::Back)]);
    // Nothing is claimed or begun while other listeners may declare it dead.
    rig.event(1, 2);
    assert!(rig.events.step(false, rig.now).is_empty());
    assert_eq!(rig.answers(), [(1, 2, EventState::Back)]);
    rig.event(1, 3);
    rig.step();
    rig.end_step(vec![], vec![Claim::Ours(3)]);
    assert_eq!(rig.events.begin(&id(1), false, rig.now), None);
    assert_eq!(rig.answers(), [(1, 3, EventState::Back)]);
    assert_eq!(rig.events.stats().dropped, 3);
}

#[test]
fn what_others_have_is_told() {
    let mut rig = Rig::new();
    [1, 2, 3].into_iter().for_each(|number| rig.event(number, 1));
    assert_eq!(rig.step().claims.len(), 3);
    let claims = vec![Claim::Theirs(topic("b")), Claim::Done(topic("c")), Claim::TakenOver(5)];
    assert_eq!(rig.end_step(vec![], claims), [3]);
    assert_eq!(
        rig.answers(),
        [
            (1, 1, EventState::Taken),
            (2, 1, EventState::Done),
            (3, 1, EventState::Held)
        ]
    );
    let stats = rig.events.stats();
    assert_eq!((stats.left, stats.repeated, stats.taken_over), (1, 1, 1));
}

#[test]
fn doubled_and_late_copies_are_not_taken() {
    let mut rig = Rig::new();
    // The question overtakes the event.
    rig.ask(1, 2, false);
    assert_eq!(rig.answers(), [(1, 2, EventState::Unknown)]);
    rig.event(1, 1);
    assert_eq!(rig.answers(), []);
    rig.event(1, 3);
    rig.step();
    rig.end_step(vec![], vec![Claim::Theirs(topic("b"))]);
    assert_eq!(rig.answers(), [(1, 3, EventState::Taken)]);
    rig.event(1, 3);
    assert_eq!((rig.answers(), rig.step().claims.len()), (vec![], 0));
    // A waiting copy is of no use once the event is settled.
    rig.event(2, 1);
    rig.ask(2, 2, true);
    assert_eq!(rig.answers(), [(2, 2, EventState::Unknown)]);
    assert_eq!((rig.step().claims.len(), rig.events.load()), (0, 0));
    // A begun event is held, whatever the question.
    rig.begin(3, 1);
    rig.ask(3, 2, true);
    assert_eq!(rig.answers(), [(3, 2, EventState::Held)]);
}

#[test]
fn one_that_stops_gives_back_what_it_has_not_begun() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.event(2, 1);
    rig.step();
    rig.end_step(vec![], vec![Claim::Ours(8)]);
    rig.event(3, 1);
    rig.step();
    rig.event(4, 1);
    rig.events.stop(rig.now);
    assert_eq!(
        rig.answers(),
        [
            (2, 1, EventState::Held),
            (3, 1, EventState::Held),
            (4, 1, EventState::Back)
        ]
    );
    rig.end_step(vec![], vec![Claim::Ours(9)]);
    // The claims go first.
    let step = rig.step();
    assert_eq!(step.releases, [("notifier/2".into(), 8), ("notifier/3".into(), 9)]);
    rig.end_step(vec![], vec![]);
    assert_eq!(rig.answers(), [(2, 1, EventState::Back), (3, 1, EventState::Back)]);
    rig.event(5, 1);
    assert_eq!(rig.answers(), [(5, 1, EventState::Back)]);
    assert!(rig.events.is_busy());
    rig.events.ended(id(1), false, rig.now);
    rig.step();
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(rig.answers(), [(1, 1, EventState::Done)]);
    assert!(!rig.events.is_busy());
    assert_eq!((rig.events.stats().moved, rig.events.load()), (4, 0));
}

#[test]
fn a_run_that_is_lost_begins_nothing_and_finishes_what_it_can() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.event(2, 1);
    rig.step();
    rig.event(3, 1);
    rig.events.begin_run(topic("a2"));
    assert!(rig.end_step(vec![], vec![Claim::Ours(8)]).is_empty());
    assert_eq!((rig.events.begin(&id(2), true, rig.now), rig.events.load()), (None, 0));
    rig.events.ended(id(1), false, rig.now);
    let step = rig.step();
    assert_eq!(step.marks, [("notifier/1".into(), topic("a"), 7)]);
    assert!(step.claims.is_empty());
    // It is sent to the new run, which knows it.
    rig.answers();
    rig.event(1, 5);
    assert_eq!(rig.answers(), [(1, 5, EventState::Held)]);
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(rig.answers(), [(1, 5, EventState::Done)]);
}

#[test]
fn what_was_sent_to_a_run_that_is_gone_is_gone_with_it() {
    let mut rig = Rig::new();
    rig.events.begin_run(topic("a2"));
    let update = Box::new(DbUpdate::new("lport", "1", Action::Set));
    for body in [
        Body::Event(1, 1, update),
        Body::Questions(vec![Question::from((1, 1, false))]),
    ] {
        let (on, notifier, low) = (topic("a"), topic("notifier"), 0);
        let message = ListenerMessage {
            on,
            notifier,
            low,
            body,
        };
        rig.events.receive(message, rig.now);
        assert_eq!((rig.answers(), rig.step().claims.len()), (vec![], 0));
    }
}

#[test]
fn what_is_never_confirmed_is_forgotten() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.events.ended(id(1), false, rig.now);
    rig.step();
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    let retention = Duration::from_secs(600);
    rig.events.expire(retention, rig.now + retention);
    assert!(rig.events.knows("notifier/1"));
    rig.events.expire(retention, rig.now + retention + RECEIPT);
    assert!(!rig.events.knows("notifier/1") && rig.events.notifiers.is_empty());
}

/// Another listener has processed it: once the claim that shows this is removed, it could be processed again.
#[test]
fn a_waiting_copy_does_not_outlive_the_claim_of_another() {
    let retention = Duration::from_secs(600);
    let mut rig = Rig::new();
    rig.event(1, 1);
    rig.event(2, 1);
    rig.answers();
    rig.receive(2, Body::Confirmations(vec![]));
    assert!(!rig.events.knows("notifier/1") && rig.events.knows("notifier/2"));
    rig.events.expire(retention, rig.now + retention / 2);
    assert!(rig.events.knows("notifier/2"));
    rig.events.expire(retention, rig.now + retention / 2 + RECEIPT);
    rig.now += retention;
    assert_eq!(rig.answers(), [(2, 1, EventState::Back)]);
    assert_eq!((rig.events.load(), rig.step().claims.len()), (0, 0));
}

#[test]
fn removals_that_failed_are_due_again() {
    let mut rig = Rig::new();
    rig.begin(1, 1);
    rig.events.ended(id(1), false, rig.now);
    rig.step();
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    rig.receive(0, Body::Confirmations(vec![1]));
    rig.now += REMOVAL;
    assert_eq!(rig.step().removals.len(), 1);
    rig.outage();
    assert!(!rig.events.has_step(rig.now) && rig.events.has_step(rig.now + REMOVAL));
    assert_eq!(rig.step().removals.len(), 1);
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    let mut rig = Rig::new();
    let large = |rig: &mut Rig, number: u64| {
        let update = DbUpdate::new("lport", number.to_string(), Action::Set).value("x".repeat(MAX_BYTES / 2 - 100));
        rig.receive(0, Body::Event(number, 1, Box::new(update)));
        rig.answers()
    };
    assert_eq!(large(&mut rig, 1), [(1, 1, EventState::Held)]);
    assert_eq!(large(&mut rig, 2), [(2, 1, EventState::Held)]);
    assert_eq!(large(&mut rig, 3), [(3, 1, EventState::Back)]);
    // One begins, and one is dropped by its notifier.
    rig.step();
    rig.end_step(vec![], vec![Claim::Ours(1), Claim::Ours(2)]);
    assert!(rig.events.begin(&id(1), true, rig.now).is_some());
    assert_eq!(large(&mut rig, 4), [(4, 1, EventState::Held)]);
    assert_eq!(large(&mut rig, 5), [(5, 1, EventState::Back)]);
    rig.ask(4, 1, true);
    assert_eq!(rig.answers(), [(4, 1, EventState::Unknown)]);
    assert_eq!(large(&mut rig, 6), [(6, 1, EventState::Held)]);
}

#[test]
fn what_comes_while_something_is_handled_waits_a_moment_for_more() {
    let mut rig = Rig::new();
    rig.event(1, 1);
    rig.event(2, 1);
    rig.step();
    rig.end_step(vec![], vec![Claim::Ours(1), Claim::Ours(2)]);
    rig.events.begin(&id(1), true, rig.now);
    rig.events.ended(id(1), false, rig.now);
    rig.event(3, 1);
    // The second one's turn is still to come.
    assert!(!rig.events.has_step(rig.now));
    assert_eq!(rig.events.step_due(), Some(rig.now + GATHER));
    assert!(rig.events.has_step(rig.now + GATHER));
    rig.events.begin(&id(2), true, rig.now);
    assert!(rig.events.has_step(rig.now));
    let step = rig.step();
    assert_eq!((step.marks.len(), step.claims.len()), (1, 1));
}

#[test]
fn what_comes_after_a_step_of_many_waits_as_long_as_that_took() {
    let mut rig = Rig::new();
    let step = |rig: &mut Rig, numbers: &[u64], took: Duration| {
        numbers.iter().for_each(|number| rig.event(*number, 1));
        assert_eq!(rig.step().claims.len(), numbers.len());
        rig.now += took;
        let claims = numbers.iter().map(|_| Claim::Ours(1)).collect();
        for number in rig.end_step(vec![], claims) {
            rig.events.begin(&id(number), true, rig.now);
        }
    };
    step(&mut rig, &[1, 2], GATHER / 2);
    rig.events.ended(id(1), false, rig.now);
    assert!(!rig.events.has_step(rig.now));
    assert_eq!(rig.events.step_due(), Some(rig.now + GATHER / 2));
    assert!(rig.events.has_step(rig.now + GATHER / 2));
    assert_eq!(rig.step().marks.len(), 1);
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    // With a slow store nothing waits longer than usual, and a lone event does not wait.
    step(&mut rig, &[3, 4], 10 * GATHER);
    rig.events.ended(id(3), false, rig.now);
    assert_eq!(rig.events.step_due(), Some(rig.now + GATHER));
    assert_eq!(rig.step().marks.len(), 1);
    rig.end_step(vec![Claim::Done(topic("a"))], vec![]);
    step(&mut rig, &[5], GATHER);
    rig.events.ended(id(5), false, rig.now);
    assert!(rig.events.has_step(rig.now));
}

#[test]
fn a_few_hundred_are_claimed_ahead() {
    let mut rig = Rig::new();
    (0..2000).for_each(|number| rig.event(number, 1));
    assert_eq!(rig.step().claims.len(), BUNDLE);
    assert!(!rig.events.has_step(rig.now));
    let claims = (0..BUNDLE as u64).map(Claim::Ours).collect();
    let turns = rig.end_step(vec![], claims);
    for number in &turns[..=BUNDLE - AHEAD] {
        assert!(!rig.events.has_step(rig.now));
        rig.events.begin(&id(*number), true, rig.now);
        // Handled events are marked in bundles as well.
        rig.events.ended(id(*number), false, rig.now);
        if rig.events.next.marks.len() == ENOUGH {
            assert!(rig.events.has_step(rig.now));
            assert_eq!(rig.step().marks.len(), ENOUGH);
            rig.end_step(vec![Claim::Done(topic("a")); ENOUGH], vec![]);
        }
    }
    assert!(rig.events.has_step(rig.now));
    assert_eq!(rig.events.load(), 2000 - (BUNDLE - AHEAD) - 1);
}

#[test]
fn receipts_to_a_notifier_wait_for_each_other() {
    let mut rig = Rig::new();
    let start = rig.now;
    let count = |rig: &mut Rig| {
        rig.events
            .answers(rig.now)
            .iter()
            .map(|(_, about)| about.len())
            .sum::<usize>()
    };
    rig.event(1, 1);
    rig.now = start + RECEIPT;
    assert_eq!(count(&mut rig), 1);
    for number in 2..10 {
        rig.now += RECEIPT;
        rig.event(number, 1);
        assert_eq!(count(&mut rig), 0);
    }
    // A receipt to another notifier does not wait for them, nor take them along.
    let (on, notifier) = (topic("a"), topic("other"));
    let update = Box::new(DbUpdate::new("lport", "1", Action::Set));
    let (low, body) = (0, Body::Event(1, 1, update));
    let message = ListenerMessage {
        on,
        notifier,
        low,
        body,
    };
    rig.events.receive(message, rig.now);
    rig.now += RECEIPT;
    assert_eq!(count(&mut rig), 1);
    rig.now = start + RECEIPT + RECEIPTS_APART;
    assert_eq!(rig.events.answers_due(), Some(rig.now));
    assert_eq!(count(&mut rig), 8);
}
