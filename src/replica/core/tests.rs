//! Orders of inputs that histories reach seldom.

mod history;
mod topics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Base, Core, QUARANTINE, Read, Rows, Times, Want};
use crate::clock;
use crate::dispatcher::Callback;
use crate::replica::row::{NewRow, Step};
use crate::replica::watch::{Watcher, Watchers};
use crate::store::TableVersion;
use crate::update::{Action, DbUpdate, Name, Topic};

const TIMES: Times = Times {
    patience: Duration::from_millis(100),
    check_interval: Duration::from_secs(600),
    spread: Duration::ZERO,
    max_backoff: Duration::from_secs(1),
};

fn base(version: u64) -> Base {
    Base::of_table(TableVersion {
        incarnation: 1,
        version,
        tip: 0,
        source: 0,
    })
}

/// As [`base`], of this server.
fn source(source: u64, version: u64) -> Base {
    let base = base(version);
    let version = TableVersion { source, ..base.version };
    Base { version, ..base }
}

fn row(topic: &Topic, version: u64) -> NewRow<()> {
    NewRow::new("k".into(), Arc::new(topic.clone()), version, Ok(()), 0)
}

/// The update of the row's state in this version.
fn update(topic: &Topic, version: u64) -> DbUpdate {
    let mut update = DbUpdate::new("t", "k", Action::Set).value("").topic(topic.clone());
    (update.after, update.version) = (Some(version - 1), Some(version));
    update
}

/// A core that holds these topics, and the listing of each.
fn listing(topics: &[&Topic], now: Instant) -> (Core<()>, Vec<u64>) {
    let mut core = Core::new(TIMES, 0, now);
    topics.iter().for_each(|topic| core.add_topic(topic, now));
    let listings = topics.iter().map(|_| match core.poll(now) {
        Some(Read::Listing { id, .. }) => id,
        read => panic!("{read:?}"),
    });
    let ids = listings.collect();
    (core, ids)
}

/// After a store went back, a page that waited to be merged does not replace a newer row of a topic that is trusted
/// again.
#[test]
fn a_late_page_does_not_undo_a_row_of_another_topic() {
    let now = clock::now();
    let (a, b) = (Topic::new("a").unwrap(), Topic::new("b").unwrap());
    let (mut core, _) = listing(&[&a, &b], now);
    core.distrust(now);
    let listings = [core.poll(now), core.poll(now)].map(|read| match read {
        Some(Read::Listing { id, .. }) => id,
        read => panic!("{read:?}"),
    });
    core.begin_listing(listings[0], &a, Some(base(4)), [], now);
    core.end_listing(listings[0], &a);
    core.end_sweep(listings[0], &a, now);
    core.begin_listing(listings[1], &b, Some(base(8)), ["k".into()], now);
    let later = now + QUARANTINE + Duration::from_secs(1);
    assert!(core.handle_update(&update(&a, 7), Some(&row(&a, 7)), later).0.is_some());
    assert!(core.take_listed(listings[1], &b, &row(&b, 5)).is_none());
    assert_eq!(core.rows.version("k"), Some(7));
    assert!(core.take_listed(listings[1], &b, &row(&b, 8)).is_some());
}

/// After a store went back, a row that is read as it is held is no change.
#[test]
fn a_row_that_is_listed_again_as_it_is_held_is_no_change() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut core = synced(&topic, Some(base(5)), &[row(&topic, 5)], now);
    let mut listed_as = |version| {
        core.distrust(now);
        let Some(Read::Listing { id, .. }) = core.poll(now) else {
            panic!()
        };
        core.begin_listing(id, &topic, Some(base(5)), ["k".into()], now);
        core.take_listed(id, &topic, &row(&topic, version)).is_some()
    };
    assert!(!listed_as(5));
    // It is the truth, though it is older.
    assert!(listed_as(4));
}

/// An update that is merged before a first listing's beginning may be newer than it: the replica catches up.
#[test]
fn an_update_before_the_first_listing_is_merged_is_not_forgotten() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let (mut core, ids) = listing(&[&topic], now);
    assert!(core.handle_update(&update(&topic, 11), None, now).0.is_none());
    core.begin_listing(ids[0], &topic, Some(base(10)), [], now);
    core.end_listing(ids[0], &topic);
    core.end_sweep(ids[0], &topic, now);
    let due = now + 2 * TIMES.patience;
    assert!(core.deadline().is_some_and(|at| at <= due));
    assert!(matches!(core.poll(due), Some(Read::Changes { since, .. }) if since == base(10).version));
}

/// A core that has listed this topic, of which the store has this version.
fn synced(topic: &Topic, base: Option<Base>, rows: &[NewRow<()>], now: Instant) -> Core<()> {
    let (mut core, ids) = listing(&[topic], now);
    core.begin_listing(ids[0], topic, base, [], now);
    rows.iter().for_each(|row| drop(core.take_listed(ids[0], topic, row)));
    core.end_listing(ids[0], topic);
    core.end_sweep(ids[0], topic, now);
    core
}

/// Answers a check with this state of the store.
fn check(core: &mut Core<()>, base: Option<Base>, now: Instant) {
    core.demand(now);
    let Some(Read::Versions { id, .. }) = core.poll(now) else {
        panic!()
    };
    core.take_versions(id, base.map(|base| vec![base]).as_deref(), now);
}

/// A monitor publishes a delete with the table's version, which another topic has reached: the store did not go back.
#[test]
fn a_version_of_the_table_is_not_taken_for_one_of_the_topic() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut core = synced(&topic, Some(base(2)), &[row(&topic, 1)], now);
    let mut told = DbUpdate::new("t", "k", Action::Delete).topic(topic.clone());
    told.version = Some(4);
    assert!(core.handle_update(&told, None, now).0.is_some());
    check(&mut core, Some(Base { table: 4, ..base(3) }), now);
    assert_eq!(core.counts.went_back, 0);
    // A version that the table does not have is of another history.
    told.version = Some(6);
    core.handle_update(&told, None, now);
    check(&mut core, Some(Base { table: 5, ..base(3) }), now);
    assert_eq!(core.counts.went_back, 1);
}

/// The action of an update says whether the row is gone, not its value.
#[test]
fn a_row_is_gone_by_its_action() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut core = synced(&topic, Some(base(2)), &[row(&topic, 1)], now);
    let mut without = update(&topic, 3);
    without.value = None;
    assert!(core.wants(&without, now).is_none());
    assert!(core.handle_update(&without, None, now).0.is_none());
    let Some(Read::Rows { id, .. }) = core.poll(now) else {
        panic!()
    };
    core.begin_rows(id, &topic, Some(base(3)), now);
    assert!(core.take_row(id, &topic, &"k".into(), Some(&row(&topic, 3))).is_some());
    core.end_rows(id, &topic);
    let mut delete = update(&topic, 4);
    delete.action = Action::Delete;
    let step = core.handle_update(&delete, Some(&row(&topic, 4)), now).0;
    assert!(step.is_some_and(|step| step.after.is_none()));
}

/// An update that arrives between the reading of a listing's beginning and its merge is newer than what is doubted.
#[test]
fn an_update_before_the_beginning_is_merged_contradicts_nothing() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut core = synced(&topic, None, &[row(&topic, 3)], now);
    let mut chained = update(&topic, 3);
    chained.after = Some(0);
    core.handle_update(&chained, Some(&row(&topic, 3)), now);
    assert_eq!(core.position(&topic).map(|position| position.version), Some(3));
    let later = now + Duration::from_secs(1);
    check(&mut core, None, later);
    let Some(Read::Listing { id, .. }) = core.poll(later) else {
        panic!()
    };
    assert!(
        core.handle_update(&update(&topic, 4), Some(&row(&topic, 4)), later)
            .0
            .is_some()
    );
    core.begin_listing(id, &topic, None, ["k".into()], later);
    assert!(core.take_listed(id, &topic, &row(&topic, 3)).is_none());
    core.end_listing(id, &topic);
    core.end_sweep(id, &topic, later);
    assert_eq!(core.counts.went_back, 0);
}

/// A fleet that misses the same update does not catch up at one moment.
#[test]
fn holes_are_filled_at_different_moments() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let mut waits: Vec<_> = (0..100)
        .map(|seed| {
            let mut core = synced(&topic, Some(base(2)), &[], now);
            core.chance = fastrand::Rng::with_seed(seed);
            core.draw_patience();
            core.check.due = now + TIMES.check_interval;
            // The second hole has a wait of its own.
            [4, 6].map(|version| {
                let at = now + Duration::from_secs(version);
                assert!(core.handle_update(&update(&topic, version), None, at).1);
                let due = core.deadline().unwrap();
                core.handle_update(&update(&topic, version - 1), None, at);
                due - at
            })
        })
        .collect();
    assert!(
        waits
            .iter()
            .flatten()
            .all(|wait| (TIMES.patience..=2 * TIMES.patience).contains(wait))
    );
    assert!(waits.iter().filter(|[first, second]| first == second).count() < 10);
    for place in 0..2 {
        waits.sort_by_key(|waits| waits[place]);
        assert!(waits[90][place] - waits[10][place] > TIMES.patience / 2, "{waits:?}");
    }
}

/// Nothing is kept of rows that come and go while a handler is called for the present ones, and it is not told of
/// one that went and came again as it was.
#[test]
fn what_comes_and_goes_is_not_kept_for_a_new_handler() {
    let (mut rows, mut watchers) = (Rows::<()>::default(), Watchers::new(true));
    let topic = Arc::new(Topic::ALL);
    let row = |key: &Name, version, sum| NewRow::new(key.clone(), Arc::clone(&topic), version, Ok(()), sum);
    let there = Name::from("there");
    rows.put(&row(&there, 1, 7)).unwrap();
    let watcher: Watcher<()> = Arc::new(Callback::new(|_| Ok(())));
    watchers.begin(Arc::clone(&watcher));
    for number in 0..10_u64 {
        let key = Name::from(number.to_string());
        let version = 2 * number + 10;
        for step in [rows.put(&row(&key, version, 0)), rows.delete(&key, version + 1)] {
            watchers.change(step.unwrap());
        }
    }
    for step in [rows.evict(&there, true), rows.put(&row(&there, 1, 7))] {
        watchers.change(step.unwrap());
    }
    let since = watchers.since(&watcher).unwrap();
    assert_eq!(since.keys().collect::<Vec<_>>(), [&there]);
    assert_eq!(since.values().flat_map(Step::told).count(), 0);
    // A store that went back has the version again, with another value.
    for step in [
        rows.take_out(&there),
        rows.put(&row(&there, 1, 7)),
        rows.correct(&row(&there, 1, 8)),
    ] {
        watchers.change(step.unwrap());
    }
    assert_eq!(
        watchers.since(&watcher).unwrap().values().flat_map(Step::told).count(),
        1
    );
}

/// A fleet that finds another server, or hears of a write of another history, does not list at one moment, whatever
/// updates come meanwhile.
#[test]
fn a_fleet_lists_at_different_moments() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let spread = Duration::from_secs(10);
    let wait = |seed, hears: bool| {
        let mut core = synced(&topic, Some(source(1, 5)), &[row(&topic, 2)], now);
        core.times.spread = spread;
        core.chance = fastrand::Rng::with_seed(seed);
        if hears {
            core.handle_update(&update(&topic, 4), Some(&row(&topic, 4)), now);
            assert_eq!(core.counts.went_back, 1);
        } else {
            check(&mut core, Some(source(2, 5)), now);
        }
        core.handle_update(&update(&topic, 6), None, now);
        let unversioned = DbUpdate::new("t", "k", Action::Set).topic(topic.clone());
        core.handle_update(&unversioned, None, now);
        assert_eq!(core.topics[&topic].due().unwrap().1, Want::List);
        core.deadline().unwrap() - now
    };
    for hears in [false, true] {
        let mut waits: Vec<_> = (0..100).map(|seed| wait(seed, hears)).collect();
        waits.sort();
        assert!(waits[99] <= spread && waits[90] - waits[10] > spread / 2, "{waits:?}");
    }
}

/// However many reads are under way, one failure of the store causes one short pause, and only the next a longer one.
#[test]
fn reads_that_fail_together_cause_one_pause() {
    let start = clock::now();
    let topics: Vec<_> = (10..30)
        .map(|number| Topic::new(format!("{number}")).unwrap())
        .collect();
    let of: Vec<_> = topics.iter().collect();
    let (mut core, ids) = listing(&of, start);
    let mut begun: Vec<_> = ids.into_iter().zip(&topics).collect();
    let mut now = start;
    for most in [100, 200, 400].map(Duration::from_millis) {
        for (id, topic) in begun.drain(..) {
            let topic = Arc::new(topic.clone());
            core.handle_failure(&Read::Listing { id, topic }, now);
        }
        let next = core.deadline().unwrap();
        assert!(next <= now + most && next >= now + most / 2, "{:?}", next - now);
        now = next;
        while let Some(Read::Listing { id, topic }) = core.poll(now) {
            begun.push((id, topics.iter().find(|of| **of == *topic).unwrap()));
        }
        assert_eq!(begun.len(), topics.len());
    }
}
