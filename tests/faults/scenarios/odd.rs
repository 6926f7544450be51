//! Topics, tables and keys that look like something else.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{ErrorKind, Publisher, PublisherOptions, Topic};

use crate::cast::Writer;
use crate::common::{free_port, pass};
use crate::history::now;
use crate::junk::valid;
use crate::proxy::{Fate, Proxy};
use crate::random::Random;
use crate::rig::{Rig, update};
use crate::scenarios::is_update;
use crate::stage::{Backend, Load, play, play_on, since, wait_for};
use crate::writer::ODD;

/// Prefixes of one another, globs, white space, names that look alike, names of the library's own, and long ones.
fn topics() -> Vec<String> {
    let short = [
        "D",
        "DD",
        "Dxyz",
        "tenant",
        "tenant-1",
        "tenant-10",
        "tenant-1*",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "a.b",
        "a/b",
        "a+",
        " ",
        "\n",
        "\0",
        "\0D",
        "é",
        "e\u{301}",
        "日本",
        "hello",
        "goodbye",
        "sync",
        "probe/",
        "tablecast/hello",
        "\u{10FFFF}",
        "\u{10FFFF}tablecast",
        "null",
        "\"",
        "\\",
    ];
    let long = [
        (200, "a"),
        (200, "b"),
        (255, ""),
        (256, ""),
        (MAX - 1, "a"),
        (MAX - 1, "b"),
    ];
    let long = long.map(|(length, end)| "x".repeat(length) + end);
    short.into_iter().map(str::to_owned).chain(long).collect()
}

/// Length of the longest topic and key.
const MAX: usize = 65_536;

on_every_store!(each_comes_to_its_own, topics_come_and_go);

fn each_comes_to_its_own(backend: Backend) {
    play_on(
        backend,
        "topics and keys that look like something else",
        Load::Light,
        |stage| {
            let service = stage.service(free_port(), &[]);
            let topics = topics();
            let topics: Vec<_> = topics.iter().map(String::as_str).collect();
            let every_other = |first| topics.iter().copied().skip(first).step_by(2).collect::<Vec<_>>();
            let programs = [every_other(0), every_other(1), vec!["tenant-", "Dx", "x"]];
            let mut programs = ["even", "odd", "none"].map(|name| {
                let topics = &programs[["even", "odd", "none"].iter().position(|other| *other == name).unwrap()];
                let mut spec = stage.program_spec(name, &[&service.address], topics);
                spec.tables = ODD.iter().map(|table| (*table).into()).collect();
                stage.program(spec)
            });
            let socket = stage.socket();
            let mut writers = ["a", "b"].map(|name| {
                let mut spec = stage.writer_spec(name, &socket, &topics);
                (spec.rows, spec.odd) = (7, true);
                stage.writer(spec)
            });
            let count = stage.either(600, 20_000);
            for writer in &mut writers {
                writer.order(count, 1_000);
            }
            // Topics that are not text, which cannot be registered.
            let context = zmq::Context::new();
            let push = context.socket(zmq::PUSH).unwrap();
            push.connect(&socket).unwrap();
            for topic in [&b"D\xff"[..], b"tenant-1\xc3", b"\xf4\x8f\xbf", b"\xff"] {
                for key in 0..50 {
                    push.send_multipart([topic.to_vec(), valid(key)], 0).unwrap();
                }
            }
            for writer in &mut writers {
                assert_eq!(writer.outcome().refused, 0);
            }
            let [even, odd, none] = &mut programs;
            wait_for(stage.bound(), "not all came", || {
                even.report().delivered + odd.report().delivered == 2 * count
            });
            let quiet = now();
            let converged = stage.converge(&mut [even, odd, none]);
            // Two of them begin like a registered topic.
            wait_for(stage.bound(), "what came by its prefix is not counted", || {
                even.report().filtered + odd.report().filtered >= 100
            });
            assert_eq!(none.report().delivered, 0);
            for program in &mut programs {
                assert_eq!(program.syncs().len(), 1, "{:?}", program.syncs());
            }
            writers.into_iter().for_each(Writer::close);
            let figures = format!("{} topics, converged after {converged:.1?}", topics.len());
            stage.verdict(quiet, programs.into(), figures);
        },
    );
}

/// A replica has the rows of a topic while it is registered.
fn topics_come_and_go(backend: Backend) {
    play_on(backend, "topics come and go under load", Load::Light, |stage| {
        let service = stage.service(free_port(), &[]);
        let topics: Vec<_> = (0..20).map(|number| format!("tenant-{number}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let mut random = Random::from_seed(stage.random.next());
        let proxy = Proxy::to(&service.address);
        proxy.judge(move |message| match is_update(message) && random.below(40) == 0 {
            true => Fate::Drop,
            false => Fate::Pass,
        });
        let mut program = stage.program(stage.program_spec("p", &[proxy.address()], &topics[..1]));
        let socket = stage.socket();
        let mut spec = stage.writer_spec("a", &socket, &topics);
        spec.rows = 3;
        let mut writer = stage.writer(spec);
        writer.begin(1_000);
        let mut changes = 0;
        let start = now();
        while since(start) < stage.either(Duration::from_secs(2), Duration::from_secs(30)) {
            // The first one stays.
            let topic = topics[1 + stage.random.below(topics.len() - 1)];
            changes += 1;
            match program.topics.contains(topic) {
                true => program.unregister(topic),
                false => program.register(topic),
            }
            pass(Duration::from_millis(stage.random.below(150) as u64));
        }
        writer.halt();
        let quiet = now();
        let converged = stage.converge(&mut [&mut program]);
        writer.close();
        // A later update of the row may make up for a loss before that is reported, which takes at most a second.
        pass(Duration::from_millis(1_200));
        let figures = format!("{changes} changes, converged after {converged:.1?}");
        let figures = stage.verdict(quiet, vec![program], figures);
        assert!(figures.declared > 0, "nothing was lost: the proxy did nothing");
    });
}

#[test]
fn what_cannot_be_is_refused() {
    play("topics and keys that cannot be", Load::Light, |stage| {
        let driver = ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap();
        let driver: Arc<dyn Driver> = Arc::new(driver);
        let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &publisher.address().unwrap());
        let refused = |result: tablecast::Result<bool>| result.unwrap_err().kind();
        for name in [
            "",
            "\u{10FFFF}tablecast/",
            "\u{10FFFF}tablecast/hello",
            "\u{10FFFF}tablecast/probe/1",
        ] {
            assert_eq!(
                refused(Topic::new(name).map(|_| true)),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
        let long = Topic::new("x".repeat(MAX + 1)).unwrap();
        assert_eq!(refused(rig.subscriber.register_topic(&long)), ErrorKind::InvalidInput);
        let send = |update| publisher.send_event(&update).map(|()| true);
        assert_eq!(refused(send(update("k").topic(long))), ErrorKind::InvalidInput);
        assert_eq!(refused(send(update(&"x".repeat(MAX + 1)))), ErrorKind::InvalidInput);
        for key in [String::new(), "\0".into(), "x".repeat(MAX)] {
            assert!(send(update(&key)).unwrap());
            assert_eq!(rig.next_key(), key);
        }
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert!(rig.syncs.is_empty() && rig.updates.is_empty());
        stage.say("7 refused with a typed error, 3 came as they were sent");
    });
}
