//! The files of the store `sqlite`, removed or replaced while they are open, and files that cannot be written.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::unistd::{Uid, setuid};
use tablecast::stores::sqlite::SqliteStore;
use tablecast::{Error, ErrorKind, Result, Store, Topic};

use crate::common::within;
use crate::reexec::{Process, until_input_ends};
use crate::sqlite::open;
use crate::suite::{assert_kind, keys};

pub(crate) const PATH: &str = "TABLECAST_TEST_STORE";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const FILES: [&str; 3] = ["store.db", "store.db-wal", "store.db-shm"];

fn path_of_child() -> Option<PathBuf> {
    std::env::var_os(PATH).map(PathBuf::from)
}

pub(crate) fn create(store: &SqliteStore, key: &str) -> Result<u64> {
    store.create("t", key, "v", &Topic::ALL)
}

fn named(folder: &Path) -> PathBuf {
    folder.join("store.db")
}

fn remove(folder: &Path, names: &[&str]) {
    for name in names {
        match fs::remove_file(folder.join(name)) {
            // Another process has missed the file before this one, and removed what belonged to it.
            Err(e) if e.kind() == io::ErrorKind::NotFound && *name != names[0] => {}
            removed => removed.unwrap(),
        }
    }
}

/// Checks the error for files that are gone.
#[track_caller]
pub(crate) fn assert_noticed(result: Result<impl std::fmt::Debug>, path: &Path) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Io, "{text}");
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("while the database was open"),
        "{text}"
    );
}

/// Not a test: the body of a process that prints the keys it finds.
#[test]
fn reader() {
    if let Some(path) = path_of_child().filter(|path| path.is_file()) {
        let store = open(&path).unwrap();
        println!("keys {}", keys(&store, "t", None).join(" "));
    }
}

/// The keys that another process finds in the file now.
pub(crate) fn in_file(path: &Path) -> BTreeSet<String> {
    let variables = [(PATH, path.to_str().unwrap())];
    let mut process = Process::start("sqlite_files::reader", &variables);
    let keys = process.said("keys ");
    process.finish();
    keys.split_whitespace().map(str::to_owned).collect()
}

type Call = fn(&SqliteStore) -> Result<()>;

#[test]
fn files_that_are_removed_are_noticed_by_the_next_call() {
    within(LIMIT, || {
        let calls: [(&str, Call); 4] = [
            ("get", |store| store.get("t", "0", None).map(drop)),
            ("get of nothing", |store| store.get("t", "none", None).map(drop)),
            ("create", |store| create(store, "new").map(drop)),
            ("create of what is there", |store| create(store, "0").map(drop)),
        ];
        for names in [&FILES[..], &FILES[..1], &FILES[1..2], &FILES[2..], &FILES[1..]] {
            for (what, call) in calls {
                let folder = tempfile::tempdir().unwrap();
                let path = named(folder.path());
                let (store, clone) = (open(&path).unwrap(), open(&path).unwrap());
                for number in 0..40 {
                    create(&store, &number.to_string()).unwrap();
                }
                remove(folder.path(), names);
                assert_noticed(call(&store), &path);
                // Opened anew, for the other stores of the process too; later answers are in the file.
                create(&clone, "after").unwrap();
                create(&store, "new").unwrap();
                let found = in_file(&path);
                assert!(
                    found.contains("after") && found.contains("new"),
                    "{names:?}, {what}: {found:?}"
                );
                // If only the log and its index are gone nothing is lost, since there was no other process.
                let expected = if names[0] == "store.db" { 2 } else { 42 };
                assert_eq!(found.len(), expected, "{names:?}, {what}");
                assert!(keys(&store, "t", None).iter().eq(&found), "{names:?}, {what}");
            }
        }
    });
}

#[test]
fn what_another_process_wrote_before_it_was_noticed_stays() {
    within(LIMIT, || {
        for name in &FILES[1..] {
            let folder = tempfile::tempdir().unwrap();
            let path = named(folder.path());
            let store = open(&path).unwrap();
            for number in 0..40 {
                create(&store, &number.to_string()).unwrap();
            }
            remove(folder.path(), &[name]);
            let said = Process::start("sqlite_files::writer", &[(PATH, path.to_str().unwrap())]).finish();
            assert!(said.contains("created w0"), "{said}");
            assert_noticed(store.get("t", "0", None), &path);
            create(&store, "after").unwrap();
            let found = in_file(&path);
            assert!(found.contains("w0") && found.contains("after"), "{name}: {found:?}");
            // The index alone can be rebuilt from the log.
            assert!(found.len() >= 42 || *name == FILES[1], "{name}: {found:?}");
            assert!(keys(&store, "t", None).iter().eq(&found), "{name}");
        }
    });
}

#[test]
fn a_file_in_the_place_of_another_is_taken_as_it_is() {
    within(LIMIT, || {
        for leave in [&FILES[..0], &FILES[1..2], &FILES[2..], &FILES[1..]] {
            let folder = tempfile::tempdir().unwrap();
            let (path, other) = (named(folder.path()), folder.path().join("other.db"));
            let theirs = open(&other).unwrap();
            create(&theirs, "theirs").unwrap();
            drop(theirs);
            let store = open(&path).unwrap();
            for number in 0..40 {
                create(&store, &number.to_string()).unwrap();
            }
            let gone: Vec<_> = FILES[1..]
                .iter()
                .copied()
                .filter(|name| !leave.contains(name))
                .collect();
            remove(folder.path(), &gone);
            fs::rename(&other, &path).unwrap();
            assert_noticed(store.get("t", "0", None), &path);
            // A log that was left behind is no part of it.
            assert_eq!(keys(&store, "t", None), ["theirs"], "left {leave:?}");
            create(&store, "after").unwrap();
            assert_eq!(in_file(&path).len(), 2, "left {leave:?}");
        }
    });
}

#[test]
fn a_read_makes_no_file() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = named(folder.path());
        let store = open(&path).unwrap();
        create(&store, "k").unwrap();
        let away = folder.path().join("away.db");
        fs::rename(&path, &away).unwrap();
        assert_noticed(store.get("t", "k", None), &path);
        for _ in 0..3 {
            assert_kind(store.get("t", "k", None), ErrorKind::Io);
        }
        assert!(!path.exists());
        // It comes back together with the content of its log.
        fs::rename(&away, &path).unwrap();
        assert_eq!(store.get("t", "k", None).unwrap().value, "v");
        create(&store, "after").unwrap();
        assert_eq!(in_file(&path).len(), 2);
    });
}

/// Not a test: the body of a process that writes until its input is closed, and prints what was done.
#[test]
fn writer() {
    let Some(path) = path_of_child().filter(|path| path.is_file()) else {
        return;
    };
    let store = open(&path).unwrap();
    until_input_ends(|number| match create(&store, &format!("w{number}")) {
        Ok(_) => println!("created w{number}"),
        Err(e) => println!("failed {:?} {e}", e.kind()),
    });
}

#[test]
fn two_processes_and_several_threads_go_on_in_the_same_new_files() {
    within(LIMIT, || {
        for names in [&FILES[..], &FILES[1..2], &FILES[2..]] {
            let folder = tempfile::tempdir().unwrap();
            let path = named(folder.path());
            let store = open(&path).unwrap();
            create(&store, "k").unwrap();
            let mut child = Process::start("sqlite_files::writer", &[(PATH, path.to_str().unwrap())]);
            child.until("created w20");
            let [removed, ended] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let (path, removed, ended) = (path.clone(), Arc::clone(&removed), Arc::clone(&ended));
                    let run = move || {
                        let (store, mut written, mut failed) = (open(&path).unwrap(), Vec::new(), 0);
                        for number in 0.. {
                            let (key, counts) = (format!("{thread}-{number}"), removed.load(Ordering::SeqCst));
                            match create(&store, &key) {
                                Ok(_) if counts => written.push(key),
                                Ok(_) => {}
                                Err(e) => {
                                    assert!(matches!(e.kind(), ErrorKind::Io | ErrorKind::Unconfirmed), "{e}");
                                    failed += 1;
                                }
                            }
                            if ended.load(Ordering::SeqCst) && written.len() >= 5 {
                                break;
                            }
                        }
                        (written, failed)
                    };
                    std::thread::Builder::new().spawn(run).unwrap()
                })
                .collect();
            child.until("created w40");
            remove(folder.path(), names);
            removed.store(true, Ordering::SeqCst);
            let said = child.until("failed");
            let last = said.lines().last().unwrap();
            assert!(
                last.starts_with("failed Io") || last.starts_with("failed Unconfirmed"),
                "{last}"
            );
            let mut theirs = child.until("created");
            ended.store(true, Ordering::SeqCst);
            let ours: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            theirs += &child.finish();
            drop(store);
            let found = in_file(&path);
            let theirs = theirs.lines().filter_map(|line| line.strip_prefix("created "));
            for key in ours
                .iter()
                .flat_map(|(written, _)| written.iter().map(String::as_str))
                .chain(theirs)
            {
                assert!(found.contains(key), "{names:?}: {key} is not in the file");
            }
            assert!(ours.iter().map(|(_, failed)| failed).sum::<usize>() > 0);
        }
    });
}

/// Not a test: the body of a process that may only read, and follows its input.
#[test]
fn guest() {
    let Some(path) = path_of_child().filter(|path| path.is_file()) else {
        return;
    };
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(65_534)).unwrap();
    }
    let report = |error: Error| println!("refused {:?} {error}", error.kind());
    let store = match open(&path) {
        Ok(store) => store,
        Err(e) => return report(e),
    };
    // For each word of the input.
    loop {
        println!("found {}", keys(&store, "t", None).join(" "));
        store.get("t", "k", None).unwrap();
        report(create(&store, "no").unwrap_err());
        if std::io::stdin().read(&mut [0]).unwrap() == 0 {
            break;
        }
    }
}

/// Removes the right to write from users other than root; a guest is another user if this process is root.
fn lock(folder: &Path, locked: bool) {
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let for_all = locked && !Uid::effective().is_root();
    set(folder, if for_all { 0o555 } else { 0o755 });
    set(&named(folder), if for_all { 0o444 } else { 0o644 });
}

struct Guest(Process);

impl Guest {
    fn start(path: &Path) -> Guest {
        Guest(Process::start("sqlite_files::guest", &[(PATH, path.to_str().unwrap())]))
    }

    #[track_caller]
    fn finds(&mut self, keys: &str) {
        assert_eq!(self.0.said("found "), keys);
        let refused = self.0.said("refused ");
        assert!(refused.starts_with("Io ") && refused.contains("store.db"), "{refused}");
        assert!(refused.contains("belongs to user"), "{refused}");
    }
}

#[test]
fn a_user_who_may_not_write_reads() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = named(folder.path());
        let store = open(&path).unwrap();
        create(&store, "k").unwrap();
        if !Uid::effective().is_root() {
            drop(store);
            lock(folder.path(), true);
            let mut guest = Guest::start(&path);
            guest.finds("k");
            guest.0.finish();
            return lock(folder.path(), false);
        }
        lock(folder.path(), true);
        // Beside a process that writes.
        let mut guest = Guest::start(&path);
        guest.finds("k");
        create(&store, "l").unwrap();
        guest.0.say(".");
        guest.finds("k l");
        // It ends, and another one comes.
        drop(store);
        guest.0.say(".");
        guest.finds("k l");
        let store = open(&path).unwrap();
        create(&store, "m").unwrap();
        guest.0.say(".");
        guest.finds("k l m");
        drop(store);
        guest.0.finish();
        // Alone.
        assert!(!folder.path().join("store.db-wal").exists());
        let mut guest = Guest::start(&path);
        guest.finds("k l m");
        for round in 0..3 {
            let store = open(&path).unwrap();
            create(&store, &format!("n{round}")).unwrap();
            drop(store);
        }
        guest.0.say(".");
        guest.finds("k l m n0 n1 n2");
        guest.0.finish();
    });
}

/// SQLite itself says only that it cannot open it.
#[test]
fn a_file_that_may_not_be_opened_is_said_to_be_denied() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = named(folder.path());
        drop(open(&path).unwrap());
        let is_root = Uid::effective().is_root();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(folder.path(), 0o755);
        set(&path, if is_root { 0o600 } else { 0 });
        let refused_to_guest = || {
            let mut guest = Guest::start(&path);
            let refused = guest.0.said("refused ");
            guest.0.finish();
            assert!(refused.starts_with("Io "), "{refused}");
            refused
        };
        let refused = refused_to_guest();
        let user = Uid::effective();
        let expected = format!("permission denied: the file {} belongs to user {user} ", path.display());
        assert!(refused.contains(&expected), "{refused}");
        if is_root {
            set(&path, 0o644);
            set(folder.path(), 0o700);
            let refused = refused_to_guest();
            let expected = format!("permission denied: the folder {} belongs", folder.path().display());
            assert!(refused.contains(&expected), "{refused}");
        }
    });
}

#[test]
fn a_log_that_nobody_may_write_back_is_said_to_be_in_the_way() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = named(folder.path());
        drop(open(&path).unwrap());
        let mut child = Process::start("sqlite_files::writer", &[(PATH, path.to_str().unwrap())]);
        child.until("created w5");
        child.kill();
        fs::remove_file(folder.path().join("store.db-shm")).unwrap();
        lock(folder.path(), true);
        let mut guest = Process::start("sqlite_files::guest", &[(PATH, path.to_str().unwrap())]);
        let refused = guest.said("refused ");
        assert!(
            refused.starts_with("Io ") && refused.contains("write-ahead log"),
            "{refused}"
        );
        guest.finish();
        // A process with the right opens it once.
        lock(folder.path(), false);
        create(&open(&path).unwrap(), "k").unwrap();
        let mut guest = Process::start("sqlite_files::guest", &[(PATH, path.to_str().unwrap())]);
        let found = guest.said("found ");
        assert!(found.starts_with("k w0 w1") && found.contains(" w5"), "{found}");
        guest.finish();
    });
}

/// Not a test: the body of a process with a disk of its own, which becomes read-only.
#[test]
fn reader_of_a_read_only_disk() {
    let Some(disk) = path_of_child().filter(|disk| disk.is_dir()) else {
        return;
    };
    let path = named(&disk);
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(&disk).status().unwrap();
        assert!(status.success());
    };
    create(&open(&path).unwrap(), "k").unwrap();
    remount("remount,ro");
    let store = open(&path).unwrap();
    assert_eq!(store.get("t", "k", None).unwrap().value, "v");
    assert_kind(create(&store, "no"), ErrorKind::Io);
    assert_eq!(keys(&store, "t", None), ["k"]);
    // Writable again.
    remount("remount,rw");
    create(&store, "l").unwrap();
    assert_eq!(keys(&store, "t", None), ["k", "l"]);
    println!("read");
}

#[test]
fn a_disk_that_may_not_be_written_is_read() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        let mount = "mount -t tmpfs -o size=4m tablecast \"$TABLECAST_TEST_STORE\" && exec \"$0\" \"$@\"";
        command
            .args(["--mount", "--map-root-user", "sh", "-c", mount])
            .arg(std::env::current_exe().unwrap());
        let variables = [(PATH, folder.path().to_str().unwrap())];
        let mut process = Process::start_with(command, "sqlite_files::reader_of_a_read_only_disk", &variables);
        process.until("read");
        process.finish();
    });
}
