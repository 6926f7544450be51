//! `--metrics` of the tool.

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;

use crate::common::{eventually, within};
use crate::host::{service, socket};
use crate::process::{Process, assert_fails, run, tablecast, with_files};
use crate::scrape::scrape;
use crate::{LIMIT, LONG};

/// The address that a process has printed.
pub(crate) fn address(process: &mut Process) -> SocketAddr {
    process.await_stderr("metrics on http://");
    let said = process.stderr();
    let url = said
        .lines()
        .find_map(|line| line.strip_prefix("metrics on http://"))
        .unwrap();
    url.strip_suffix("/metrics").unwrap().parse().unwrap()
}

#[test]
fn a_service_and_a_watch_are_scraped() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let mut command = service(&path);
        command.args(["--metrics", "0"]);
        let mut service = Process::start(command);
        let network = service.line().split(' ').nth(1).unwrap().to_owned();
        let of_service = address(&mut service);
        let mut watch = Process::start(tablecast(["watch", "--publisher", &network, "--metrics", ":0"]));
        let of_watch = address(&mut watch);
        watch.await_stderr("ready");

        let mut publish = crate::process::publish(["--file", "-", "--publisher-multiproc-socket"]);
        publish.arg(&path);
        let mut publish = Process::start(publish);
        let lines: String = (0..50)
            .map(|n| format!("{{\"table\":\"t\",\"key\":\"k{n}\"}}\n"))
            .collect();
        publish.write(&lines);
        assert_eq!(publish.end().code, Some(0));

        let updates = "tablecast_updates_dispatched_total";
        eventually(LONG, || scrape(of_watch).value(updates) == 50.0);
        let watched = scrape(of_watch);
        assert_eq!(watched.value("tablecast_updates_received_total"), 50.0);
        assert_eq!(watched.value("tablecast_update_lag_seconds_count"), 50.0);
        assert_eq!(watched.value("tablecast_subscriber_addresses{state=\"live\"}"), 1.0);
        let served = scrape(of_service);
        assert_eq!(served.value("tablecast_service_running"), 1.0);
        // Updates that were sent quickly share frames; the goodbye and hellos are frames too.
        assert!(served.value("tablecast_service_forwarded_frames_total") >= 1.0);
        assert_eq!(
            served.value("tablecast_service_dropped_frames_total{reason=\"malformed\"}"),
            0.0
        );

        for mut process in [watch, service] {
            process.signal("TERM");
            assert_eq!(process.end().code, Some(0));
        }
    });
}

#[test]
fn the_connections_of_a_service_are_counted() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        let mut command = with_files("-n 400", &service(&path));
        command.args(["--metrics", "0"]);
        let mut service = Process::start(command);
        let network = service.line().split(' ').nth(1).unwrap().to_owned();
        let metrics = address(&mut service);
        let shows = |sample: &str, range: RangeInclusive<f64>| {
            eventually(LONG, || range.contains(&scrape(metrics).value(sample)));
        };
        shows("tablecast_subscribers{part=\"service\"}", 0.0..=0.0);
        let mut watch = Process::start(tablecast(["watch", "--publisher", &network]));
        watch.await_stderr("ready");
        shows("tablecast_subscribers{part=\"service\"}", 1.0..=1.0);
        shows("tablecast_accepted_connections{transport=\"tcp\"}", 1.0..=1.0);
        shows("tablecast_refused_connections_total{transport=\"ipc\"}", 0.0..=0.0);
        let crowd: Vec<_> = (0..250).map(|_| UnixStream::connect(&path).unwrap()).collect();
        shows("tablecast_refused_connections_total{transport=\"ipc\"}", 75.0..=130.0);
        shows("tablecast_accepted_connections{transport=\"ipc\"}", 120.0..=175.0);
        drop(crowd);
        shows("tablecast_accepted_connections{transport=\"ipc\"}", 0.0..=0.0);
        for mut process in [watch, service] {
            process.signal("TERM");
            assert_eq!(process.end().code, Some(0));
        }
    });
}

#[cfg(feature = "redis")]
#[test]
fn the_connections_to_redis_are_counted() {
    within(LIMIT, || {
        let mut server = crate::servers::Server::start();
        let mut command = tablecast(["watch", "--pub-sub-driver", "redis", "--metrics", "0"]);
        command.arg(format!("--remote-db-hosts={}", server.host()));
        let mut watch = Process::start(command);
        let metrics = address(&mut watch);
        let shows = |count: f64| eventually(LONG, || scrape(metrics).value("tablecast_redis_connections") == count);
        watch.await_stderr("ready");
        shows(1.0);
        assert_eq!(server.clients(), 1);
        server.kill();
        shows(0.0);
        watch.signal("TERM");
        assert_eq!(watch.end().code, Some(0));
    });
}

#[test]
fn a_wrong_address_ends_the_command() {
    within(LIMIT, || {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let with = |address: &str| {
            let mut command = service(&socket(folder.path()));
            command.args(["--metrics", address]);
            run(command)
        };
        assert_fails(&with(&taken), 1, &["address in use", &taken]);
        assert_fails(&with("nowhere"), 2, &["\"nowhere\"", "host:port"]);
    });
}

#[test]
fn commands_that_run_for_long_have_the_flag() {
    let commands = [
        "service", "watch", "replica", "listen", "publish", "notify", "db write", "top",
    ];
    for command in commands {
        let help = run(tablecast(command.split(' ').chain(["--help"]))).stdout.concat();
        assert!(help.contains("--metrics <ADDRESS>"), "{command}: {help}");
    }
}
