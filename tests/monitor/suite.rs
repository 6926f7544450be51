//! The behaviour of a monitor with every store.

use std::sync::Arc;

use tablecast::{Action, Store, Topic};

use crate::common::eventually;
use crate::rig::{LONG, topic};
use crate::{Host, heard};

pub(crate) fn what_others_write_is_told(store: &Arc<dyn Store>) {
    let host = Host::new();
    let monitor = host.monitor(store);
    let tenant = topic("tenant");
    let created = store.create("t", "k", "one", &tenant).unwrap();
    store.create("another", "k", "one", &tenant).unwrap();
    assert_eq!(host.next(), heard(Action::Create, "k", "tenant", Some("one"), created));
    let set = store.set("t", "k", "two").unwrap();
    assert_eq!(host.next(), heard(Action::Set, "k", "tenant", Some("two"), set));
    // The same value again is a write.
    let again = store.set("t", "k", "two").unwrap();
    assert_eq!(host.next(), heard(Action::Set, "k", "tenant", Some("two"), again));
    let deleted = store.delete("t", "k").unwrap();
    let (action, key, of, value, version) = host.next();
    assert_eq!((action, &*key, &*of, value), (Action::Delete, "k", "tenant", None));
    assert!(version > Some(again) && version <= Some(deleted), "{version:?}");

    let back = store.create("t", "k", "three", &Topic::ALL).unwrap();
    assert_eq!(host.next(), heard(Action::Create, "k", "D", Some("three"), back));
    for number in 0..10 {
        store.create("t", &format!("{number}"), "x", &Topic::ALL).unwrap();
    }
    assert_eq!(host.keys(10).len(), 10);
    assert!(store.delete_table("t").unwrap());
    let deleted = host.keys(11);
    assert!(deleted.iter().all(|(_, action)| *action == Action::Delete));
    host.nothing_more(&monitor);
    let stats = monitor.stats();
    assert_eq!(
        (stats.created, stats.set, stats.deleted, stats.failures),
        (12, 2, 12, 0)
    );
    assert_eq!(host.publisher.stats().sent, 27, "and the marker");
}

pub(crate) fn what_was_written_before_is_told_once(store: &Arc<dyn Store>) {
    let host = Host::new();
    for number in 0..10 {
        store.create("t", &format!("{number}"), "x", &Topic::ALL).unwrap();
    }
    let monitor = host.monitor(store);
    assert!(host.keys(10).iter().all(|(_, action)| *action == Action::Create));
    host.nothing_more(&monitor);
    monitor.stop();
    let monitor = host.monitor(store);
    host.nothing_more(&monitor);
    assert_eq!(monitor.stats().failures, 0);
}

pub(crate) fn a_new_run_tells_what_it_missed(store: &Arc<dyn Store>) {
    let host = Host::new();
    let (tenant, other) = (topic("tenant"), topic("other"));
    let mut last = 0;
    for key in ["changed", "deleted", "moved", "same", "set again"] {
        last = store.create("t", key, "x", &tenant).unwrap();
    }
    let monitor = host.monitor(store);
    assert_eq!(host.keys(5).len(), 5);
    host.nothing_more(&monitor);
    drop(monitor);

    let changed = store.set("t", "changed", "y").unwrap();
    store.delete("t", "deleted").unwrap();
    store.delete("t", "moved").unwrap();
    let moved = store.create("t", "moved", "y", &other).unwrap();
    store.delete("t", "set again").unwrap();
    let again = store.create("t", "set again", "y", &tenant).unwrap();
    store.create("t", "came and went", "x", &tenant).unwrap();
    store.delete("t", "came and went").unwrap();
    let new = store.create("t", "new", "y", &tenant).unwrap();

    let monitor = host.monitor(store);
    let mut all: Vec<_> = (0..6).map(|_| host.next()).collect();
    all.sort_by(|a, b| (&a.1, &a.4).cmp(&(&b.1, &b.4)));
    assert_eq!(all[0], heard(Action::Set, "changed", "tenant", Some("y"), changed));
    assert_eq!(
        (&all[1].0, &*all[1].1, &*all[1].2),
        (&Action::Delete, "deleted", "tenant")
    );
    assert!(all[1].4 > Some(last));
    assert_eq!(
        (&all[2].0, &*all[2].1, &*all[2].2),
        (&Action::Delete, "moved", "tenant")
    );
    assert!(all[2].4 < Some(moved));
    assert_eq!(all[3], heard(Action::Create, "moved", "other", Some("y"), moved));
    assert_eq!(all[4], heard(Action::Create, "new", "tenant", Some("y"), new));
    assert_eq!(all[5], heard(Action::Set, "set again", "tenant", Some("y"), again));
    host.nothing_more(&monitor);
}

pub(crate) fn two_hosts_each_tell_their_own(store: &Arc<dyn Store>) {
    let (one, two) = (Host::new(), Host::new());
    store.create("t", "k", "x", &Topic::ALL).unwrap();
    let first = one.monitor(store);
    assert_eq!(one.keys(1), [("k".to_owned(), Action::Create)]);
    let second = two.monitor(store);
    assert_eq!(two.keys(1), [("k".to_owned(), Action::Create)]);
    one.nothing_more(&first);
    drop(first);
    store.delete("t", "k").unwrap();
    assert_eq!(two.keys(1), [("k".to_owned(), Action::Delete)]);
    two.nothing_more(&second);
    drop(second);
    store.create("t", "k2", "x", &Topic::ALL).unwrap();
    let told = [("k".to_owned(), Action::Delete), ("k2".to_owned(), Action::Create)];
    let first = one.monitor(store);
    assert_eq!(one.keys(2), told);
    let second = two.monitor(store);
    assert_eq!(two.keys(1), told[1..]);
    one.nothing_more(&first);
    two.nothing_more(&second);
    assert_eq!((first.stats().failures, second.stats().failures), (0, 0));
}

pub(crate) fn what_does_not_change_is_not_read(store: &Arc<dyn Store>) {
    let host = Host::new();
    for number in 0..100 {
        store.create("t", &format!("{number}"), "x", &Topic::ALL).unwrap();
    }
    let monitor = host.monitor(store);
    eventually(LONG, || monitor.stats().skipped > 0);
    let before = monitor.stats();
    assert_eq!(before.rows_read, 100);
    // Other tables do not matter, nor do writes that change nothing.
    store.create("another", "k", "x", &Topic::ALL).unwrap();
    assert!(store.create("t", "1", "x", &Topic::ALL).is_err());
    eventually(LONG, || monitor.stats().skipped > before.skipped + 10);
    let after = monitor.stats();
    assert_eq!(after.rows_read, 100);
    // One may be under way.
    let (polls, skipped) = (after.polls - before.polls, after.skipped - before.skipped);
    assert!(polls.abs_diff(skipped) <= 1, "{before:?} {after:?}");
}
