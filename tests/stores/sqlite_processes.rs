//! The store `sqlite` in several processes at once, killed, and on a full disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tablecast::store::Write;
use tablecast::{ErrorKind, Store, Topic};

use crate::common::within;
use crate::reexec::{Process, until_input_ends};
use crate::sqlite::open;
use crate::suite::{all, topic};

const PATH: &str = "TABLECAST_TEST_STORE";
const NAME: &str = "TABLECAST_TEST_WRITER";

/// Not a test: the body of a process that writes until its input is closed, and prints what was done.
#[test]
fn writer() {
    let (Ok(path), Ok(name)) = (std::env::var(PATH), std::env::var(NAME)) else {
        return;
    };
    let (store, tenant) = (open(Path::new(&path)).unwrap(), topic(&name));
    let mut slowest = Duration::ZERO;
    until_input_ends(|number| {
        let key = format!("{name}-{number}");
        let start = Instant::now();
        let version = store.create("rows", &key, &key, &tenant).unwrap();
        slowest = slowest.max(start.elapsed());
        println!("created {key} {version}");
        if number % 4 == 3 {
            println!("deleting {key}");
            store.delete("rows", &key).unwrap();
            println!("deleted {key}");
            println!("unique {}", store.allocate_unique_key("rows").unwrap());
            if increment(&store) {
                println!("incremented");
            }
        }
    });
    println!("slowest {}", slowest.as_micros());
}

/// Returns false if another writer was faster.
fn increment(store: &dyn Store) -> bool {
    let row = store.get("counter", "k", None).unwrap();
    let value = (row.value.parse::<u64>().unwrap() + 1).to_string();
    match store.write(&Write::set("counter", "k", &value).if_version(row.version)) {
        Ok(_) => true,
        Err(e) if e.kind() == ErrorKind::Conflict => false,
        Err(e) => panic!("{e}"),
    }
}

/// The output of the writers.
#[derive(Default)]
struct Said {
    rows: BTreeSet<String>,
    deleted: BTreeSet<String>,
    versions: BTreeMap<u64, String>,
    unique: BTreeSet<u64>,
    incremented: u64,
    slowest: u64,
}

impl Said {
    fn hear(&mut self, text: &str) {
        // A killed process may have left an incomplete line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                [.., "created", key, version] => {
                    self.rows.insert(key.to_owned());
                    let other = self.versions.insert(version.parse().unwrap(), key.to_owned());
                    assert_eq!(other, None, "the version of {key} was given twice");
                }
                // The row may be gone from now on, and must be once the delete is reported as done.
                ["deleting", key] => _ = self.rows.remove(key),
                ["deleted", key] => _ = self.deleted.insert(key.to_owned()),
                ["unique", number] => assert!(self.unique.insert(number.parse().unwrap()), "{number} came twice"),
                ["incremented"] => self.incremented += 1,
                ["slowest", micros] => self.slowest = self.slowest.max(micros.parse().unwrap()),
                _ => {}
            }
        }
    }
}

#[test]
fn four_writing_processes_and_two_of_them_killed() {
    within(Duration::from_secs(120), || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = open(&path).unwrap();
        store.create("counter", "k", "0", &Topic::ALL).unwrap();
        let start = Instant::now();
        let mut writers: Vec<_> = (0..4)
            .map(|number| {
                let variables = [(PATH, path.to_str().unwrap()), (NAME, &format!("w{number}"))];
                Process::start("sqlite_processes::writer", &variables)
            })
            .collect();
        let mut said = Said::default();
        for (number, writer) in writers.iter_mut().enumerate() {
            said.hear(&writer.until(&format!("created w{number}-200 ")));
        }
        // Killed while they write, since they never pause.
        for _ in 0..2 {
            said.hear(&writers.remove(0).kill());
        }
        for (number, writer) in (2..).zip(&mut writers) {
            said.hear(&writer.until(&format!("created w{number}-500 ")));
        }
        let took = start.elapsed();
        for writer in writers {
            said.hear(&writer.finish());
        }

        let rows: BTreeMap<_, _> = all(store.entries("rows", None))
            .into_iter()
            .map(|row| (row.key.to_string(), row))
            .collect();
        for key in &said.rows {
            assert!(rows.contains_key(key), "{key} is lost");
        }
        assert!(
            rows.keys().all(|key| !said.deleted.contains(key)),
            "a deleted row is there"
        );
        // A killed process may have created one more row, or may not have deleted one.
        let unheard = rows.len() - said.rows.len();
        assert!(unheard <= 2, "{unheard} rows of nobody");
        for row in rows.values() {
            assert!(row.key == row.value.as_str() && row.key.starts_with(row.topic.as_str()));
            assert!(
                said.versions
                    .get(&row.version)
                    .is_none_or(|key| row.key == key.as_str())
            );
        }
        let counter: u64 = store.get("counter", "k", None).unwrap().value.parse().unwrap();
        assert!(
            (said.incremented..=said.incremented + 2).contains(&counter),
            "{counter}, said {}",
            said.incremented
        );
        drop(store);
        assert_whole(&path);
        let writes = said.versions.len() + said.deleted.len() + said.unique.len() + said.incremented as usize;
        let rate = writes as f64 / took.as_secs_f64();
        println!(
            "4 processes, 2 of them killed: {writes} durable writes in {took:?} ({rate:.0}/s), the slowest took {} ms; \
            {} rows, none lost",
            said.slowest / 1000,
            rows.len(),
        );
    });
}

/// SQLite's own check of the file.
fn assert_whole(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

/// Not a test: the body of a process with a small disk.
#[test]
fn writer_on_a_full_disk() {
    let Some(disk) = std::env::var_os(PATH).map(PathBuf::from).filter(|disk| disk.is_dir()) else {
        return;
    };
    let path = disk.join("store.db");
    let spare = disk.join("spare");
    fs::write(&spare, vec![1; 256 << 10]).unwrap();
    let (store, value) = (open(&path).unwrap(), "v".repeat(5000));
    let create = |number: usize| store.create("t", &format!("{number:06}"), &value, &Topic::ALL);
    let mut count = 0;
    let error = loop {
        match create(count) {
            Ok(_) => count += 1,
            Err(e) => break e,
        }
    };
    let check = |count: usize| {
        let rows = all(store.entries("t", None));
        let expected = (0..count).map(|number| format!("{number:06}"));
        assert!(rows.iter().map(|row| row.key.as_str()).eq(expected));
        assert!(rows.iter().all(|row| row.value == value));
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(count > 10, "only {count} rows");
    for _ in 0..20 {
        assert_eq!(create(count).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(
            store.get("t", &format!("{count:06}"), None).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    let other = open(&disk.join("other.db")).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Full, "{other}");
    check(count);

    fs::remove_file(&spare).unwrap();
    create(count).unwrap();
    check(count + 1);
    drop(store);
    assert_whole(&path);
    println!("rows {count}");
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().unwrap();
        // A disk of its own, which is gone with the process.
        let mut command = Command::new("unshare");
        let mount = "mount -t tmpfs -o size=1m tablecast \"$TABLECAST_TEST_STORE\" && exec \"$0\" \"$@\"";
        command
            .args(["--mount", "--map-root-user", "sh", "-c", mount])
            .arg(std::env::current_exe().unwrap());
        let variables = [(PATH, folder.path().to_str().unwrap())];
        let mut process = Process::start_with(command, "sqlite_processes::writer_on_a_full_disk", &variables);
        println!("the disk was full after {} rows", process.said("rows "));
        process.finish();
    });
}
