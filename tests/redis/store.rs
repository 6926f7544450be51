//! The store on one server, which is killed, hangs, refuses, or loses its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tablecast::codec::Codec;
use tablecast::config::Secret;
use tablecast::drivers::redis::RedisOptions;
use tablecast::store::{Announcement, StoreOptions, TableVersion, Write};
use tablecast::stores::redis::RedisStore;
use tablecast::{Action, Database, DatabaseOptions, Error, ErrorKind, Store, Topic};

use crate::common::{eventually, free_port, pass, within};
use crate::proxy::{Fault, Proxy};
use crate::reexec::Process;
use crate::rig::{LONG, quickly, topic};
use crate::servers::Server;
use crate::{SECOND, driver, hasty, options, publisher, subscriber};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn store(address: &str) -> RedisStore {
    store_with(address, options())
}

pub(crate) fn store_with(address: &str, redis: RedisOptions) -> RedisStore {
    RedisStore::new(address, limits(), &redis).unwrap()
}

/// One try of a call gets half of its time.
pub(crate) fn limits() -> StoreOptions {
    StoreOptions {
        timeout: 2 * LONG,
        ..StoreOptions::default()
    }
}

/// With the times of a program.
pub(crate) fn default_store(address: &str) -> RedisStore {
    RedisStore::new(address, StoreOptions::default(), &RedisOptions::default()).unwrap()
}

/// A server that has its rows again after it was killed.
fn durable() -> Server {
    Server::with(&["--appendonly", "yes", "--appendfsync", "always"])
}

pub(crate) fn is_outage(error: &Error) -> bool {
    let outages = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Unconfirmed];
    outages.contains(&error.kind())
}

/// Loads the scripts into the server, so that their first use is like any other.
fn teach(store: &dyn Store, address: &str) {
    announce(store, address, "taught", "k").unwrap();
    assert!(!store.create_table("taught").unwrap());
    assert!(store.delete_table("taught").unwrap());
}

/// Creates and publishes the row in one step.
pub(crate) fn announce(store: &dyn Store, address: &str, table: &str, key: &str) -> tablecast::Result<u64> {
    let head = format!(r#"{{"table":"{table}","key":"{key}","action":"create","value":"v","topic":"D","version":"#);
    let announcement = Announcement {
        topic: &Topic::ALL,
        head: head.as_bytes(),
        tail: b"}",
        codec: Codec::Json,
    };
    let announcer = store.announcer(address).expect("the same Redis");
    let write = Write::create(table, key, "v").topic(announcement.topic);
    Ok(announcer.write_and_publish(&write, &announcement)?.version)
}

#[test]
fn a_write_whose_answer_got_lost_is_made_once() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let address = proxy.address();
        let trusting = RedisOptions {
            // Otherwise the answer about the server's health might be lost.
            heartbeat_interval: LONG,
            ..options()
        };
        let store = store_with(&address, trusting);
        let other = crate::store::store(&server.address());
        teach(&other, &server.address());
        let rig = subscriber(&driver(&server.address()));
        rig.listen(&["D"], &server.address());
        let lost = |what: &str, call: &dyn Fn() -> u64| {
            // The connection exists, so that the answer is lost.
            let _ = store.get("t", "k", None);
            proxy.set(Fault::LoseAnswer);
            let version = call();
            assert_eq!(*proxy.fault(), Fault::None, "{what}: nothing was lost");
            version
        };
        assert_eq!(
            lost("create", &|| store.create("t", "k", "one", &Topic::ALL).unwrap()),
            1
        );
        assert_eq!(other.get("t", "k", None).unwrap().version, 1);
        assert_eq!(lost("set", &|| store.set("t", "k", "two").unwrap()), 2);
        let versioned = Write::set("t", "k", "three").if_version(2);
        assert_eq!(
            lost("set of a version", &|| store.write(&versioned).unwrap().version),
            3
        );
        assert_eq!(lost("delete", &|| store.delete("t", "k").unwrap()), 4);
        let again = Write::create("t", "k", "four").if_version(4);
        assert_eq!(lost("create again", &|| store.write(&again).unwrap().version), 5);
        assert_eq!(
            lost("create and publish", &|| announce(&store, &address, "t", "told")
                .unwrap()),
            6
        );
        assert_eq!(rig.next_key(), "told");
        assert!(store.create("t", "told", "x", &Topic::ALL).unwrap_err().kind() == ErrorKind::AlreadyExists);
        let topic = &topic("other");
        let elsewhere = Write::create("t", "elsewhere", "x").topic(topic);
        let written = lost("its topic", &|| {
            let written = store.write(&elsewhere).unwrap();
            assert_eq!((&written.topic, written.changed), (topic, true));
            written.version
        });
        assert_eq!(written, 7);
        lost("create of a table", &|| u64::from(store.create_table("new").unwrap()));
        assert!(!store.create_table("new").unwrap());
        let deleted = |table: &str| u64::from(store.delete_table(table).unwrap());
        assert_eq!(lost("delete of a table", &|| deleted("new")), 1);
        assert_eq!(deleted("new"), 0);
        // The value before the write is no longer known, so the write is reported as unconfirmed.
        store.create("t", "before", "one", &Topic::ALL).unwrap();
        proxy.set(Fault::LoseAnswer);
        let error = store.write(&Write::set("t", "before", "two").returning()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        assert_eq!(store.get("t", "before", None).unwrap().value, "two");
        // Nothing was published twice.
        announce(&store, &address, "t", "last").unwrap();
        rig.only("last", || {});
    });
}

/// A store behind a proxy, and others that write while it waits for its second try.
struct Race {
    server: Server,
    proxy: Proxy,
    mine: RedisStore,
    others: RedisStore,
}

impl Race {
    fn new(options: RedisOptions) -> Race {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let patient = RedisOptions {
            retries: 10_000,
            reconnect_max: Duration::from_millis(20),
            // Otherwise the answer about the server's health would be lost.
            heartbeat_interval: LONG,
            ..options
        };
        let mine = RedisStore::new(&proxy.address(), limits(), &patient).unwrap();
        let others = store(&server.address());
        teach(&others, &server.address());
        Race {
            server,
            proxy,
            mine,
            others,
        }
    }

    /// Makes a call whose first answer is lost, and runs other writers before its second try.
    fn run<T: Send>(&self, call: impl FnOnce(&RedisStore) -> T + Send, meanwhile: impl FnOnce(&RedisStore)) -> T {
        // The connection exists, so that the answer is lost, and it is the only one.
        let _ = self.mine.get("t", "k", None);
        self.proxy.refuse(true);
        self.proxy.set(Fault::LoseAnswer);
        std::thread::scope(|scope| {
            let call = std::thread::Builder::new().spawn_scoped(scope, || call(&self.mine));
            eventually(LONG, || *self.proxy.fault() == Fault::None);
            meanwhile(&self.others);
            self.proxy.refuse(false);
            call.unwrap().join().unwrap()
        })
    }

    /// Makes a call whose first try arrives after its second, and after other writers. The first one is given up, since
    /// it is silent.
    fn late<T>(&self, call: impl FnOnce(&RedisStore) -> T, meanwhile: impl FnOnce(&RedisStore)) -> T {
        // The connection exists, so that the request is held.
        let _ = self.mine.get("t", "k", None);
        self.proxy.set(Fault::HoldRequest);
        let result = call(&self.mine);
        assert_eq!(*self.proxy.fault(), Fault::None);
        meanwhile(&self.others);
        let scripts = || {
            let calls: String = self.server.ask(&["INFO", "commandstats"]);
            let calls = calls.split_once("cmdstat_evalsha:calls=").unwrap().1;
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        let before = scripts();
        self.proxy.release();
        eventually(LONG, || scripts() > before);
        result
    }

    fn value(&self) -> String {
        self.others.get("t", "k", None).unwrap().value
    }
}

/// More writes than a row could remember.
fn many(store: &RedisStore) {
    (0..20).for_each(|number| _ = store.set("t", "k", &format!("theirs {number}")).unwrap());
}

/// Another writer is faster than the second try, and writes often.
#[test]
fn a_write_is_recognized_after_others() {
    within(LIMIT, || {
        let race = Race::new(options());
        let all = &Topic::ALL;
        let version = race.run(|mine| mine.create("t", "k", "mine", all).unwrap(), many);
        assert_eq!((version, race.value()), (1, "theirs 19".into()));
        let version = race.run(|mine| mine.set("t", "k", "mine").unwrap(), many);
        assert_eq!((version, race.value()), (22, "theirs 19".into()));
        let write = Write::set("t", "k", "mine").if_version(42).topic(all);
        let written = race.run(|mine| mine.write(&write).unwrap(), many);
        assert_eq!((written.version, &written.topic, written.changed), (43, all, true));
        assert_eq!(written.after, Some(42));
        let again = |others: &RedisStore| {
            others.create("t", "k", "theirs", &topic("tenant")).unwrap();
            many(others);
        };
        let version = race.run(|mine| mine.delete("t", "k").unwrap(), again);
        assert_eq!((version, race.value()), (64, "theirs 19".into()));
        let write = Write::set("t", "k", "mine");
        let delete = |others: &RedisStore| _ = others.delete("t", "k").unwrap();
        let written = race.run(|mine| mine.write(&write).unwrap(), delete);
        assert_eq!(
            (written.version, written.after, written.topic),
            (86, Some(85), topic("tenant"))
        );
        assert_eq!(race.others.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
        // The table is deleted meanwhile, or created again.
        let delete = |others: &RedisStore| assert!(others.delete_table("t").unwrap());
        let version = race.run(|mine| mine.create("t", "k", "mine", all).unwrap(), delete);
        assert_eq!((version, race.others.keys("t", None).count()), (88, 0));
        let recreate = |others: &RedisStore| {
            assert!(others.delete_table("t").unwrap());
            assert!(others.create_table("t").unwrap());
        };
        assert!(race.run(|mine| mine.create_table("t").unwrap(), recreate));
        let create = |others: &RedisStore| assert!(others.create_table("t").unwrap());
        assert!(race.run(|mine| mine.delete_table("t").unwrap(), create));
        assert!(!race.others.create_table("t").unwrap());
    });
}

/// A published write has one number and one version.
#[test]
fn a_publication_is_made_once_however_often_it_is_asked_for() {
    within(LIMIT, || {
        let race = Race::new(options());
        let (near, far) = (race.server.address(), race.proxy.address());
        let rig = subscriber(&driver(&near));
        rig.listen(&["D"], &near);
        let open = |store: &RedisStore, address: &str| {
            // It sends no hello meanwhile, whose answer would be lost in place of that to the write.
            let publisher = publisher(&driver(address));
            Database::new(Arc::new(store.clone()), publisher, DatabaseOptions::default())
        };
        let (mine, others) = (open(&race.mine, &far), open(&race.others, &near));
        let write = |database: &Database, value: &str| {
            database
                .write(&Write::set("t", "k", value).topic(&Topic::ALL), 5)
                .unwrap()
                .version
        };
        mine.write(&Write::create("t", "k", "first"), 5).unwrap();
        let version = race.run(
            |_| write(&mine, "mine"),
            |_| (0..20).for_each(|number| _ = write(&others, &format!("theirs {number}"))),
        );
        assert_eq!((version, write(&mine, "last")), (2, 23));
        let told: Vec<_> = (1..=23).map(|_| rig.next()).collect();
        assert!(told.iter().map(|update| update.version.unwrap()).eq(1..=23));
        assert!(told.iter().map(|update| update.after.unwrap()).eq(0..=22));
        let mine: Vec<_> = told
            .iter()
            .filter(|update| update.origin.as_ref().unwrap().publisher == *mine.publisher().id())
            .collect();
        assert!(mine.iter().map(|update| update.origin.as_ref().unwrap().seq).eq(1..=3));
        assert!(rig.updates.is_empty());
    });
}

/// The server has lost a published write whose answer was lost. Made again, its number would have another version, which
/// subscribers take for the one that they have.
#[test]
fn a_lost_publication_is_not_made_again_under_its_number() {
    within(LIMIT, || {
        let race = Race::new(options());
        let (near, far) = (race.server.address(), race.proxy.address());
        let rig = subscriber(&driver(&near));
        rig.listen(&["D"], &near);
        let mine = Arc::new(race.mine.clone());
        let mine = Database::new(mine, publisher(&driver(&far)), DatabaseOptions::default());
        let write = |value: &str| mine.write(&Write::set("t", "k", value).topic(&Topic::ALL), 5);
        mine.write(&Write::create("t", "k", "first"), 5).unwrap();
        let written = race.run(
            |_| write("mine"),
            |others| {
                let () = race.server.ask(&["FLUSHALL"]);
                others.create("t", "k", "first", &Topic::ALL).unwrap();
                many(others);
            },
        );
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Unconfirmed);
        assert_eq!(race.value(), "theirs 19");
        write("last").unwrap();
        let told: Vec<_> = (0..3).map(|_| rig.next()).collect();
        let told = told
            .iter()
            .map(|it| (it.origin.as_ref().unwrap().seq, it.version.unwrap()));
        assert!(told.eq([(1, 1), (2, 2), (3, 22)]));
        assert_eq!(rig.subscriber.stats().duplicates, 0);
    });
}

/// The first try arrives after the second.
#[test]
fn a_write_that_comes_late_is_not_made_again() {
    within(LIMIT, || {
        let race = Race::new(hasty());
        race.mine.create("t", "k", "first", &Topic::ALL).unwrap();
        let version = race.late(|mine| mine.set("t", "k", "mine").unwrap(), many);
        assert_eq!(version, 2);
        assert_eq!(
            (race.value(), race.others.set("t", "k", "last").unwrap()),
            ("theirs 19".into(), 23)
        );
    });
}

/// The first try arrives after the second, which had nothing to do, and when it would have something to do.
#[test]
fn a_refused_write_that_comes_late_is_not_made() {
    within(LIMIT, || {
        let race = Race::new(hasty());
        race.mine.create_table("t").unwrap();
        race.others.create("t", "k", "theirs", &Topic::ALL).unwrap();
        let created = race.late(
            |mine| mine.create("t", "k", "mine", &Topic::ALL),
            |others| _ = others.delete("t", "k").unwrap(),
        );
        assert_eq!(created.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(race.others.keys("t", None).count(), 0);
        let set = race.late(
            |mine| mine.set("t", "k", "mine"),
            |others| _ = others.create("t", "k", "theirs", &Topic::ALL).unwrap(),
        );
        assert_eq!(set.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(race.value(), "theirs");
        let same = Write::set("t", "k", "theirs").unless_equal();
        let same = race.late(|mine| mine.write(&same).unwrap(), many);
        assert!(!same.changed);
        assert_eq!(race.value(), "theirs 19");
        let is_new = race.late(
            |mine| mine.create_table("t").unwrap(),
            |others| assert!(others.delete_table("t").unwrap()),
        );
        assert!(!is_new && race.others.create_table("t").unwrap());
    });
}

/// Of a table with many writers not all writes are remembered; a forgotten one is not made again.
#[test]
fn what_is_known_of_writes_is_bounded() {
    within(LIMIT, || {
        let race = Race::new(options());
        race.others.create("t", "k", "first", &Topic::ALL).unwrap();
        let fields = || race.server.ask::<usize>(&["HLEN", "tablecast{1:t}/about"]);
        let write = |mine: &RedisStore| mine.write(&Write::set("t", "k", "mine"));
        let others = |_: &RedisStore| {
            for _ in 0..1100 {
                store(&race.server.address()).set("t", "k", "theirs").unwrap();
            }
        };
        let error = race.run(write, others).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        assert_eq!(race.value(), "theirs");
        assert_eq!(race.others.set("t", "k", "last").unwrap(), 1103);
        assert!(fields() < 1000, "{}", fields());
    });
}

/// Adds many sessions of other writers to the table `t`, which push out the earlier ones when the next writer comes.
pub(crate) fn crowd(server: &Server) {
    let add = "for i = 1, 1001 do
        redis.call('HSET', KEYS[1], '@' .. string.format('%012d', i), struct.pack('>I8I8I8', 1, 1000, 0))
    end";
    let () = server.ask(&["EVAL", add, "1", "tablecast{1:t}/about"]);
}

/// The server's clock is set forward between the tries, by half a minute beyond the timeout.
#[test]
fn a_forgotten_write_is_not_made_again_after_the_clock_was_set() {
    within(LIMIT, || {
        let race = Race::new(options());
        race.others.create("t", "k", "first", &Topic::ALL).unwrap();
        let others = |_: &RedisStore| {
            crowd(&race.server);
            store(&race.server.address()).set("t", "k", "theirs").unwrap();
            let now: Vec<u64> = race.server.ask(&["TIME"]);
            let forgot = now[0] - limits().timeout.as_secs() - 30;
            let () = race
                .server
                .ask(&["HSET", "tablecast{1:t}/about", "forgot", &forgot.to_string()]);
        };
        let error = race.run(|mine| mine.set("t", "k", "mine"), others).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        assert_eq!(race.value(), "theirs");
    });
}

/// A master that has become a replica takes writes in a bundle as little as single ones.
#[test]
fn a_bundle_waits_for_a_server_that_takes_writes() {
    within(LIMIT, || {
        let server = Server::start();
        let patient = RedisOptions {
            retries: 10_000,
            ..options()
        };
        let store = store_with(&server.address(), patient);
        store.create("t", "k", "first", &Topic::ALL).unwrap();
        let writes = [
            Write::create("t", "k", "there"),
            Write::set("t", "k", "second"),
            Write::create("t", "new", "v"),
        ];
        store.write_each(&writes[..1]).unwrap();
        let scripts = || {
            let calls: String = server.ask(&["INFO", "commandstats"]);
            let calls = calls.split_once("cmdstat_evalsha:calls=").unwrap().1;
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        let nobody = free_port().to_string();
        let () = server.ask(&["REPLICAOF", "127.0.0.1", &nobody]);
        let before = scripts();
        std::thread::scope(|scope| {
            let call = std::thread::Builder::new().spawn_scoped(scope, || store.write_each(&writes));
            eventually(LONG, || scripts() > before);
            let () = server.ask(&["REPLICAOF", "NO", "ONE"]);
            let made = call.unwrap().join().unwrap().unwrap();
            let kinds: Vec<_> = made.iter().map(|one| one.as_ref().err().map(Error::kind)).collect();
            assert_eq!(kinds, [Some(ErrorKind::AlreadyExists), None, None]);
        });
        assert_eq!(store.get("t", "k", None).unwrap().value, "second");
    });
}

#[test]
fn an_outage_is_never_not_found() {
    within(LIMIT, || {
        let mut server = durable();
        let address = server.address();
        let store = store(&address);
        store.create("t", "k", "one", &Topic::ALL).unwrap();
        server.kill();
        let calls: [(&str, &dyn Fn() -> tablecast::Result<()>); 9] = [
            ("get", &|| store.get("t", "k", None).map(drop)),
            ("create", &|| store.create("t", "k2", "x", &Topic::ALL).map(drop)),
            ("set", &|| store.set("t", "k", "x").map(drop)),
            ("delete", &|| store.delete("t", "k").map(drop)),
            ("entries", &|| {
                store.entries("t", None).try_for_each(|row| row.map(drop))
            }),
            ("keys", &|| store.keys("t", None).try_for_each(|row| row.map(drop))),
            ("create table", &|| store.create_table("u").map(drop)),
            ("delete table", &|| store.delete_table("t").map(drop)),
            ("unique", &|| store.allocate_unique_key("t").map(drop)),
        ];
        for (what, call) in calls {
            let error = quickly(SECOND, what, call).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
            assert!(error.to_string().contains(&server.host()), "{error}");
        }
        server.restart();
        assert_eq!(store.get("t", "k", None).unwrap().value, "one");
        assert_eq!(store.keys("t", None).count(), 1);
        // Connections that have died meanwhile cost nothing, not even a second try.
        let mut strict = options();
        strict.retries = 0;
        let strict = store_with(&address, strict);
        for _ in 0..5 {
            strict.set("t", "k", "two").unwrap();
            server.kill();
            server.restart();
        }
        strict.set("t", "k", "three").unwrap();
    });
}

/// The server comes back during the tries.
#[test]
fn a_short_outage_is_ridden_out() {
    within(LIMIT, || {
        let mut server = durable();
        let mut patient = options();
        (patient.retries, patient.reconnect_max) = (1000, Duration::from_millis(50));
        let store = store_with(&server.address(), patient);
        store.create("t", "k", "0", &Topic::ALL).unwrap();
        let writer = {
            let store = store.clone();
            let write = move || {
                let all = (1..3000).map(|number| store.set("t", "k", &number.to_string()).unwrap());
                all.collect::<Vec<_>>()
            };
            std::thread::Builder::new().spawn(write).unwrap()
        };
        for _ in 0..3 {
            pass(Duration::from_millis(50));
            server.kill();
            server.restart();
        }
        let versions = writer.join().unwrap();
        assert!(versions.is_sorted_by(|one, next| one < next));
        let row = store.get("t", "k", None).unwrap();
        // Each was made once: there are no more versions than writes.
        assert_eq!((&*row.value, row.version), ("2999", 3000));
    });
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_timeout() {
    within(LIMIT, || {
        let server = Server::start();
        let timeout = Duration::from_millis(700);
        let limits = StoreOptions {
            timeout,
            ..StoreOptions::default()
        };
        let trusting = RedisOptions {
            // Otherwise it would notice before a write that the server hangs.
            heartbeat_interval: LONG,
            ..hasty()
        };
        let store = RedisStore::new(&server.address(), limits, &trusting).unwrap();
        store.create("t", "k", "one", &Topic::ALL).unwrap();
        server.hang();
        let error = quickly(timeout + SECOND, "get", || store.get("t", "k", None)).unwrap_err();
        assert!(is_outage(&error) && error.kind() != ErrorKind::Unconfirmed, "{error}");
        // It was never sent: connecting fails.
        let error = quickly(timeout + SECOND, "set", || store.set("t", "k", "two")).unwrap_err();
        assert!(is_outage(&error) && error.kind() != ErrorKind::Unconfirmed, "{error}");
        server.resume();
        let mut three = 0;
        eventually(LONG, || {
            let set = store.set("t", "k", "three");
            three = *set.as_ref().unwrap_or(&0);
            set.is_ok()
        });
        server.hang();
        let error = store.set("t", "k", "four").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        server.resume();
        eventually(LONG, || store.get("t", "k", None).is_ok_and(|row| row.value == "four"));
        // It was made once, however often it was sent.
        assert_eq!(store.get("t", "k", None).unwrap().version, three + 1);
    });
}

#[test]
fn what_is_refused_fails_at_once() {
    within(LIMIT, || {
        let server = Server::with(&["--requirepass", "right"]);
        let mut known = options();
        known.password = Secret::new("right");
        known.reconnect_interval = LONG;
        known.reconnect_max = LONG;
        let store = store_with(&server.address(), known.clone());
        store.create("t", "k", "one", &Topic::ALL).unwrap();
        let refused = |kind: ErrorKind, call: &dyn Fn() -> tablecast::Result<u64>| {
            let error = quickly(3 * SECOND, "call", call).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!format!("{error} {error:?}").contains("right"), "{error:?}");
        };
        known.password = Secret::new("wrong");
        let closed = store_with(&server.address(), known);
        refused(ErrorKind::Denied, &|| closed.get("t", "k", None).map(|row| row.version));
        store.create("u", "k", "one", &Topic::ALL).unwrap();
        let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        refused(ErrorKind::Full, &|| store.create("t", "k2", "x", &Topic::ALL));
        refused(ErrorKind::Full, &|| store.set("t", "k", "x"));
        // Writes that make room are made nevertheless.
        assert_eq!(store.delete("t", "k").unwrap(), 2);
        assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(store.delete_table("u").unwrap());
        let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        let again = Write::create("t", "k", "two").if_version(2);
        assert_eq!(store.write(&again).unwrap().version, 3);
        let () = server.ask(&["SET", "tablecast{6:broken}/rows", "x"]);
        refused(ErrorKind::Malformed, &|| store.create("broken", "k", "x", &Topic::ALL));
        let both = ["k", "l"].map(|key| Write::create("broken", key, "x"));
        let error = store.write_each(&both).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        let () = server.ask(&["HSET", "tablecast{3:bad}/rows", "k", "x"]);
        refused(ErrorKind::Malformed, &|| {
            store.get("bad", "k", None).map(|row| row.version)
        });
        assert_eq!(store.keys("t", None).count(), 1);
        assert!(!format!("{store:?}").contains("right"));
    });
}

/// A server that evicts keys takes a table apart. A call that needs a missing part fails, and nothing is built on it.
#[test]
fn what_was_evicted_is_called_so() {
    within(LIMIT, || {
        let server = Server::start();
        let store = &store(&server.address());
        let tenant = &topic("tenant");
        let calls: [(&str, &dyn Fn() -> tablecast::Result<()>); 11] = [
            ("get", &|| store.get("t", "k", None).map(drop)),
            ("changes", &|| {
                store.changes("t", tenant, TableVersion::default()).map(drop)
            }),
            ("versions", &|| {
                store.topic_versions("t", std::slice::from_ref(tenant)).map(drop)
            }),
            ("create", &|| store.create("t", "new", "x", tenant).map(drop)),
            ("set", &|| store.set("t", "k", "x").map(drop)),
            ("delete", &|| store.delete("t", "k").map(drop)),
            ("unique", &|| store.allocate_unique_key("t").map(drop)),
            ("entries", &|| store.page_of_entries("t", None, None).map(drop)),
            ("keys", &|| store.page_of_keys("t", None, None).map(drop)),
            ("entries of a topic", &|| {
                store.page_of_entries("t", Some(tenant), None).map(drop)
            }),
            ("keys of a topic", &|| {
                store.page_of_keys("t", Some(tenant), None).map(drop)
            }),
        ];
        for (parts, told) in [
            (
                &["rows"][..],
                &[
                    "get",
                    "changes",
                    "versions",
                    "create",
                    "set",
                    "delete",
                    "entries",
                    "keys",
                    "entries of a topic",
                    "keys of a topic",
                ][..],
            ),
            (
                &["rows", "about"],
                &[
                    "get",
                    "create",
                    "set",
                    "delete",
                    "entries",
                    "keys",
                    "entries of a topic",
                    "keys of a topic",
                ],
            ),
            (
                &["rows", "about", "keys", "topics"],
                &["get", "create", "set", "delete"],
            ),
            (
                &["about"],
                &[
                    "changes",
                    "versions",
                    "create",
                    "set",
                    "delete",
                    "entries",
                    "keys",
                    "entries of a topic",
                    "keys of a topic",
                ],
            ),
            (&["keys"], &["entries", "keys"]),
            (&["topics"], &["entries of a topic", "keys of a topic"]),
            (&["deletes"], &["create", "delete"]),
            (&["order"], &["create", "delete"]),
        ] {
            store.create("t", "k", "one", tenant).unwrap();
            for part in parts {
                let () = server.ask(&["UNLINK", &format!("tablecast{{1:t}}/{part}")]);
            }
            if told.contains(&"set") {
                let both = [Write::set("t", "k", "x"), Write::delete("t", "k")];
                assert_eq!(
                    store.write_each(&both).unwrap_err().kind(),
                    ErrorKind::Malformed,
                    "{parts:?}"
                );
            }
            for (what, call) in calls.iter().filter(|(what, _)| told.contains(what)) {
                let error = call().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Malformed, "{parts:?}: {what}: {error}");
                let text = error.to_string();
                assert!(
                    text.contains("evicted") && text.contains("noeviction"),
                    "{parts:?}: {what}: {error}"
                );
            }
            assert!(store.delete_table("t").unwrap(), "{parts:?}");
            assert!(
                calls
                    .iter()
                    .all(|(_, call)| call().map_or_else(|e| e.kind() == ErrorKind::NotFound, |()| true))
            );
            assert!(store.delete_table("t").unwrap());
        }
    });
}

#[test]
fn a_row_may_be_announced_in_every_codec() {
    within(LIMIT, || {
        let server = Server::start();
        let address = server.address();
        let store = store(&address);
        let rig = subscriber(&driver(&address));
        rig.listen(&["D"], &address);
        for number in 1..4 {
            let key = format!("k{number}");
            assert_eq!(announce(&store, &address, "t", &key).unwrap(), number);
            let update = rig.next();
            assert_eq!((update.key.as_str(), update.version), (&*key, Some(number)));
            assert_eq!(update.after, Some(number - 1));
            assert_eq!(update.action, Action::Create);
        }
        // The same in MessagePack, with a version of every length.
        let head = b"\x87\xa5table\xa1t\xa3key\xa1m\xa6action\xa3set\xa5value\xc0\xa5topic\xa1D\xa7version";
        let announcement = Announcement {
            topic: &Topic::ALL,
            head,
            tail: b"",
            codec: Codec::MessagePack,
        };
        let announcer = store.announcer(&address).unwrap();
        let mut last = store.create("t", "m", "", &Topic::ALL).unwrap();
        for version in [1, 255, 256, 70_000, (1 << 32) + 1, (1 << 53) - 2] {
            let () = server.ask(&["HSET", "tablecast{1:t}/about", "version", &version.to_string()]);
            let write = Write::set("t", "m", "x").topic(announcement.topic);
            let written = announcer.write_and_publish(&write, &announcement).unwrap();
            assert_eq!((written.version, written.after), (version + 1, Some(last)));
            let update = rig.next();
            assert_eq!((update.key.as_str(), update.version), ("m", Some(version + 1)));
            assert_eq!(update.after, Some(last));
            last = version + 1;
            assert_eq!(store.get("t", "m", None).unwrap().version, version + 1);
        }
        // A write that changes nothing is not published, nor is one that cannot be made.
        let same = Write::set("t", "m", "x").topic(announcement.topic).unless_equal();
        assert!(!announcer.write_and_publish(&same, &announcement).unwrap().changed);
        let exists = Write::create("t", "m", "x");
        let error = announcer.write_and_publish(&exists, &announcement).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(announce(&store, &address, "u", "last").unwrap(), 1);
        rig.only("last", || {});
        // Another address is another Redis.
        assert!(store.announcer("redis://127.0.0.1:1").is_none());
        assert!(store.announcer(&address.replace("redis:", "rediss:")).is_none());
        assert!(store.announcer("memory://x").is_none());
    });
}

const ADDRESS: &str = "TABLECAST_TEST_REDIS";

/// Not a test: the body of a process that writes until it is killed.
#[test]
fn announcing_writer() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let store = store(&address);
    println!("writing");
    for number in 0.. {
        let key = format!("{}-{number}", std::process::id());
        announce(&store, &address, "t", &key).unwrap();
    }
}

/// Whenever it is killed, what it has stored is published, and the other way round.
#[test]
fn a_writer_that_is_killed_leaves_nothing_untold() {
    within(LIMIT, || {
        let server = Server::start();
        let address = server.address();
        let rig = subscriber(&driver(&address));
        rig.listen(&["D"], &address);
        for round in 0..20 {
            let mut writer = Process::start("store::announcing_writer", &[(ADDRESS, &address)]);
            writer.said("writing");
            pass(Duration::from_millis(5 + 3 * round));
            drop(writer.kill());
        }
        let store = store(&address);
        let stored: BTreeMap<_, _> = store
            .entries("t", None)
            .map(|row| row.map(|row| (row.key.to_string(), row.version)).unwrap())
            .collect();
        assert!(stored.len() > 20, "{}", stored.len());
        announce(&store, &address, "t", "last").unwrap();
        let mut told = BTreeMap::new();
        loop {
            let update = rig.next();
            if update.key == "last" {
                break;
            }
            told.insert(update.key.to_string(), update.version.unwrap());
        }
        println!("{} rows of twenty killed writers", stored.len());
        assert!(told == stored, "{} told, {} stored", told.len(), stored.len());
    });
}

/// Reads ten thousand rows beside a million other keys.
#[test]
fn other_keys_cost_nothing() {
    within(2 * LIMIT, || {
        let server = Server::with(&["--enable-debug-command", "yes"]);
        let store = store(&server.address());
        let names: BTreeSet<_> = (0..10_000).map(|number| format!("key{number}")).collect();
        for name in &names {
            store
                .create("t", name, "a value of some length, as rows have it", &Topic::ALL)
                .unwrap();
        }
        let read = || {
            let start = Instant::now();
            assert_eq!(store.entries("t", None).filter(Result::is_ok).count(), names.len());
            start.elapsed()
        };
        let least = || (0..10).map(|_| read()).min().unwrap();
        let alone = least();
        for part in 0..50 {
            let () = server.ask(&["DEBUG", "POPULATE", "20000", &format!("other{part}")]);
        }
        let mut beside = least();
        let deadline = Instant::now() + LIMIT / 2;
        // Other work of the machine disturbs only now and then.
        while beside > 3 * alone {
            assert!(
                Instant::now() < deadline,
                "{alone:?}, beside a million other keys {beside:?}"
            );
            beside = beside.min(least());
        }
        println!("10,000 rows: {alone:?}, beside a million other keys {beside:?}");
    });
}

#[test]
fn threads_share_connections() {
    within(LIMIT, || {
        let server = Server::start();
        let store = store(&server.address());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                let write = move || {
                    for number in 0..100 {
                        store
                            .create("t", &format!("{thread}-{number}"), "x", &Topic::ALL)
                            .unwrap();
                    }
                };
                std::thread::Builder::new().spawn_scoped(scope, write).unwrap();
            }
        });
        assert_eq!(store.keys("t", None).count(), 800);
        eventually(LONG, || server.clients() <= 8);
    });
}
