//! The command-line tool, driven by other programs.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Stopwatch, eventually};
use crate::host::{Host, json, serve, service, socket};
use crate::process::{LIMIT, Process, assert_fails, run, run_unread, tablecast, with_full_stdout};
use serde_json::json;
use tablecast::Config;

#[test]
fn an_update_goes_from_publish_through_the_service_to_watch() {
    let host = Host::start();
    let mut all = host.live_watch(&[]);
    let mut some = host.live_watch(&[
        "--topic", "tenant1", "--topic", "tenant2", "--table", "lport", "--count", "2",
    ]);

    let one = [
        "--table",
        "lport",
        "--key",
        "port-1",
        "--action",
        "create",
        "--value",
        r#"{"n": 1}"#,
    ];
    let end = host.publish(&one).end();
    assert_eq!((end.code, end.stdout), (Some(0), vec!["published 1".into()]));
    assert_eq!(
        all.line(),
        r#"{"event":"update","table":"lport","key":"port-1","action":"create","value":"{\"n\": 1}","topic":"D","priority":5}"#
    );
    let other = ["--table", "lrouter", "--key", "r", "--topic", "tenant1"];
    assert_eq!(host.publish(&other).end().code, Some(0));
    let first = [
        "--table",
        "lport",
        "--key",
        "p",
        "--topic",
        "tenant1",
        "--action",
        "delete",
        "--priority",
        "-1",
    ];
    assert_eq!(host.publish(&first).end().code, Some(0));
    let second = [
        "--table", "lport", "--key", "-k", "--topic", "tenant2", "--action", "move", "--value", "-v",
    ];
    assert_eq!(host.publish(&second).end().code, Some(0));

    let end = some.end();
    assert_eq!(end.code, Some(0));
    assert_eq!(
        end.stdout,
        [
            r#"{"event":"update","table":"lport","key":"p","action":"delete","value":null,"topic":"tenant1","priority":-1}"#,
            r#"{"event":"update","table":"lport","key":"-k","action":"move","value":"-v","topic":"tenant2","priority":5}"#,
        ]
    );
    all.signal("TERM");
    assert_eq!(all.end().code, Some(0));
}

#[test]
fn a_file_is_published_line_by_line() {
    let host = Host::start();
    let mut watch = host.live_watch(&["--count", "3"]);
    let mut publish = host.publish(&["--file", "-"]);
    // Each line is published when it comes, not when the file ends.
    publish.write("{\"table\":\"t\",\"key\":\"1\",\"value\":\"text\"}\n");
    assert_eq!(json(&watch.line())["value"], "text");
    publish.write("\n  \n{\"table\":\"t\",\"key\":\"2\",\"value\":{\"b\":[1, 2]},\"action\":\"create\"}\n");
    assert_eq!(json(&watch.line())["value"], r#"{"b":[1, 2]}"#);
    publish.write("{\"table\":\"t\",\"key\":\"3\",\"action\":\"delete\",\"priority\":1}");
    let end = publish.end();
    assert_eq!((end.code, end.stdout), (Some(0), vec!["published 3".into()]));
    let end = watch.end();
    assert_eq!((end.code, end.stdout.len()), (Some(0), 1));
}

#[test]
fn a_bad_line_ends_it_with_its_number() {
    let host = Host::start();
    let good = r#"{"table":"t","key":"k"}"#;
    let bad = [
        ("{\"table\":\"t\"}", "`key`"),
        (r#"{"table":"t","key":"k","colour":"red"}"#, "`colour`"),
        (r#"{"table":"t","key":"k","topic":""}"#, "topic"),
        (
            &format!(r#"{{"table":"t","key":"{}"}}"#, "k".repeat(100)),
            "max_key_bytes",
        ),
    ];
    for (line, named) in bad {
        let file = host.folder.path().join("lines");
        std::fs::write(&file, format!("{good}\n\n{good}\n{line}\n{good}\n")).unwrap();
        let end = host
            .publish(&["--max-key-bytes", "99", "--file", file.to_str().unwrap()])
            .end();
        assert_eq!(
            (end.code, end.stdout),
            (Some(1), vec!["published 2".into()]),
            "{}",
            end.stderr
        );
        assert!(
            end.stderr.contains("line 4") && end.stderr.contains(named),
            "{}",
            end.stderr
        );
    }
    assert_fails(&host.publish(&["--file", "/nowhere"]).end(), 1, &["/nowhere"]);
}

#[test]
fn publishing_without_a_service_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tablecast(["publish", "--table", "t", "--key", "k", "--send-timeout-ms", "100"]);
    command.arg("--publisher-multiproc-socket").arg(socket(folder.path()));
    let end = run(command);
    assert_eq!((end.code, end.stdout), (Some(1), vec!["published 0".into()]));
    assert!(end.stderr.contains("publisher.sock"), "{}", end.stderr);
}

#[test]
fn a_publisher_of_its_own_waits_for_subscribers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.sock");
    let address = format!("ipc://{}", path.display());
    let publish = |args: &[&str]| {
        let mut command = tablecast(["publish", "--no-multiproc", "--publisher-transport", "ipc"]);
        command
            .args(["--table", "t", "--key", "k", "--publisher-bind-address"])
            .arg(&path)
            .args(args);
        Process::start(command)
    };
    let end = publish(&["--wait-subscribers", "1", "--wait-timeout", "0.2"]).end();
    assert_eq!((end.code, end.stdout), (Some(1), vec!["published 0".into()]));
    assert!(end.stderr.contains("fewer than 1 subscribers"), "{}", end.stderr);

    let end = publish(&[]).end();
    assert_eq!((end.code, end.stdout), (Some(0), vec!["published 1".into()]));
    assert!(
        end.stderr.contains("warning: no subscribers are connected"),
        "{}",
        end.stderr
    );

    let mut watch = Process::start(tablecast(["watch", "--publisher", &address, "--count", "1"]));
    let end = publish(&["--wait-subscribers", "1"]).end();
    assert_eq!(
        (end.code, end.stdout, end.stderr),
        (Some(0), vec!["published 1".into()], String::new())
    );
    let end = watch.end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);

    let mut waiting = publish(&["--wait-subscribers", "1", "--verbose"]);
    waiting.await_stderr("publishing at ipc://");
    let start = Stopwatch::start();
    waiting.signal("INT");
    let end = waiting.end();
    assert_eq!((end.code, end.stdout), (Some(1), vec!["published 0".into()]));
    start.assert_within(Duration::from_secs(3), "the end");
}

#[test]
fn a_signal_ends_publishing_from_stdin() {
    let host = Host::start();
    let mut watch = host.live_watch(&["--count", "1"]);
    let mut publish = host.publish(&["--file", "-"]);
    publish.write("{\"table\":\"t\",\"key\":\"1\"}\n");
    assert_eq!(watch.end().code, Some(0));
    let start = Stopwatch::start();
    publish.signal("TERM");
    assert_eq!(publish.line(), "published 1");
    start.assert_within(Duration::from_secs(3), "the end");
    assert_eq!(publish.end().code, Some(1));
}

/// While its stdin is open.
#[test]
fn a_publisher_that_a_signal_ends_says_goodbye() {
    let host = Host::start();
    let context = zmq::Context::new();
    let subscriber = context.socket(zmq::SUB).unwrap();
    subscriber.set_rcvtimeo(50).unwrap();
    subscriber.set_subscribe(b"").unwrap();
    subscriber.connect(&host.network).unwrap();
    let hears = |text: &str| {
        let message = subscriber.recv_multipart(0).unwrap_or_default().concat();
        String::from_utf8_lossy(&message).contains(text)
    };
    let mut publish = host.publish(&["--file", "-"]);
    // The first ones may come before the subscription.
    eventually(LIMIT, || {
        publish.write("{\"table\":\"t\",\"key\":\"port-1\"}\n");
        hears("port-1")
    });
    let start = Stopwatch::start();
    publish.signal("TERM");
    assert!(publish.line().starts_with("published "));
    eventually(LIMIT, || !publish.is_running());
    start.assert_within(Duration::from_secs(3), "the end");
    eventually(LIMIT, || hears("goodbye"));
    assert_eq!(publish.end().code, Some(1));
}

#[test]
fn watch_ends_by_count_timeout_or_signal() {
    let host = Host::start();
    let end = host.watch(&["--timeout", "0.3"]).end();
    assert_eq!(end.code, Some(0));
    let end = host.watch(&["--timeout", "0.3", "--count", "2"]).end();
    assert_eq!(end.code, Some(1));
    assert!(end.stderr.contains("0 of 2"), "{}", end.stderr);

    let mut counting = host.live_watch(&["--count", "2"]);
    counting.signal("INT");
    assert_eq!(counting.end().code, Some(1));
}

#[test]
fn watch_waits_for_a_publisher_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.sock");
    let address = format!("ipc://{}", path.display());
    let mut watch = Process::start(tablecast(["watch", "--publisher", &address, "--count", "1"]));
    watch.await_stderr(&format!("no connection yet to {address}"));
    let mut command = tablecast([
        "publish",
        "--no-multiproc",
        "--publisher-transport",
        "ipc",
        "--table",
        "t",
    ]);
    command
        .args(["--key", "k", "--wait-subscribers", "1", "--publisher-bind-address"])
        .arg(&path);
    assert_eq!(run(command).code, Some(0));
    assert_eq!(watch.end().code, Some(0));
}

#[test]
fn watch_says_that_no_publisher_is_registered() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.db");
    let mut command = tablecast(["watch", "--discover", "true", "--sqlite-path"]);
    command.arg(&rows);
    let mut watch = Process::start(command);
    watch.await_stderr(&format!("no publisher is registered in the file {}", rows.display()));
}

#[test]
fn a_reader_that_leaves_ends_watch_quietly() {
    let host = Host::start();
    let mut watch = host.live_watch(&[]);
    watch.ignore_stdout();
    let mut publish = host.publish(&["--file", "-"]);
    for _ in 0..10 {
        publish.write("{\"table\":\"t\",\"key\":\"1\"}\n");
    }
    publish.close_stdin();
    assert_eq!(publish.end().code, Some(0));
    // Until one comes after the reader has gone: all of them may have gone out before.
    eventually(LIMIT, || {
        assert_eq!(host.publish(&["--table", "t", "--key", "k"]).end().code, Some(0));
        !watch.is_running()
    });
    let end = watch.end();
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), "ready"));
}

#[test]
fn a_signal_ends_a_watch_whose_reader_hangs() {
    let host = Host::start();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut watch = Process::start_writing(tablecast(["watch", "--publisher", &host.network]), writer);
    watch.await_stderr("ready");

    let mut publish = host.publish(&["--file", "-"]);
    let value = "v".repeat(1000);
    // Of one key, later ones would replace earlier ones in the queue.
    for key in 0..1000 {
        let line = json!({"table": "t", "key": key.to_string(), "value": value});
        publish.write(&format!("{line}\n"));
    }
    assert_eq!(publish.end().code, Some(0));
    // Until the pipe is full; by its bytes it never need be, since pages stay partly empty.
    let threads = format!("/proc/{}/task", watch.id());
    let hangs = |thread: std::io::Result<std::fs::DirEntry>| {
        let place = std::fs::read_to_string(thread.unwrap().path().join("wchan"));
        place.is_ok_and(|place| place.contains("pipe_w"))
    };
    eventually(LIMIT, || std::fs::read_dir(&threads).unwrap().any(hangs));
    let start = Stopwatch::start();
    watch.signal("TERM");
    assert_eq!(watch.end().code, Some(1));
    start.assert_within(Duration::from_secs(2), "the end");
}

#[test]
fn the_service_stops_promptly_and_leaves_nothing() {
    for signal in ["TERM", "INT"] {
        let mut host = Host::start();
        assert_eq!(std::fs::read_dir(host.folder.path()).unwrap().count(), 2);
        let start = Stopwatch::start();
        host.service.signal(signal);
        let end = host.service.end();
        start.assert_within(Duration::from_secs(1), "the end");
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
        assert_eq!(std::fs::read_dir(host.folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_second_service_is_refused_and_a_killed_one_replaced() {
    let mut host = Host::start();
    let path = socket(host.folder.path());
    assert_fails(&run(service(&path)), 1, &["publisher.sock", "another process"]);
    // The first one is not harmed.
    let mut watch = host.live_watch(&["--count", "1"]);
    assert_eq!(host.publish(&["--table", "t", "--key", "k"]).end().code, Some(0));
    assert_eq!(watch.end().code, Some(0));

    host.service.signal("KILL");
    host.service.end();
    assert!(path.exists());
    (host.service, host.network) = serve(&path);
    let mut watch = host.live_watch(&["--count", "1"]);
    assert_eq!(host.publish(&["--table", "t", "--key", "k"]).end().code, Some(0));
    assert_eq!(watch.end().code, Some(0));
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tablecast.toml");
    std::fs::write(&file, "publisher_prot = 1").unwrap();
    let file = file.to_str().unwrap();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (
            &["service", "--publisher-port", "99999"],
            2,
            &["publisher_port", "99999"],
        ),
        (&["service", "--publisher-port", "-1"], 2, &["publisher_port", "-1"]),
        (&["watch", "--publisher", "nonsense"], 2, &["publishers", "nonsense"]),
        (
            &["watch", "--publisher", "udp://a:1"],
            2,
            &["publishers", "udp://a:1", "tcp"],
        ),
        (
            &["watch", "--publishers", "tcp://a:1,nonsense"],
            2,
            &["publishers", "nonsense"],
        ),
        (&["watch", "--topic", ""], 2, &["topic"]),
        (
            &["watch", "--config", file],
            2,
            &["publisher_prot", "publisher_port", file],
        ),
        (&["watch", "--config", "/nowhere"], 1, &["/nowhere"]),
        (&["watch", "--driver", "pigeon"], 2, &["pub_sub_driver", "pigeon"]),
        (
            &["service", "--pub-sub-multiproc-driver", "pigeon"],
            2,
            &["pub_sub_multiproc_driver", "pigeon"],
        ),
        (
            &["service", "--publisher-multiproc-socket", "/proc/none/publisher.sock"],
            1,
            &["publisher_multiproc_socket", "/proc/none"],
        ),
        (&["publish", "--table", "", "--key", "k"], 2, &["table"]),
        (&["service", "--driver", "memory"], 2, &["pub_sub_driver", "memory"]),
        (
            &[
                "publish",
                "--no-multiproc",
                "--table",
                "t",
                "--key",
                "k",
                "--driver",
                "memory",
            ],
            2,
            &["pub_sub_driver", "memory"],
        ),
        (
            &[
                "publish",
                "--table",
                "t",
                "--key",
                "k",
                "--pub-sub-multiproc-driver",
                "memory",
            ],
            2,
            &["pub_sub_multiproc_driver", "memory"],
        ),
        (&["watch", "--driver", "memory"], 2, &["pub_sub_driver", "memory"]),
        (
            &["replica", "--table", "t", "--store", "memory"],
            2,
            &["nb_db_class", "memory"],
        ),
        (&["publishers", "--store", "memory"], 2, &["nb_db_class", "memory"]),
        (&["listeners", "--store", "memory"], 2, &["nb_db_class", "memory"]),
        (
            &["publish", "--table", "t", "--key", "k", "--wait-subscribers", "1"],
            2,
            &["--no-multiproc"],
        ),
    ];
    for (args, code, named) in cases {
        assert_fails(&run(tablecast(*args)), *code, named);
    }
    let usages: &[&[&str]] = &[
        &[],
        &["publish"],
        &["publish", "--table", "t"],
        &["publish", "--file", "-", "--key", "k"],
        &["watch", "--count", "0"],
        &["watch", "--timeout", "soon"],
        &["service", "--no-such-option"],
    ];
    for args in usages {
        let end = run(tablecast(*args));
        assert_eq!((end.code, end.stdout.len()), (Some(2), 0), "{args:?}: {end:?}");
        assert!(!end.stderr.is_empty());
    }
}

#[test]
fn a_transport_that_libzmq_lacks_is_named() {
    if zmq::has("pgm") == Some(true) {
        return;
    }
    let address = [
        "--publisher-transport",
        "epgm",
        "--publisher-bind-address",
        "eth0;239.192.1.1",
    ];
    let mut command = tablecast(["publish", "--no-multiproc", "--table", "t", "--key", "k"]);
    command.args(address);
    assert_fails(&run(command), 1, &["epgm", "unsupported"]);
}

#[test]
fn the_environment_stands_between_file_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tablecast.toml");
    std::fs::write(&file, "publisher_port = 1\npublisher_bind_address = 'file'").unwrap();
    let mut command = service(&socket(folder.path()));
    command
        .arg("--config")
        .arg(&file)
        .env("TABLECAST_PUBLISHER_BIND_ADDRESS", "127.0.0.1");
    let mut service = Process::start(command);
    assert!(service.line().starts_with("ready tcp://127.0.0.1:"));
}

/// As with `nohup`, and as a shell starts background processes.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let tool = service(&socket(folder.path()));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]);
    // Without the program that resets signals.
    command.args(tool.get_args().skip(1));
    for (name, value) in tool.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut service = Process::start(command);
    assert!(service.line().starts_with("ready tcp://127.0.0.1:"));
    service.signal("HUP");
    service.signal("INT");
    // It goes on and receives a writer's updates.
    let mut publish = crate::process::publish(["--table", "t", "--key", "k", "--publisher-multiproc-socket"]);
    publish.arg(socket(folder.path()));
    assert_eq!(run(publish).code, Some(0));
    assert!(service.is_running());
    service.signal("TERM");
    assert_eq!(service.end().code, Some(0));
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark_and_half_a_character_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&socket(folder.path()));
    let mut service = Process::start(service);
    service.line();
    let file = folder.path().join("updates.jsonl");
    let publish = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut publish = crate::process::publish(["--publisher-multiproc-socket"]);
        publish.arg(socket(folder.path())).arg("--file").arg(&file);
        run(publish)
    };
    let row = r#"{"table":"t","key":"k","value":"v"}"#;
    let end = publish(&format!("\u{feff}{row}\n{row}\n"));
    assert_eq!(
        (end.code, end.stdout),
        (Some(0), vec!["published 2".to_owned()]),
        "{}",
        end.stderr
    );
    let half = publish(&format!("{row}\n{}\n", r#"{"table":"t","key":"k","value":"\ud800"}"#));
    // Lines before a bad one are published.
    assert_eq!((half.code, half.stdout), (Some(1), vec!["published 1".to_owned()]));
    assert!(
        half.stderr.contains("line 2") && half.stderr.contains("hex escape"),
        "{}",
        half.stderr
    );
}

#[test]
fn a_line_that_does_not_end_is_refused() {
    let args = [
        "publish",
        "--no-multiproc",
        "--publisher-port",
        "0",
        "--file",
        "/dev/zero",
    ];
    let end = run(tablecast(args.into_iter().chain(["--max-message-bytes", "1000"])));
    assert_eq!((end.code, end.stdout), (Some(1), vec!["published 0".to_owned()]));
    assert!(
        end.stderr.contains("line 1 of /dev/zero: longer than"),
        "{}",
        end.stderr
    );
}

/// As another process may leave it, which has the pipe too.
#[test]
fn a_stdin_that_does_not_block_is_waited_for() {
    let host = Host::start();
    let mut watch = host.live_watch(&["--count", "2"]);
    let (input, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&input, true).unwrap();
    let mut publish = crate::process::publish(["--file", "-", "--publisher-multiproc-socket"]);
    publish.arg(socket(host.folder.path()));
    let mut publish = Process::start_reading(publish, input.into());
    for key in ["a", "b"] {
        writeln!(writer, r#"{{"table":"t","key":"{key}"}}"#).unwrap();
        assert_eq!(json(&watch.line())["key"], key);
    }
    drop(writer);
    let end = publish.end();
    assert_eq!(
        (end.code, end.stdout),
        (Some(0), vec!["published 2".to_owned()]),
        "{}",
        end.stderr
    );
}

#[test]
fn a_path_is_expanded_as_in_a_shell_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tablecast(["db", "unique", "t", "--sqlite-path", "$PLACE/rows.db"]);
    command.env("PLACE", folder.path()).current_dir(folder.path());
    assert_eq!(run(command).code, Some(0));
    assert!(folder.path().join("rows.db").is_file());
    for (path, reason) in [
        ("$NOWHERE/rows.db", "NOWHERE is not set"),
        ("sqlite:///~/rows.db", "it is a URL"),
        ("file:~/rows.db?mode=ro", "it is a URL"),
        ("%h/rows.db", "systemd"),
    ] {
        let mut command = tablecast(["db", "list", "--table", "t", "--sqlite-path", path]);
        command.env_remove("NOWHERE").current_dir(folder.path());
        assert_fails(&run(command), 2, &["sqlite-path", path, reason]);
    }
    // Arguments that are no options too.
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("options.toml"), "no_option = 1").unwrap();
    std::fs::write(home.join("updates"), "no update").unwrap();
    let at_home = |args: &[&str]| {
        let mut command = tablecast(args);
        command.env("HOME", &home).current_dir(folder.path());
        run(command)
    };
    assert_eq!(at_home(&["man", "~/man"]).code, Some(0));
    let page = std::fs::read_to_string(home.join("man/tablecast-watch.1")).unwrap();
    assert!(
        page.contains(".SH \"EXIT STATUS\"") && page.ends_with(".BR tablecast (1)\n"),
        "{page}"
    );
    let page = std::fs::read_to_string(home.join("man/tablecast.1")).unwrap();
    assert!(page.contains(".BR tablecast-watch (1)"), "{page}");
    assert_fails(&at_home(&["config", "--config", "~/options.toml"]), 2, &["no_option"]);
    let publish = [
        "publish",
        "--no-multiproc",
        "--publisher-port",
        "0",
        "--file",
        "~/updates",
    ];
    let end = at_home(&publish);
    assert!(end.stderr.contains("line 1"), "{end:?}");
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.to_string_lossy().starts_with("rows.db"));
    assert_eq!(names, ["home"]);
}

#[test]
fn no_output_shows_the_password_of_an_address() {
    for (args, code) in [
        (
            &[
                "status",
                "--no-multiproc",
                "--publishers",
                "redis://:hunter2@127.0.0.1:1",
            ][..],
            2,
        ),
        (&["config", "--remote-db-hosts", "redis://h?password=hunter2"], 2),
        (
            &["config", "--remote-db-hosts", "unix:///r.sock?db=3&password=hunter2"],
            2,
        ),
        (&["config", "--publishers", "redis://h?password=hunter2"], 0),
    ] {
        let end = run(tablecast(args));
        let shown = format!("{end:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(end.code, Some(code), "{shown}");
    }
}

#[test]
fn a_variable_that_is_no_option_is_told_and_borne() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(&socket(folder.path()));
    command.env("TABLECAST_TOPIC", "a");
    let mut service = Process::start(command);
    assert!(service.line().starts_with("ready tcp://127.0.0.1:"));
    let mut command = tablecast(["db", "unique", "t"]);
    command.arg("--sqlite-path").arg(folder.path().join("rows.db"));
    command.env("TABLECAST_TOPIC", "a");
    let end = run(command);
    assert_eq!(end.code, Some(0));
    let told = "unknown environment variable TABLECAST_TOPIC; did you mean TABLECAST_TOPICS?";
    assert!(end.stderr.contains(told), "{:?}", end.stderr);
}

#[test]
fn help_names_every_option_and_version_libzmq() {
    for command in ["service", "publish", "watch", "db"] {
        let end = run(tablecast([command, "--help"]));
        assert_eq!(end.code, Some(0));
        let help = end.stdout.join("\n");
        for option in Config::options() {
            assert!(
                help.contains(&format!("--{} ", option.flag())),
                "{command} {}",
                option.name
            );
        }
    }
    for command in ["completions", "man", "keygen"] {
        let help = run(tablecast([command, "--help"])).stdout.join("\n");
        assert!(help.contains("--verbose") && !help.contains("--codec"), "{help}");
    }
    let end = run(tablecast(["--version"]));
    let libzmq = tablecast::drivers::zmq::libzmq();
    let version = format!("tablecast {}, libzmq {libzmq}", env!("CARGO_PKG_VERSION"));
    assert_eq!((end.code, end.stdout), (Some(0), vec![version]));
}

#[test]
fn help_that_cannot_be_written_is_a_failure_unless_its_reader_has_left() {
    for args in [&["--version"][..], &["watch", "--help"]] {
        let end = run(with_full_stdout(&tablecast(args)));
        assert_fails(&end, 1, &["cannot write the result"]);
        let end = run_unread(tablecast(args));
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn status_tells_of_addresses_topics_and_publishers() {
    let host = Host::start();
    let mut publish = host.publish(&[
        "--file",
        "-",
        "--hello-interval-ms",
        "100",
        "--publisher-id",
        "writer-1",
    ]);
    publish.write("{\"table\":\"t\",\"key\":\"k\",\"topic\":\"tenant1\"}\n");
    let args = [
        "--topic",
        "tenant1",
        "--topic",
        "quiet",
        "--hello-interval-ms",
        "800",
        "--publisher",
    ];
    let status = || tablecast([&["status"], &args[..], &[&host.network]].concat());
    // The first one may be there before the writer, and a busy one may be silent for a while.
    let deadline = Instant::now() + LIMIT;
    let rows = loop {
        let end = Process::start(status()).end();
        assert_eq!((end.code, &*end.stderr), (Some(0), ""));
        let rows: Vec<Vec<_>> = end.stdout.iter().map(|line| words(line)).collect();
        if rows.last().is_some_and(|row| row[3] == "live") || Instant::now() > deadline {
            break rows;
        }
        // Publishers name the topics that they have used recently.
        publish.write("{\"table\":\"t\",\"key\":\"k\",\"topic\":\"tenant1\"}\n");
    };
    assert_eq!(rows[1], [&*host.network, "live"]);
    assert_eq!(rows[4][..4], ["quiet", "live", "-", "-"]);
    assert_eq!(rows[5][..5], ["tenant1", "live", "writer-1", "live", &*rows[5][4]]);
    assert!(rows[5][4].parse::<u64>().unwrap() >= 1);
    publish.close_stdin();
    assert_eq!(publish.end().code, Some(0));

    let Host {
        mut service, network, ..
    } = host;
    service.signal("TERM");
    assert_eq!(service.end().code, Some(0));
    let end = Process::start(tablecast(["status", "--timeout", "0.2", "--publisher", &network])).end();
    assert_eq!(end.code, Some(1));
    assert_eq!(words(&end.stdout[1]), [&*network, "not", "connected"]);
    let missing = format!("not live within 200ms (--timeout): {network} is not connected; is the publisher service");
    assert!(end.stderr.contains(&missing), "{}", end.stderr);
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
