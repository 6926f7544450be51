//! Files moved to the place of a database of the store `sqlite`, beside the log of the one that was there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use tablecast::{ErrorKind, Store};

use crate::common::within;
use crate::reexec::Process;
use crate::sqlite::open;
use crate::sqlite_files::{LIMIT, PATH, create, in_file};
use crate::suite::keys;

const OWNED: usize = 40;

fn path_of_child() -> Option<PathBuf> {
    std::env::var_os(PATH).map(PathBuf::from)
}

/// Not a test: the body of a process that writes, keeps the file open, and reads it for each byte of its input.
#[test]
fn owner() {
    let Some(path) = path_of_child() else {
        return;
    };
    let store = open(&path).unwrap();
    for number in 0..OWNED {
        create(&store, &format!("owned{number}")).unwrap();
    }
    println!("ready");
    while std::io::stdin().read(&mut [0]).unwrap() > 0 {
        println!("read {:?}", store.get("t", "owned0", None).map_err(|e| e.kind()));
    }
}

/// Not a test: the body of a process that opens the file and writes.
#[test]
fn opener() {
    let Some(path) = path_of_child() else {
        return;
    };
    let opened = open(&path).and_then(|store| create(&store, "opener"));
    match opened {
        Ok(_) => println!("opened"),
        Err(e) => println!("refused {:?} {e}", e.kind()),
    }
}

fn start(body: &str, path: &Path) -> Process {
    let test = format!("sqlite_installed::{body}");
    Process::start(&test, &[(PATH, path.to_str().unwrap())])
}

/// A process that has written, with all of it in the log.
fn started_owner(path: &Path) -> Process {
    let mut owner = start("owner", path);
    owner.until("ready");
    owner
}

/// A database with rows of its own, which no process has open.
fn make(path: &Path, name: &str) -> BTreeSet<String> {
    let store = open(path).unwrap();
    for number in 0..OWNED {
        create(&store, &format!("{name}{number}")).unwrap();
    }
    let made = keys(&store, "t", None).into_iter().collect();
    drop(store);
    made
}

#[track_caller]
fn assert_refused(path: &Path) {
    let before = fs::read(path).unwrap();
    for _ in 0..2 {
        let said = start("opener", path).finish();
        assert!(said.contains("refused Malformed ") && said.contains("-wal"), "{said}");
        assert!(fs::read(path).unwrap() == before, "the file was changed");
    }
}

#[track_caller]
fn assert_has(path: &Path, mut rows: BTreeSet<String>) {
    assert!(start("opener", path).finish().contains("opened"));
    rows.insert("opener".into());
    assert_eq!(in_file(path), rows);
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[test]
fn a_file_beside_an_idle_owner_of_the_one_before_keeps_its_rows() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("store.db"), folder.path().join("new.db"));
        let mut owner = started_owner(&path);
        let theirs = make(&new, "theirs");
        fs::rename(&new, &path).unwrap();
        assert_refused(&path);
        // The owner takes its log away.
        owner.say(".");
        assert_eq!(owner.said("read "), "Err(Io)");
        assert_has(&path, theirs);
        owner.say(".");
        assert_eq!(owner.said("read "), "Err(NotFound)");
        owner.finish();
    });
}

#[test]
fn a_file_beside_the_log_of_a_killed_owner_keeps_its_rows() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("store.db"), folder.path().join("new.db"));
        started_owner(&path).kill();
        let theirs = make(&new, "theirs");
        let old = folder.path().join("old.db");
        fs::rename(&path, &old).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_refused(&path);
        // Back in its place, the log is its own.
        fs::rename(&path, &new).unwrap();
        fs::rename(&old, &path).unwrap();
        assert_eq!(in_file(&path).len(), OWNED);
        started_owner(&folder.path().join("other.db")).kill();
        let path = folder.path().join("other.db");
        fs::rename(&new, &path).unwrap();
        assert_refused(&path);
        fs::remove_file(beside(&path, "-wal")).unwrap();
        assert_has(&path, theirs);
    });
}

#[test]
fn an_older_copy_is_not_brought_up_to_date_by_the_log() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
        let older = make(&path, "older");
        fs::copy(&path, &copy).unwrap();
        started_owner(&path).kill();
        fs::rename(&copy, &path).unwrap();
        assert_refused(&path);
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(beside(&path, suffix)).unwrap();
        }
        assert_has(&path, older);
    });
}

#[test]
fn a_copy_of_all_files_has_the_content_of_the_log() {
    within(LIMIT, || {
        for how in ["-R", "-a"] {
            let folder = tempfile::tempdir().unwrap();
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            fs::create_dir(&from).unwrap();
            started_owner(&from.join("store.db")).kill();
            let copied = Command::new("cp").arg(how).args([&from, &to]).status().unwrap();
            assert!(copied.success());
            let path = to.join("store.db");
            let rows = (0..OWNED).map(|number| format!("owned{number}")).collect();
            assert_has(&path, rows);
            // Moved together.
            started_owner(&to.join("more.db")).kill();
            fs::rename(to.join("more.db"), &path).unwrap();
            for suffix in ["-wal", "-shm"] {
                fs::rename(beside(&to.join("more.db"), suffix), beside(&path, suffix)).unwrap();
            }
            assert_eq!(in_file(&path).len(), OWNED);
        }
    });
}

#[test]
fn an_empty_log_of_another_file_is_removed() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("store.db"), folder.path().join("new.db"));
        let mut owner = started_owner(&path);
        let theirs = make(&new, "theirs");
        fs::File::options()
            .write(true)
            .open(beside(&path, "-wal"))
            .unwrap()
            .set_len(0)
            .unwrap();
        fs::rename(&new, &path).unwrap();
        assert_has(&path, theirs.clone());
        owner.say(".");
        assert_eq!(owner.said("read "), "Err(Io)");
        owner.finish();
        assert_eq!(in_file(&path).len(), theirs.len() + 1);
    });
}

#[test]
fn a_process_that_has_the_file_open_is_not_told_of_its_own_log() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = open(&path).unwrap();
        create(&store, "k").unwrap();
        assert!(start("opener", &path).finish().contains("opened"));
        assert_eq!(store.get("t", "opener", None).unwrap().value, "v");
        assert_eq!(create(&store, "k").unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}
