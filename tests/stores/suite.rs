//! The requirements of every store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tablecast::store::{DELETES_REMEMBERED, Listing, PAGE_BYTES, Row, TableVersion, Write, Written};
use tablecast::{ErrorKind, Result, Store, Topic};

use crate::Setup;

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// All items of a listing.
pub(crate) fn all<T>(listing: Listing<'_, T>) -> Vec<T> {
    listing.collect::<Result<_>>().unwrap()
}

pub(crate) fn keys(store: &dyn Store, table: &str, topic: Option<&Topic>) -> Vec<String> {
    all(store.keys(table, topic))
        .iter()
        .map(|key| key.to_string())
        .collect()
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

pub(crate) fn a_row_lives(setup: Setup) {
    let store = setup.open();
    assert_kind(store.get("t", "k", None), ErrorKind::NotFound);
    let created = store.create("t", "k", "one", &topic("tenant")).unwrap();
    assert!(created > 0);
    let row = |value: &str, version| Row {
        key: "k".into(),
        value: value.to_owned(),
        topic: topic("tenant"),
        version,
    };
    assert_eq!(store.get("t", "k", None).unwrap(), row("one", created));

    let set = store.set("t", "k", "two").unwrap();
    assert!(set > created);
    assert_eq!(store.get("t", "k", None).unwrap(), row("two", set));
    // Setting the same value is a write like any other.
    let again = store.set("t", "k", "two").unwrap();
    assert!(again > set);
    // Another program sees it at once.
    assert_eq!(setup.open().get("t", "k", None).unwrap(), row("two", again));
    assert_eq!(all(setup.open().entries("t", None)), [row("two", again)]);

    let deleted = store.delete("t", "k").unwrap();
    assert!(deleted > again);
    assert_kind(store.get("t", "k", None), ErrorKind::NotFound);
    assert!(all(store.entries("t", None)).is_empty());
    assert!(all(store.keys("t", None)).is_empty());
}

pub(crate) fn deletes_many_rows(setup: Setup) {
    let store = setup.open();
    let names = |keys: &[&str]| keys.iter().map(|key| (*key).into()).collect::<Vec<tablecast::Name>>();
    assert_eq!(store.delete_rows("t", &names(&["a"])).unwrap(), 0);
    let mut last = 0;
    for key in ["a", "b", "c", "d"] {
        last = store.create("t", key, "x", &topic("tenant")).unwrap();
        store.create("other", key, "x", &Topic::ALL).unwrap();
    }
    assert_eq!(store.delete_rows("t", &[]).unwrap(), 0);
    assert_eq!(store.delete_rows("t", &names(&["d", "missing", "a", "a"])).unwrap(), 2);
    assert_eq!(keys(&*setup.open(), "t", None), ["b", "c"]);
    assert_eq!(keys(&*store, "other", None).len(), 4);
    // Versions rise as with single deletes.
    assert!(store.create("t", "a", "y", &Topic::ALL).unwrap() > last + 2);
}

pub(crate) fn writes_many_rows(setup: Setup) {
    let store = setup.with_batches_of(1000);
    assert!(store.write_each(&[]).unwrap().is_empty());
    let tenant = topic("tenant");
    let there = store.create("many", "there", "1", &Topic::ALL).unwrap();
    let results = store
        .write_each(&[
            Write::create("many", "new", "a").topic(&tenant),
            Write::create("many", "there", "2"),
            Write::set("many", "there", "3").if_version(there).returning(),
            Write::set("many", "there", "4").if_version(there),
            Write::set("many", "missing", "5"),
            // Earlier writes count, in another table too.
            Write::set("many", "new", "b"),
            Write::create("other", "new", "c"),
            Write::delete("many", "new").topic(&tenant),
            Write::set("other", "new", "c").unless_equal(),
        ])
        .unwrap();
    let versions: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().map(|written| written.version).map_err(|e| e.kind()))
        .collect();
    let version = |number: usize| *versions[number].as_ref().unwrap();
    assert_eq!(versions[1], Err(ErrorKind::AlreadyExists));
    assert_eq!(versions[3], Err(ErrorKind::Conflict));
    assert_eq!(versions[4], Err(ErrorKind::NotFound));
    assert!(there < version(0) && version(0) < version(2) && version(2) < version(5) && version(5) < version(7));
    let written = |number: usize| results[number].as_ref().unwrap();
    assert_eq!((&written(0).topic, &written(6).topic), (&tenant, &Topic::ALL));
    assert_eq!(written(2).before.as_deref(), Some("1"));
    assert!(written(5).changed && !written(8).changed);
    assert_eq!(written(8).version, version(6));
    let row = store.get("many", "there", None).unwrap();
    assert_eq!((row.value.as_str(), row.version), ("3", version(2)));
    assert_eq!(keys(&*store, "many", None), ["there"]);
    assert_eq!(store.get("other", "new", None).unwrap().value, "c");
    // As many as a large table has.
    let names: Vec<String> = (0..2500).map(|number| format!("{number:04}")).collect();
    let creates: Vec<_> = names.iter().map(|key| Write::create("large", key, "x")).collect();
    let results = store.write_each(&creates).unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(keys(&*store, "large", None), names);
    assert!(store.write_each(&creates).unwrap().iter().all(Result::is_err));
}

pub(crate) fn what_cannot_be_done_changes_nothing(setup: Setup) {
    let store = setup.open();
    for table in ["t", "never used"] {
        assert_kind(store.set(table, "k", "x"), ErrorKind::NotFound);
        assert_kind(store.delete(table, "k"), ErrorKind::NotFound);
    }
    assert!(!store.delete_table("t").unwrap());
    store.create("t", "k", "one", &Topic::ALL).unwrap();
    let before = all(store.entries("t", None));
    for name in [Topic::ALL, topic("other")] {
        assert_kind(store.create("t", "k", "two", &name), ErrorKind::AlreadyExists);
    }
    assert_kind(store.set("t", "K", "two"), ErrorKind::NotFound);
    assert_kind(store.delete("t", "k "), ErrorKind::NotFound);
    assert_kind(store.delete("T", "k"), ErrorKind::NotFound);
    assert_eq!(all(store.entries("t", None)), before);
    assert!(all(store.keys("t", Some(&topic("other")))).is_empty());
}

pub(crate) fn versions_rise(setup: Setup) {
    let store = setup.open();
    let mut last = 0;
    let mut rises = |version: u64| {
        assert!(version > last && version < 1 << 53, "{version} after {last}");
        last = version;
    };
    for round in 0..3 {
        rises(store.create("t", "k", "x", &Topic::ALL).unwrap());
        rises(store.set("t", "k", "y").unwrap());
        rises(store.create("t", "other", "x", &Topic::ALL).unwrap());
        rises(store.delete("t", "k").unwrap());
        rises(store.create("t", "k", "x", &topic("another")).unwrap());
        if round == 1 {
            assert!(store.delete_table("t").unwrap());
        } else {
            rises(store.delete("t", "k").unwrap());
            rises(store.delete("t", "other").unwrap());
        }
    }
}

pub(crate) fn topics_are_exact(setup: Setup) {
    let store = setup.open();
    let names = [
        "D",
        "Dx",
        "d",
        "*",
        "D*",
        "[D]",
        "?",
        "x",
        "x\0",
        "\u{10FFFF}",
        "long".repeat(1000).leak(),
    ];
    for (number, name) in names.iter().enumerate() {
        let name = topic(name);
        store.create("t", &format!("{number}"), "v", &name).unwrap();
        store.create("t", &format!("{number}b"), "v", &name).unwrap();
        store.create("u", &format!("{number}"), "v", &name).unwrap();
    }
    for (number, name) in names.iter().enumerate() {
        let name = &topic(name);
        assert_eq!(
            keys(&*store, "t", Some(name)),
            [format!("{number}"), format!("{number}b")]
        );
        let rows = all(store.entries("t", Some(name)));
        assert!(rows.iter().all(|row| row.topic == *name) && rows.len() == 2);
        assert_eq!(store.get("t", &format!("{number}"), Some(name)).unwrap().topic, *name);
    }
    assert_eq!(keys(&*store, "t", None).len(), 2 * names.len());

    // A row of another topic is not found.
    let (mine, other) = (&topic("D"), &topic("Dx"));
    let before = store.get("t", "0", Some(mine)).unwrap();
    assert_kind(store.get("t", "0", Some(other)), ErrorKind::NotFound);
    assert_kind(
        store.write(&Write::set("t", "0", "w").topic(other)),
        ErrorKind::NotFound,
    );
    assert_kind(store.write(&Write::delete("t", "0").topic(other)), ErrorKind::NotFound);
    assert_kind(store.create("t", "0", "w", other), ErrorKind::AlreadyExists);
    assert_eq!(store.get("t", "0", None).unwrap(), before);

    // It keeps its topic until it is deleted.
    let written = store.write(&Write::set("t", "0", "w").topic(mine)).unwrap();
    assert_eq!((&written.topic, written.changed), (mine, true));
    assert_eq!(store.write(&Write::set("t", "0", "v")).unwrap().topic, *mine);
    assert_eq!(store.write(&Write::delete("t", "0").topic(mine)).unwrap().topic, *mine);
    assert_eq!(
        store.write(&Write::create("t", "0", "v").topic(other)).unwrap().topic,
        *other
    );
    assert_eq!(keys(&*store, "t", Some(mine)), ["0b"]);
    assert_eq!(keys(&*store, "t", Some(other)), ["0", "1", "1b"]);
    let unnamed = store.write(&Write::create("t", "unnamed", "v")).unwrap();
    assert_eq!(unnamed.topic, Topic::ALL);
}

pub(crate) const NAMES: &[&str] = &[
    "",
    " ",
    "a",
    "a.b",
    "a.b.c",
    "b.c",
    "c",
    "A",
    "*",
    "?",
    "a*",
    "[a-c]",
    "{a}",
    "{",
    "}",
    "\\",
    "\\*",
    "%",
    "_",
    "'",
    "\"",
    "''; DROP TABLE entries; --",
    "a\0",
    "a\0b",
    "\0",
    "\n",
    "a:b",
    ":",
    "é",
    "e\u{301}",
    "ß",
    "SS",
    "日本",
    "🦀",
    "\u{FEFF}",
    "\u{10FFFF}",
    "\u{10FFFF}tablecast/probe/1/1",
    "null",
    "1",
    "01",
    "1.0",
    "-",
    "--",
    "/",
    "..",
    "../a",
];

pub(crate) fn names_are_literal(setup: Setup) {
    let store = setup.open();
    // Every table has every name except its own as a key, so that no two tables look alike.
    let value = |table: &str, key: &str| format!("{table:?} {key:?}");
    for table in NAMES {
        for key in NAMES.iter().filter(|key| *key != table) {
            store.create(table, key, &value(table, key), &Topic::ALL).unwrap();
        }
    }
    for table in NAMES {
        let expected: BTreeMap<_, _> = NAMES
            .iter()
            .filter(|key| *key != table)
            .map(|key| (*key, value(table, key)))
            .collect();
        let rows = all(store.entries(table, None));
        assert!(
            rows.iter()
                .map(|row| (row.key.as_str(), row.value.clone()))
                .eq(expected),
            "table {table:?}"
        );
        assert_kind(store.get(table, table, None), ErrorKind::NotFound);
    }
    for table in NAMES.iter().step_by(2) {
        assert!(store.delete_table(table).unwrap());
    }
    for (number, table) in NAMES.iter().enumerate() {
        let expected = if number % 2 == 0 { 0 } else { NAMES.len() - 1 };
        assert_eq!(keys(&*store, table, None).len(), expected, "table {table:?}");
    }
}

pub(crate) fn writes_only_the_version_that_was_read(setup: Setup) {
    let store = setup.open();
    let first = store.create("t", "k", "one", &Topic::ALL).unwrap();
    let second = store
        .write(&Write::set("t", "k", "two").if_version(first))
        .unwrap()
        .version;
    for old in [first, second + 1000, 0] {
        let refused = store.write(&Write::set("t", "k", "three").if_version(old));
        assert_names(&refused, old, second);
        assert_kind(refused, ErrorKind::Conflict);
        assert_kind(
            store.write(&Write::delete("t", "k").if_version(old)),
            ErrorKind::Conflict,
        );
        assert_kind(
            store.write(&Write::delete("t", "none").if_version(old)),
            ErrorKind::NotFound,
        );
        let of_another = topic("other");
        let write = Write::set("t", "k", "three").if_version(old).topic(&of_another);
        assert_kind(store.write(&write), ErrorKind::NotFound);
    }
    assert_eq!(store.get("t", "k", None).unwrap().value, "two");
    store.write(&Write::delete("t", "k").if_version(second)).unwrap();
    assert_kind(store.get("t", "k", None), ErrorKind::NotFound);
}

/// Checks that a conflict names the wanted version, and that of the row.
#[track_caller]
fn assert_names(refused: &Result<Written>, wanted: u64, version: u64) {
    let e = refused.as_ref().expect_err("it is refused");
    assert_eq!(e.version(), Some(version));
    let text = e.to_string();
    assert!(
        text.ends_with(&format!("has version {version}, not {wanted}")),
        "{text}"
    );
}

pub(crate) fn creates_again_only_what_it_deleted(setup: Setup) {
    let store = setup.open();
    let create = |version| store.write(&Write::create("t", "k", "again").if_version(version));
    store.create("t", "k", "one", &Topic::ALL).unwrap();
    let deleted = store.delete("t", "k").unwrap();
    // Writes of other rows do not matter, up to the number that a store remembers.
    store.create("t", "other", "x", &Topic::ALL).unwrap();
    for _ in 1..DELETES_REMEMBERED {
        store.set("t", "other", "x").unwrap();
    }
    let refused = create(deleted + 1);
    assert_names(&refused, deleted + 1, deleted);
    assert_kind(refused, ErrorKind::Conflict);
    create(deleted).unwrap();
    assert_kind(create(deleted), ErrorKind::AlreadyExists);

    let mine = store.delete("t", "k").unwrap();
    store.create("t", "k", "somebody's", &Topic::ALL).unwrap();
    assert_kind(create(mine), ErrorKind::AlreadyExists);
    let theirs = store.delete("t", "k").unwrap();
    assert_kind(create(mine), ErrorKind::Conflict);
    create(theirs).unwrap();

    let mine = store.delete("t", "k").unwrap();
    store.delete_table("t").unwrap();
    assert_kind(create(mine), ErrorKind::Conflict);
    assert_kind(
        store.write(&Write::create("t", "never", "x").if_version(1)),
        ErrorKind::Conflict,
    );
    assert!(keys(&*store, "t", None).is_empty());
}

pub(crate) fn writes_only_what_differs(setup: Setup) {
    let store = setup.open();
    let first = store.create("t", "k", "one", &topic("a")).unwrap();
    let same = store.write(&Write::set("t", "k", "one").unless_equal()).unwrap();
    assert_eq!((same.version, same.changed, same.before), (first, false, None));
    assert_eq!(same.topic, topic("a"));
    assert_eq!(store.get("t", "k", None).unwrap().version, first);
    let other = store.write(&Write::set("t", "k", "One").unless_equal()).unwrap();
    assert!(other.version > first && other.changed);
    // The version is checked first.
    let write = Write::set("t", "k", "One").unless_equal();
    assert_kind(store.write(&write.if_version(first)), ErrorKind::Conflict);
    assert!(!store.write(&write.if_version(other.version)).unwrap().changed);
    assert_kind(
        store.write(&Write::set("t", "j", "One").unless_equal()),
        ErrorKind::NotFound,
    );
}

pub(crate) fn returns_what_was_before(setup: Setup) {
    let store = setup.open();
    let before = |write: Write<'_>| store.write(&write.returning()).unwrap().before;
    assert_eq!(before(Write::create("t", "k", "one")), None);
    assert_eq!(before(Write::set("t", "k", "two")).unwrap(), "one");
    assert_eq!(before(Write::set("t", "k", "two").unless_equal()).unwrap(), "two");
    assert_eq!(before(Write::set("t", "k", "").unless_equal()).unwrap(), "two");
    assert_eq!(before(Write::set("t", "k", "three")).unwrap(), "");
    assert_eq!(store.write(&Write::set("t", "k", "four")).unwrap().before, None);
    assert_eq!(before(Write::delete("t", "k")).unwrap(), "four");
}

pub(crate) fn lists_in_batches(setup: Setup) {
    let (store, everyone, other) = (setup.with_batches_of(7), Topic::ALL, topic("other"));
    let mut expected = BTreeMap::new();
    for number in 0..140 {
        let (key, value) = (format!("{:x}", number * 7919 % 997), number.to_string());
        let name = if number % 2 == 0 { &everyone } else { &other };
        store.create("t", &key, &value, name).unwrap();
        expected.insert(key, (value, name));
    }
    for name in [None, Some(&Topic::ALL), Some(&other)] {
        let expected = expected
            .iter()
            .filter(|(_, (_, of))| name.is_none_or(|name| name == *of));
        let expected: Vec<_> = expected.map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        let rows = all(store.entries("t", name)).into_iter();
        assert_eq!(
            rows.map(|row| (row.key.to_string(), row.value)).collect::<Vec<_>>(),
            expected
        );
        assert!(keys(&*store, "t", name).iter().eq(expected.iter().map(|(key, _)| key)));
        let page = store.page_of_keys("t", name, None).unwrap();
        assert_eq!((page.items.len(), page.next.as_deref()), (7, Some(&*expected[6].0)));
        assert_eq!(
            store
                .page_of_entries("t", name, page.next.as_deref())
                .unwrap()
                .items
                .len(),
            7
        );
    }
    // From a key without a row, and beyond the last one.
    assert_eq!(
        store.page_of_keys("t", None, Some("ee")).unwrap().items[0],
        expected.range("ee!".to_owned()..).next().unwrap().0.as_str()
    );
    assert_eq!(store.page_of_keys("t", None, Some("~")).unwrap(), Default::default());
    assert!(all(store.keys("never used", None)).is_empty());
    assert!(
        all(setup.with_batches_of(1).keys("t", None))
            .iter()
            .eq(all(store.keys("t", None)).iter())
    );
}

pub(crate) fn large_rows_make_short_pages(setup: Setup) {
    let store = setup.open();
    let value = "x".repeat(PAGE_BYTES / 4);
    for number in 0..12 {
        store.create("t", &format!("{number:02}"), &value, &Topic::ALL).unwrap();
    }
    for name in [None, Some(&Topic::ALL)] {
        assert_eq!(store.page_of_entries("t", name, None).unwrap().items.len(), 4);
        assert_eq!(store.page_of_keys("t", name, None).unwrap().items.len(), 12);
        assert_eq!(all(store.entries("t", name)).len(), 12);
    }
}

pub(crate) fn lists_what_stays_while_others_write(setup: Setup) {
    let store = setup.with_batches_of(5);
    let staying: BTreeSet<_> = (0..200).step_by(2).map(|number| format!("{number:03}")).collect();
    for key in &staying {
        store.create("t", key, "stays", &Topic::ALL).unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let writer = thread::Builder::new().spawn({
        let (store, done) = (setup.open(), Arc::clone(&done));
        move || {
            for number in (1..200).step_by(2).cycle() {
                let key = format!("{number:03}");
                store.create("t", &key, "comes", &Topic::ALL).unwrap();
                store.set("t", &key, "changes").unwrap();
                store.set("t", &format!("{:03}", number - 1), "stays").unwrap();
                store.delete("t", &key).unwrap();
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    });
    for _ in 0..20 {
        for name in [None, Some(&Topic::ALL)] {
            let listed = keys(&*store, "t", name);
            assert!(listed.is_sorted_by(|a, b| a < b));
            let stayed: BTreeSet<_> = listed.into_iter().filter(|key| staying.contains(key)).collect();
            assert_eq!(stayed, staying);
            let rows = all(store.entries("t", name));
            assert!(rows.is_sorted_by(|a, b| a.key < b.key));
            assert_eq!(rows.iter().filter(|row| row.value == "stays").count(), staying.len());
        }
    }
    done.store(true, Ordering::Relaxed);
    writer.unwrap().join().unwrap();
}

pub(crate) fn tables_come_and_go(setup: Setup) {
    let store = setup.open();
    assert!(store.create_table("t").unwrap());
    assert!(!store.create_table("t").unwrap());
    assert!(store.delete_table("t").unwrap());
    assert!(!store.delete_table("t").unwrap());
    // A row creates its table, and a number does not.
    store.allocate_unique_key("t").unwrap();
    assert!(!store.delete_table("t").unwrap());
    store.create("t", "k", "x", &Topic::ALL).unwrap();
    store.create("t2", "k", "x", &Topic::ALL).unwrap();
    assert!(!setup.open().create_table("t").unwrap());
    // An empty table is a table.
    store.delete("t", "k").unwrap();
    assert!(!store.create_table("t").unwrap());
    store.create("t", "k", "x", &topic("other")).unwrap();
    assert!(store.delete_table("t").unwrap());
    assert_kind(store.get("t", "k", None), ErrorKind::NotFound);
    assert!(all(store.entries("t", Some(&topic("other")))).is_empty());
    assert_eq!(keys(&*store, "t2", None), ["k"]);
    assert!(store.create_table("t").unwrap());
}

/// A store need not list its tables, nor count their rows; all stores here list them.
pub(crate) fn tables_are_listed(setup: Setup) {
    let store = setup.open();
    // Neither makes a table.
    store.allocate_unique_key("number").unwrap();
    assert_kind(store.set("t", "k", "x"), ErrorKind::NotFound);
    assert!(store.tables().unwrap().is_empty());

    let mut expected: BTreeMap<_, u64> = BTreeMap::from([("empty", 0)]);
    assert!(store.create_table("empty").unwrap());
    for (number, table) in (0..).zip(NAMES.iter().copied()) {
        for key in 0..number % 3 + 1 {
            store.create(table, &key.to_string(), "x", &topic("tenant")).unwrap();
        }
        expected.insert(table, number % 3 + 1);
    }
    let is_listed = |expected: &BTreeMap<&str, u64>| {
        let tables = setup.open().tables().unwrap();
        let names = tables.iter().map(|table| table.name.as_str());
        assert!(names.eq(expected.keys().copied()), "{tables:?}");
        let mut counts = tables.iter().zip(expected.values());
        assert!(
            counts.all(|(table, rows)| table.rows.is_none_or(|counted| counted == *rows)),
            "{tables:?}"
        );
    };
    is_listed(&expected);

    // A table without rows is one; a deleted one comes back with a row.
    store.delete(NAMES[0], "0").unwrap();
    expected.insert(NAMES[0], 0);
    for table in [NAMES[1], "empty"] {
        assert!(store.delete_table(table).unwrap());
        expected.remove(table);
    }
    is_listed(&expected);
    store.create("empty", "k", "x", &Topic::ALL).unwrap();
    expected.insert("empty", 1);
    is_listed(&expected);
}

/// A store need not keep versions of tables; all stores here do.
pub(crate) fn tables_have_versions(setup: Setup) {
    let (store, other) = (setup.open(), setup.open());
    let version = |table| other.table_version(table).unwrap().unwrap();
    assert_eq!([version("t"), version("a{t}/")], [TableVersion::default(); 2]);
    let mut last: Option<TableVersion> = None;
    let mut rises = |least: u64| {
        let now = version("t");
        let before = last.replace(now).unwrap_or(TableVersion { version: 0, ..now });
        assert!(now.incarnation == before.incarnation && now.incarnation != 0);
        assert!(
            now.version > before.version && now.version >= least,
            "{now:?} after {before:?}, {least}"
        );
    };
    rises(store.create("t", "k", "x", &topic("tenant")).unwrap());
    rises(store.set("t", "k", "x").unwrap());
    rises(store.create("t", "k2", "x", &Topic::ALL).unwrap());
    rises(store.delete("t", "k").unwrap());
    assert!(store.delete_table("t").unwrap());
    rises(0);
    rises(store.create("t", "k", "x", &Topic::ALL).unwrap());

    // A call that writes nothing does not change it.
    let same = version("t");
    assert_kind(store.create("t", "k", "y", &Topic::ALL), ErrorKind::AlreadyExists);
    assert_kind(store.set("t", "none", "y"), ErrorKind::NotFound);
    assert_kind(store.delete("t", "none"), ErrorKind::NotFound);
    assert!(!store.write(&Write::set("t", "k", "x").unless_equal()).unwrap().changed);
    assert_eq!(store.get("t", "k", None).unwrap().value, "x");
    store.create("t2", "k", "x", &Topic::ALL).unwrap();
    assert_eq!((version("t"), version("none")), (same, TableVersion::default()));
    assert_ne!(version("t2").incarnation, same.incarnation);
    // Even if its delete is the only write.
    assert!(store.create_table("t3").unwrap() && store.delete_table("t3").unwrap());
    assert_ne!(version("t3").incarnation, 0);
}

pub(crate) fn unique_numbers_are_unique(setup: Setup) {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = setup.open();
            let allocate = move || {
                (0..100)
                    .map(|_| store.allocate_unique_key("t").unwrap())
                    .collect::<Vec<_>>()
            };
            thread::Builder::new().spawn(allocate).unwrap()
        })
        .collect();
    let numbers: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 400);
    assert!(numbers.iter().all(|number| *number >= 1));
    let (store, last) = (setup.open(), numbers.into_iter().max().unwrap());
    store.create("t", "k", "x", &Topic::ALL).unwrap();
    store.delete_table("t").unwrap();
    assert!(store.allocate_unique_key("t").unwrap() > last);
    assert_eq!(store.allocate_unique_key("another").unwrap(), 1);
}

pub(crate) fn one_of_many_creates(setup: Setup) {
    for round in 0..20 {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let store = setup.open();
                let create = move || store.create("t", &format!("{round}"), &format!("{number}"), &Topic::ALL);
                thread::Builder::new().spawn(create).unwrap()
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let created: Vec<_> = (0..4).filter(|number| results[*number].is_ok()).collect();
        let row = setup.open().get("t", &format!("{round}"), None).unwrap();
        assert_eq!((created.len(), row.value), (1, created[0].to_string()));
        for result in results.into_iter().filter(Result::is_err) {
            assert_kind(result, ErrorKind::AlreadyExists);
        }
    }
}

pub(crate) fn no_increment_is_lost(setup: Setup) {
    setup.open().create("t", "k", "0", &Topic::ALL).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = setup.open();
            let increment = move || {
                let row = store.get("t", "k", None).unwrap();
                let value = (row.value.parse::<u64>().unwrap() + 1).to_string();
                match store.write(&Write::set("t", "k", &value).if_version(row.version)) {
                    Ok(_) => true,
                    Err(e) if e.kind() == ErrorKind::Conflict => false,
                    Err(e) => panic!("{e}"),
                }
            };
            let all = move || std::iter::repeat_with(increment).filter(|done| *done).take(25).count();
            thread::Builder::new().spawn(all).unwrap()
        })
        .collect();
    assert_eq!(
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(),
        100
    );
    assert_eq!(setup.open().get("t", "k", None).unwrap().value, "100");
}

pub(crate) fn large_rows(setup: Setup) {
    let store = setup.open();
    let (key, table, value) = ("k".repeat(65_536), "t".repeat(65_536), "\u{1F980}\0\"".repeat(2 << 20));
    let name = topic(&"n".repeat(65_536));
    store.create(&table, &key, &value, &name).unwrap();
    let row = store.get(&table, &key, Some(&name)).unwrap();
    assert!(row.key == key.as_str() && row.value == value && row.topic == name);
    assert!(all(store.entries(&table, Some(&name))) == [row]);
    assert!(keys(&*store, &table, None) == [key]);
}
