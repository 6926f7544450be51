//! Publishers register themselves, and subscribers follow them.
#![cfg(feature = "bin")]

mod common;
#[path = "common/front.rs"]
mod front;
#[path = "common/host.rs"]
mod host;
#[path = "common/process.rs"]
mod process;
#[path = "common/rig.rs"]
mod rig;
#[path = "common/swap.rs"]
mod swap;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{eventually, free_port, hook, within};
use host::{json, socket};
use process::{Process, run, tablecast};
use rig::{LONG, Rig, send};
use swap::Swap;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::registry::{Discovery, Member, PUBLISHERS, Registration, RegistryOptions};
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{Publisher, PublisherOptions, Store, SyncReason, Topic};

const LIMIT: Duration = Duration::from_secs(60);

fn options(timeout: Duration) -> RegistryOptions {
    RegistryOptions {
        timeout,
        interval: Duration::from_millis(10),
        ..RegistryOptions::default()
    }
}

/// No member is taken for dead within a test.
fn patient() -> RegistryOptions {
    options(Duration::from_secs(600))
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn member(id: &str, epoch: u64, address: &str, role: &str) -> Member {
    Member {
        id: id.to_owned(),
        epoch,
        address: address.to_owned(),
        role: role.to_owned(),
        ..Member::default()
    }
}

fn register(store: &Arc<dyn Store>, member: Member, options: RegistryOptions) -> Registration {
    let registration = Registration::new(Arc::clone(store), PUBLISHERS, member, options).unwrap();
    registration.wait_registered(LONG).unwrap();
    registration
}

fn registered(store: &Arc<dyn Store>) -> Vec<Member> {
    let rows = store.entries(PUBLISHERS, None);
    let members = rows.map(|row| Member::from_row(&row.unwrap()).unwrap());
    members.filter(|member| !member.leaving).collect()
}

fn publisher() -> (Publisher, String, Arc<dyn Driver>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let address = format!("memory://registry-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::shared(&address).unwrap());
    let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
    (publisher, address, driver)
}

fn over_tcp() -> (Publisher, String, Arc<dyn Driver>) {
    let driver = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
    let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
    let address = publisher.address().unwrap();
    (publisher, address, driver)
}

fn connected(rig: &Rig) -> Vec<String> {
    let status = rig.subscriber.status();
    status.addresses.iter().map(|peer| peer.address.to_string()).collect()
}

#[test]
fn a_subscriber_follows_who_comes_moves_and_goes() {
    within(LIMIT, || {
        let store = store();
        let (one, at_one, driver) = publisher();
        let (two, at_two, _) = publisher();
        let (_own, at_own, _) = publisher();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &at_own);
        let subscriber = Arc::clone(&rig.subscriber);
        let discovery = Discovery::new(Arc::clone(&store), subscriber, &["chassis".into()], patient()).unwrap();
        let other = register(
            &store,
            member("other", 1, "memory://registry-other", "server"),
            patient(),
        );
        let _first = register(&store, member("host", 1, &at_one, "chassis"), patient());
        eventually(LONG, || connected(&rig).contains(&at_one));
        rig.subscriber.wait_live(LONG).unwrap();
        rig.only("1", || send(&one, "D", "1"));
        // It begins anew elsewhere, and its earlier run has not cleaned up.
        let second = register(&store, member("host", 2, &at_two, "chassis"), patient());
        eventually(LONG, || {
            connected(&rig).contains(&at_two) && !connected(&rig).contains(&at_one)
        });
        rig.subscriber.wait_live(LONG).unwrap();
        rig.only("2", || send(&two, "D", "2"));
        assert!(!connected(&rig).contains(&"memory://registry-other".to_owned()));
        // It stops; addresses that the program has registered itself stay, even if they are also in the registry and
        // go.
        let own = register(&store, member("own", 1, &at_own, "chassis"), patient());
        eventually(LONG, || registered(&store).len() == 3);
        drop((second, own));
        eventually(LONG, || connected(&rig) == [at_own.as_str()]);
        drop(other);
        eventually(LONG, || registered(&store).is_empty());
        drop(discovery);
    });
}

/// The program may register an address after it was followed, and discovery may begin again.
#[test]
fn what_was_followed_is_given_up_unless_it_is_the_programs() {
    within(LIMIT, || {
        let store = store();
        let (_one, at_one, driver) = publisher();
        let [(_two, at_two, _), (_three, at_three, _), (_own, at_own, _)] = [publisher(), publisher(), publisher()];
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &at_own);
        let discover = || Discovery::new(Arc::clone(&store), Arc::clone(&rig.subscriber), &[], patient()).unwrap();
        let first = discover();
        let one = register(&store, member("one", 1, &at_one, ""), patient());
        let two = register(&store, member("two", 1, &at_two, ""), patient());
        eventually(LONG, || {
            [&at_one, &at_two].iter().all(|at| connected(&rig).contains(at))
        });
        rig.subscriber.register_listen_address(&at_one).unwrap();
        drop(first);
        let _second = discover();
        let _three = register(&store, member("three", 1, &at_three, ""), patient());
        eventually(LONG, || connected(&rig).contains(&at_three));
        drop((one, two));
        eventually(LONG, || !connected(&rig).contains(&at_two));
        assert!(connected(&rig).contains(&at_one));
    });
}

/// A renewal whose reply was lost has written the row all the same.
#[cfg(feature = "testing")]
#[test]
fn who_stops_after_a_lost_reply_leaves() {
    within(LIMIT, || {
        let faulty = Arc::new(tablecast::testing::FaultyStore::new());
        let store: Arc<dyn Store> = Arc::clone(&faulty) as _;
        let registration = register(
            &store,
            member("a", 1, "memory://a", ""),
            options(Duration::from_secs(3)),
        );
        let version = || store.get(PUBLISHERS, "a", None).unwrap().version;
        let before = version();
        faulty.lose_replies();
        eventually(LONG, || version() > before);
        faulty.mend();
        drop(registration);
        eventually(LONG, || registered(&store).is_empty());
    });
}

#[test]
fn who_comes_and_goes_unheard_is_told() {
    within(LIMIT, || {
        let store = store();
        let (steady, at_steady, driver) = over_tcp();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &at_steady);
        let connected_to = |address: &str| SyncReason::Connected {
            address: address.into(),
        };
        let lost = |address: &str| SyncReason::AddressLost {
            address: address.into(),
        };
        assert_eq!(rig.next_sync(), connected_to(&at_steady));
        // A publisher that stops before the others look leaves its row, marked as leaving.
        let rare = RegistryOptions {
            interval: LIMIT,
            ..patient()
        };
        drop(register(
            &store,
            member("before", 1, "memory://registry-before", ""),
            rare,
        ));
        let row = store.get(PUBLISHERS, "before", None).unwrap();
        assert!(Member::from_row(&row).unwrap().leaving);
        let subscriber = Arc::clone(&rig.subscriber);
        let discovery = Discovery::new(Arc::clone(&store), subscriber, &[], patient()).unwrap();
        let dead = &*format!("tcp://127.0.0.1:{}", free_port());
        let row = format!(r#"{{"epoch":1,"address":"{dead}"}}"#);
        store.create(PUBLISHERS, "dead", &row, &Topic::ALL).unwrap();
        eventually(LONG, || connected(&rig).contains(&dead.to_owned()));
        store.delete(PUBLISHERS, "dead").unwrap();
        assert_eq!(rig.next_sync(), lost(dead));
        let brief = &*format!("tcp://127.0.0.1:{}", free_port());
        let row = format!(r#"{{"epoch":1,"address":"{brief}","leaving":true}}"#);
        store.create(PUBLISHERS, "brief", &row, &Topic::ALL).unwrap();
        assert_eq!(rig.next_sync(), lost(brief));
        // A publisher that says goodbye is not missed.
        let (polite, at_polite, _) = over_tcp();
        let registration = register(&store, member("polite", 1, &at_polite, ""), patient());
        assert_eq!(rig.next_sync(), connected_to(&at_polite));
        drop((polite, registration));
        eventually(LONG, || connected(&rig) == [at_steady.as_str()]);
        // Waits until the subscriber has carried out all earlier commands.
        rig.listen(&["E"], &at_steady);
        rig.only("1", || send(&steady, "E", "1"));
        assert!(rig.syncs.is_empty());
        drop(discovery);
    });
}

#[test]
fn who_renews_stays_and_who_does_not_is_removed_once() {
    within(LIMIT, || {
        let store = store();
        let (_alive, at_alive, driver) = publisher();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &at_alive);
        let timeout = Duration::from_secs(4);
        let alive = register(
            &store,
            member("alive", 1, "memory://registry-alive", ""),
            options(timeout),
        );
        // A publisher that was killed, with a clock an hour ahead: only the unchanged row counts.
        let dead = r#"{"epoch":99999999999999999,"address":"memory://registry-dead"}"#;
        store.create(PUBLISHERS, "dead", dead, &Topic::ALL).unwrap();
        let followers: Vec<_> = (0..2)
            .map(|_| {
                let subscriber = Arc::clone(&rig.subscriber);
                Discovery::new(Arc::clone(&store), subscriber, &[], options(timeout)).unwrap()
            })
            .collect();
        eventually(LONG, || connected(&rig).contains(&"memory://registry-dead".to_owned()));
        eventually(LONG, || registered(&store) == [alive.member().clone()]);
        eventually(LONG, || !connected(&rig).contains(&"memory://registry-dead".to_owned()));
        // Wrongly taken for dead, it comes back.
        store.delete(PUBLISHERS, "alive").unwrap();
        eventually(LONG, || registered(&store) == [alive.member().clone()]);
        drop(followers);
    });
}

#[test]
fn two_with_one_id_are_both_followed_and_reported() {
    within(LIMIT, || {
        let store = store();
        let (hook, errors) = hook();
        let told = RegistryOptions {
            hook,
            ..options(Duration::from_millis(300))
        };
        let _first = register(&store, member("same", 1, "tcp://one:1", ""), told);
        eventually(LONG, || registered(&store).len() == 1);
        let _second = register(&store, member("same", 2, "tcp://two:1", ""), patient());
        eventually(LONG, || {
            let mut addresses: Vec<_> = registered(&store).into_iter().map(|member| member.address).collect();
            addresses.sort();
            addresses == ["tcp://one:1", "tcp://two:1"]
        });
        let (_, error) = errors.recv_timeout(LONG).unwrap();
        assert!(error.contains("\"same\""), "{error}");
    });
}

#[test]
fn who_lives_stays_when_the_store_goes_back() {
    within(LIMIT, || {
        let swap = Swap::new(store());
        let store: Arc<dyn Store> = swap.clone();
        let (_publisher, address, driver) = publisher();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &address);
        let subscriber = Arc::clone(&rig.subscriber);
        let _discovery = Discovery::new(Arc::clone(&store), subscriber, &[], patient()).unwrap();
        // It renews its row long after all this.
        let _live = register(&store, member("live", 1, "memory://registry-live", ""), patient());
        let moved = |address: &str, epoch| format!(r#"{{"epoch":{epoch},"address":"{address}"}}"#);
        let create = |store: &dyn Store, address: &str, epoch: u64| {
            store
                .create(PUBLISHERS, "mover", &moved(address, epoch), &Topic::ALL)
                .unwrap()
        };
        let before = create(&*store, "memory://registry-before", 1);
        let is_connected = |address: &str| connected(&rig).contains(&address.to_owned());
        eventually(LONG, || {
            is_connected("memory://registry-live") && is_connected("memory://registry-before")
        });
        for round in 2..5 {
            let address = format!("memory://registry-after-{round}");
            swap.at_once(|store| {
                *store = Arc::new(MemoryStore::new());
                // The versions come round to the same.
                store.create(PUBLISHERS, "other", "no member", &Topic::ALL).unwrap();
                assert_eq!(create(&**store, &address, round), before);
            });
            eventually(LONG, || is_connected(&address));
            assert!(is_connected("memory://registry-live"), "{:?}", connected(&rig));
            eventually(LONG, || connected(&rig).len() == 3);
        }
    });
}

/// A failover loses the last writes, and the store takes more than those before anyone looks.
#[test]
fn who_lives_stays_when_lost_rows_are_behind_newer_ones() {
    within(LIMIT, || {
        let row = |address: &str| format!(r#"{{"epoch":1,"address":"memory://registry-{address}"}}"#);
        let create =
            |store: &dyn Store, address: &str| store.create(PUBLISHERS, address, &row(address), &Topic::ALL).unwrap();
        let first = || {
            let first = store();
            create(&*first, "mover");
            create(&*first, "older");
            first
        };
        let swap = Swap::of_one_incarnation(first());
        let store: Arc<dyn Store> = swap.clone();
        let (_publisher, address, driver) = publisher();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &address);
        let subscriber = Arc::clone(&rig.subscriber);
        let _discovery = Discovery::new(Arc::clone(&store), subscriber, &[], patient()).unwrap();
        let is_connected = |id: &str| connected(&rig).contains(&format!("memory://registry-{id}"));
        // A new row is lost.
        let last = create(&*store, "live");
        eventually(LONG, || is_connected("live") && is_connected("older"));
        swap.at_once(|store| {
            *store = first();
            for _ in 0..4 {
                assert!(store.set(PUBLISHERS, "older", &row("older")).unwrap() >= last);
            }
            create(&**store, "first");
        });
        eventually(LONG, || is_connected("first"));
        assert!(is_connected("live"), "{:?}", connected(&rig));
        // A deleted one is not.
        store.delete(PUBLISHERS, "first").unwrap();
        eventually(LONG, || !is_connected("first"));
        assert!(is_connected("live"));
        // The newest state of a row is lost.
        let moved = r#"{"epoch":2,"address":"memory://registry-moved"}"#;
        let last = store.set(PUBLISHERS, "mover", moved).unwrap();
        eventually(LONG, || is_connected("moved") && !is_connected("mover"));
        swap.at_once(|store| {
            *store = first();
            create(&**store, "live");
            while store.set(PUBLISHERS, "older", &row("older")).unwrap() < last {}
            create(&**store, "second");
        });
        eventually(LONG, || is_connected("second"));
        assert!(is_connected("moved"), "{:?}", connected(&rig));
    });
}

#[test]
fn who_does_not_live_is_missed_when_the_store_went_back() {
    within(LIMIT, || {
        let swap = Swap::new(store());
        let store: Arc<dyn Store> = swap.clone();
        let (_steady, steady, driver) = over_tcp();
        let (_publisher, address, _) = over_tcp();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &steady);
        let timeout = Duration::from_secs(4);
        let subscriber = Arc::clone(&rig.subscriber);
        let _discovery = Discovery::new(Arc::clone(&store), subscriber, &[], options(timeout)).unwrap();
        let live = register(&store, member("live", 1, &address, ""), options(timeout));
        let dead = format!("tcp://127.0.0.1:{}", free_port());
        let row = format!(r#"{{"epoch":1,"address":"{dead}"}}"#);
        store.create(PUBLISHERS, "dead", &row, &Topic::ALL).unwrap();
        eventually(LONG, || connected(&rig).contains(&dead));
        swap.at_once(|store| *store = Arc::new(MemoryStore::new()));
        eventually(LONG, || registered(&store) == [live.member().clone()]);
        eventually(LONG, || !connected(&rig).contains(&dead));
        assert!(connected(&rig).contains(&address));
        let lost =
            |reason: &SyncReason| matches!(reason, SyncReason::AddressLost { address: lost } if *lost == *address);
        assert!(!rig.syncs.try_iter().any(|reason| lost(&reason)));
    });
}

#[test]
fn a_row_of_an_earlier_run_that_is_there_again_is_nobodys() {
    within(LIMIT, || {
        let swap = Swap::new(store());
        let store: Arc<dyn Store> = swap.clone();
        let (hook, errors) = hook();
        let told = RegistryOptions {
            hook,
            ..options(Duration::from_millis(300))
        };
        let live = register(&store, member("same", 2, "tcp://two:1", ""), told);
        let older = r#"{"epoch":1,"address":"tcp://one:1"}"#;
        swap.at_once(|store| {
            *store = Arc::new(MemoryStore::new());
            store.create(PUBLISHERS, "other", older, &Topic::ALL).unwrap();
            store.create(PUBLISHERS, "same", older, &Topic::ALL).unwrap();
        });
        let row = || Member::from_row(&store.get(PUBLISHERS, "same", None).unwrap()).unwrap();
        eventually(LONG, || row() == *live.member());
        assert_eq!(registered(&store).len(), 2);
        assert!(errors.is_empty(), "{:?}", errors.try_recv());
    });
}

fn with_store(mut command: Command, folder: &Path) -> Command {
    command.args(["--discover", "true", "--discover-interval-ms", "50"]);
    command.args(["--publisher-timeout-ms", "3000", "--hello-interval-ms", "200"]);
    command.arg("--sqlite-path").arg(folder.join("rows.db"));
    command
}

fn serve(folder: &Path, socket: &Path) -> (Process, String) {
    let mut command = tablecast(["service", "--publisher-port", "0", "--publisher-multiproc-socket"]);
    command.arg(socket);
    let mut service = Process::start(with_store(command, folder));
    let network = service.line().split(' ').nth(1).unwrap().to_owned();
    (service, network)
}

fn listed(folder: &Path) -> String {
    let end = run(with_store(tablecast(["publishers"]), folder));
    assert_eq!(end.code, Some(0), "{end:?}");
    end.stdout.join("\n")
}

#[test]
fn processes_find_each_other_through_the_store() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(listed(path).lines().count(), 1);
        let mut watch = Process::start(with_store(tablecast(["watch"]), path));
        let (service, network) = serve(path, &socket(path));
        watch.await_stderr("ready");
        assert_eq!(json(&watch.line())["reason"], "connected");
        let mut command = process::publish(["--table", "t", "--key", "k", "--publisher-multiproc-socket"]);
        command.arg(socket(path));
        assert_eq!(run(command).code, Some(0));
        assert_eq!(json(&watch.line())["key"], "k");
        let list = listed(path);
        assert!(list.contains(&network) && list.contains("alive"), "{list}");
        // Killed, it sends nothing more: an observer removes it.
        drop(service);
        eventually(LIMIT, || !listed(path).contains(&network));
        let (_service, network) = serve(path, &path.join("another.sock"));
        eventually(LONG, || listed(path).contains(&network));
    });
}

/// Addresses answer long before a registration is renewed, or is known not to be.
#[test]
fn publishers_are_asked() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let slow = |mut command: Command| {
            command.args([
                "--discover",
                "true",
                "--publisher-timeout-ms",
                "600000",
                "--sqlite-path",
            ]);
            command.arg(path.join("rows.db"));
            command
        };
        let empty = run(slow(tablecast(["publishers"])));
        assert!(
            empty.stderr.contains("no publisher is registered") && empty.stderr.contains("rows.db"),
            "{empty:?}"
        );
        let begin = |socket: &Path| {
            let mut command = tablecast(["service", "--publisher-port", "0", "--publisher-multiproc-socket"]);
            command.arg(socket);
            let mut service = Process::start(slow(command));
            let ready = service.line();
            (service, ready.split(' ').nth(1).unwrap().to_owned())
        };
        let (_alive, alive) = begin(&path.join("alive.sock"));
        let (dead, gone) = begin(&path.join("dead.sock"));
        eventually(LIMIT, || {
            let rows = run(slow(tablecast(["db", "list", "--table", "publisher"])));
            rows.stdout.len() == 2
        });
        drop(dead);
        let end = run(slow(tablecast(["publishers", "--format", "json"])));
        let states: Vec<_> = end.stdout.iter().map(|line| json(line)).collect();
        let state = |address: &str| {
            let row = states.iter().find(|row| row["address"] == address);
            row.unwrap_or_else(|| panic!("{end:?}"))["state"].clone()
        };
        assert_eq!((state(&alive), state(&gone)), ("alive".into(), "not reached".into()));
    });
}
