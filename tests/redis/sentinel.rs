//! A master that Sentinels name: it is killed, stopped and cut off, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tablecast::config::{Config, Secret, Source};
use tablecast::drivers::redis::RedisOptions;
use tablecast::{AddressState, Database, DatabaseOptions, ErrorKind, Node, Publisher, PublisherOptions, Store, Topic};

use crate::common::{eventually, pass, within};
use crate::group::{Group, Outage};
use crate::lateness::Lateness;
use crate::programs::{Log, Reader, STEADY, read, write};
use crate::rig::{LONG, send, update};
use crate::servers::Server;
use crate::store::{default_store, is_outage, store, store_with};
use crate::{SECOND, driver, options, publisher, start, subscriber, told, with};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_failover_is_followed_after_a_kill() {
    follow(Group::start(), Outage::Killed);
}

#[test]
fn a_failover_is_followed_after_a_stop() {
    follow(Group::start(), Outage::Stopped);
}

#[test]
fn a_failover_is_followed_after_a_cut() {
    follow(Group::start(), Outage::CutOff);
}

/// Servers and Sentinels do not know `HELLO`, as before Redis 6.
#[test]
fn a_failover_is_followed_in_resp2() {
    let group = Group::with(&crate::resp2::OLD, "rename-command HELLO \"\"", None);
    follow(group, Outage::Killed);
}

/// How long the programs run before the outage.
const HEALTHY: Duration = Duration::from_secs(2);

/// They write 1,000 rows a second together. Fewer would have to wait less for each write than a busy machine lets them.
const WRITERS: u32 = 12;
const DATABASES: usize = 3;
const INTERVAL: Duration = Duration::from_millis(12);

/// Writers write, two readers read, and one writer is idle, while the master fails and comes back.
fn follow(mut group: Group, outage: Outage) {
    within(LIMIT, move || {
        let address = group.address(0);
        let tables: Vec<_> = (0..WRITERS).map(|number| format!("t{number}")).collect();
        let content = default_store(&address);
        let driver = with(&address, RedisOptions::default());
        for table in &tables {
            for number in 0..STEADY {
                let key = format!("steady-{number}");
                content.create(table, &key, "", &Topic::ALL).unwrap();
            }
        }
        // As another process would, it asks the Sentinels itself.
        let idle_address = group.address(2);
        let readers: Vec<_> = [&address, &idle_address]
            .map(|address| Reader::start(address, &tables))
            .into();
        let idle = default_store(&idle_address);
        idle.create("idle", "before", "", &Topic::ALL).unwrap();
        let databases = [(); DATABASES].map(|()| {
            let store = Arc::new(default_store(&address));
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            Database::new(store, publisher, DatabaseOptions::default())
        });
        let (stop, lateness) = (AtomicBool::new(false), Lateness::start());
        let (begun, promoted, back, demoted, logs) = std::thread::scope(|scope| {
            let writers: Vec<_> = tables
                .iter()
                .zip(databases.iter().cycle())
                .map(|(table, database)| {
                    let stop = &stop;
                    let body = move || write(database, table, INTERVAL, stop);
                    std::thread::Builder::new().spawn_scoped(scope, body).unwrap()
                })
                .collect();
            let stopping = Stopping(&stop);
            pass(HEALTHY);
            let begun = Instant::now();
            group.begin(outage);
            let promoted = group.await_promotion();
            pass(3 * SECOND);
            group.end(outage);
            let back = Instant::now();
            assert_eq!(group.servers[0].role(), "master", "it does not come back as a master");
            idle.create("idle", "after", "", &Topic::ALL).unwrap();
            // It has never heard of the old one, and its first Sentinel is another one.
            let anew = default_store(&group.address(1));
            anew.create("idle", "anew", "", &Topic::ALL).unwrap();
            let stored = group.watch_old_master();
            println!(
                "{outage:?}: while it was a master again, the old one went from {} to {} writes",
                stored.0, stored.1
            );
            let demoted = Instant::now();
            pass(SECOND);
            drop(stopping);
            let logs: Vec<Log> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            assert_eq!(stored.0, stored.1, "writes went to the old master");
            (begun, promoted, back, demoted, logs)
        });
        println!(
            "{outage:?}: promoted after {:?}, back after {:?}, watched for {:?}",
            promoted - begun,
            back - begun,
            demoted - back
        );
        let rows = read(&content, &tables).unwrap();
        for key in ["after", "anew"] {
            content.get("idle", key, None).unwrap();
        }
        check_writers(outage, &logs, &rows, (begun, promoted), &lateness);
        let survived = || {
            logs.iter()
                .flat_map(|log| &log.made)
                .filter(|(row, _)| rows.contains_key(row))
        };
        assert!(survived().count() > 1000);
        for reader in &readers {
            reader.subscriber.wait_live(LONG).unwrap();
            eventually(LONG, || reader.copy.lock().rows == rows);
            let copy = reader.copy.lock();
            let unseen = survived().filter(|(row, _)| !copy.told.contains_key(row) && !copy.found.contains(row));
            assert_eq!(unseen.count(), 0);
            let heard = logs.iter().flat_map(|log| &log.made).filter(|(_, at)| *at > promoted);
            let first = heard.filter_map(|(row, _)| copy.told.get(row)).min();
            let after = check_outage("a reader", first.copied(), promoted, &lateness);
            println!(
                "{outage:?}: a reader has all {} rows, at {:?}; it went on {after:?} after the promotion",
                copy.rows.len(),
                copy.syncs
            );
        }
    });
}

/// Stops the writers on drop, also when an assertion fails.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The longest outage after a promotion.
const OUTAGE: Duration = Duration::from_secs(2);

/// The most time that counts as lost by a busy machine.
const MOST_LOST: Duration = Duration::from_secs(10);

/// Checks that a program went on soon after the promotion; returns when.
#[track_caller]
fn check_outage(who: &str, first: Option<Instant>, promoted: Instant, lateness: &Lateness) -> Duration {
    let first = first.unwrap_or_else(|| panic!("{who} does not go on"));
    let (after, lost) = (
        first.saturating_duration_since(promoted),
        lateness.between(promoted, first),
    );
    assert!(
        after < OUTAGE + lost.min(MOST_LOST),
        "{who} went on {after:?} after the promotion, of which the machine lost {lost:?}"
    );
    after
}

/// Checks that the programs wrote many rows before the outage; they create every second one. On a machine of its own it is
/// more than 1,000 a second, a busy one gives at least half of that.
fn check_rate(logs: &[Log], begun: Instant, lateness: &Lateness) {
    let before = |log: &Log| log.made.iter().filter(|(_, at)| *at < begun).count();
    let (count, start) = (2 * logs.iter().map(before).sum::<usize>(), begun - HEALTHY);
    let lost = lateness.between(start, begun);
    let expected = 500.0 * (HEALTHY - lost.min(HEALTHY * 3 / 4)).as_secs_f64();
    println!("{count} rows were written in {HEALTHY:?}, of which the machine lost {lost:?}");
    assert!(
        count as f64 > expected,
        "{count} rows in {HEALTHY:?}, of which the machine lost {lost:?}"
    );
}

/// What was confirmed by the new master is there, and each program goes on soon after its promotion.
fn check_writers(
    outage: Outage,
    logs: &[Log],
    rows: &crate::programs::Rows,
    (begun, promoted): (Instant, Instant),
    lateness: &Lateness,
) {
    check_rate(logs, begun, lateness);
    for log in logs {
        for (row, error) in &log.failed {
            assert!(is_outage(error), "{row:?}: {error}");
            let is_made = row.1.starts_with("new-") && rows.contains_key(row);
            assert!(
                error.kind() == ErrorKind::Unconfirmed || !is_made,
                "{row:?} was made: {error}"
            );
        }
        let lost: Vec<_> = log.made.iter().filter(|(row, _)| !rows.contains_key(row)).collect();
        let late: Vec<_> = lost.iter().filter(|(_, at)| *at > promoted).collect();
        assert!(late.is_empty(), "confirmed after the promotion, and lost: {late:?}");
        let first = log.made.iter().map(|(_, at)| *at).find(|at| *at > promoted);
        let after = check_outage("a writer", first, promoted, lateness);
        println!(
            "{outage:?}: {} writes were Ok, {} failed, {} were confirmed and lost; it went on {after:?} after the \
             promotion, {:?} after the outage began",
            log.ok,
            log.failed.len(),
            lost.len(),
            promoted + after - begun
        );
    }
}

const MASTER_PASSWORD: &str = "hunter2";
const SENTINEL_PASSWORD: &str = "hunter3";

/// The address has the Sentinels' password, the options the master's.
#[test]
fn sentinels_and_master_have_passwords_of_their_own() {
    within(LIMIT, || {
        let args = ["--requirepass", MASTER_PASSWORD, "--masterauth", MASTER_PASSWORD];
        let lines =
            format!("sentinel auth-pass mymaster {MASTER_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}");
        let mut group = Group::with(&args, &lines, Some(SENTINEL_PASSWORD));
        let plain = group.address(0);
        let hosts = plain.strip_prefix("redis-sentinel://").unwrap();
        let address = format!("redis-sentinel://:{SENTINEL_PASSWORD}@{hosts}");
        let mut config = Config::default();
        for (option, value) in [
            ("remote_db_hosts", &*address),
            ("redis_password", MASTER_PASSWORD),
            ("pub_sub_driver", "redis"),
            ("nb_db_class", "redis"),
            ("pub_sub_use_multiproc", "false"),
            ("send_timeout_ms", "10000"),
        ] {
            config.set(option, value, Source::Flag).unwrap();
        }
        config.validate().unwrap();
        let node = Node::open(&config).unwrap();
        let subscriber = node.subscriber().unwrap();
        subscriber.wait_live(LONG).unwrap();
        let (sender, updates) = crossbeam_channel::unbounded::<tablecast::DbUpdate>();
        node.dispatcher().unwrap().on_update(sender).detach();
        let publisher = node.publisher().unwrap();
        // It is known without the password.
        assert_eq!(publisher.address().as_deref(), Some(&*plain));
        send(&publisher, "D", "1");
        assert_eq!(updates.recv_timeout(LONG).unwrap().key, "1");
        let kept = node.database().unwrap();
        kept.store().create("t", "k", "v", &Topic::ALL).unwrap();
        // A write and its update are one step there too.
        assert!(kept.store().announcer(&plain).is_some());
        assert!(kept.store().announcer(&format!("{plain}2")).is_none());

        let mut shown = format!("{config:?} {node:?} {:?}", subscriber.status());
        for (address, password) in [
            (address.replace(SENTINEL_PASSWORD, "hunter4"), MASTER_PASSWORD),
            (plain, MASTER_PASSWORD),
            (address.clone(), "hunter4"),
            (address.clone(), ""),
        ] {
            let mut options = options();
            options.password = Secret::new(password);
            let wrong = store_with(&address, options.clone());
            let error = wrong.get("t", "k", None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            let refused = crate::publisher(&with(&address, options))
                .send_event(&update("k"))
                .unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
            shown += &format!("{error:?} {refused:?} {wrong:?}");
        }
        group.begin(Outage::Killed);
        group.await_promotion();
        eventually(LONG, || {
            kept.store().set("t", "other", "v").is_ok() || kept.store().create("t", "other", "v", &Topic::ALL).is_ok()
        });
        subscriber.wait_live(LONG).unwrap();
        send(&publisher, "D", "2");
        assert!(!shown.contains("hunter"), "{shown}");
    });
}

#[test]
fn an_address_that_names_no_master_is_an_error_that_says_so() {
    within(LIMIT, || {
        let server = Server::start();
        let sentinel = Server::sentinel(&format!(
            "port PORT\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n",
            server.port()
        ));
        for (address, kind, expected) in [
            (
                format!("redis-sentinel://{}/mymaster", server.host()),
                ErrorKind::Denied,
                "not a Sentinel",
            ),
            (
                format!("redis-sentinel://{}/other", sentinel.host()),
                ErrorKind::Unavailable,
                "No such master",
            ),
            (
                format!("redis://{}", sentinel.host()),
                ErrorKind::Denied,
                "is a Sentinel",
            ),
        ] {
            let error = store(&address).get("t", "k", None).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            let (rig, errors) = told(&driver(&address));
            start(&rig, &["D"], &address);
            let (_, text) = errors.recv_timeout(LONG).unwrap();
            assert!(text.contains(expected), "{text}");
            assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        }
        // One of several that answers is enough, and none is needed by those that are connected.
        let nobody = crate::common::free_port();
        let address = format!("redis-sentinel://127.0.0.1:{nobody},{}/mymaster", sentinel.host());
        let driver = driver(&address);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &address);
        let (publisher, store) = (publisher(&driver), store(&address));
        rig.only("1", || send(&publisher, "D", "1"));
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        // All share one connection to a Sentinel, which ends with them.
        eventually(LONG, || sentinel.clients() == 1);
        let other = crate::store::store(&format!("redis-sentinel://{}/mymaster", sentinel.host()));
        assert_eq!(other.get("t", "k", None).unwrap().value, "v");
        eventually(LONG, || sentinel.clients() == 2);
        drop(other);
        eventually(LONG, || sentinel.clients() == 1);
        drop(sentinel);
        pass(SECOND);
        rig.only("2", || send(&publisher, "D", "2"));
        assert_eq!(store.get("t", "k", None).unwrap().value, "v");
        assert_eq!(rig.peers()[0].1, AddressState::Live);
    });
}
