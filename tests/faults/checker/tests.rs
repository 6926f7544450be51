//! Tests of the checker: it finds nothing in a good history, and each fault that is put into one.

use std::time::Duration;

use super::super::history::{Change, Event, Held, Kind, Line, Number, Time, Told};
use super::*;

const DEADLINE: Deadline = Deadline(1_000_000);

/// A history whose lines are a hundred microseconds apart.
fn history(name: &str, start: Time, events: Vec<Event>) -> History {
    let line = |(index, event)| Line {
        at: start + 100 * index as Time,
        event,
    };
    History {
        name: name.into(),
        lines: events.into_iter().enumerate().map(line).collect(),
    }
}

fn change(topic: &str, key: &str, version: u64) -> Change {
    Change {
        topic: topic.into(),
        table: "t".into(),
        key: key.into(),
        version,
        deleted: false,
    }
}

fn number(seq: u64) -> Number {
    Number {
        publisher: "w".into(),
        epoch: 1,
        seq,
    }
}

fn update(topic: &str, key: &str, version: u64, seq: u64) -> Event {
    Event::Update {
        change: change(topic, key, version),
        number: Some(number(seq)),
    }
}

/// Sends the rows k, k, m on topic `a`, and the row n on `b`; from line 2 on, a write and a send each.
fn writer() -> History {
    let mut events = vec![Event::Opened {
        publisher: "w".into(),
        epoch: 1,
    }];
    for (topic, key, version, seq) in [("a", "k", 1, 1), ("a", "k", 2, 2), ("a", "m", 1, 3), ("b", "n", 1, 1)] {
        events.push(Event::Stored(change(topic, key, version)));
        events.push(Event::Sent { seq, took: 10 });
    }
    events.push(Event::Closed);
    history("writer-w", 10_000, events)
}

const HELD: Held = Held {
    threads: 3,
    files: 10,
    kib: 5_000,
};

fn sync(reason: &str, publisher: Option<&str>, topics: Option<&[&str]>, range: Option<(u64, u64)>) -> Event {
    Event::Sync(Told {
        reason: reason.into(),
        publishers: publisher.into_iter().map(str::to_owned).collect(),
        topics: topics.map(|topics| topics.iter().map(|topic| (*topic).to_owned()).collect()),
        range,
    })
}

fn added(change: Change) -> Event {
    row_change(Kind::Added, change, None)
}

fn row_change(kind: Kind, change: Change, old: Option<u64>) -> Event {
    Event::RowChange { kind, change, old }
}

/// A program with topic `a` that received this, and ended with these rows.
fn program(came: Vec<Event>, rows: Vec<Change>) -> History {
    let mut events = vec![
        Event::Before(HELD),
        Event::Registered("a".into()),
        sync("connected", None, None, None),
        Event::Live(true),
    ];
    events.extend(came);
    let mut history = history("program-p", 9_000, events);
    // Updates come after they were sent.
    for line in &mut history.lines[4..] {
        line.at += 2_000;
    }
    let told = rows.iter().map(|row| added(row.clone()));
    let end = told
        .collect::<Vec<_>>()
        .into_iter()
        .chain(rows.into_iter().map(Event::Row))
        .chain([
            Event::Settled {
                since: 20_000,
                coalesced: 0,
            },
            Event::After(HELD),
        ]);
    history.lines.extend(end.map(|event| Line { at: 30_000, event }));
    history
}

/// Line 5 of the program is the first update.
const FIRST: usize = 5;

fn came(index: usize) -> Place {
    Place {
        history: "program-p".into(),
        line: FIRST + index,
    }
}

/// The rows stored after this.
fn stored(writer: &History) -> BTreeMap<Row, Change> {
    let mut stored = BTreeMap::new();
    for line in &writer.lines {
        if let Event::Stored(change) = &line.event {
            match change.deleted {
                true => stored.remove(&change.row()),
                false => stored.insert(change.row(), change.clone()),
            };
        }
    }
    stored
}

fn histories(writer: History, program: History) -> Histories {
    Histories {
        stored: stored(&writer),
        writers: vec![writer],
        programs: vec![program],
    }
}

/// The store's write of the writer's update `index`.
fn sent(index: usize) -> Place {
    Place {
        history: "writer-w".into(),
        line: 2 + 2 * index,
    }
}

fn good_updates() -> Vec<Event> {
    vec![update("a", "k", 1, 1), update("a", "k", 2, 2), update("a", "m", 1, 3)]
}

fn good_rows() -> Vec<Change> {
    vec![change("a", "k", 2), change("a", "m", 1)]
}

fn check(program: History) -> Vec<Violation> {
    let histories = histories(writer(), program);
    histories.check(DEADLINE)
}

fn lost(indices: &[usize]) -> Vec<Violation> {
    let lost = indices.iter().map(|index| Violation::Lost {
        program: "program-p".into(),
        sent: sent(*index),
    });
    lost.collect()
}

#[test]
fn a_good_history_breaks_nothing() {
    let histories = histories(writer(), program(good_updates(), good_rows()));
    assert_eq!(histories.check(DEADLINE), []);
    let figures = histories.figures();
    assert_eq!((figures.sent, figures.delivered, figures.declared), (4, 3, 0));
    assert_eq!((figures.syncs, figures.longest_call), (1, 10));
}

#[test]
fn rows_may_overtake_each_other_but_a_row_keeps_its_order() {
    let other_order = vec![update("a", "m", 1, 3), update("a", "k", 1, 1), update("a", "k", 2, 2)];
    assert_eq!(check(program(other_order, good_rows())), []);
    let disorder = vec![update("a", "k", 2, 2), update("a", "k", 1, 1), update("a", "m", 1, 3)];
    let expected = Violation::Disorder {
        first: came(0),
        second: came(1),
    };
    assert_eq!(check(program(disorder, good_rows())), [expected]);
}

#[test]
fn a_number_comes_once_and_with_its_own_update() {
    for twice in 0..3 {
        let mut updates = good_updates();
        updates.push(updates[twice].clone());
        let found = check(program(updates, good_rows()));
        let expected = Violation::Twice {
            first: came(twice),
            second: came(3),
        };
        assert!(found.contains(&expected), "{found:?}");
        // Then the first of the row's two updates is also out of order.
        assert_eq!(found.len(), if twice == 0 { 2 } else { 1 }, "{found:?}");
    }
    let mut updates = good_updates();
    updates[2] = update("a", "m", 7, 3);
    let foreign = |came, sent| vec![Violation::Foreign { came, sent }];
    assert_eq!(check(program(updates, good_rows())), foreign(came(2), Some(sent(2))));
    let mut updates = good_updates();
    updates.push(update("a", "m", 2, 4));
    assert_eq!(check(program(updates, good_rows())), foreign(came(3), None));
}

/// A writer was killed while it was publishing: the update may have come, or not.
#[test]
fn what_a_killed_writer_had_begun_may_come() {
    let mut writer = writer();
    writer.lines.truncate(7);
    assert!(matches!(writer.lines.last().unwrap().event, Event::Sent { seq: 3, .. }));
    writer.lines.pop();
    let check = |updates, key| {
        let histories = histories(
            writer.clone(),
            program(updates, vec![change("a", "k", 2), change("a", key, 1)]),
        );
        histories.check(DEADLINE)
    };
    let mut updates = good_updates();
    assert_eq!(check(updates.clone(), "m"), []);
    updates.pop();
    assert_eq!(check(updates.clone(), "m"), []);
    updates.push(update("a", "m", 1, 4));
    assert!(matches!(
        check(updates, "m")[..],
        [Violation::Foreign { sent: None, .. }]
    ));
}

#[test]
fn what_is_missing_is_lost() {
    for missing in 0..3 {
        let mut updates = good_updates();
        updates.remove(missing);
        assert_eq!(check(program(updates, good_rows())), lost(&[missing]));
    }
    assert_eq!(check(program(vec![], good_rows())), lost(&[0, 1, 2]));
}

#[test]
fn a_sync_event_declares_what_it_concerns() {
    let declared = |sync: Event| {
        let updates = good_updates();
        check(program(vec![updates[0].clone(), updates[2].clone(), sync], good_rows())).is_empty()
    };
    assert!(declared(sync("overflow", None, None, None)));
    assert!(declared(sync("gap", Some("w"), Some(&["a"]), Some((2, 2)))));
    assert!(declared(sync("silence", Some("w"), Some(&["b", "a"]), None)));
    assert!(declared(sync("restarted", Some("v"), None, None)));
    assert!(!declared(sync("gap", Some("w"), Some(&["b"]), Some((2, 2)))));
    assert!(!declared(sync("unproven", None, Some(&[]), None)));
    // An update that came too early.
    let mut early = program(vec![update("a", "k", 1, 1), update("a", "m", 1, 3)], good_rows());
    let event = sync("requested", None, None, None);
    early.lines.insert(4, Line { at: 10_100, event });
    assert_eq!(check(early), lost(&[1]));
}

#[test]
fn what_is_sent_while_not_live_is_not_missed() {
    let lines = |events: Vec<(Time, Event)>| {
        let mut program = program(vec![update("a", "m", 1, 3)], good_rows());
        let lines = events.into_iter().map(|(at, event)| Line { at, event });
        program.lines.splice(3..4, lines);
        program
    };
    // The calls begin at 10190, 10390, 10590.
    assert_eq!(check(lines(vec![(10_450, Event::Live(true))])), []);
    assert_eq!(check(lines(vec![(10_300, Event::Live(true))])), lost(&[1]));
    let until = |event| lines(vec![(10_000, Event::Live(true)), (10_250, event)]);
    assert_eq!(check(until(Event::Live(false))), lost(&[0]));
    // The sync event comes before the state is logged, and covers what was sent before.
    assert_eq!(check(until(sync("address-lost", None, None, None))), []);
}

#[test]
fn what_was_on_its_way_when_its_topic_was_unregistered_is_not_missed() {
    let unregistered = |at| {
        let mut program = program(vec![update("a", "k", 1, 1), update("a", "m", 1, 3)], vec![]);
        let event = Event::Unregistered("a".into());
        program.lines.insert(4, Line { at, event });
        check(program)
    };
    // The missed call begins at 10390.
    assert_eq!(unregistered(10_390 + GRACE), []);
    assert_eq!(unregistered(10_391 + GRACE), lost(&[1]));
}

#[test]
fn what_was_replaced_is_not_lost_if_the_queue_says_so() {
    let coalesced = |count| {
        let mut program = program(vec![update("a", "k", 2, 2), update("a", "m", 1, 3)], good_rows());
        for line in &mut program.lines {
            if let Event::Settled { coalesced, .. } = &mut line.event {
                *coalesced = count;
            }
        }
        check(program)
    };
    assert_eq!(coalesced(1), []);
    assert_eq!(coalesced(0), lost(&[0]));
    // The newest update of a row cannot have been replaced.
    let mut last = program(vec![update("a", "k", 1, 1), update("a", "m", 1, 3)], good_rows());
    last.lines.iter_mut().for_each(|line| {
        if let Event::Settled { coalesced, .. } = &mut line.event {
            *coalesced = 5;
        }
    });
    assert_eq!(check(last), lost(&[1]));
}

#[test]
fn more_replacements_than_the_queue_says_are_reported() {
    let mut writer = writer();
    for version in 3..6 {
        let stored = Event::Stored(change("a", "k", version));
        let events = [
            stored,
            Event::Sent {
                seq: version + 1,
                took: 0,
            },
        ];
        writer.lines.extend(events.map(|event| Line { at: 10_900, event }));
    }
    let mut program = program(
        vec![update("a", "m", 1, 3), update("a", "k", 5, 6)],
        vec![change("a", "k", 5), change("a", "m", 1)],
    );
    for line in &mut program.lines {
        if let Event::Settled { coalesced, .. } = &mut line.event {
            *coalesced = 3;
        }
    }
    let histories = histories(writer, program);
    let expected = Violation::Replaced {
        program: "program-p".into(),
        replaced: 4,
        declared: 3,
    };
    assert_eq!(histories.check(DEADLINE), [expected]);
}

#[test]
fn only_registered_topics_come() {
    let mut updates = good_updates();
    updates.push(update("b", "n", 1, 1));
    assert_eq!(
        check(program(updates, good_rows())),
        [Violation::Unasked { came: came(3) }]
    );
    // Unregistered, and sent much later.
    let unregistered = |at| {
        let mut program = program(good_updates(), vec![]);
        let event = Event::Unregistered("a".into());
        program.lines.insert(4, Line { at, event });
        let found = check(program);
        found
            .iter()
            .filter(|found| matches!(found, Violation::Unasked { .. }))
            .count()
    };
    assert_eq!(unregistered(10_300), 0);
    assert_eq!(unregistered(10_300 - GRACE), 2);
}

#[test]
fn what_is_not_given_back_is_a_leak() {
    for (what, held) in [
        ("threads", Held { threads: 4, ..HELD }),
        ("files", Held { files: 11, ..HELD }),
        (
            "KiB",
            Held {
                kib: 5_001 + SPARE_KIB,
                ..HELD
            },
        ),
    ] {
        let mut program = program(good_updates(), good_rows());
        let last = program.lines.last_mut().unwrap();
        last.event = Event::After(held);
        let after = Place::new(&program, program.lines.len() - 1);
        assert_eq!(check(program), [Violation::Leak { after, what, more: 1 }]);
    }
}

#[test]
fn a_program_ends_with_what_the_store_has() {
    let diverged = |key: &str, stored, ended| Violation::Diverged {
        program: "program-p".into(),
        row: ("t".into(), key.into()),
        stored,
        ended,
    };
    let old = program(good_updates(), vec![change("a", "k", 1), change("a", "m", 1)]);
    assert_eq!(check(old), [diverged("k", Some(2), Some(1))]);
    let less = program(good_updates(), vec![change("a", "k", 2)]);
    assert_eq!(check(less), [diverged("m", Some(1), None)]);
    let mut rows = good_rows();
    rows.push(change("b", "n", 1));
    assert_eq!(check(program(good_updates(), rows)), [diverged("n", None, Some(1))]);
    let mut late = program(good_updates(), good_rows());
    for line in &mut late.lines {
        if let Event::Settled { since, .. } = &mut line.event {
            *since = DEADLINE.0 + 5;
        }
    }
    assert!(matches!(check(late)[..], [Violation::Late { by: 5, .. }]));
    // A deleted row must be gone.
    let mut writer = writer();
    for line in &mut writer.lines {
        if let Event::Stored(change) = &mut line.event {
            change.deleted = &*change.key == "m";
        }
    }
    let histories = histories(writer, program(good_updates(), good_rows()));
    assert_eq!(kept(&histories, DEADLINE), [diverged("m", None, Some(1))]);
}

#[test]
fn a_program_must_say_how_it_ended_unless_it_was_killed() {
    let mut silent = program(good_updates(), good_rows());
    silent
        .lines
        .retain(|line| !matches!(line.event, Event::Settled { .. } | Event::After(_)));
    let missing = |promise| Violation::Missing {
        program: "program-p".into(),
        promise,
    };
    let found = check(silent.clone());
    assert_eq!(found, [missing("C5"), missing("C7")]);
    silent.lines.push(Line {
        at: 30_000,
        event: Event::Killed,
    });
    assert_eq!(check(silent), []);
}

#[test]
fn the_deadline_counts_from_its_start() {
    assert_eq!(Deadline::after(500, Duration::from_millis(2)).0, 2_500);
}

/// A program whose replica reported these changes, and ended with only version 2 of `k`.
fn replica(told: Vec<Event>) -> Vec<Violation> {
    let mut program = program(vec![], vec![change("a", "k", 2)]);
    let own = program
        .lines
        .iter()
        .position(|line| line.event == added(change("a", "k", 2)));
    let told = told.into_iter().map(|event| Line { at: 30_000, event });
    let own = own.unwrap();
    program.lines.splice(own..=own, told);
    told_right(&histories(writer(), program))
}

#[test]
fn row_changes_begin_with_added_and_rise() {
    use Kind::{Added, Changed, Removed};
    let told = |changes: &[(Kind, u64, Option<u64>)]| {
        let changes = changes.iter();
        let events = changes.map(|(kind, version, old)| row_change(*kind, change("a", "k", *version), *old));
        replica(events.collect())
    };
    let good: &[&[_]] = &[
        &[(Added, 2, None)],
        &[(Added, 1, None), (Changed, 2, Some(1))],
        &[(Added, 1, None), (Removed, 1, Some(1)), (Added, 2, None)],
    ];
    for good in good {
        assert_eq!(told(good), []);
    }
    let bad: &[&[_]] = &[
        &[(Changed, 2, Some(1))],
        &[(Removed, 1, None), (Added, 2, None)],
        &[(Added, 1, None), (Added, 2, None)],
        &[(Added, 1, None), (Changed, 2, None)],
        &[(Added, 2, None), (Changed, 2, Some(2))],
        &[(Added, 3, None), (Removed, 1, Some(3)), (Added, 2, None)],
        &[(Added, 2, None), (Removed, 2, Some(2)), (Added, 2, None)],
    ];
    for bad in bad {
        let found = told(bad);
        assert!(
            found.iter().any(|found| matches!(found, Violation::Untrue { .. })),
            "{bad:?}: {found:?}"
        );
    }
    let ends: &[&[_]] = &[&[], &[(Added, 1, None)], &[(Added, 1, None), (Removed, 2, Some(1))]];
    for end in ends {
        assert!(matches!(told(end)[..], [Violation::Untold { .. }]), "{end:?}");
    }
}

/// A topic that is registered again is reported from the start.
#[test]
fn a_row_comes_back_with_its_topic() {
    let k = || change("a", "k", 2);
    let removed = || row_change(Kind::Removed, k(), Some(2));
    let gone = || Event::Unregistered("a".into());
    assert_eq!(replica(vec![added(k()), gone(), removed(), added(k())]), []);
    assert!(!replica(vec![gone(), added(k()), removed(), added(k())]).is_empty());
}

#[test]
fn staleness_that_is_understated_is_found() {
    // The writes are at 10100, 10300 and 10500.
    let writers = [writer()];
    let proof = |since, rows: &[(&str, u64)]| Proof {
        since: BTreeMap::from([("a".into(), since)]),
        rows: rows.iter().map(|(key, version)| change("a", key, *version)).collect(),
    };
    let missing = |since, rows: &[_]| understated(&writers, &[proof(since, rows)]);
    assert_eq!(missing(10_100, &[]), []);
    assert_eq!(missing(10_101, &[]), [(change("a", "k", 1), None)]);
    assert_eq!(missing(10_301, &[("k", 1)]), [(change("a", "k", 2), Some(1))]);
    assert_eq!(missing(10_301, &[("k", 2)]), []);
    assert_eq!(missing(20_000, &[("k", 2)]), [(change("a", "m", 1), None)]);
    assert_eq!(missing(20_000, &[("k", 2), ("m", 1)]), []);
}

#[test]
fn a_row_that_was_deleted_is_not_missing() {
    let mut writer = writer();
    for line in &mut writer.lines {
        if let Event::Stored(change) = &mut line.event {
            change.deleted = change.version == 2;
        }
    }
    let proof = Proof {
        since: BTreeMap::from([("a".into(), 10_400)]),
        rows: vec![],
    };
    assert_eq!(understated(&[writer], &[proof]), []);
}
