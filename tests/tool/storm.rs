//! `tablecast storm` as a user runs it, on a small scale.
#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::common::{Stopwatch, within};
use crate::process::{run, tablecast};
use crate::staged::Staged;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(120);

fn storm(arguments: &[&str]) -> Staged {
    Staged::start(tablecast(["storm"].iter().chain(arguments)))
}

/// Checks that every storm is in the output, and that every update was processed once in each.
fn every_update_is_processed_once(driver: &[&str]) {
    let sizes = [
        "--nodes",
        "5,20",
        "--ports",
        "10",
        "--listeners",
        "1,2",
        "--workers",
        "0,2",
    ];
    let (status, output) = storm(&[driver, &sizes].concat()).end();
    assert!(status.success(), "{output}");
    let rows: Vec<Vec<&str>> = output
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    let (head, rows) = rows.split_first().unwrap();
    let column = |name: &str| head.iter().position(|head| *head == name).unwrap();
    let sizes = ["nodes", "updates", "listeners", "workers"].map(column);
    let told: Vec<_> = rows.iter().map(|row| sizes.map(|column| row[column])).collect();
    assert_eq!(
        told,
        [
            ["20", "200", "1", "0"],
            ["20", "200", "2", "0"],
            ["5", "50", "2", "0"],
            ["20", "200", "1", "2"]
        ],
        "{output}"
    );
    for row in rows {
        assert_eq!((row[column("lost")], row[column("again")]), ("0", "0"), "{output}");
        let shares = row[column("processed by each")]
            .split(' ')
            .map(|share| share.parse::<u32>().unwrap());
        assert_eq!(shares.clone().count().to_string(), row[column("listeners")], "{output}");
        assert_eq!(shares.sum::<u32>().to_string(), row[column("updates")], "{output}");
        let number = |name| row[column(name)].parse::<f64>().unwrap();
        assert!(
            number("p50 ms") <= number("p99 ms") && number("p99 ms") <= number("max ms"),
            "{output}"
        );
        assert!(number("updates/s") > 0.0 && number("cores") > 0.0, "{output}");
    }
    for growth in ["listeners 1 -> 2", "nodes 5 -> 20", "workers 0 -> 2"] {
        assert!(output.contains(growth), "{output}");
    }
}

#[test]
fn on_ports_and_sqlite() {
    within(LIMIT, || every_update_is_processed_once(&[]));
}

#[cfg(feature = "redis")]
#[test]
fn on_redis() {
    within(LIMIT, || every_update_is_processed_once(&["--driver", "redis"]));
}

#[test]
fn a_signal_ends_it() {
    within(LIMIT, || {
        // While the listeners start, and while they have much to do.
        for work in ["0", "100000"] {
            let storm = storm(&["--nodes", "20", "--listeners", "2", "--work", work]);
            storm.wait_for("storm-listener", 2);
            let start = Stopwatch::start();
            storm.signal(Signal::SIGTERM);
            let (status, output) = storm.end();
            start.assert_within(Duration::from_secs(3), "the end");
            assert_eq!((status.code(), status.signal(), output.as_str()), (Some(1), None, ""));
        }
    });
}

#[test]
fn wrong_usage_is_told() {
    within(LIMIT, || {
        for (option, value) in [
            ("--nodes", "0"),
            ("--nodes", "10,x"),
            ("--ports", "1001"),
            ("--listeners", "65"),
            ("--workers", "257"),
            ("--work", "1000001"),
            ("--timeout", "0"),
            ("--driver", "memory"),
            ("--store", "memory"),
        ] {
            let end = run(tablecast(["storm", option, value]));
            assert_eq!(end.code, Some(2), "{option} {value}: {end:?}");
            let value = value.rsplit(',').next().unwrap();
            assert!(end.stderr.contains(value), "{option} {value}: {end:?}");
            assert!(
                end.stderr.contains(option.trim_start_matches('-')),
                "{option} {value}: {end:?}"
            );
        }
    });
}
