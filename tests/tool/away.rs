//! A Redis server that is away: it refuses, or accepts and says nothing.
#![cfg(feature = "redis")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{free_port, within};
use crate::host::{service, socket};
use crate::process::{LIMIT, Process, run, tablecast};
use crate::servers::Server;
use crate::supervisor::Manager;
use tablecast::store::StoreOptions;
use tablecast::stores::redis::RedisStore;
use tablecast::{Store, Topic};

/// A service with this Redis server behind it.
fn service_behind(folder: &Path, port: u16) -> Command {
    let mut command = service(&socket(folder));
    command.args(["--pub-sub-driver", "redis"]);
    command.arg(format!("--remote-db-hosts=redis://127.0.0.1:{port}"));
    command
}

/// Publishes `count` rows through the service; it takes them, and has not passed them on.
fn publish(folder: &Path, count: usize) {
    let mut writer = crate::process::publish(["--file", "-", "--publisher-multiproc-socket"]);
    writer.arg(socket(folder));
    // One hello and one goodbye, however long it takes.
    writer.env("TABLECAST_HELLO_INTERVAL_MS", "60000");
    let mut writer = Process::start(writer);
    for key in 0..count {
        writer.write(&format!("{{\"table\":\"t\",\"key\":\"{key}\"}}\n"));
    }
    let end = writer.end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn a_service_whose_network_is_away_stops_in_time_and_reports_what_is_left() {
    within(3 * LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        for port in [free_port(), silent.local_addr().unwrap().port()] {
            let folder = tempfile::tempdir().unwrap();
            let mut command = service_behind(folder.path(), port);
            // The waits for the network are longer than the stop may take.
            command.args(["--send-timeout-ms", "20000", "--linger-ms", "500"]);
            let mut service = Process::start(command);
            assert!(service.line().starts_with("ready"));
            publish(folder.path(), 5);
            let start = Instant::now();
            service.signal("TERM");
            let end = service.end();
            assert_eq!(end.code, Some(0), "{end:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            assert!(!socket(folder.path()).exists());
            // With the hello and the goodbye of the writer. The service's own hello may stand before them.
            let left = "messages of local processes were not passed on: 1 refused by the network driver, \
                        6 left when the service stopped: ";
            let reasons = ["no server takes messages at redis://127.0.0.1", "no turn to send"];
            let is_named = |reason: &&str| end.stderr.contains(&format!("{left}{reason}"));
            assert!(reasons.iter().any(is_named), "{}", end.stderr);
        }
    });
}

/// systemd would end a service without a sign of life in that time.
#[test]
fn a_service_that_waits_for_its_network_gives_signs_of_life() {
    within(3 * LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::at_path(folder.path());
        let mut command = service_behind(folder.path(), silent.local_addr().unwrap().port());
        command.args(["--send-timeout-ms", "60000"]);
        let watchdog = Duration::from_secs(4);
        let service = manager.start(command, Some(watchdog));
        assert_eq!(manager.next(), "READY=1");
        publish(folder.path(), 3);
        let start = Instant::now();
        let mut last = start;
        while start.elapsed() < 2 * watchdog {
            assert_eq!(manager.next(), "WATCHDOG=1");
            assert!(last.elapsed() < watchdog, "it would have been ended");
            last = Instant::now();
        }
        manager.stop(service);
    });
}

#[test]
fn a_network_that_takes_nothing_is_named_at_the_start() {
    within(3 * LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let mut command = service_behind(folder.path(), free_port());
        command.args(["--send-timeout-ms", "1000"]);
        let mut service = Process::start(command);
        assert!(service.line().starts_with("ready"));
        // Before anything is published.
        service.await_stderr("the network takes no messages yet: no server takes messages at redis://127.0.0.1");
    });
}

#[test]
fn a_writer_is_told_that_the_service_takes_no_more() {
    within(3 * LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = service_behind(folder.path(), silent.local_addr().unwrap().port());
        command.args(["--send-timeout-ms", "60000", "--receive-hwm", "1"]);
        let mut service = Process::start(command);
        assert!(service.line().starts_with("ready"));
        // More than the sockets hold.
        let rows = folder.path().join("rows.json");
        let value = "x".repeat(1 << 20);
        let row = |key| format!("{{\"table\":\"t\",\"key\":\"{key}\",\"value\":\"{value}\"}}\n");
        fs::write(&rows, (0..20).map(row).collect::<String>()).unwrap();
        let address = format!("ipc://{}", socket(folder.path()).display());
        for expected in [
            format!("the publisher service at {address} takes no more messages"),
            // The service lets in no others before it goes on.
            format!("the process at {address} accepts connections and takes no messages"),
        ] {
            let mut writer = tablecast(["publish", "--send-hwm", "1", "--send-timeout-ms", "2000"]);
            writer.arg("--publisher-multiproc-socket").arg(socket(folder.path()));
            writer.arg("--file").arg(&rows);
            let end = run(writer);
            assert_eq!(end.code, Some(1), "{end:?}");
            assert!(end.stderr.contains(&expected), "{}", end.stderr);
        }
    });
}

/// A replica of what is at this Redis server.
fn replica(server: &str, args: &[&str]) -> Command {
    let options = [
        "--table",
        "t",
        "--pub-sub-driver",
        "redis",
        "--nb-db-class",
        "redis",
        "--remote-db-hosts",
        server,
    ];
    tablecast(["replica"].iter().chain(&options).chain(args).copied())
}

#[test]
fn a_replica_waits_for_its_store_unless_it_is_to_end() {
    within(3 * LIMIT, || {
        let mut server = Server::start();
        server.kill();
        for args in ["--once", "--check"] {
            let end = run(replica(&server.address(), &[args]));
            assert_eq!(end.code, Some(1), "{args}: {end:?}");
        }
        let mut waiting = Process::start(replica(&server.address(), &[]));
        waiting.await_stderr("no rows yet: ");
        server.restart();
        assert_eq!(waiting.line(), r#"{"event":"synced","rows":0}"#);
        waiting.signal("TERM");
        assert_eq!(waiting.end().code, Some(0));
    });
}

/// However soon the rows are read anew.
#[test]
fn a_replica_says_that_it_is_synced_again_after_the_store_went_back() {
    within(3 * LIMIT, || {
        let server = Server::start();
        let store = RedisStore::new(&server.address(), StoreOptions::default(), &Default::default()).unwrap();
        let mut replica = Process::start(replica(&server.address(), &[]));
        assert_eq!(replica.line(), r#"{"event":"synced","rows":0}"#);
        for _ in 0..3 {
            store.create("t", "k", "1", &Topic::ALL).unwrap();
            assert!(replica.line().starts_with(r#"{"event":"added""#));
            server.ask::<()>(&["FLUSHALL"]);
            assert!(replica.line().starts_with(r#"{"event":"removed""#));
            assert_eq!(replica.line(), r#"{"event":"synced","rows":0}"#);
        }
        replica.signal("TERM");
        assert_eq!(replica.end().code, Some(0));
    });
}

/// Nor does it wait for the answer at its end.
#[test]
fn a_replica_whose_store_is_silent_stops_in_time() {
    within(LIMIT, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut waiting = Process::start(replica(&address, &["--store-timeout-ms", "60000"]));
        let _connection = silent.accept().unwrap();
        waiting.signal("TERM");
        assert_eq!(waiting.end().code, Some(0));
    });
}
