//! Status updates by hand: `tablecast listen`, `notify` and `listeners`; replicas in `tablecast status`; the documented
//! deployment.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{side_by_side, within};
use crate::process::{End, Process, run, tablecast, with_full_stdout};

const LIMIT: Duration = Duration::from_secs(120);

/// How processes reach each other: options of the tool.
struct Network(Vec<String>);

impl Network {
    /// Through a store in this folder, with a port for each process.
    fn of_ports(folder: &Path) -> Network {
        let store = folder.join("rows.db");
        Network::with(&[
            "--sqlite-path",
            store.to_str().unwrap(),
            "--discover",
            "true",
            "--publisher-port",
            "0",
        ])
    }

    /// Through a Redis server, which also carries the messages.
    #[cfg(feature = "redis")]
    fn of_redis(server: &crate::servers::Server) -> Network {
        let (driver, store) = (["--driver", "redis"], ["--store", "redis"]);
        Network::with(
            &[
                &driver[..],
                &store,
                &["--remote-db-hosts", &format!("127.0.0.1:{}", server.port())],
            ]
            .concat(),
        )
    }

    fn with(options: &[&str]) -> Network {
        let options = options.iter().chain(&["--discover-interval-ms", "100"]);
        Network(options.map(|option| (*option).to_owned()).collect())
    }

    fn command(&self, command: &str, args: &[&str]) -> Command {
        let options = self.0.iter().map(String::as_str);
        tablecast([command].into_iter().chain(options).chain(args.iter().copied()))
    }

    fn listen(&self, id: &str) -> Process {
        let mut server = Process::start(self.command("listen", &["--no-multiproc", "--id", id]));
        server.await_stderr("ready");
        server
    }

    fn notify(&self, args: &[&str]) -> End {
        run(self.command("notify", &[&["--no-multiproc"], args].concat()))
    }
}

/// Runs a test in each kind of network.
fn in_each(test: impl Fn(&Network) + Send + Sync + 'static) {
    within(LIMIT, move || {
        let folder = tempfile::tempdir().unwrap();
        #[cfg(feature = "redis")]
        let server = crate::servers::Server::start();
        let networks = [
            Network::of_ports(folder.path()),
            #[cfg(feature = "redis")]
            Network::of_redis(&server),
        ];
        side_by_side(networks, |network| test(&network));
    });
}

fn key(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["event"], "update");
    assert_eq!(line["table"], "lport");
    line["key"].as_str().unwrap().to_owned()
}

#[test]
fn every_update_goes_to_one_server_also_when_the_other_is_killed() {
    in_each(|network| {
        let mut servers = ["a", "b"].map(|id| network.listen(id));
        let mut node = Process::start(network.command("notify", &["--no-multiproc", "--file", "-"]));
        let lines: String = (0..40)
            .map(|n| format!("{{\"table\":\"lport\",\"key\":\"port-{n}\",\"value\":{{\"status\":\"up\"}}}}\n"))
            .collect();
        node.write(&lines);
        node.close_stdin();
        assert_eq!(node.line(), "acknowledged 40 of 40");
        assert_eq!(node.end().code, Some(0));

        let table = run(network.command("listeners", &[])).stdout;
        assert!(table[0].starts_with("id "), "{table:?}");
        assert_eq!(table.iter().filter(|row| row.contains("alive")).count(), 2, "{table:?}");

        servers[0].kill();
        let end = network.notify(&["--table", "lport", "--key", "last", "--value", "{}"]);
        assert_eq!(
            (end.code, end.stdout),
            (Some(0), vec!["acknowledged 1 of 1".to_owned()])
        );
        servers[1].signal("TERM");
        let ends = servers.each_mut().map(Process::end);
        assert_eq!(ends[1].code, Some(0), "{ends:?}");
        let keys: Vec<Vec<String>> = ends
            .iter()
            .map(|end| end.stdout.iter().map(|line| key(line)).collect())
            .collect();
        assert_eq!(keys[1].last().map(String::as_str), Some("last"));
        // Each once, whichever listener came first.
        assert_eq!(keys[0].len() + keys[1].len(), 41);
        assert_eq!(keys.iter().flatten().collect::<BTreeSet<_>>().len(), 41);

        // A listener that stops cleanly is no longer registered.
        let table = run(network.command("listeners", &["--timeout", "0.3"])).stdout;
        assert!(!table.iter().any(|row| row.starts_with("b ")), "{table:?}");
    });
}

/// It is in no output.
#[test]
fn an_update_that_cannot_be_printed_goes_to_another_server() {
    in_each(|network| {
        let direct = ["--no-multiproc", "--listener-timeout-ms", "3000"];
        let listen = |id| network.command("listen", &[&direct[..], &["--id", id]].concat());
        let mut full = Process::start(with_full_stdout(&listen("full")));
        full.await_stderr("ready");
        let update = ["--table", "lport", "--key", "port-1", "--timeout", "60"];
        let mut node = Process::start(network.command("notify", &[&direct[..], &update].concat()));
        let end = full.end();
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.stderr.contains("cannot write the result"), "{end:?}");
        let mut server = Process::start(listen("b"));
        assert_eq!(key(&server.line()), "port-1");
        assert_eq!(node.line(), "acknowledged 1 of 1");
        assert_eq!(node.end().code, Some(0));
    });
}

#[test]
fn updates_before_a_bad_line_are_acknowledged() {
    in_each(|network| {
        let _server = network.listen("a");
        let mut node = Process::start(network.command("notify", &["--no-multiproc", "--file", "-"]));
        for n in 0..100 {
            node.write(&format!("{{\"table\":\"lport\",\"key\":\"port-{n}\"}}\n"));
        }
        node.write("bad\n");
        let end = node.end();
        assert_eq!(
            (end.code, &*end.stdout),
            (Some(1), &["acknowledged 100 of 100".to_owned()][..]),
            "{end:?}"
        );
        assert!(end.stderr.contains("line 101 of stdin"), "{end:?}");
    });
}

#[test]
fn without_a_promise_nothing_is_waited_for() {
    in_each(|network| {
        let mut server = Process::start(network.command("listen", &["--no-multiproc", "--count", "200"]));
        server.await_stderr("ready");
        let lines: String = (0..200)
            .map(|n| format!("{{\"table\":\"lport\",\"key\":\"port-{n}\"}}\n"))
            .collect();
        // The listener is connected before the first one is sent.
        let mut node = Process::start(network.command("notify", &["--no-multiproc", "--at-most-once", "--file", "-"]));
        node.write(&lines);
        node.close_stdin();
        let sent = node.end();
        assert_eq!(
            (sent.code, &*sent.stdout),
            (Some(0), &["sent 200".to_owned()][..]),
            "{sent:?}"
        );
        let end = server.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        assert_eq!(end.stdout.len(), 200);
        assert_eq!(key(&end.stdout[0]), "port-0");
    });
}

#[test]
fn without_a_promise_nothing_goes_to_a_listener_that_does_not_hear() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::of_ports(folder.path());
        // It is registered, but listens to an address without a publisher.
        let store = folder.path().join("rows.db");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("tcp://{}", nobody.local_addr().unwrap());
        let args = [
            "listen",
            "--no-multiproc",
            "--publisher-port",
            "0",
            "--id",
            "deaf",
            "--publisher",
            &nobody,
        ];
        let mut deaf = Process::start(tablecast(
            args.iter().chain(&["--sqlite-path", store.to_str().unwrap()]),
        ));
        deaf.await_stderr("ready");
        let update = [
            "--at-most-once",
            "--table",
            "lport",
            "--key",
            "port-1",
            "--timeout",
            "3",
        ];
        // The node's own connection to its publisher does not count.
        let end = network.notify(&update);
        assert_eq!(
            (end.code, &*end.stdout),
            (Some(1), &["sent 0".to_owned()][..]),
            "{end:?}"
        );
        for text in ["\"deaf\" does not hear this", "no listener hears this publisher"] {
            assert!(end.stderr.contains(text), "{text}: {end:?}");
        }
        // Another listener is connected, and gets all.
        let mut server = network.listen("hearing");
        for _ in 0..2 {
            let end = network.notify(&update);
            assert_eq!(
                (end.code, &*end.stdout),
                (Some(0), &["sent 1".to_owned()][..]),
                "{end:?}"
            );
            assert_eq!(key(&server.line()), "port-1");
        }
        deaf.signal("TERM");
        assert!(deaf.end().stdout.is_empty());
    });
}

#[test]
fn what_nobody_takes_is_an_error() {
    in_each(|network| {
        let fails = |end: End, code: i32, text: &str| {
            assert_eq!(end.code, Some(code), "{end:?}");
            assert!(end.stderr.contains(text), "{text}: {end:?}");
        };
        let update = ["--table", "lport", "--key", "port-1", "--timeout", "0.5"];
        fails(network.notify(&update), 1, "no listener is alive in ");
        let patient = ["--table", "lport", "--key", "port-1", "--timeout", "2.5"];
        fails(network.notify(&patient), 1, "; still looking");
        let memory = [&["notify", "--no-multiproc", "--store", "memory"], &update[..]].concat();
        fails(run(tablecast(memory)), 2, "choose sqlite or redis");
        let unheard = ["--no-multiproc", "--timeout", "0.5", "--count", "1"];
        fails(run(network.command("listen", &unheard)), 1, "0 of 1 updates");
        // Most likely before it is registered, which makes no difference.
        let brief = ["--no-multiproc", "--timeout", "0", "--count", "1"];
        fails(run(network.command("listen", &brief)), 1, "0 of 1 updates");

        // A stopped server answers nothing: the unacknowledged updates are named.
        let server = network.listen("a");
        server.signal("STOP");
        let update = ["--table", "lport", "--key", "port-1", "--timeout", "3"];
        fails(
            network.notify(&update),
            1,
            "not acknowledged: Action:set, Table:lport, Key:port-1",
        );
        server.signal("CONT");
    });
}

/// The rows of the table of replicas that `tablecast status` prints, if it prints one.
fn replicas(network: &Network, folder: &Path) -> Vec<Vec<String>> {
    let socket = folder.join("nowhere.sock");
    let here = [
        "--publisher-multiproc-socket",
        socket.to_str().unwrap(),
        "--timeout",
        "0.2",
    ];
    let end = run(network.command("status", &[&here[..], &["--hello-interval-ms", "100"]].concat()));
    let lines = end.stdout.iter().skip_while(|line| !line.starts_with("replica "));
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn replicas_show_in_the_status() {
    in_each(|network| {
        let folder = tempfile::tempdir().unwrap();
        assert!(replicas(network, folder.path()).is_empty());
        let mut held = [
            (
                "r1",
                &["--table", "lport", "--table", "chassis"][..],
                "lport,chassis",
                "D,tenant-1",
            ),
            ("r2", &["--table", "lport"], "lport", "D,tenant-1"),
        ]
        .map(|(id, tables, names, topics)| {
            let args = [&["--id", id, "--topic", "tenant-1", "--topic", "D"], tables].concat();
            (Process::start(network.command("replica", &args)), [id, names, topics])
        });
        let expected =
            |held: &[(Process, [&str; 3])]| held.iter().map(|(_, row)| row.map(str::to_owned)).collect::<Vec<_>>();
        let await_shown = |held: &[(Process, [&str; 3])]| {
            crate::common::eventually(LIMIT, || {
                let shown = replicas(network, folder.path());
                let mut rows = shown.iter();
                let head = rows.next().map(|row| row.join(" "));
                let mut rows: Vec<_> = rows.map(|row| [0, 3, 4].map(|column| row[column].clone())).collect();
                rows.sort_unstable();
                rows == expected(held) && head.is_none_or(|head| head == "replica epoch host tables topics")
            });
        };
        await_shown(&held);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        crate::common::eventually(LIMIT, || {
            let shown = replicas(network, folder.path());
            shown.get(1).is_some_and(|row| row[2] == host.trim())
        });
        // A replica that ends is no longer listed.
        held[0].0.signal("TERM");
        assert_eq!(held[0].0.end().code, Some(0));
        await_shown(&held[1..]);
    });
}

#[test]
fn the_deployment_of_the_documents() {
    within(LIMIT, || {
        let section = include_str!("../../src/docs/status_updates.md")
            .split("## Two servers and three nodes")
            .nth(1)
            .unwrap();
        let script = section.split("```bash\n").nth(1).unwrap().split("```").next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tool = Path::new(env!("CARGO_BIN_EXE_tablecast")).parent().unwrap();
        let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
        // Nothing outlives it, whatever happens: all are of one process group.
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "bash", "-euc", script]);
        command.env("PATH", path).env("TMPDIR", folder.path());
        let end = run(command);
        assert_eq!(end.code, Some(0), "{end:?}");
        let acknowledged = |text: &str| end.stdout.iter().filter(|line| *line == text).count();
        assert_eq!(acknowledged("acknowledged 20 of 20"), 3, "{end:?}");
        assert_eq!(acknowledged("acknowledged 1 of 1"), 1, "{end:?}");
        assert_eq!(acknowledged("60"), 1, "{end:?}");
        let alive = |id: &str| {
            let mut rows = end.stdout.iter();
            rows.any(|row| row.starts_with(id) && row.contains("alive"))
        };
        assert!(alive("server-1") && alive("server-2"), "{end:?}");
        assert!(key(end.stdout.last().unwrap()) == "node-1-port-1", "{end:?}");
    });
}
