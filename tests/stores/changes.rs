//! Changes of a topic's rows since a version.

use std::collections::BTreeMap;
use std::time::Instant;

use tablecast::store::{ChangePage, Changes, DELETES_REMEMBERED, StoredChange, TableVersion, Write};
use tablecast::{Store, Topic};

use crate::Setup;
use crate::suite::topic;

/// The last version of each topic.
fn versions(store: &dyn Store, table: &str, topics: &[&str]) -> Vec<u64> {
    let topics: Vec<_> = topics.iter().map(|name| topic(name)).collect();
    let versions = store.topic_versions(table, &topics).unwrap().unwrap();
    assert_eq!(Some(versions.table), store.table_version(table).unwrap());
    versions.versions
}

fn now(store: &dyn Store, table: &str) -> TableVersion {
    store.table_version(table).unwrap().unwrap()
}

/// All pages; `None` if the changes are not known.
fn changes(store: &dyn Store, table: &str, of: &Topic, mut since: TableVersion) -> Option<Vec<StoredChange>> {
    let mut all = Vec::new();
    loop {
        let Changes::Page(ChangePage { changes, version, more }) = store.changes(table, of, since).unwrap() else {
            return None;
        };
        assert!(version.version >= since.version);
        assert!(changes.iter().all(|change| change.version <= version.version));
        all.extend(changes);
        if !more {
            assert!(all.is_sorted_by(|one, next| one.version < next.version));
            return Some(all);
        }
        assert!(version.version > since.version, "a page that brings nothing");
        since = version;
    }
}

fn change(key: &str, version: u64, value: Option<&str>) -> StoredChange {
    StoredChange {
        key: key.into(),
        version,
        value: value.map(str::to_owned),
    }
}

pub(crate) fn topics_have_versions(setup: Setup) {
    let store = setup.open();
    assert_eq!(versions(&*store, "t", &["a", "b"]), [0, 0]);
    let write = |write: Write<'_>| {
        let written = store.write(&write).unwrap();
        (written.version, written.after)
    };
    let (a, b) = (topic("a"), topic("b"));
    let (first, after) = write(Write::create("t", "1", "x").topic(&a));
    assert_eq!(after, Some(0));
    let (second, after) = write(Write::create("t", "2", "x").topic(&b));
    assert_eq!(after, Some(0));
    assert_eq!(versions(&*store, "t", &["b", "a", "c"]), [second, first, 0]);
    // With and without naming the topic.
    let (third, after) = write(Write::set("t", "1", "y"));
    assert_eq!(after, Some(first));
    let (fourth, after) = write(Write::set("t", "1", "z").topic(&a));
    assert_eq!(after, Some(third));
    // Nothing is written: the chain stays as it is.
    assert_eq!(write(Write::set("t", "1", "z").unless_equal()), (fourth, None));
    let (fifth, after) = write(Write::delete("t", "1"));
    assert_eq!(after, Some(fourth));
    assert_eq!(versions(&*store, "t", &["a", "b"]), [fifth, second]);
    // It may come back with another topic.
    let (sixth, after) = write(Write::create("t", "1", "w").topic(&b));
    assert_eq!(after, Some(second));
    // In one step as in single writes.
    let writes = [
        Write::set("t", "2", "1"),
        Write::delete("t", "1"),
        Write::create("t", "1", "2").topic(&a),
    ];
    let written = store.write_each(&writes).unwrap().into_iter().map(Result::unwrap);
    let chain: Vec<_> = written
        .map(|written| (written.version, written.after.unwrap()))
        .collect();
    assert_eq!((chain[0].1, chain[1].1, chain[2].1), (sixth, chain[0].0, fifth));
    assert_eq!(versions(&*setup.open(), "t", &["a", "b"]), [chain[2].0, chain[1].0]);
    assert_eq!(store.delete_rows("t", &["1".into()]).unwrap(), 1);
    assert!(versions(&*store, "t", &["a"])[0] > chain[2].0);
}

pub(crate) fn changes_are_what_was_written(setup: Setup) {
    let (store, a, b) = (setup.with_batches_of(2), topic("a"), topic("b"));
    let begin = TableVersion::default();
    let mut rows = BTreeMap::new();
    for number in 0..5 {
        let key = format!("{number}");
        let version = store.create("t", &key, "new", &a).unwrap();
        rows.insert(version, change(&key, version, Some("new")));
        store.create("t", &format!("b{number}"), "new", &b).unwrap();
    }
    // All writes are known as long as nothing was deleted.
    assert_eq!(
        changes(&*store, "t", &a, begin).unwrap(),
        rows.into_values().collect::<Vec<_>>()
    );
    let seen = now(&*store, "t");
    assert_eq!(changes(&*store, "t", &a, seen).unwrap(), []);
    assert_eq!(changes(&*store, "t", &topic("none"), seen).unwrap(), []);

    // Only the last change of each key, in the order of versions.
    store.set("t", "1", "once").unwrap();
    let zero = store.delete("t", "0").unwrap();
    store.set("t", "b1", "other").unwrap();
    let one = store.set("t", "1", "twice").unwrap();
    let four = store.delete("t", "4").unwrap();
    let since = [
        change("0", zero, None),
        change("1", one, Some("twice")),
        change("4", four, None),
    ];
    assert_eq!(changes(&*setup.open(), "t", &a, seen).unwrap(), since);
    assert_eq!(changes(&*store, "t", &a, seen).unwrap(), since, "in pages");

    // A row that comes back with another topic is deleted from the first one, and no longer deleted there if it
    // returns.
    let moved = store.create("t", "4", "moved", &b).unwrap();
    assert_eq!(changes(&*store, "t", &a, seen).unwrap(), since);
    let last = changes(&*store, "t", &b, seen).unwrap().pop().unwrap();
    assert_eq!(last, change("4", moved, Some("moved")));
    let gone = store.delete("t", "4").unwrap();
    let back = store.create("t", "4", "back", &a).unwrap();
    let since = [since[0].clone(), since[1].clone(), change("4", back, Some("back"))];
    assert_eq!(changes(&*store, "t", &a, seen).unwrap(), since);
    assert_eq!(
        changes(&*store, "t", &b, seen).unwrap().pop().unwrap(),
        change("4", gone, None)
    );

    // Another incarnation, or a version not yet reached, belongs to another store.
    let other = TableVersion {
        incarnation: seen.incarnation ^ 1,
        ..seen
    };
    assert_eq!(changes(&*store, "t", &a, other), None);
    let mut ahead = now(&*store, "t");
    ahead.version += 1;
    assert_eq!(changes(&*store, "t", &a, ahead), None);
}

pub(crate) fn deletes_are_forgotten_in_time(setup: Setup) {
    let options = tablecast::store::StoreOptions {
        deletes_remembered: 1,
        ..Default::default()
    };
    // The minimum that any store remembers.
    let (store, a, b) = ((setup.open)(options), topic("a"), topic("b"));
    store.create("t", "k", "x", &a).unwrap();
    store.create("t", "other", "x", &b).unwrap();
    let before = now(&*store, "t");
    let deleted = store.delete("t", "k").unwrap();
    let after = now(&*store, "t");
    for _ in 0..DELETES_REMEMBERED - 1 {
        store.set("t", "other", "x").unwrap();
    }
    assert_eq!(changes(&*store, "t", &a, before).unwrap(), [change("k", deleted, None)]);
    for number in 0..20 {
        let key = format!("{number}");
        store.create("t", &key, "x", &b).unwrap();
        store.delete("t", &key).unwrap();
    }
    assert_eq!(changes(&*store, "t", &a, before), None, "its delete is forgotten");
    assert_eq!(
        changes(&*store, "t", &a, after).unwrap(),
        [],
        "nothing was deleted since"
    );
    assert_eq!(versions(&*store, "t", &["a"]), [deleted]);
    // Deletes in other topics do not matter to a topic.
    assert_eq!(changes(&*store, "t", &b, before).unwrap().len(), 21);
}

pub(crate) fn tables_that_were_never_written_have_no_changes(setup: Setup) {
    let store = setup.open();
    let Changes::Page(page) = store.changes("never", &topic("a"), TableVersion::default()).unwrap() else {
        panic!("unknown");
    };
    assert!(page.changes.is_empty() && !page.more);
    assert_eq!(page.version, TableVersion::default());
}

pub(crate) fn deleted_tables_have_no_changes(setup: Setup) {
    let (store, a) = (setup.open(), topic("a"));
    store.create("t", "k", "x", &a).unwrap();
    let before = now(&*store, "t");
    store.delete_table("t").unwrap();
    let deleted = now(&*store, "t");
    assert_eq!(changes(&*store, "t", &a, before), None);
    // Every topic was written, including those without rows.
    assert_eq!(versions(&*store, "t", &["a", "b"]), [deleted.version; 2]);
    assert_eq!(changes(&*store, "t", &a, deleted).unwrap(), []);
    let written = store.write(&Write::create("t", "k", "y").topic(&topic("b"))).unwrap();
    assert_eq!(written.after, Some(deleted.version));
    assert_eq!(changes(&*store, "t", &topic("b"), deleted).unwrap().len(), 1);
    assert_eq!(changes(&*store, "t", &a, deleted).unwrap(), []);
    assert_eq!(changes(&*store, "t", &a, before), None);
}

pub(crate) fn changes_cost_what_they_return(setup: Setup) {
    const ROWS: usize = 20_000;
    let (store, a) = (setup.open(), topic("a"));
    let create = |number| Write::create("t", number, "value").topic(&a);
    let keys: Vec<_> = (0..ROWS).map(|number| format!("{number}")).collect();
    for keys in keys.chunks(500) {
        let writes: Vec<_> = keys.iter().map(|key| create(key)).collect();
        store.write_each(&writes).unwrap();
    }
    let seen = now(&*store, "t");
    for key in &keys[..20] {
        store.set("t", key, "changed").unwrap();
    }
    let least = |call: &dyn Fn() -> usize, count| {
        let time = || {
            let start = Instant::now();
            assert_eq!(call(), count);
            start.elapsed()
        };
        std::iter::repeat_with(time).take(5).min().unwrap()
    };
    let caught_up = least(&|| changes(&*store, "t", &a, seen).unwrap().len(), 20);
    let listed = least(&|| store.entries("t", Some(&a)).count(), ROWS);
    let ratio = listed.as_secs_f64() / caught_up.as_secs_f64();
    println!("20 changes of {ROWS} rows: {caught_up:?}, listing {listed:?}, ratio {ratio:.0}");
    // The larger the table, the larger the ratio.
    assert!(ratio > 10.0, "{ratio}");
}
