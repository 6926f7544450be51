//! The tool with keys.

use std::path::Path;

use crate::LIMIT;
use crate::common::within;
use crate::party::{Party, assert_outside, await_line, text};
use crate::process::{Process, run, tablecast};

/// A service that lets in those on the list, and its address.
fn serve(party: &Party, socket: &Path, args: &[&str]) -> (Process, String) {
    let mut command = tablecast(["service", "--publisher-port", "0"]);
    command.arg("--publisher-multiproc-socket").arg(socket);
    command.arg("--curve-secret-key-file").arg(party.path("server"));
    command
        .arg("--curve-allowed-clients")
        .arg(party.path("clients"))
        .args(args);
    let mut service = Process::start(command);
    let ready = service.line();
    let words: Vec<&str> = ready.split(' ').collect();
    assert_eq!((words.len(), words[0]), (3, "ready"), "{ready}");
    (service, words[1].to_owned())
}

/// Publishes through the service; writers need no keys.
fn publish(socket: &Path, key: &str, topic: &str) {
    let args = ["--table", "t", "--key", key, "--topic", topic];
    let mut command = crate::process::publish(args);
    command.arg("--publisher-multiproc-socket").arg(socket);
    let end = run(command);
    assert_eq!(end.code, Some(0), "{end:?}");
}

#[test]
fn outsiders_hear_nothing_of_a_service() {
    within(LIMIT, || {
        let party = Party::new();
        let (listed, outsiders) = party.guests();
        let socket = party.path("publisher.sock");
        let (_service, address) = serve(&party, &socket, &[]);
        let mut outsiders = outsiders.map(|guest| guest.start("sub", &address));
        let mut listed = listed.start("sub", &address);
        await_line(&mut listed, "in", || ());
        for outsider in &mut outsiders {
            await_line(outsider, "out", || ());
        }
        let pair = party.path("listed");
        let pair = ["--curve-secret-key-file", text(&pair)];
        let mut watch = Process::start(tablecast(["watch", "--publisher", &address].iter().chain(&pair)));
        watch.await_stderr("ready");
        assert!(watch.line().contains("connected"));
        publish(&socket, "k", "D");
        assert!(watch.line().contains(r#""key":"k""#));
        await_line(&mut listed, "got D", || ());
        let status = |format: &str| {
            let args = ["status", "--publisher", &address, "--format", format];
            let end = run(tablecast(args.iter().chain(&pair)));
            assert_eq!((end.code, &*end.stderr), (Some(0), ""));
            end.stdout
        };
        assert_eq!(status("text")[1], format!("{address}  live, authenticated"));
        assert!(status("json")[0].ends_with(r#""state":"live","authenticated":true}"#));

        party.unlist("listed");
        await_line(&mut listed, "out", || ());
        publish(&socket, "after", "after");
        let end = run(tablecast(
            ["status", "--timeout", "5", "--publisher", &address]
                .iter()
                .chain(&pair),
        ));
        assert_eq!(end.code, Some(1));
        assert!(end.stdout[1].ends_with("not connected"), "{end:?}");
        assert!(end.stderr.contains("does not let in this process's key"), "{end:?}");
        assert_outside(listed, Some("after"));
        outsiders
            .into_iter()
            .for_each(|outsider| assert_outside(outsider, None));
    });
}

#[test]
fn keys_of_publishers_are_found_in_the_store() {
    within(LIMIT, || {
        let party = Party::new();
        party.invite(&["client"]);
        let store = party.path("rows.db");
        let discover = [
            "--discover",
            "true",
            "--discover-interval-ms",
            "50",
            "--publisher-timeout-ms",
            "3000",
            "--sqlite-path",
            text(&store),
        ];
        let pair = party.path("client");
        let pair = ["--curve-secret-key-file", text(&pair)];
        let mut watch = Process::start(tablecast(["watch"].iter().chain(&discover).chain(&pair)));
        let socket = party.path("publisher.sock");
        let (_service, address) = serve(&party, &socket, &discover);
        watch.await_stderr("ready");
        let connected = format!(r#"{{"event":"sync","reason":"connected","address":"{address}"}}"#);
        assert_eq!(watch.line(), connected);
        publish(&socket, "k", "D");
        assert!(watch.line().contains(r#""key":"k""#));
        let publishers = |format: &str| {
            let end = run(tablecast(["publishers", "--format", format].iter().chain(&discover)));
            assert_eq!(end.code, Some(0), "{end:?}");
            end.stdout[usize::from(format == "text")].clone()
        };
        let row = publishers("text");
        assert!(row.contains(&address) && row.contains("alive, authenticated"), "{row}");
        let row = publishers("json");
        assert!(row.contains(r#""authenticated":true"#), "{row}");
        // The id stays when the key is replaced.
        let id = row.split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap();
        assert!(!id.contains("?key="), "{row}");
    });
}
