//! The store `sqlite` by a path with links.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tablecast::stores::sqlite::SqliteStore;
use tablecast::{ErrorKind, Store};

use crate::common::within;
use crate::reexec::Process;
use crate::sqlite::open;
use crate::sqlite_files::{LIMIT, PATH, assert_noticed, create, in_file};
use crate::suite::{assert_kind, keys};

/// Makes `link` lead to `target`, in one step.
fn lead(link: &Path, target: &str) {
    let made = link.with_extension("made");
    symlink(target, &made).unwrap();
    fs::rename(made, link).unwrap();
}

/// A closed database with one row.
fn make(path: &Path, key: &str) {
    create(&open(path).unwrap(), key).unwrap();
}

#[test]
fn a_link_to_another_database_leaves_the_earlier_one_whole() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, link] = ["old.db", "new.db", "current.db"].map(|name| folder.path().join(name));
        make(&old, "k");
        make(&new, "theirs");
        lead(&link, "old.db");
        let store = open(&link).unwrap();
        create(&store, "l").unwrap();
        let mut child = Process::start("sqlite_files::writer", &[(PATH, old.to_str().unwrap())]);
        let mut said = child.until("created w20");
        lead(&link, "new.db");
        assert_noticed(store.get("t", "none", None), &link);
        assert_eq!(keys(&store, "t", None), ["theirs"]);
        create(&store, "after").unwrap();
        said += &child.until("created w80");
        said += &child.finish();
        assert!(!said.lines().any(|line| line.starts_with("failed ")), "{said}");
        let found = in_file(&old);
        let theirs = said.lines().filter_map(|line| line.strip_prefix("created "));
        let expected: BTreeSet<_> = theirs.chain(["k", "l"]).map(str::to_owned).collect();
        assert_eq!(found, expected);
        assert_eq!(in_file(&new), ["after", "theirs"].map(str::to_owned).into());
        // The present files are watched.
        fs::remove_file(folder.path().join("new.db-wal")).unwrap();
        assert_noticed(store.get("t", "theirs", None), &new);
    });
}

/// Another process has begun a new log, and was killed: the rows in it are nowhere else.
#[test]
fn a_store_that_leaves_a_database_leaves_the_log_of_others_too() {
    within(LIMIT, || {
        for is_dropped in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let [old, new, link] = ["old.db", "new.db", "current.db"].map(|name| folder.path().join(name));
            make(&old, "k");
            make(&new, "theirs");
            lead(&link, "old.db");
            let store = open(&link).unwrap();
            create(&store, "l").unwrap();
            for name in ["old.db-wal", "old.db-shm"] {
                fs::remove_file(old.with_file_name(name)).unwrap();
            }
            let mut child = Process::start("sqlite_files::writer", &[(PATH, old.to_str().unwrap())]);
            let said = child.until("created w20") + &child.kill();
            if is_dropped {
                drop(store);
            } else {
                lead(&link, "new.db");
                assert_noticed(create(&store, "m"), &link);
            }
            let found = in_file(&old);
            for key in said.lines().filter_map(|line| line.strip_prefix("created ")) {
                assert!(found.contains(key), "{key} is not in the file");
            }
        }
    });
}

#[test]
fn nothing_is_written_to_a_database_to_which_the_link_no_longer_leads() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, link] = ["old.db", "new.db", "current.db"].map(|name| folder.path().join(name));
        make(&old, "k");
        lead(&link, "old.db");
        let store = open(&link).unwrap();
        // To a file that a write creates.
        lead(&link, "new.db");
        assert_noticed(create(&store, "l"), &link);
        assert_kind(store.get("t", "k", None), ErrorKind::Io);
        assert!(!new.exists());
        create(&store, "l").unwrap();
        assert_eq!(keys(&store, "t", None), ["l"]);
        // To nothing, and then a file of its own.
        fs::remove_file(&link).unwrap();
        assert_noticed(create(&store, "m"), &link);
        create(&store, "n").unwrap();
        assert_eq!(keys(&store, "t", None), ["n"]);
        drop(store);
        let found = [&old, &new, &link].map(|path| in_file(path));
        assert_eq!(found, ["k", "l", "n"].map(|key| BTreeSet::from([key.to_owned()])));
    });
}

#[test]
fn a_link_to_a_missing_file_is_where_it_is_created() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("other")).unwrap();
        let [file, link] = ["other/store.db", "store.db"].map(|name| folder.path().join(name));
        symlink("between.db", &link).unwrap();
        symlink("other/store.db", folder.path().join("between.db")).unwrap();
        let store = open(&link).unwrap();
        create(&store, "k").unwrap();
        create(&open(&file).unwrap(), "l").unwrap();
        for name in ["store.db-wal", "store.db-shm"] {
            fs::remove_file(file.with_file_name(name)).unwrap();
            assert_noticed(store.get("t", "k", None), &file);
            assert_eq!(keys(&store, "t", None), ["k", "l"]);
        }
    });
}

#[test]
fn a_folder_that_is_a_link_is_followed() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [v1, v2, current] = ["v1", "v2", "current"].map(|name| folder.path().join(name));
        make(&v1.join("store.db"), "1");
        make(&v2.join("store.db"), "2");
        lead(&current, "v1");
        let path = current.join("store.db");
        let store = open(&path).unwrap();
        create(&store, "more").unwrap();
        lead(&current, "v2");
        assert_noticed(store.get("t", "1", None), &path);
        create(&store, "after").unwrap();
        assert_eq!(keys(&store, "t", None), ["2", "after"]);
        assert_eq!(in_file(&v1.join("store.db")), ["1", "more"].map(str::to_owned).into());
    });
}

#[test]
fn each_store_of_a_process_follows_its_own_path() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, link] = ["old.db", "new.db", "current.db"].map(|name| folder.path().join(name));
        make(&old, "k");
        make(&new, "theirs");
        lead(&link, "old.db");
        let [by_link, by_name]: [SqliteStore; 2] = [&link, &old].map(|path| open(path).unwrap());
        lead(&link, "new.db");
        assert_noticed(by_link.table_version("t"), &link);
        create(&by_name, "l").unwrap();
        let later = open(&old).unwrap();
        for store in [&by_name, &later] {
            assert_eq!(keys(store, "t", None), ["k", "l"]);
        }
        assert_eq!(keys(&by_link, "t", None), ["theirs"]);
    });
}

#[test]
fn a_link_in_the_place_of_a_file_is_followed() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["store.db", "other.db"].map(|name| folder.path().join(name));
        make(&other, "theirs");
        let stores = [(); 2].map(|()| open(&path).unwrap());
        create(&stores[0], "k").unwrap();
        lead(&path, "other.db");
        for store in &stores {
            assert_noticed(create(store, "l"), &path);
            assert_eq!(keys(store, "t", None), ["theirs"]);
        }
        create(&stores[0], "after").unwrap();
        fs::remove_file(folder.path().join("other.db-wal")).unwrap();
        assert_noticed(stores[0].get("t", "after", None), &other);
        assert_eq!(in_file(&path), ["after", "theirs"].map(str::to_owned).into());
    });
}
