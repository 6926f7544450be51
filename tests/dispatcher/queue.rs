//! The laws of the queue, against a naive model, and its behaviour between threads.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::within;
use crossbeam_channel::never;
use proptest::collection::vec;
use proptest::prelude::*;
use tablecast::queue::{Overflow, QueueOptions, QueueReceiver, QueueSender, bounded};
use tablecast::{Action, DbUpdate, ErrorKind, Event, Name, SyncReason, Topic};

const PATIENCE: Duration = Duration::from_secs(20);

fn options(capacity: usize, overflow: Overflow) -> QueueOptions {
    QueueOptions {
        capacity,
        overflow,
        ..QueueOptions::default()
    }
}

/// An update that carries its number among all pushed ones.
fn update(key: u8, priority: i32, timestamp: i64, number: u64) -> DbUpdate {
    let mut update = DbUpdate::new("t", key.to_string(), Action::Set).priority(priority);
    update.timestamp = timestamp;
    update.version = Some(number);
    update
}

fn plain(key: u8, number: u64) -> DbUpdate {
    update(key, 5, 0, number)
}

fn number(update: &DbUpdate) -> u64 {
    update.version.unwrap()
}

fn push(sender: &QueueSender, mut updates: Vec<DbUpdate>) {
    sender.push(&mut updates, &never()).unwrap();
    assert!(updates.is_empty());
}

/// Pops until nothing is left. Returns the numbers of the updates, and the sync reasons.
fn drain(receiver: &mut QueueReceiver) -> (Vec<u64>, Vec<SyncReason>) {
    let (mut numbers, mut reasons) = (Vec::new(), Vec::new());
    while let Some(event) = receiver.pop(Instant::now()) {
        match event {
            Event::Update(update) => numbers.push(number(&update)),
            Event::Sync(reason) => reasons.push(reason),
            other => panic!("{other:?}"),
        }
    }
    assert!(receiver.is_empty());
    (numbers, reasons)
}

#[derive(Debug, Clone)]
enum Step {
    Push(Vec<(u8, i32, i64)>),
    Pop,
    PopHeld,
    Release(usize),
    Wait(u64),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop_oneof![0..4u8, 0..100u8];
    let updates = vec((keys, 0..4i32, 0..4i64), 0..12);
    vec(
        prop_oneof![
            3 => updates.prop_map(Step::Push),
            6 => Just(Step::Pop),
            3 => Just(Step::PopHeld),
            3 => (0..100usize).prop_map(Step::Release),
            2 => (1..80u64).prop_map(Step::Wait),
            1 => (400..700u64).prop_map(Step::Wait),
            2 => Just(Step::Sync),
        ],
        0..80,
    )
}

/// The queue's promises, in the simplest form.
#[derive(Default)]
struct Model {
    pushed: Vec<DbUpdate>,
    /// In order of arrival.
    pending: Vec<(Duration, DbUpdate)>,
    held: Vec<Name>,
    sync: bool,
    turn: Turn,
}

/// Whose turn it is.
#[derive(Default, Clone, Copy)]
enum Turn {
    #[default]
    Free,
    /// A sync event has just been handed out.
    Told,
    UpdatesUntil(Duration),
}

impl Model {
    const MAX_OVERTAKE: Duration = Duration::from_millis(100);

    fn pop(&mut self, now: Duration, hold: bool) -> Option<Event> {
        self.pending.extend(self.pushed.drain(..).map(|update| (now, update)));
        if let Turn::Told = self.turn {
            self.turn = Turn::UpdatesUntil(now + Duration::from_secs(1));
        }
        let after = match self.turn {
            Turn::UpdatesUntil(until) => until,
            _ => Duration::ZERO,
        };
        let has_update = self.pending.iter().any(|(_, update)| !self.held.contains(&update.key));
        if self.sync && (now >= after || !has_update) {
            (self.sync, self.turn) = (false, Turn::Told);
            return Some(Event::Sync(SyncReason::Requested));
        }
        if !has_update {
            self.turn = Turn::Free;
        }
        let free = || {
            self.pending
                .iter()
                .filter(|(_, update)| !self.held.contains(&update.key))
        };
        let (arrived, oldest) = free().next()?;
        let key = if now - *arrived > Model::MAX_OVERTAKE {
            oldest.key.clone()
        } else {
            // The first of equal ones.
            free()
                .min_by_key(|(_, update)| (update.priority, update.timestamp))?
                .1
                .key
                .clone()
        };
        let place = self.pending.iter().position(|(_, update)| update.key == key)?;
        if hold {
            self.held.push(key);
        }
        Some(Event::Update(self.pending.remove(place).1))
    }
}

proptest! {
    #[test]
    fn hands_out_what_the_model_hands_out(steps in steps()) {
        let max_overtake = Model::MAX_OVERTAKE;
        let (sender, mut receiver) = bounded(QueueOptions { max_overtake, ..QueueOptions::default() });
        let (mut model, start, mut now) = (Model::default(), Instant::now(), Duration::ZERO);
        let mut count = 0;
        for step in steps {
            match step {
                Step::Push(updates) => {
                    let updates = updates.into_iter().map(|(key, priority, timestamp)| {
                        count += 1;
                        update(key, priority, timestamp, count)
                    });
                    let updates: Vec<DbUpdate> = updates.collect();
                    model.pushed.extend_from_slice(&updates);
                    push(&sender, updates);
                }
                Step::Pop => prop_assert_eq!(receiver.pop(start + now), model.pop(now, false)),
                Step::PopHeld => prop_assert_eq!(receiver.pop_held(start + now), model.pop(now, true)),
                Step::Release(which) if !model.held.is_empty() => {
                    let key = model.held.swap_remove(which % model.held.len());
                    receiver.release(&Name::from("t"), &key);
                }
                Step::Release(_) => receiver.release(&Name::from("t"), &Name::from("1")),
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Sync => {
                    sender.sync(SyncReason::Requested);
                    model.sync = true;
                }
            }
        }
    }

    /// Under every policy that never blocks: within capacity, in order, and nothing is lost silently.
    #[test]
    fn loses_nothing_silently(
        overflow in prop_oneof![Just(Overflow::Coalesce), Just(Overflow::DropAndSync)],
        capacity in 1..12usize,
        steps in vec((vec((0..6u8, 0..3i32), 0..8), 0..6usize), 0..30),
    ) {
        let (sender, mut receiver) = bounded(options(capacity, overflow));
        let mut pushed: Vec<(u8, u64)> = Vec::new();
        let mut delivered: HashMap<Name, Vec<u64>> = HashMap::new();
        // Number of pushed updates at the last sync event, number reported as dropped, and number of reports.
        let (mut covered, mut told, mut syncs) = (0, 0, 0);
        let mut take = |event, pushed: usize| match event {
            Event::Update(update) => delivered.entry(update.key.clone()).or_default().push(number(&update)),
            Event::Sync(SyncReason::Overflow { dropped }) => {
                assert!(dropped > 0);
                (covered, told, syncs) = (pushed as u64, told + dropped, syncs + 1);
            }
            other => panic!("{other:?}"),
        };
        for (updates, pops) in steps {
            let numbered = updates.into_iter().map(|(key, priority)| {
                pushed.push((key, pushed.len() as u64 + 1));
                update(key, priority, 0, pushed.len() as u64)
            });
            push(&sender, numbered.collect());
            prop_assert!(sender.stats().depth <= capacity);
            for _ in 0..pops {
                let told_before = sender.stats().syncs;
                match receiver.pop(Instant::now()) {
                    Some(event) => take(event, pushed.len()),
                    None => prop_assert!(receiver.is_empty()),
                }
                prop_assert!(sender.stats().depth <= capacity);
                prop_assert!(sender.stats().syncs - told_before <= 1);
            }
        }
        while let Some(event) = receiver.pop(Instant::now()) {
            take(event, pushed.len());
        }

        let stats = sender.stats();
        prop_assert_eq!(stats.depth, 0);
        prop_assert_eq!((stats.dropped, stats.syncs), (told, syncs));
        let count: usize = delivered.values().map(Vec::len).sum();
        prop_assert_eq!(pushed.len() as u64, count as u64 + stats.coalesced + stats.dropped);
        prop_assert!(overflow == Overflow::Coalesce || stats.coalesced == 0);
        prop_assert!(delivered.values().all(|numbers| numbers.is_sorted()));
        let last: HashMap<u8, u64> = pushed.into_iter().collect();
        for (key, number) in last {
            let delivered = delivered.get(key.to_string().as_str());
            prop_assert!(number <= covered || delivered.and_then(|numbers| numbers.last()) == Some(&number));
        }
    }
}

#[test]
fn what_is_equally_urgent_is_handed_out_as_it_arrived() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let numbers: Vec<u64> = (0..10_000).collect();
    for chunk in numbers.chunks(7) {
        let updates = chunk.iter().map(|&number| {
            let mut update = plain(0, number);
            update.key = format!("{:05}", 10_000 - number).into();
            update
        });
        push(&sender, updates.collect());
    }
    let (drained, reasons) = drain(&mut receiver);
    assert_eq!((drained.len(), reasons), (numbers.len(), vec![]));
    assert_eq!(
        drained.iter().zip(&numbers).find(|(got, expected)| got != expected),
        None
    );
}

#[test]
fn coalescing_keeps_the_newest_state_of_each_row_without_a_sync() {
    let (sender, mut receiver) = bounded(options(64, Overflow::Coalesce));
    let mut numbers = Vec::new();
    for round in 0..1000 {
        for key in 0..30 {
            push(&sender, vec![plain(key, round * 30 + u64::from(key))]);
        }
        // The receiver is slow, but not asleep.
        let Some(Event::Update(update)) = receiver.pop(Instant::now()) else {
            panic!("nothing to hand out")
        };
        numbers.push(number(&update));
    }
    let (rest, reasons) = drain(&mut receiver);
    numbers.extend(rest);
    assert_eq!(reasons, []);
    for key in 0..30 {
        assert_eq!(
            numbers.iter().rfind(|number| *number % 30 == key),
            Some(&(999 * 30 + key))
        );
    }
    let stats = sender.stats();
    assert_eq!((stats.depth, stats.dropped), (0, 0));
    assert_eq!(stats.coalesced as usize, 30_000 - numbers.len());
}

#[test]
fn a_coalesced_update_keeps_the_urgency_of_what_it_replaced() {
    let (sender, mut receiver) = bounded(options(8, Overflow::Coalesce));
    push(&sender, (1..5).map(|key| plain(key, key.into())).collect());
    push(&sender, vec![plain(5, 5), update(6, 1, 0, 6), update(6, 9, 0, 7)]);
    assert_eq!(drain(&mut receiver).0, [7, 1, 2, 3, 4, 5]);
}

#[test]
fn overflow_tells_one_sync_per_burst() {
    for overflow in [Overflow::Coalesce, Overflow::DropAndSync] {
        let (sender, mut receiver) = bounded(options(4, overflow));
        for burst in 1..4 {
            push(&sender, (0..10).map(|key| plain(key, 0)).collect());
            push(&sender, (10..12).map(|key| plain(key, 0)).collect());
            let (numbers, reasons) = drain(&mut receiver);
            assert_eq!((numbers.len(), reasons), (4, vec![SyncReason::Overflow { dropped: 8 }]));
            assert_eq!(sender.stats().dropped, burst * 8);
            assert_eq!(sender.stats().syncs, burst);
        }
    }
}

/// The row is in the receiver's heap, where the sender cannot see it.
#[test]
fn at_full_capacity_an_update_replaces_the_one_of_its_row_wherever_that_is() {
    let (sender, mut receiver) = bounded(options(8, Overflow::Coalesce));
    push(&sender, (0..4).map(|key| plain(key, 0)).collect());
    let first = receiver.pop(Instant::now());
    assert!(matches!(first, Some(Event::Update(update)) if update.key == "0"));
    push(&sender, (4..9).map(|key| plain(key, 0)).collect());
    assert_eq!(sender.stats().depth, 8);
    push(&sender, (1..9).map(|key| plain(key, key.into())).collect());
    assert_eq!(sender.stats().depth, 8);
    assert_eq!(drain(&mut receiver), ((1..9).collect(), vec![]));
    assert_eq!((sender.stats().dropped, sender.stats().coalesced), (0, 8));
}

/// Only the receiver can find out that there are too many rows.
#[test]
fn what_replaces_nothing_at_full_capacity_is_dropped_and_told() {
    let (sender, mut receiver) = bounded(options(8, Overflow::Coalesce));
    push(&sender, (0..4).map(|key| plain(key, 0)).collect());
    assert!(receiver.pop(Instant::now()).is_some());
    push(&sender, (4..9).map(|key| plain(key, 0)).collect());
    push(&sender, vec![plain(9, 9), plain(1, 1), plain(10, 10)]);
    let (numbers, reasons) = drain(&mut receiver);
    assert_eq!((numbers.len(), reasons), (8, vec![SyncReason::Overflow { dropped: 2 }]));
    assert!(numbers.contains(&1));
    assert_eq!((sender.stats().depth, sender.stats().dropped), (0, 2));
}

#[test]
fn an_overflow_lets_the_pending_updates_go_first_for_a_second() {
    let (sender, mut receiver) = bounded(options(100, Overflow::DropAndSync));
    let now = Instant::now();
    let is_update = |event| matches!(event, Some(Event::Update(_)));
    push(&sender, (0..120).map(|key| plain(key, 0)).collect());
    for millis in [0, 500, 999] {
        assert!(is_update(receiver.pop(now + Duration::from_millis(millis))));
    }
    let later = now + Duration::from_secs(1);
    assert_eq!(
        receiver.pop(later),
        Some(Event::Sync(SyncReason::Overflow { dropped: 20 }))
    );
    push(&sender, (0..10).map(|key| plain(key, 0)).collect());
    for _ in 0..100 {
        assert!(is_update(receiver.pop(later)));
    }
    assert_eq!(
        receiver.pop(later),
        Some(Event::Sync(SyncReason::Overflow { dropped: 7 }))
    );
    assert_eq!(receiver.pop(later), None);
}

#[test]
fn sync_events_that_never_end_leave_the_updates_their_turn() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let address = |number: usize| SyncReason::Connected {
        address: number.to_string().into(),
    };
    push(&sender, (0..100).map(|key| plain(key, 0)).collect());
    (0..3).for_each(|number| sender.sync(address(number)));
    let (mut now, mut updates, mut count) = (Instant::now(), 0, 3);
    while updates < 100 {
        match receiver.pop(now).expect("updates are left") {
            // Each takes some time, in which more come.
            Event::Sync(_) => {
                for _ in 0..2 {
                    sender.sync(address(count));
                    count += 1;
                }
                now += Duration::from_millis(200);
            }
            _ => {
                updates += 1;
                now += Duration::from_millis(20);
            }
        }
        assert!(count < 1000, "no update has a turn");
    }
    assert!(count > 10, "and the others have theirs");
}

/// The topics that the reasons concern; `None`: all.
fn concerned(reasons: &[SyncReason]) -> Option<HashSet<Topic>> {
    let topics = reasons.iter().map(|reason| reason.topics().map(<[Topic]>::to_vec));
    topics
        .collect::<Option<Vec<_>>>()
        .map(|topics| topics.concat().into_iter().collect())
}

fn any_reason() -> impl Strategy<Value = SyncReason> {
    let name = || (0..2000u32).prop_map(|number| Name::from(number.to_string()));
    let topic = || name().prop_map(|name| Topic::new(name).unwrap());
    prop_oneof![
        8 => (name(), topic(), 1..9u64, 0..9u64).prop_map(|(publisher, topic, from, more)| {
            SyncReason::Gap { publisher, topic, from, to: from + more }
        }),
        1 => vec(topic(), 1..4).prop_map(|topics| SyncReason::Unproven { topics }),
        1 => (name(), vec(topic(), 1..4)).prop_map(|(address, topics)| SyncReason::Cleared { address, topics }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However events are joined, the joined ones concern every topic that the original ones concerned.
    #[test]
    fn what_is_joined_concerns_all_that_its_parts_concern(
        reasons in vec(any_reason(), 0..400),
        restarts in prop_oneof![Just(0), 0..100u32],
    ) {
        let (sender, mut receiver) = bounded(QueueOptions::default());
        reasons.iter().for_each(|reason| sender.sync(reason.clone()));
        for number in 0..restarts {
            sender.sync(SyncReason::Restarted { publisher: number.to_string().into() });
        }
        let (_, told) = drain(&mut receiver);
        if restarts == 0 {
            prop_assert_eq!(concerned(&told), concerned(&reasons));
        } else {
            prop_assert_eq!(concerned(&told), None);
        }
        let count = |word: &str| told.iter().filter(|reason| reason.as_str() == word).count();
        prop_assert!(count("gap") <= 64 && count("restarted") <= 64 && count("joined") <= 1);
        prop_assert_eq!(count("unproven"), usize::from(reasons.iter().any(|reason| reason.as_str() == "unproven")));
    }
}

#[test]
fn the_last_word_on_an_address_stays_the_last_whatever_publishers_do() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let lost = SyncReason::AddressLost { address: "a".into() };
    let back = SyncReason::Reconnected { address: "a".into() };
    sender.sync(back.clone());
    for number in 0..1000 {
        sender.sync(SyncReason::Restarted {
            publisher: number.to_string().into(),
        });
    }
    sender.sync(lost.clone());
    let (_, reasons) = drain(&mut receiver);
    let joined = SyncReason::Joined {
        topics: None,
        events: 1000,
    };
    assert_eq!(reasons, [back, lost, joined]);
    // Later events are kept apart again.
    sender.sync(SyncReason::Restarted { publisher: "p".into() });
    assert_eq!(
        drain(&mut receiver).1,
        [SyncReason::Restarted { publisher: "p".into() }]
    );
}

#[test]
fn beyond_every_bound_what_is_told_concerns_every_topic() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let name = |number: usize| Name::from(format!("{number}"));
    for number in 0..1100 {
        sender.sync(SyncReason::Connected { address: name(number) });
    }
    let joined = SyncReason::Joined {
        topics: None,
        events: 1100,
    };
    assert_eq!(drain(&mut receiver).1, [joined]);
    for number in 0..140_000 {
        sender.sync(SyncReason::Gap {
            publisher: "p".into(),
            topic: Topic::new(name(number)).unwrap(),
            from: 1,
            to: 1,
        });
    }
    let topics = (0..140_000).map(|number| Topic::new(name(number)).unwrap()).collect();
    sender.sync(SyncReason::Unproven { topics });
    sender.sync(SyncReason::Silence {
        publishers: (0..2000).map(name).collect(),
    });
    let (_, told) = drain(&mut receiver);
    assert_eq!(
        told.iter().map(SyncReason::as_str).collect::<Vec<_>>(),
        ["silence", "joined"]
    );
    assert!(told.iter().all(|reason| reason.topics().is_none()));
    assert!(matches!(&told[0], SyncReason::Silence { publishers } if publishers.len() == 1024));
}

#[test]
fn gaps_and_silence_of_few_are_joined_each_by_each() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let gap = |from, to| SyncReason::Gap {
        publisher: "p".into(),
        topic: Topic::ALL,
        from,
        to,
    };
    let silence = |names: &[&str]| SyncReason::Silence {
        publishers: names.iter().map(|&name| name.into()).collect(),
    };
    for reason in [gap(5, 6), silence(&["b", "c"]), gap(2, 3), silence(&["a", "c"])] {
        sender.sync(reason);
    }
    assert_eq!(drain(&mut receiver).1, [gap(2, 6), silence(&["a", "b", "c"])]);
}

#[test]
fn sync_events_go_first_and_are_told_once() {
    let (sender, mut receiver) = bounded(options(1, Overflow::DropAndSync));
    let lost = SyncReason::AddressLost { address: "a".into() };
    let back = SyncReason::Reconnected { address: "a".into() };
    push(&sender, vec![plain(1, 1)]);
    for reason in [
        &lost,
        &back,
        &lost,
        &SyncReason::Overflow { dropped: 1 },
        &SyncReason::Overflow { dropped: 2 },
    ] {
        sender.sync(reason.clone());
    }
    assert!(!receiver.is_empty());
    assert_eq!(
        drain(&mut receiver),
        (vec![1], vec![back, lost, SyncReason::Overflow { dropped: 3 }])
    );
}

#[test]
fn a_sync_event_wakes_an_idle_receiver_once() {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    sender.sync(SyncReason::Requested);
    sender.sync(SyncReason::Requested);
    let delivery = receiver.channel().recv_timeout(PATIENCE).unwrap();
    receiver.accept(delivery);
    assert!(receiver.channel().is_empty());
    assert_eq!(receiver.pop(Instant::now()), Some(Event::Sync(SyncReason::Requested)));
    assert_eq!(receiver.pop(Instant::now()), None);
}

#[test]
fn block_loses_nothing_and_keeps_each_senders_order() {
    within(PATIENCE, || {
        const SENDERS: u8 = 3;
        const EACH: u64 = 4000;
        let (sender, mut receiver) = bounded(options(8, Overflow::Block));
        let stats = sender.clone();
        let mut next = [0; SENDERS as usize];
        thread::scope(|scope| {
            for key in 0..SENDERS {
                let sender = sender.clone();
                scope.spawn(move || {
                    let updates: Vec<DbUpdate> = (0..EACH).map(|number| plain(key, number)).collect();
                    let mut rest = &updates[..];
                    for size in (1..20).cycle() {
                        let (batch, others) = rest.split_at(size.min(rest.len()));
                        push(&sender, batch.to_vec());
                        rest = others;
                        if rest.is_empty() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut left = u64::from(SENDERS) * EACH;
            while left > 0 {
                receiver.accept(receiver.channel().recv_timeout(PATIENCE).expect("a wake-up was lost"));
                while let Some(event) = receiver.pop(Instant::now()) {
                    let Event::Update(update) = event else {
                        panic!("{event:?}")
                    };
                    assert!(stats.stats().depth <= 8);
                    let next = &mut next[update.key.parse::<usize>().unwrap()];
                    assert_eq!(number(&update), *next);
                    *next += 1;
                    left -= 1;
                }
            }
        });
        assert_eq!(next, [EACH; SENDERS as usize]);
    });
}

#[test]
fn coalescing_between_threads_ends_with_the_newest_state() {
    within(PATIENCE, || {
        const LAST: u64 = 20_000;
        let (sender, mut receiver) = bounded(options(16, Overflow::Coalesce));
        let stats = sender.clone();
        let mut newest = [0; 6];
        thread::scope(|scope| {
            for half in 0..2u8 {
                let sender = sender.clone();
                scope.spawn(move || {
                    for number in 1..=LAST {
                        push(&sender, (0..3).map(|key| plain(3 * half + key, number)).collect());
                    }
                });
            }
            while newest != [LAST; 6] {
                receiver.accept(receiver.channel().recv_timeout(PATIENCE).expect("a wake-up was lost"));
                while let Some(event) = receiver.pop(Instant::now()) {
                    let Event::Update(update) = event else {
                        panic!("{event:?}")
                    };
                    let newest = &mut newest[update.key.parse::<usize>().unwrap()];
                    assert!(number(&update) > *newest);
                    *newest = number(&update);
                }
            }
        });
        assert_eq!((stats.stats().depth, stats.stats().dropped), (0, 0));
    });
}

#[test]
fn stop_and_a_gone_receiver_end_the_wait_for_space() {
    within(PATIENCE, || {
        let (sender, receiver) = bounded(options(2, Overflow::Block));
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let mut updates: Vec<DbUpdate> = (1..6).map(|n| plain(1, n)).collect();
        stop.send(()).unwrap();
        assert_eq!(
            sender.push(&mut updates, &stopped).unwrap_err().kind(),
            ErrorKind::Stopped
        );
        assert_eq!(updates.iter().map(number).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(stopped.len(), 1);

        thread::scope(|scope| {
            let (begins, begun) = crossbeam_channel::unbounded();
            let waiters = [(); 3].map(|()| {
                let (sender, begins) = (sender.clone(), begins.clone());
                scope.spawn(move || {
                    begins.send(()).unwrap();
                    sender.push(&mut vec![plain(1, 9)], &never()).unwrap_err().kind()
                })
            });
            for _ in &waiters {
                begun.recv().unwrap();
            }
            // The senders now wait or are about to; both must end.
            (0..1000).for_each(|_| thread::yield_now());
            drop(receiver);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), ErrorKind::Stopped);
            }
        });
        let (sender, receiver) = bounded(QueueOptions::default());
        drop(receiver);
        assert_eq!(
            sender.push(&mut vec![plain(1, 1)], &never()).unwrap_err().kind(),
            ErrorKind::Stopped
        );
        sender.sync(SyncReason::Requested);
    });
}

#[test]
fn a_deep_lane_of_one_row_costs_no_more_than_many_rows() {
    let (sender, mut receiver) = bounded(options(60_000, Overflow::Block));
    push(&sender, (0..60_000).map(|n| update(1, 5, n as i64, n)).collect());
    let now = Instant::now();
    for n in 0..60_000 {
        let Some(Event::Update(update)) = receiver.pop_held(now) else {
            panic!("update {n} is missing")
        };
        assert_eq!(number(&update), n);
        assert_eq!(receiver.pop_held(now), None);
        receiver.release(&update.table, &update.key);
    }
    assert!(now.elapsed() < PATIENCE);
}

#[test]
fn overflow_words() {
    for overflow in [Overflow::Coalesce, Overflow::Block, Overflow::DropAndSync] {
        assert_eq!(overflow.to_string().parse::<Overflow>().unwrap(), overflow);
    }
    assert_eq!("drop".parse::<Overflow>().unwrap_err().kind(), ErrorKind::Config);
}
