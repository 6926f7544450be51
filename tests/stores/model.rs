//! Random calls, compared with a model simple enough to be right.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tablecast::store::{Changes, Row, StoredChange, TableVersion, Write, WriteOp};
use tablecast::{ErrorKind, Store, Topic};

use crate::Setup;
use crate::suite::{all, topic};

#[derive(Debug, Clone)]
enum Step {
    Get(usize, usize, Option<usize>),
    Write {
        table: usize,
        key: usize,
        change: Kind,
        topic: Option<usize>,
        version: Option<Wanted>,
        unless_equal: bool,
        returning: bool,
    },
    List(usize, Option<usize>),
    CreateTable(usize),
    DeleteTable(usize),
    Allocate(usize),
}

#[derive(Debug, Clone)]
enum Kind {
    Create(u8),
    Set(u8),
    Delete,
}

/// A version, in terms of the model.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// That of the row's last write.
    Last,
    /// That of an older one.
    Older,
}

const TABLES: [&str; 3] = ["a", "a.b", ""];
const KEYS: [&str; 5] = ["", "b.c", "c", "*", "k\0"];
const TOPICS: [&str; 3] = ["D", "Dx", "*"];

/// A table as it should be.
#[derive(Default)]
struct Table {
    exists: bool,
    rows: BTreeMap<&'static str, Row>,
    /// The versions of the deletes of missing rows.
    deletes: BTreeMap<&'static str, u64>,
    /// The topics of those rows.
    deleted_in: BTreeMap<&'static str, Topic>,
    /// The versions of the topics' last writes, except those before the table was deleted.
    topics: BTreeMap<Topic, u64>,
    deleted: u64,
    version: u64,
    unique: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (table, key) = (0..TABLES.len(), 0..KEYS.len());
    let name = || proptest::option::weighted(0.3, 0..TOPICS.len());
    let change = prop_oneof![
        (0..3u8).prop_map(Kind::Create),
        (0..3u8).prop_map(Kind::Set),
        Just(Kind::Delete)
    ];
    let wanted = prop_oneof![3 => Just(Wanted::Last), 1 => Just(Wanted::Older)];
    let wanted = proptest::option::weighted(0.4, wanted);
    let flags = (any::<bool>(), any::<bool>());
    let write = (table.clone(), key.clone(), change, name(), wanted, flags).prop_map(
        |(table, key, change, topic, version, (unless_equal, returning))| Step::Write {
            table,
            key,
            change,
            topic,
            version,
            unless_equal,
            returning,
        },
    );
    let step = prop_oneof![
        20 => write,
        3 => (table.clone(), key, name()).prop_map(|(table, key, topic)| Step::Get(table, key, topic)),
        3 => (table.clone(), name()).prop_map(|(table, topic)| Step::List(table, topic)),
        1 => table.clone().prop_map(Step::CreateTable),
        1 => table.clone().prop_map(Step::DeleteTable),
        1 => table.prop_map(Step::Allocate),
    ];
    vec(step, 1..80)
}

pub(crate) fn does_what_the_model_does(setup: Setup) {
    // Rows of earlier cases are deleted, but versions and unique numbers go on.
    let store = setup.with_batches_of(2);
    let mut last = [0; TABLES.len()];
    let mut unique = [0; TABLES.len()];
    let mut runner = TestRunner::new(Config {
        cases: 60,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let state = std::cell::RefCell::new((&mut last, &mut unique));
    let result = runner.run(&steps(), |steps| {
        let mut state = state.borrow_mut();
        let mut tables: [Table; TABLES.len()] = Default::default();
        for (number, table) in tables.iter_mut().enumerate() {
            store.delete_table(TABLES[number]).unwrap();
            table.deleted = state_of(&*store, TABLES[number]).version;
            (table.version, table.unique) = (state.0[number], state.1[number]);
        }
        for step in steps {
            take(&*store, &mut tables, step);
        }
        for (number, table) in tables.iter().enumerate() {
            list(&*store, TABLES[number], table, None);
            changes(&*store, TABLES[number], table);
            (state.0[number], state.1[number]) = (table.version, table.unique);
        }
        Ok(())
    });
    result.unwrap();
}

fn take(store: &dyn Store, tables: &mut [Table], step: Step) {
    match step {
        Step::Get(table, key, of) => {
            let of = of.map(|of| topic(TOPICS[of]));
            let row = tables[table].rows.get(KEYS[key]);
            let row = row.filter(|row| of.as_ref().is_none_or(|of| *of == row.topic));
            match store.get(TABLES[table], KEYS[key], of.as_ref()) {
                Ok(found) => assert_eq!(Some(&found), row),
                Err(e) => assert_eq!((e.kind(), row), (ErrorKind::NotFound, None)),
            }
        }
        Step::List(table, of) => list(
            store,
            TABLES[table],
            &tables[table],
            of.map(|of| topic(TOPICS[of])).as_ref(),
        ),
        Step::CreateTable(table) => {
            let model = &mut tables[table];
            assert_eq!(store.create_table(TABLES[table]).unwrap(), !model.exists);
            model.exists = true;
        }
        Step::DeleteTable(table) => {
            let model = &mut tables[table];
            assert_eq!(store.delete_table(TABLES[table]).unwrap(), model.exists);
            *model = Table {
                deleted: if model.exists {
                    state_of(store, TABLES[table]).version
                } else {
                    model.deleted
                },
                version: model.version,
                unique: model.unique,
                ..Table::default()
            };
        }
        Step::Allocate(table) => {
            let number = store.allocate_unique_key(TABLES[table]).unwrap();
            assert!(number > tables[table].unique);
            tables[table].unique = number;
        }
        Step::Write {
            table,
            key,
            change,
            topic: of,
            version,
            unless_equal,
            returning,
        } => {
            let (of, model, key) = (of.map(|of| topic(TOPICS[of])), &mut tables[table], KEYS[key]);
            let value = match change {
                Kind::Create(value) | Kind::Set(value) => format!("{value}"),
                Kind::Delete => String::new(),
            };
            let mut write = match change {
                Kind::Create(_) => Write::create(TABLES[table], key, &value),
                Kind::Set(_) => Write::set(TABLES[table], key, &value),
                Kind::Delete => Write::delete(TABLES[table], key),
            };
            let known = model.rows.get(key).map(|row| row.version);
            let known = known.or(model.deletes.get(key).copied()).unwrap_or(model.version + 1);
            write.topic = of.as_ref();
            write.if_version = version.map(|wanted| match wanted {
                Wanted::Last => known,
                Wanted::Older => known - 1,
            });
            (write.unless_equal, write.returning) = (unless_equal, returning);
            model.write(store, &write, key);
        }
    }
}

impl Table {
    fn write(&mut self, store: &dyn Store, write: &Write<'_>, key: &'static str) {
        let row = self.rows.get(key);
        let expected = match (write.op, row) {
            (WriteOp::Create(_), Some(_)) => Err(ErrorKind::AlreadyExists),
            (WriteOp::Create(_), None) => Ok(self.deletes.get(key).copied()),
            (_, Some(row)) if write.topic.is_none_or(|of| *of == row.topic) => Ok(Some(row.version)),
            _ => Err(ErrorKind::NotFound),
        };
        let expected = match expected {
            Ok(last) if write.if_version.is_some() && write.if_version != last => Err(ErrorKind::Conflict),
            other => other,
        };
        let written = match (store.write(write), expected) {
            (Ok(written), Ok(_)) => written,
            (Err(e), Err(kind)) => return assert_eq!(e.kind(), kind, "{write:?}"),
            (result, expected) => panic!("{write:?}: {result:?}, expected {expected:?}"),
        };
        let before = row.map(|row| row.value.clone());
        let equal = matches!(write.op, WriteOp::Set(value) if before.as_deref() == Some(value));
        assert_eq!(written.changed, !(write.unless_equal && equal));
        assert_eq!(written.before, before.filter(|_| write.returning));
        let topic = row.map_or_else(|| write.topic.unwrap_or(&Topic::ALL).clone(), |row| row.topic.clone());
        assert_eq!(written.topic, topic);
        let version = written.version;
        if !written.changed {
            return assert_eq!(row.map(|row| row.version), Some(version));
        }
        assert!(version > self.version, "{version} after {}", self.version);
        let after = self.topics.insert(topic.clone(), version).unwrap_or(self.deleted);
        assert_eq!(written.after, Some(after));
        (self.version, self.exists) = (version, true);
        match write.op {
            WriteOp::Create(value) | WriteOp::Set(value) => {
                let (key_of_row, value) = (key.into(), value.to_owned());
                let row = Row {
                    key: key_of_row,
                    value,
                    topic,
                    version,
                };
                self.deletes.remove(key);
                self.rows.insert(key, row);
            }
            WriteOp::Delete => {
                self.rows.remove(key);
                self.deletes.insert(key, version);
                self.deleted_in.insert(key, topic);
            }
        }
    }
}

fn state_of(store: &dyn Store, name: &str) -> TableVersion {
    store.table_version(name).unwrap().unwrap()
}

/// From any version on, the changes are the newer rows, and lead to the present table.
fn changes(store: &dyn Store, name: &str, table: &Table) {
    let now = state_of(store, name);
    for of in TOPICS {
        let of = topic(of);
        let last = store.topic_versions(name, std::slice::from_ref(&of)).unwrap().unwrap();
        assert_eq!(last.versions, [table.topics.get(&of).copied().unwrap_or(table.deleted)]);
        for version in table.deleted..=now.version {
            let (mut since, mut known) = (TableVersion { version, ..now }, Vec::new());
            loop {
                let Changes::Page(page) = store.changes(name, &of, since).unwrap() else {
                    panic!("{since:?} of {now:?}: unknown");
                };
                (since, known) = (page.version, [known, page.changes].concat());
                if !page.more {
                    break;
                }
            }
            assert_eq!(since, now);
            assert!(known.is_sorted_by(|one, next| one.version < next.version));
            let (rows, deletes): (Vec<_>, _) = known.into_iter().partition(|change| change.value.is_some());
            let newer = table
                .rows
                .values()
                .filter(|row| row.topic == of && row.version > version);
            let mut newer: Vec<StoredChange> = newer.cloned().map(StoredChange::from).collect();
            newer.sort_by_key(|row| row.version);
            assert_eq!(rows, newer);
            let is_there = |change: &StoredChange| table.rows.get(&*change.key).is_some_and(|row| row.topic == of);
            assert!(!deletes.iter().any(is_there), "{deletes:?}");
            for (key, deleted) in table.deletes.iter().filter(|(_, deleted)| **deleted > version) {
                let told = deletes
                    .iter()
                    .any(|change| change.key == *key && change.version == *deleted);
                assert_eq!(told, table.deleted_in.get(key) == Some(&of), "{key:?}");
            }
        }
    }
}

fn list(store: &dyn Store, name: &str, table: &Table, of: Option<&Topic>) {
    let rows = table.rows.values().filter(|row| of.is_none_or(|of| *of == row.topic));
    let rows: Vec<_> = rows.cloned().collect();
    assert_eq!(all(store.entries(name, of)), rows);
    assert!(all(store.keys(name, of)).iter().eq(rows.iter().map(|row| &row.key)));
}
