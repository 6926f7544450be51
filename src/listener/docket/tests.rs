//! Histories with hand-made times and store outcomes.

use super::notifier::{RECEIPT, RECEIPTS_APART};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::listener::claims::{Claim, Outcome, Step};
use crate::update::Action;

struct Desk {
    docket: Docket,
    now: Instant,
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn id(number: u64) -> EventId {
    let notifier = topic("notifier");
    EventId { notifier, number }
}

impl Desk {
    fn new() -> Desk {
        Desk {
            docket: Docket::new(topic("a")),
            now: Instant::now(),
        }
    }

    fn hear(&mut self, low: u64, what: What) {
        let notifier = topic("notifier");
        let on = self.docket.run().clone();
        let heard = Heard {
            on,
            notifier,
            low,
            what,
        };
        self.docket.hear(heard, self.now);
    }

    fn event(&mut self, number: u64, attempt: u32) {
        let update = DbUpdate::new("lport", number.to_string(), Action::Set);
        self.hear(0, What::Event(number, attempt, Box::new(update)));
    }

    fn ask(&mut self, number: u64, attempt: u32, settled: bool) {
        self.hear(0, What::Asked(vec![Question::from((number, attempt, settled))]));
    }

    /// The answers, after the longest time that they wait.
    fn said(&mut self) -> Vec<(u64, u32, EventState)> {
        let answers = self.docket.answers(self.now + RECEIPT + RECEIPTS_APART).into_iter();
        let answers = answers.flat_map(|(_, about)| about);
        answers.map(|it| (it.number, it.attempt, it.state)).collect()
    }

    fn step(&mut self) -> Step {
        self.docket.step(true, self.now)
    }

    fn took(&mut self, marks: Vec<Claim>, claims: Vec<Claim>) -> Vec<u64> {
        let marks = marks.into_iter().map(Ok).collect();
        let claims = claims.into_iter().map(Ok).collect();
        let (turns, errors) = self.docket.took(Ok(Outcome { marks, claims }), self.now);
        assert!(errors.is_empty());
        turns.into_iter().map(|turn| turn.id.number).collect()
    }

    /// Claims an event, and begins it.
    fn begin(&mut self, number: u64, attempt: u32) {
        self.event(number, attempt);
        assert_eq!(self.step().claims.len(), 1);
        assert_eq!(self.took(vec![], vec![Claim::Ours(7)]), [number]);
        assert!(self.docket.begin(&id(number), true, self.now).is_some());
        self.said();
    }

    fn outage(&mut self) {
        let outage = Error::new(ErrorKind::Unavailable, "an outage");
        assert_eq!(self.docket.took(Err(outage), self.now).1.len(), 1);
    }
}

#[test]
fn an_event_is_claimed_handled_marked_and_only_then_acknowledged() {
    let mut desk = Desk::new();
    assert!(!desk.docket.has_step(desk.now));
    desk.event(1, 1);
    // The receipt waits a moment, since an acknowledgement would make it unnecessary.
    assert!(desk.docket.answers(desk.now).is_empty());
    assert_eq!(desk.docket.answers_due(), Some(desk.now + RECEIPT));
    assert_eq!(desk.said(), [(1, 1, EventState::Held)]);
    assert!(desk.docket.has_step(desk.now));
    let step = desk.step();
    assert_eq!(step.claims, ["notifier/1"]);
    assert_eq!(desk.docket.load(), 1);
    assert_eq!(desk.took(vec![], vec![Claim::Ours(7)]), [1]);
    assert_eq!(desk.docket.begin(&id(1), true, desk.now).unwrap().key, "1");
    assert_eq!(desk.docket.begin(&id(1), true, desk.now), None);
    assert!(desk.docket.is_handling(std::thread::current().id()));
    assert_eq!((desk.docket.load(), desk.docket.is_busy()), (0, true));
    desk.docket.ended(id(1), false, desk.now);
    assert_eq!(desk.said(), []);
    let step = desk.step();
    assert_eq!(step.marks, [("notifier/1".into(), topic("a"), 7)]);
    assert_eq!(desk.said(), []);
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(desk.said(), [(1, 1, EventState::Done)]);
    assert!(!desk.docket.is_busy() && !desk.docket.is_settled());
    desk.hear(2, What::Confirmed(vec![1]));
    assert_eq!(desk.step().removals, ["notifier/1"]);
    desk.took(vec![], vec![]);
    assert!(desk.docket.is_settled());
    assert_eq!(desk.docket.stats().claims, 0);
    // A stray copy.
    desk.event(1, 9);
    assert_eq!((desk.said(), desk.step().claims.len()), (vec![], 0));
}

#[test]
fn what_cannot_be_marked_is_not_acknowledged_before_it_can() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.docket.ended(id(1), true, desk.now);
    for _ in 0..3 {
        assert_eq!(desk.step().marks.len(), 1);
        desk.outage();
        desk.ask(1, 2, false);
        assert_eq!(desk.said(), [(1, 2, EventState::Held)]);
    }
    assert_eq!(desk.step().marks.len(), 1);
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(desk.said(), [(1, 2, EventState::Failed)]);
}

#[test]
fn what_another_took_over_meanwhile_is_not_acknowledged() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.docket.ended(id(1), false, desk.now);
    desk.step();
    desk.took(vec![Claim::Theirs(topic("b"))], vec![]);
    assert_eq!(desk.said(), [(1, 1, EventState::Taken)]);
    assert!(!desk.docket.is_busy());
}

#[test]
fn what_cannot_be_claimed_goes_back() {
    let mut desk = Desk::new();
    desk.event(1, 1);
    assert_eq!(desk.step().claims.len(), 1);
    desk.outage();
    assert_eq!(desk.said(), [(1, 1, EventState::Back)]);
    // Nothing is claimed or begun while other listeners may declare it dead.
    desk.event(1, 2);
    assert!(desk.docket.step(false, desk.now).is_empty());
    assert_eq!(desk.said(), [(1, 2, EventState::Back)]);
    desk.event(1, 3);
    desk.step();
    desk.took(vec![], vec![Claim::Ours(3)]);
    assert_eq!(desk.docket.begin(&id(1), false, desk.now), None);
    assert_eq!(desk.said(), [(1, 3, EventState::Back)]);
    assert_eq!(desk.docket.stats().dropped, 3);
}

#[test]
fn what_others_have_is_told() {
    let mut desk = Desk::new();
    [1, 2, 3].into_iter().for_each(|number| desk.event(number, 1));
    assert_eq!(desk.step().claims.len(), 3);
    let claims = vec![Claim::Theirs(topic("b")), Claim::Done(topic("c")), Claim::TakenOver(5)];
    assert_eq!(desk.took(vec![], claims), [3]);
    assert_eq!(
        desk.said(),
        [
            (1, 1, EventState::Taken),
            (2, 1, EventState::Done),
            (3, 1, EventState::Held)
        ]
    );
    let stats = desk.docket.stats();
    assert_eq!((stats.left, stats.repeated, stats.taken_over), (1, 1, 1));
}

#[test]
fn doubled_and_late_copies_are_not_taken() {
    let mut desk = Desk::new();
    // The question overtakes the event.
    desk.ask(1, 2, false);
    assert_eq!(desk.said(), [(1, 2, EventState::Unknown)]);
    desk.event(1, 1);
    assert_eq!(desk.said(), []);
    desk.event(1, 3);
    desk.step();
    desk.took(vec![], vec![Claim::Theirs(topic("b"))]);
    assert_eq!(desk.said(), [(1, 3, EventState::Taken)]);
    desk.event(1, 3);
    assert_eq!((desk.said(), desk.step().claims.len()), (vec![], 0));
    // A waiting copy is of no use once the event is settled.
    desk.event(2, 1);
    desk.ask(2, 2, true);
    assert_eq!(desk.said(), [(2, 2, EventState::Unknown)]);
    assert_eq!((desk.step().claims.len(), desk.docket.load()), (0, 0));
    // A begun event is held, whatever the question.
    desk.begin(3, 1);
    desk.ask(3, 2, true);
    assert_eq!(desk.said(), [(3, 2, EventState::Held)]);
}

#[test]
fn one_that_stops_gives_back_what_it_has_not_begun() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.event(2, 1);
    desk.step();
    desk.took(vec![], vec![Claim::Ours(8)]);
    desk.event(3, 1);
    desk.step();
    desk.event(4, 1);
    desk.docket.stop(desk.now);
    assert_eq!(
        desk.said(),
        [
            (2, 1, EventState::Held),
            (3, 1, EventState::Held),
            (4, 1, EventState::Back)
        ]
    );
    desk.took(vec![], vec![Claim::Ours(9)]);
    // The claims go first.
    let step = desk.step();
    assert_eq!(step.releases, [("notifier/2".into(), 8), ("notifier/3".into(), 9)]);
    desk.took(vec![], vec![]);
    assert_eq!(desk.said(), [(2, 1, EventState::Back), (3, 1, EventState::Back)]);
    desk.event(5, 1);
    assert_eq!(desk.said(), [(5, 1, EventState::Back)]);
    assert!(desk.docket.is_busy());
    desk.docket.ended(id(1), false, desk.now);
    desk.step();
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(desk.said(), [(1, 1, EventState::Done)]);
    assert!(!desk.docket.is_busy());
    assert_eq!((desk.docket.stats().moved, desk.docket.load()), (4, 0));
}

#[test]
fn a_run_that_is_lost_begins_nothing_and_finishes_what_it_can() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.event(2, 1);
    desk.step();
    desk.event(3, 1);
    desk.docket.begin_run(topic("a2"));
    assert!(desk.took(vec![], vec![Claim::Ours(8)]).is_empty());
    assert_eq!(
        (desk.docket.begin(&id(2), true, desk.now), desk.docket.load()),
        (None, 0)
    );
    desk.docket.ended(id(1), false, desk.now);
    let step = desk.step();
    assert_eq!(step.marks, [("notifier/1".into(), topic("a"), 7)]);
    assert!(step.claims.is_empty());
    // It is sent to the new run, which knows it.
    desk.said();
    desk.event(1, 5);
    assert_eq!(desk.said(), [(1, 5, EventState::Held)]);
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    assert_eq!(desk.said(), [(1, 5, EventState::Done)]);
}

#[test]
fn what_was_sent_to_a_run_that_is_gone_is_gone_with_it() {
    let mut desk = Desk::new();
    desk.docket.begin_run(topic("a2"));
    let update = Box::new(DbUpdate::new("lport", "1", Action::Set));
    for what in [
        What::Event(1, 1, update),
        What::Asked(vec![Question::from((1, 1, false))]),
    ] {
        let (on, notifier, low) = (topic("a"), topic("notifier"), 0);
        let heard = Heard {
            on,
            notifier,
            low,
            what,
        };
        desk.docket.hear(heard, desk.now);
        assert_eq!((desk.said(), desk.step().claims.len()), (vec![], 0));
    }
}

#[test]
fn what_is_never_confirmed_is_forgotten() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.docket.ended(id(1), false, desk.now);
    desk.step();
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    let retention = Duration::from_secs(600);
    desk.docket.expire(retention, desk.now + retention);
    assert!(desk.docket.knows("notifier/1"));
    desk.docket.expire(retention, desk.now + retention + RECEIPT);
    assert!(!desk.docket.knows("notifier/1") && desk.docket.notifiers.is_empty());
}

/// Another listener has processed it: once the claim that shows this is removed, it could be processed again.
#[test]
fn a_waiting_copy_does_not_outlive_the_claim_of_another() {
    let retention = Duration::from_secs(600);
    let mut desk = Desk::new();
    desk.event(1, 1);
    desk.event(2, 1);
    desk.said();
    desk.hear(2, What::Confirmed(vec![]));
    assert!(!desk.docket.knows("notifier/1") && desk.docket.knows("notifier/2"));
    desk.docket.expire(retention, desk.now + retention / 2);
    assert!(desk.docket.knows("notifier/2"));
    desk.docket.expire(retention, desk.now + retention / 2 + RECEIPT);
    desk.now += retention;
    assert_eq!(desk.said(), [(2, 1, EventState::Back)]);
    assert_eq!((desk.docket.load(), desk.step().claims.len()), (0, 0));
}

#[test]
fn removals_that_failed_are_due_again() {
    let mut desk = Desk::new();
    desk.begin(1, 1);
    desk.docket.ended(id(1), false, desk.now);
    desk.step();
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    desk.hear(0, What::Confirmed(vec![1]));
    desk.now += REMOVAL;
    assert_eq!(desk.step().removals.len(), 1);
    desk.outage();
    assert!(!desk.docket.has_step(desk.now) && desk.docket.has_step(desk.now + REMOVAL));
    assert_eq!(desk.step().removals.len(), 1);
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    let mut desk = Desk::new();
    let large = |desk: &mut Desk, number: u64| {
        let update = DbUpdate::new("lport", number.to_string(), Action::Set).value("x".repeat(MAX_BYTES / 2 - 100));
        desk.hear(0, What::Event(number, 1, Box::new(update)));
        desk.said()
    };
    assert_eq!(large(&mut desk, 1), [(1, 1, EventState::Held)]);
    assert_eq!(large(&mut desk, 2), [(2, 1, EventState::Held)]);
    assert_eq!(large(&mut desk, 3), [(3, 1, EventState::Back)]);
    // One begins, and one is dropped by its notifier.
    desk.step();
    desk.took(vec![], vec![Claim::Ours(1), Claim::Ours(2)]);
    assert!(desk.docket.begin(&id(1), true, desk.now).is_some());
    assert_eq!(large(&mut desk, 4), [(4, 1, EventState::Held)]);
    assert_eq!(large(&mut desk, 5), [(5, 1, EventState::Back)]);
    desk.ask(4, 1, true);
    assert_eq!(desk.said(), [(4, 1, EventState::Unknown)]);
    assert_eq!(large(&mut desk, 6), [(6, 1, EventState::Held)]);
}

#[test]
fn what_comes_while_something_is_handled_waits_a_moment_for_more() {
    let mut desk = Desk::new();
    desk.event(1, 1);
    desk.event(2, 1);
    desk.step();
    desk.took(vec![], vec![Claim::Ours(1), Claim::Ours(2)]);
    desk.docket.begin(&id(1), true, desk.now);
    desk.docket.ended(id(1), false, desk.now);
    desk.event(3, 1);
    // The second one's turn is still to come.
    assert!(!desk.docket.has_step(desk.now));
    assert_eq!(desk.docket.step_due(), Some(desk.now + GATHER));
    assert!(desk.docket.has_step(desk.now + GATHER));
    desk.docket.begin(&id(2), true, desk.now);
    assert!(desk.docket.has_step(desk.now));
    let step = desk.step();
    assert_eq!((step.marks.len(), step.claims.len()), (1, 1));
}

#[test]
fn what_comes_after_a_step_of_many_waits_as_long_as_that_took() {
    let mut desk = Desk::new();
    let step = |desk: &mut Desk, numbers: &[u64], took: Duration| {
        numbers.iter().for_each(|number| desk.event(*number, 1));
        assert_eq!(desk.step().claims.len(), numbers.len());
        desk.now += took;
        let claims = numbers.iter().map(|_| Claim::Ours(1)).collect();
        for number in desk.took(vec![], claims) {
            desk.docket.begin(&id(number), true, desk.now);
        }
    };
    step(&mut desk, &[1, 2], GATHER / 2);
    desk.docket.ended(id(1), false, desk.now);
    assert!(!desk.docket.has_step(desk.now));
    assert_eq!(desk.docket.step_due(), Some(desk.now + GATHER / 2));
    assert!(desk.docket.has_step(desk.now + GATHER / 2));
    assert_eq!(desk.step().marks.len(), 1);
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    // With a slow store nothing waits longer than usual, and a lone event does not wait.
    step(&mut desk, &[3, 4], 10 * GATHER);
    desk.docket.ended(id(3), false, desk.now);
    assert_eq!(desk.docket.step_due(), Some(desk.now + GATHER));
    assert_eq!(desk.step().marks.len(), 1);
    desk.took(vec![Claim::Done(topic("a"))], vec![]);
    step(&mut desk, &[5], GATHER);
    desk.docket.ended(id(5), false, desk.now);
    assert!(desk.docket.has_step(desk.now));
}

#[test]
fn a_few_hundred_are_claimed_ahead() {
    let mut desk = Desk::new();
    (0..2000).for_each(|number| desk.event(number, 1));
    assert_eq!(desk.step().claims.len(), BUNDLE);
    assert!(!desk.docket.has_step(desk.now));
    let claims = (0..BUNDLE as u64).map(Claim::Ours).collect();
    let turns = desk.took(vec![], claims);
    for number in &turns[..=BUNDLE - AHEAD] {
        assert!(!desk.docket.has_step(desk.now));
        desk.docket.begin(&id(*number), true, desk.now);
        // Handled events are marked in bundles as well.
        desk.docket.ended(id(*number), false, desk.now);
        if desk.docket.next.marks.len() == ENOUGH {
            assert!(desk.docket.has_step(desk.now));
            assert_eq!(desk.step().marks.len(), ENOUGH);
            desk.took(vec![Claim::Done(topic("a")); ENOUGH], vec![]);
        }
    }
    assert!(desk.docket.has_step(desk.now));
    assert_eq!(desk.docket.load(), 2000 - (BUNDLE - AHEAD) - 1);
}

#[test]
fn receipts_to_a_notifier_wait_for_each_other() {
    let mut desk = Desk::new();
    let start = desk.now;
    let count = |desk: &mut Desk| {
        desk.docket
            .answers(desk.now)
            .iter()
            .map(|(_, about)| about.len())
            .sum::<usize>()
    };
    desk.event(1, 1);
    desk.now = start + RECEIPT;
    assert_eq!(count(&mut desk), 1);
    for number in 2..10 {
        desk.now += RECEIPT;
        desk.event(number, 1);
        assert_eq!(count(&mut desk), 0);
    }
    // A receipt to another notifier does not wait for them, nor take them along.
    let (on, notifier) = (topic("a"), topic("other"));
    let update = Box::new(DbUpdate::new("lport", "1", Action::Set));
    let (low, what) = (0, What::Event(1, 1, update));
    let heard = Heard {
        on,
        notifier,
        low,
        what,
    };
    desk.docket.hear(heard, desk.now);
    desk.now += RECEIPT;
    assert_eq!(count(&mut desk), 1);
    desk.now = start + RECEIPT + RECEIPTS_APART;
    assert_eq!(desk.docket.answers_due(), Some(desk.now));
    assert_eq!(count(&mut desk), 8);
}
