//! Topics that come and go, and rows that move between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{base, check, listing, row, update};
use crate::clock;
use crate::replica::core::{Base, Core, QUARANTINE, Read, Want};
use crate::replica::row::NewRow;
use crate::update::{Action, DbUpdate, Name, Topic};

/// Before the first listing of a topic no row of it is held, unless rows from an earlier time are left.
#[test]
fn a_topic_is_without_rows_until_it_is_listed() {
    let now = clock::now();
    let topic = Topic::new("a").unwrap();
    let (mut core, ids) = listing(&[&topic], now);
    assert!(!core.may_have_rows(&topic));
    core.handle_update(&update(&topic, 3), Some(&row(&topic, 3)), now);
    assert!(core.rows.get("k").is_none());
    core.begin_listing(ids[0], &topic, Some(base(3)), [], now);
    assert!(core.may_have_rows(&topic));
    core.remove_topic(&topic);
    core.add_topic(&topic, now);
    assert!(core.may_have_rows(&topic));
    core.remove_topic(&topic);
    (0..2).for_each(|_| core.end_evict(&topic));
    core.add_topic(&topic, now);
    assert!(!core.may_have_rows(&topic));
}

/// The listing of a topic that is under way.
fn listing_of(core: &mut Core<()>, topic: &Topic, now: Instant) -> u64 {
    match core.poll(now) {
        Some(Read::Listing { id, topic: of }) if *of == *topic => id,
        read => panic!("{read:?}"),
    }
}

fn list(core: &mut Core<()>, id: u64, topic: &Topic, base: Base, rows: &[NewRow<()>], now: Instant) {
    let held = core.rows.get("k").filter(|held| held.topic() == topic);
    core.begin_listing(id, topic, Some(base), held.map(|_| "k".into()), now);
    rows.iter().for_each(|row| drop(core.take_listed(id, topic, row)));
    core.end_listing(id, topic);
    core.end_sweep(id, topic, now);
}

/// Two topics, both listed, with this row.
fn two(base: Base, row: &NewRow<()>, now: Instant) -> (Core<()>, Topic, Topic) {
    let (a, b) = (Topic::new("a").unwrap(), Topic::new("b").unwrap());
    let (mut core, ids) = listing(&[&a, &b], now);
    for (id, topic) in ids.into_iter().zip([&a, &b]) {
        let rows = match row.topic() == topic {
            true => std::slice::from_ref(row),
            false => &[],
        };
        list(&mut core, id, topic, base, rows, now);
    }
    (core, a, b)
}

/// Updates from before a store went back do not count for a topic that is added after it either.
#[test]
fn a_topic_that_is_added_after_a_store_went_back_is_quarantined() {
    let now = clock::now();
    let (mut core, a, _) = two(base(10), &row(&Topic::new("a").unwrap(), 9), now);
    core.remove_topic(&a);
    assert!(core.evict(&"k".into()).is_some());
    core.end_evict(&a);
    check(&mut core, Some(base(5)), now);
    core.add_topic(&a, now);
    let id = listing_of(&mut core, &a, now);
    list(&mut core, id, &a, base(5), &[], now);
    let late = |core: &mut Core<()>, now| core.handle_update(&update(&a, 11), Some(&row(&a, 11)), now).0.is_some();
    assert!(!late(&mut core, now));
    assert_eq!(core.topics[&a].due().unwrap().1, Want::CatchUp);
    assert!(late(&mut core, now + QUARANTINE + Duration::from_secs(1)));
}

/// The rows to read, which an update without a version has caused.
fn rows_of(core: &mut Core<()>, topic: &Topic, action: Action, now: Instant) -> u64 {
    let update = DbUpdate::new("t", "k", action).topic(topic.clone());
    core.handle_update(&update, None, now);
    match core.poll(now) {
        Some(Read::Rows { id, .. }) => id,
        read => panic!("{read:?}"),
    }
}

/// Rows that are left of a removed topic when a store goes back are of the old history.
#[test]
fn rows_left_of_a_removed_topic_give_way_once_the_store_went_back() {
    let now = clock::now();
    let later = now + QUARANTINE + Duration::from_secs(1);
    let left = || {
        let a = Topic::new("a").unwrap();
        let (mut core, a, b) = two(base(100), &row(&a, 100), now);
        core.remove_topic(&a);
        check(&mut core, Some(base(40)), now);
        assert_eq!(core.counts.went_back, 1);
        (core, a, b)
    };
    // The topic is added again.
    let (mut core, a, b) = left();
    core.add_topic(&a, now);
    let id = listing_of(&mut core, &a, now);
    list(&mut core, id, &a, base(40), &[row(&a, 30)], now);
    assert_eq!(core.rows.version("k"), Some(30));
    core.end_evict(&a);
    // The row is created and deleted on the other topic, which is heard of in another order.
    let (mut core, _, _) = left();
    let id = listing_of(&mut core, &b, now);
    list(&mut core, id, &b, base(40), &[], now);
    let mut delete = update(&b, 42);
    delete.action = Action::Delete;
    assert!(core.handle_update(&delete, None, later).0.is_some());
    assert!(
        core.handle_update(&update(&b, 41), Some(&row(&b, 41)), later)
            .0
            .is_none()
    );
    // The row comes back on the other topic, before it is removed or after.
    for is_removed in [false, true] {
        let (mut core, _, _) = left();
        let id = listing_of(&mut core, &b, now);
        list(&mut core, id, &b, base(40), &[], now);
        assert_eq!(is_removed, is_removed && core.evict(&"k".into()).is_some());
        let new = row(&b, 41);
        assert!(core.handle_update(&update(&b, 41), Some(&new), later).0.is_some());
        assert!(core.evict(&"k".into()).is_none());
    }
}

/// While no topic is held, the store may begin anew and come to the same versions.
#[test]
fn rows_that_are_left_when_no_topic_is_held_are_doubted() {
    let now = clock::now();
    let (mut core, a, b) = two(base(30), &row(&Topic::new("a").unwrap(), 30), now);
    core.remove_topic(&a);
    core.remove_topic(&b);
    core.add_topic(&a, now);
    let id = listing_of(&mut core, &a, now);
    let other = NewRow::new("k".into(), Arc::new(a.clone()), 30, Ok(()), 1);
    list(&mut core, id, &a, base(30), &[other], now);
    assert_eq!(core.rows.stamp("k"), Some((30, 1)));
}

/// Only rows that are left from before the doubt give way to older states.
#[test]
fn rows_of_a_topic_that_is_removed_after_the_doubt_are_not_doubted() {
    let now = clock::now();
    let (mut core, a, b) = two(base(30), &row(&Topic::new("a").unwrap(), 30), now);
    core.remove_topic(&a);
    core.remove_topic(&b);
    for (topic, version) in [(&a, 30), (&b, 41)] {
        core.add_topic(topic, now);
        let id = listing_of(&mut core, topic, now);
        list(&mut core, id, topic, base(version), &[row(topic, version)], now);
        check(&mut core, Some(base(version)), now);
    }
    core.remove_topic(&b);
    let mut delete = update(&a, 40);
    delete.action = Action::Delete;
    assert!(core.handle_update(&delete, None, now).0.is_none());
    assert_eq!(core.rows.version("k"), Some(41));
}

/// A store without versions begins anew while rows of a removed topic are left.
#[test]
fn a_left_row_that_is_newer_than_a_listed_one_shows_that_the_store_went_back() {
    let now = clock::now();
    let (a, b) = (Topic::new("a").unwrap(), Topic::new("b").unwrap());
    let (mut core, ids) = listing(&[&a, &b], now);
    core.begin_listing(ids[0], &a, None, [], now);
    assert!(core.take_listed(ids[0], &a, &row(&a, 37)).is_some());
    core.end_listing(ids[0], &a);
    core.end_sweep(ids[0], &a, now);
    core.remove_topic(&a);
    core.handle_failure(
        &Read::Listing {
            id: ids[1],
            topic: b.clone().into(),
        },
        now,
    );
    let later = now + Duration::from_secs(1);
    for is_right in [false, true] {
        let id = listing_of(&mut core, &b, later);
        core.begin_listing(id, &b, None, [], later);
        assert_eq!(core.take_listed(id, &b, &row(&b, 11)).is_some(), is_right);
        core.end_listing(id, &b);
        core.end_sweep(id, &b, later);
    }
    assert_eq!((core.counts.went_back, core.rows.version("k")), (1, Some(11)));
}

/// While a topic is listed anew, a late update of another topic does not undo what a page has shown.
#[test]
fn a_row_on_a_page_is_not_undone_by_a_late_update_of_another_topic() {
    let now = clock::now();
    for is_held in [false, true] {
        let (mut core, a, b) = two(base(40), &row(&Topic::new("a").unwrap(), 40), now);
        core.remove_topic(&a);
        core.remove_topic(&b);
        assert_eq!(!is_held, !is_held && core.evict(&"k".into()).is_some());
        core.add_topic(&b, now);
        let id = listing_of(&mut core, &b, now);
        list(&mut core, id, &b, base(44), &[], now);
        check(&mut core, Some(base(44)), now);
        core.add_topic(&a, now);
        let id = listing_of(&mut core, &a, now);
        let held = is_held.then(|| Name::from("k"));
        core.begin_listing(id, &a, Some(base(52)), held, now);
        // The row moved to the other topic and back.
        assert!(core.take_listed(id, &a, &row(&a, 51)).is_some());
        assert!(core.handle_update(&update(&b, 46), Some(&row(&b, 46)), now).0.is_none());
        core.end_listing(id, &a);
        core.end_sweep(id, &a, now);
        assert_eq!(core.rows.version("k"), Some(51));
    }
}

/// As before, but the topic is removed before it is listed anew.
#[test]
fn rows_of_a_topic_that_is_removed_while_it_is_doubted_give_way() {
    let now = clock::now();
    let (mut core, a, b) = two(base(100), &row(&Topic::new("a").unwrap(), 100), now);
    check(&mut core, Some(base(40)), now);
    core.remove_topic(&a);
    let later = now + QUARANTINE + Duration::from_secs(1);
    let id = listing_of(&mut core, &b, later);
    list(&mut core, id, &b, base(40), &[], later);
    assert!(
        core.handle_update(&update(&b, 41), Some(&row(&b, 41)), later)
            .0
            .is_some()
    );
}

/// A row that was read by its key while another topic's listing began, and was deleted before that came to it.
#[test]
fn a_row_read_by_its_key_is_on_no_page_once_it_is_gone() {
    let now = clock::now();
    let (mut core, a, b) = two(base(5), &row(&Topic::ALL, 1), now);
    core.topics.get_mut(&b).unwrap().want(now, Want::List);
    let listing = listing_of(&mut core, &b, now);
    let rows = rows_of(&mut core, &a, Action::Set, now);
    core.begin_rows(rows, &a, Some(base(6)), now);
    assert!(core.take_row(rows, &a, &"k".into(), Some(&row(&b, 6))).is_some());
    core.end_rows(rows, &a);
    core.begin_listing(listing, &b, Some(base(7)), [], now);
    assert_eq!(core.end_listing(listing, &b), [Name::from("k")]);
    assert!(core.sweep(listing, &b, &"k".into()).is_some());
}

/// A delete without a version is published on another topic than the row's.
#[test]
fn a_row_is_gone_whatever_topic_its_delete_is_told_on() {
    let now = clock::now();
    let at = |version| Base {
        table: 9,
        ..base(version)
    };
    let (mut core, a, _) = two(at(7), &row(&Topic::new("b").unwrap(), 8), now);
    let rows = rows_of(&mut core, &a, Action::Delete, now);
    core.begin_rows(rows, &a, Some(at(7)), now);
    assert!(core.take_row(rows, &a, &"k".into(), None).is_some());
}
