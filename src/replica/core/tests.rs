//! Orders of inputs that histories reach seldom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Base, Core, QUARANTINE, Read, Times};
use crate::clock;
use crate::replica::row::NewRow;
use crate::store::TableVersion;
use crate::update::{Action, DbUpdate, Topic};

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
    })
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
    core.begin_listing(listings[1], &b, Some(base(5)), [], now);
    let later = now + QUARANTINE + Duration::from_secs(1);
    assert!(core.handle_update(&update(&a, 7), Some(&row(&a, 7)), later).0.is_some());
    assert!(core.take_listed(listings[1], &b, &row(&b, 5)).is_none());
    assert_eq!(core.rows.version("k"), Some(7));
    // A row of the distrusted topic itself gives way to an older one.
    assert!(core.take_listed(listings[1], &b, &row(&b, 8)).is_some());
    assert!(core.take_listed(listings[1], &b, &row(&b, 6)).is_some());
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
