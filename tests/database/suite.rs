//! The behaviour of a database with any store and driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tablecast::store::Write;
use tablecast::{DbUpdate, ErrorKind, Result, Table, Topic};

use crate::Setup;
use crate::rig::topic;

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Port {
    pub(crate) chassis: String,
    pub(crate) up: bool,
}

pub(crate) const PORTS: Table<Port> = Table::new("lport");

pub(crate) fn port(chassis: &str, up: bool) -> Port {
    let chassis = chassis.to_owned();
    Port { chassis, up }
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

/// The contents of an update, in short.
fn told(update: &DbUpdate) -> (&str, &str, Option<u64>, Option<&str>, &str) {
    let DbUpdate {
        key,
        action,
        version,
        value,
        topic,
        ..
    } = update;
    (key, action.as_str(), *version, value.as_deref(), topic.as_str())
}

pub(crate) fn every_change_is_told(setup: Setup) {
    let (rows, tenant) = (setup.database.rows(PORTS), topic("tenant"));
    let created = rows.create("p1", &port("host1", false)).unwrap();
    let of_tenant = setup.database.rows(PORTS).topic(&tenant).priority(1);
    let other = of_tenant.create("p2", &port("host2", true)).unwrap();
    let set = rows.set("p1", &port("host1", true)).unwrap().unwrap();
    // Without a topic, too, it is published on that of the row.
    let set_other = rows.set("p2", &port("host3", true)).unwrap().unwrap();
    let deleted = rows.delete("p1").unwrap();
    let deleted_other = of_tenant.delete("p2").unwrap();
    let (off, on) = (r#"{"chassis":"host1","up":false}"#, r#"{"chassis":"host1","up":true}"#);
    let (second, third) = (r#"{"chassis":"host2","up":true}"#, r#"{"chassis":"host3","up":true}"#);

    let mut updates: Vec<_> = (0..6).map(|_| setup.rig.next()).collect();
    updates.sort_by_key(|update| update.version);
    assert_eq!(
        updates.iter().map(told).collect::<Vec<_>>(),
        [
            ("p1", "create", Some(created), Some(off), "D"),
            ("p2", "create", Some(other), Some(second), "tenant"),
            ("p1", "set", Some(set), Some(on), "D"),
            ("p2", "set", Some(set_other), Some(third), "tenant"),
            ("p1", "delete", Some(deleted), None, "D"),
            ("p2", "delete", Some(deleted_other), None, "tenant"),
        ]
    );
    assert!(updates.iter().all(|update| update.table == "lport"));
    assert_eq!(
        updates.iter().map(|update| update.priority).collect::<Vec<_>>(),
        [5, 1, 5, 5, 5, 1]
    );
    assert_eq!(setup.database.publisher().stats().sent, 6);
}

pub(crate) fn what_changes_nothing_is_not_told(setup: Setup) {
    let rows = setup.database.rows(PORTS);
    let version = rows.create("p", &port("host1", true)).unwrap();
    assert_eq!(rows.set("p", &port("host1", true)).unwrap(), None);
    assert_kind(rows.create("p", &port("host2", true)), ErrorKind::AlreadyExists);
    assert_kind(rows.set("q", &port("host2", true)), ErrorKind::NotFound);
    assert_kind(rows.delete("q"), ErrorKind::NotFound);
    let stale = Write::set("lport", "p", "x").if_version(version + 1);
    assert_kind(setup.database.write(&stale, 5), ErrorKind::Conflict);
    assert_eq!(setup.rig.next_key(), "p");
    setup
        .rig
        .only("last", || _ = rows.create("last", &port("", true)).unwrap());
    assert_eq!(setup.database.publisher().stats().sent, 2);
    // An unconditional write is published again.
    let again = Write::set("lport", "p", r#"{"chassis":"host1","up":true}"#);
    let written = setup.database.write(&again, 5).unwrap();
    assert_eq!(
        (setup.rig.next().version, written.before),
        (Some(written.version), None)
    );
    assert!(
        setup
            .database
            .write(&again.returning(), 5)
            .unwrap()
            .before
            .unwrap()
            .contains("host1")
    );
}

pub(crate) fn rows_are_typed(setup: Setup) {
    let rows = setup.database.rows(PORTS);
    for number in 0..5 {
        rows.create(&format!("p{number}"), &port(&format!("host{number}"), number % 2 == 0))
            .unwrap();
    }
    let entry = rows.get("p3").unwrap();
    assert_eq!(
        (entry.key.as_str(), &entry.row, &*entry.topic),
        ("p3", &port("host3", false), &Topic::ALL)
    );
    assert_eq!(PORTS.decode(&setup.rig.next()).unwrap().unwrap(), port("host0", true));
    let entries: Vec<_> = rows.list().collect::<Result<_>>().unwrap();
    assert!(
        entries
            .iter()
            .map(|entry| entry.key.as_str())
            .eq(["p0", "p1", "p2", "p3", "p4"])
    );
    assert_eq!(entries[3], entry);
    assert_kind(rows.get("none"), ErrorKind::NotFound);

    // A malformed row of another writer does not hide the next ones.
    setup.store.set("lport", "p1", "no JSON").unwrap();
    assert_kind(rows.get("p1"), ErrorKind::Malformed);
    let entries: Vec<_> = rows.list().collect();
    assert_eq!(
        entries.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true, true, true]
    );
    assert_eq!(rows.keys().collect::<Result<Vec<_>>>().unwrap().len(), 5);
}

pub(crate) fn topics_part_the_rows(setup: Setup) {
    let (tenant, other) = (topic("tenant"), topic("other"));
    let (all, mine) = (setup.database.rows(PORTS), setup.database.rows(PORTS).topic(&tenant));
    let others = setup.database.rows(PORTS).topic(&other);
    mine.create("p1", &port("a", true)).unwrap();
    others.create("p2", &port("b", true)).unwrap();
    assert_kind(mine.get("p2"), ErrorKind::NotFound);
    assert_kind(mine.set("p2", &port("c", true)), ErrorKind::NotFound);
    assert_kind(mine.delete("p2"), ErrorKind::NotFound);
    assert_kind(mine.create("p2", &port("c", true)), ErrorKind::AlreadyExists);
    let keys = |rows: &tablecast::database::Rows<'_, Port>| {
        rows.keys().map(|key| key.unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (keys(&all), keys(&mine), keys(&others)),
        (vec!["p1".into(), "p2".into()], vec!["p1".into()], vec!["p2".into()])
    );
    assert_eq!(others.list().count(), 1);
    // The other topic has no subscriber here.
    assert_eq!(setup.rig.next_key(), "p1");
    setup
        .rig
        .only("last", || _ = mine.create("last", &port("", true)).unwrap());
}

pub(crate) fn threads_tell_in_the_order_of_the_versions(setup: Setup) {
    let database = Arc::new(setup.database);
    for key in ["a", "b"] {
        database.write(&Write::create("t", key, "0"), 5).unwrap();
    }
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let database = Arc::clone(&database);
            let write = move || {
                for number in 0..50 {
                    let key = if number % 2 == 0 { "a" } else { "b" };
                    database
                        .write(&Write::set("t", key, &format!("{writer} {number}")), 5)
                        .unwrap();
                }
            };
            std::thread::Builder::new().spawn(write).unwrap()
        })
        .collect();
    let mut last = BTreeMap::new();
    for _ in 0..202 {
        let update = setup.rig.next();
        let before = last.insert(update.key.to_string(), (update.version, update.value));
        assert!(before.is_none_or(|(version, _)| version < update.version));
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    for (key, (version, value)) in last {
        let row = setup.store.get("t", &key, None).unwrap();
        assert_eq!((version, value), (Some(row.version), Some(row.value)));
    }
}

pub(crate) fn what_cannot_be_sent_is_not_stored(setup: Setup) {
    let large = "x".repeat(17 << 20);
    let write = |write: Write<'_>| setup.database.write(&write, 5);
    assert_kind(write(Write::create("t", "new", &large)), ErrorKind::TooLarge);
    assert_kind(setup.store.get("t", "new", None), ErrorKind::NotFound);
    write(Write::create("t", "k", "small")).unwrap();
    let error = write(Write::set("t", "k", &large)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("undone"), "{error}");
    assert_eq!(setup.store.get("t", "k", None).unwrap().value, "small");
    let long = "k".repeat(65_537);
    assert_kind(write(Write::create("t", &long, "v")), ErrorKind::InvalidInput);
    assert_eq!(setup.store.keys("t", None).count(), 1);
    // A program that has read the store in between learns of the undo.
    let mut updates: Vec<_> = (0..3).map(|_| setup.rig.next()).collect();
    updates.sort_by_key(|update| update.version);
    assert_eq!(
        updates.iter().map(told).collect::<Vec<_>>(),
        [
            ("new", "delete", Some(2), None, "D"),
            ("k", "create", Some(3), Some("small"), "D"),
            ("k", "set", Some(5), Some("small"), "D"),
        ]
    );
    setup
        .rig
        .only("last", || _ = write(Write::create("t", "last", "v")).unwrap());
}

pub(crate) fn what_is_put_is_there_whatever_was_before(setup: Setup) {
    let tenant = topic("tenant");
    let rows = setup.database.rows(PORTS).topic(&tenant);
    let first = rows.put("p", &port("host1", true)).unwrap().unwrap();
    assert_eq!(rows.put("p", &port("host1", true)).unwrap(), None);
    let second = rows.put("p", &port("host2", true)).unwrap().unwrap();
    assert_eq!(setup.rig.next().version, Some(first));
    assert_eq!(setup.rig.next().version, Some(second));
    // Only in the version that was read.
    assert_kind(rows.set_if("p", &port("host3", true), first), ErrorKind::Conflict);
    let third = rows.set_if("p", &port("host3", true), second).unwrap().unwrap();
    assert_kind(rows.delete_if("p", second), ErrorKind::Conflict);
    assert_eq!(rows.get("p").unwrap().row, port("host3", true));
    rows.delete_if("p", third).unwrap();
    assert!(rows.put("p", &port("host4", true)).unwrap().is_some());
    // A row of another topic is not found.
    let all = setup.database.rows(PORTS).topic(&Topic::ALL);
    assert_kind(all.put("p", &port("host5", true)), ErrorKind::AlreadyExists);
    assert_eq!(rows.get("p").unwrap().row, port("host4", true));
    // While another thread creates and deletes it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                let _ = rows.delete("q");
            }
        });
        for number in 0..100 {
            rows.put("q", &port(&format!("host{number}"), true)).unwrap();
        }
    });
}

/// The versions of each topic form a chain.
pub(crate) fn updates_name_the_version_before_theirs(setup: Setup) {
    let tenant = topic("tenant");
    let (all, mine) = (setup.database.rows(PORTS), setup.database.rows(PORTS).topic(&tenant));
    for number in 0..3 {
        all.create(&format!("all{number}"), &port("host1", true)).unwrap();
        mine.create(&format!("mine{number}"), &port("host1", true)).unwrap();
        mine.set(&format!("mine{number}"), &port("host2", true)).unwrap();
    }
    mine.delete("mine0").unwrap();
    let mut last = std::collections::BTreeMap::new();
    for _ in 0..10 {
        let update = setup.rig.next();
        let before = last.insert(update.topic.clone(), update.version.unwrap());
        assert_eq!(update.after, Some(before.unwrap_or(0)), "{update}");
    }
}
