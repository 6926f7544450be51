//! The demo as a user runs it: its output, and what it leaves behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use crate::common::{Stopwatch, eventually, within};
use crate::process::tablecast;
use crate::staged::{Staged, processes};
use nix::sys::signal::{Signal, kill};
use tablecast::{Action, Config, DbUpdate, Node};

const LIMIT: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Staged {
    demo_of(tablecast::<&str>([]), arguments)
}

fn demo_of(mut command: Command, arguments: &[&str]) -> Staged {
    command.arg("demo").args(arguments);
    // Options for another service must not matter.
    command.env("TABLECAST_PUBLISHERS", "tcp://127.0.0.1:1");
    command.env("TABLECAST_PUBLISHER_MULTIPROC_SOCKET", "/nowhere/publisher.sock");
    Staged::start(command)
}

/// Checks the table: everything sent was delivered, and the columns of errors are zero.
fn check_table(output: &str, subscribers: usize, sent: &str) {
    check_columns(output, subscribers, sent, 10);
}

/// As [`check_table`], for a demo with a store: there are rows, and none differs from the store's.
fn check_stored(output: &str, subscribers: usize, sent: &str) {
    for row in check_columns(output, subscribers, sent, 12) {
        assert!(row[10].parse::<u64>().unwrap() > 0 && row[11] == "0", "{output}");
    }
    assert!(output.contains("rows") && !output.contains("NOT"), "{output}");
}

/// The rows of the table, from the column `sent` on.
fn check_columns<'a>(output: &'a str, subscribers: usize, sent: &str, columns: usize) -> Vec<Vec<&'a str>> {
    let rows = output.lines().skip(1).take_while(|line| !line.is_empty());
    // The topics take a varying number of words.
    let rows = rows.map(|row| row.split_whitespace().rev().take(columns).collect::<Vec<_>>());
    let rows: Vec<Vec<_>> = rows.map(|row| row.into_iter().rev().collect()).collect();
    assert_eq!(rows.len(), subscribers, "{output}");
    assert!(
        output.lines().take(subscribers + 1).all(|line| line.len() <= 100),
        "{output}"
    );
    assert_eq!(rows[0][0], sent, "{output}");
    for row in &rows {
        assert!(row[0].parse::<u64>().unwrap() > 0, "{output}");
        assert_eq!(row[0], row[1], "{output}");
        assert_eq!(row[2..6], ["0"; 4], "{output}");
    }
    rows
}

#[test]
fn network_arrives() {
    within(LIMIT, || {
        let (status, output) = demo(&[]).end();
        assert!(status.success(), "{output}");
        check_table(&output, 2, "475");
    });
}

#[test]
fn generated_updates_arrive() {
    within(LIMIT, || {
        let demo = demo(&["--updates", "20000", "--writers", "4", "--subscribers", "3"]);
        let (status, output) = demo.end();
        assert!(status.success(), "{output}");
        check_table(&output, 3, "20000");
    });
}

/// Another process uses the demo's publisher service, as a stranger and under a writer's name.
#[test]
fn strays_and_duplicates_are_noticed() {
    within(LIMIT, || {
        let mut demo = demo(&["--updates", "2000", "--rate", "500", "--writers", "1"]);
        demo.wait_for("demo-writer", 1);
        let own = fs::read_dir(demo.folder()).unwrap().next().unwrap().unwrap();
        let mut config = Config::default();
        config.publisher_multiproc_socket = own.path().join("publisher.sock");
        let others = ["stranger", "writer-1"].map(|id| {
            config.publisher_id = id.into();
            Node::open(&config).unwrap().publisher().unwrap()
        });
        eventually(LIMIT, || {
            let update = DbUpdate::new("lport", "port", Action::Set);
            // At the end the service no longer takes it.
            others.iter().for_each(|other| drop(other.send_event(&update)));
            demo.has_ended()
        });
        let (status, output) = demo.end();
        assert_eq!(status.code(), Some(1), "{output}");
        let row = output
            .lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .rev()
            .collect::<Vec<_>>();
        let (stray, duplicated) = (row[4], row[6]);
        assert!(stray != "0" && duplicated != "0" && output.contains("NOT"), "{output}");
    });
}

#[test]
fn signals_end_it_at_any_time() {
    within(LIMIT, || {
        let moments = [
            (Signal::SIGTERM, "service", 1),
            (Signal::SIGINT, "demo-subscriber", 1),
            (Signal::SIGINT, "demo-writer", 3),
        ];
        for (signal, word, count) in moments {
            let demo = demo(&["--updates", "100000000"]);
            demo.wait_for(word, count);
            let start = Stopwatch::start();
            demo.signal(signal);
            let (status, output) = demo.end();
            start.assert_within(Duration::from_secs(2), "the end");
            assert_eq!((status.code(), status.signal(), output.as_str()), (Some(1), None, ""));
        }
    });
}

#[test]
fn death_of_any_child_ends_it() {
    within(LIMIT, || {
        for word in ["service", "demo-writer", "demo-subscriber"] {
            let demo = demo(&["--updates", "100000000"]);
            demo.wait_for("demo-writer", 3);
            kill(demo.wait_for(word, 1)[0], Signal::SIGKILL).unwrap();
            assert_eq!(demo.end().0.code(), Some(1));
        }
    });
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    within(LIMIT, || {
        let demo = demo(&["--updates", "100000000"]);
        demo.wait_for("demo-writer", 3);
        demo.signal(Signal::SIGKILL);
        eventually(LIMIT, || processes(demo.folder(), "").is_empty());
    });
}

/// As under a supervisor that ignores signals.
#[test]
fn it_ends_where_a_signal_is_ignored() {
    within(LIMIT, || {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "trap '' TERM; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_tablecast"),
        ]);
        let (status, output) = demo_of(command, &["--updates", "300"]).end();
        assert!(status.success(), "{output}");
        check_table(&output, 2, "300");
    });
}

#[test]
fn wrong_usage_is_told() {
    within(LIMIT, || {
        for arguments in [
            ["--writers", "0"],
            ["--subscribers", "65"],
            ["--updates", "0"],
            ["--store", "memory"],
            ["--driver", "memory"],
            ["--redis", "redis://127.0.0.1:1"],
        ] {
            assert_eq!(demo(&arguments).end().0.code(), Some(2));
        }
    });
}

#[test]
fn rows_in_sqlite_arrive() {
    within(LIMIT, || {
        let (status, output) = demo(&["--store", "sqlite", "--updates", "300"]).end();
        assert!(status.success(), "{output}");
        check_stored(&output, 2, "300");
    });
}

#[cfg(feature = "redis")]
mod with_redis {
    use tablecast::Store;
    use tablecast::drivers::redis::RedisOptions;
    use tablecast::store::StoreOptions;
    use tablecast::stores::redis::RedisStore;

    use super::*;
    use crate::servers::Server;

    #[test]
    fn updates_arrive_through_a_server_of_our_own() {
        within(LIMIT, || {
            let (status, output) = demo(&["--driver", "redis", "--updates", "2000"]).end();
            assert!(status.success(), "{output}");
            check_table(&output, 2, "2000");
        });
    }

    #[test]
    fn rows_arrive_in_one_step_and_in_two() {
        within(LIMIT, || {
            for driver in ["redis", "zmq"] {
                let flags = ["--store", "redis", "--driver", driver, "--updates", "2000"];
                let (status, output) = demo(&[&flags[..], &["--codec", "json"]].concat()).end();
                assert!(status.success(), "{output}");
                check_stored(&output, 2, "2000");
            }
        });
    }

    const BOTH: [&str; 4] = ["--store", "redis", "--driver", "redis"];

    #[test]
    fn somebody_elses_server_is_left_as_it_was() {
        within(LIMIT, || {
            let server = Server::with(&["--requirepass", "secret"]);
            let () = server.ask(&["SET", "theirs", "1"]);
            let mut command = crate::process::tablecast::<&str>([]);
            command.env("TABLECAST_REDIS_PASSWORD", "secret");
            let flags = ["--redis", &server.address()];
            let (status, output) = demo_of(command, &[&BOTH[..], &flags].concat()).end();
            assert!(status.success(), "{output}");
            check_stored(&output, 2, "475");
            assert!(!output.contains("tablecast-demo"), "{output}");
            let keys: Vec<String> = server.ask(&["KEYS", "*"]);
            assert!(keys.iter().all(|key| !key.ends_with("/rows")), "{keys:?}");
            assert!(keys.contains(&"theirs".to_owned()), "{keys:?}");
        });
    }

    /// Replicas find a row for which there was no update.
    #[test]
    fn a_row_that_nobody_was_told_of_is_held() {
        within(LIMIT, || {
            let server = Server::start();
            let store = RedisStore::new(&server.address(), StoreOptions::default(), &RedisOptions::default()).unwrap();
            let flags = ["--redis", &server.address(), "--updates", "2000", "--rate", "500"];
            let demo = demo(&[&BOTH[..], &flags].concat());
            let mut tables = Vec::<String>::new();
            eventually(LIMIT, || {
                tables = server.ask(&["KEYS", "*/lport}/rows"]);
                !tables.is_empty()
            });
            let table = tables[0].split_once(':').unwrap().1.strip_suffix("}/rows").unwrap();
            let topic = table.replace("lport", "D");
            let created = store.create(table, "secret", "{}", &tablecast::Topic::new(topic).unwrap());
            created.unwrap();
            let (status, output) = demo.end();
            assert!(status.success(), "{output}");
            check_stored(&output, 2, "2000");
            let held = |output: &str| {
                output
                    .lines()
                    .nth(1)
                    .unwrap()
                    .split_whitespace()
                    .nth_back(1)
                    .map(str::to_owned)
            };
            let (_, without) = self::demo(&[&BOTH[..], &["--updates", "2000"]].concat()).end();
            let rows = [held(&output), held(&without)].map(|rows| rows.unwrap().parse::<u64>().unwrap());
            assert_eq!(rows[0], rows[1] + 1, "{output}{without}");
        });
    }

    #[test]
    fn without_any_server_it_says_what_to_do() {
        within(LIMIT, || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
            command.args(["demo", "--driver", "redis"]).env("PATH", "/nowhere");
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(
                stderr.contains("redis-server") && stderr.contains("--redis redis://"),
                "{stderr}"
            );
        });
    }

    #[test]
    fn its_server_ends_with_it_however_that_ends() {
        within(LIMIT, || {
            let endless = ["--driver", "redis", "--updates", "100000000"];
            // A child dies, including the server.
            for word in ["redis-server 127", "own-redis", "demo-writer"] {
                let demo = demo(&endless);
                demo.wait_for("demo-writer", 3);
                kill(demo.wait_for(word, 1)[0], Signal::SIGKILL).unwrap();
                assert_eq!(demo.end().0.code(), Some(1));
            }
            // The user stops it, during the server's start and later.
            for word in ["own-redis", "demo-writer"] {
                let demo = demo(&endless);
                demo.wait_for(word, 1);
                demo.signal(Signal::SIGINT);
                assert_eq!(demo.end().0.code(), Some(1));
            }
            // It cannot even say goodbye.
            let demo = demo(&endless);
            demo.wait_for("demo-writer", 3);
            demo.signal(Signal::SIGKILL);
            eventually(LIMIT, || processes(demo.folder(), "").is_empty());
        });
    }
}
