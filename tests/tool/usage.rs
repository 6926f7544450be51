//! Mistakes on the command line: each text names the flag, and what was expected.

use crate::process::{assert_fails, run, tablecast};

#[test]
fn a_flag_that_is_wrong_is_named() {
    let publisher = &["watch", "--publisher", "tcp://127.0.0.1"][..];
    let update = ["--table", "t", "--key", "k", "--topics", "x"];
    let on_topics = |command| [&[command][..], &update].concat();
    let get = ["db", "get", "--table", "t", "--key", "k", "--topics", "x"];
    let cases: [(&[&str], &[&str]); 9] = [
        (publisher, &["--publisher: ", "tcp://host:port"]),
        (
            &["notify", "--publisher", "x", "--table", "t", "--key", "k"],
            &["--publisher: "],
        ),
        (&["watch", "--topic="], &["--topic: ", "not be empty"]),
        (&["watch", "--topics="], &["no topic to watch", "--topic"]),
        (
            &["service", "--metrics", "99999"],
            &["--metrics: ", "host:port", "from 0 to 65535"],
        ),
        // One letter from the flag that is meant.
        (&on_topics("publish"), &["--topics", "is --topic"]),
        (&on_topics("notify"), &["--topics", "is --topic"]),
        (&get, &["--topics", "is --topic"]),
        (
            &["db", "list", "--table", "t", "--topics", "x"],
            &["--topics", "is --topic"],
        ),
    ];
    for (args, named) in cases {
        assert_fails(&run(tablecast(args)), 2, named);
    }
}

#[test]
fn a_value_that_is_wrong_is_told_what_was_expected() {
    let seconds = "expected seconds from 0 to 1000000000, for example 0.5";
    let (count, number) = ("expected a whole number from 1", "expected a whole number from 0");
    let cases: [(&[&str], &str); 20] = [
        (&["replica", "--table", "t", "--count", "-1"], count),
        (&["replica", "--table", "t", "--count", "x"], count),
        (&["replica", "--table", "t", "--timeout", "-1"], seconds),
        (&["replica", "--table", "t", "--timeout", "soon"], seconds),
        (&["publish", "--wait-subscribers", "-1"], number),
        (&["db", "delete", "--if-version", "-1"], number),
        (&["demo", "--writers", "-1"], "expected a whole number from 1 to 64"),
        (&["demo", "--updates", "-1"], count),
        (&["storm", "--nodes", "1,-1"], "expected a whole number from 1 to 10000"),
        (&["storm", "--timeout", "-1"], count),
        (&["watch", "--timeout", "-1"], seconds),
        (&["watch", "--timeout", "soon"], seconds),
        (&["status", "--timeout", "1e300"], seconds),
        (&["watch", "--count", "0"], count),
        (&["watch", "--count", "-1"], count),
        (&["watch", "--count", "x"], count),
        (&["top", "--interval", "0"], "expected seconds from 0.1 to 1000000000"),
        (&["wacth"], "a similar subcommand exists: 'watch'"),
        (&["help", "wach"], "a similar subcommand exists: 'watch'"),
        (&["help", "db", "lst"], "a similar subcommand exists: 'list'"),
    ];
    for (args, expected) in cases {
        let end = run(tablecast(args));
        assert_eq!((end.code, end.stdout.len()), (Some(2), 0), "{args:?}: {end:?}");
        assert!(end.stderr.contains(expected), "{args:?}: {}", end.stderr);
        let flag = args.iter().rfind(|arg| arg.starts_with("--"));
        assert!(
            flag.is_none_or(|flag| end.stderr.contains(flag)),
            "{args:?}: {}",
            end.stderr
        );
    }
    let help = run(tablecast(["help", "watch"]));
    assert!(
        help.code == Some(0) && help.stdout[0].starts_with("Print updates"),
        "{help:?}"
    );
}

#[test]
fn short_help_shows_what_a_command_needs() {
    let store = ["--store", "--sqlite-path", "--remote-db-hosts"];
    let service = ["--driver", "--publisher-port", "--publisher-multiproc-socket"];
    let subscribing = ["--driver", "--discover", "--topic"];
    // The path of the command, what its help shows, and what it does not.
    let cases: [(&[&str], &[&str], &[&str]); 9] = [
        (&[], &["watch", "--config"], &["--driver", "--store", "--codec"]),
        (&["service"], &service, &["--codec"]),
        (&["publish"], &["--codec", "--driver", "--table"], &["--store"]),
        (&["watch"], &subscribing, &["--codec", "--publisher-port"]),
        (&["replica"], &store, &["--codec", "--publisher-port"]),
        (&["listen"], &service, &["--codec"]),
        (&["db", "get"], &store, &["--driver", "--codec"]),
        (
            &["db", "set"],
            &["--store", "--driver", "--codec"],
            &["--publisher-port"],
        ),
        (&["keygen"], &["--output"], &["--driver", "--store"]),
    ];
    for (command, shown, others) in cases {
        let end = run(tablecast(command.iter().chain(&["-h"])));
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
        let help = end.stdout.join("\n");
        let has = |flag: &&str| help.split([' ', ']', '\n']).any(|word| word == *flag);
        assert!(shown.iter().all(has), "{command:?}: {help}");
        assert!(!others.iter().any(has), "{command:?}: {help}");
        assert!(
            help.contains("Common options:") && !help.contains("--linger-ms"),
            "{help}"
        );
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_is_away_is_named_once_with_its_option() {
    let host = format!("127.0.0.1:{}", crate::common::free_port());
    let redis = [
        "--store",
        "redis",
        "--remote-db-hosts",
        &host,
        "--store-timeout-ms",
        "300",
    ];
    for command in [
        &["db", "get", "--table", "t", "--key", "k"][..],
        &["db", "tables"],
        &["listeners"],
    ] {
        let end = run(tablecast(command.iter().chain(&redis)));
        assert_fails(&end, 1, &["option remote_db_hosts: ", "Redis at "]);
        assert_eq!(end.stderr.matches(&host).count(), 1, "{end:?}");
    }
}
