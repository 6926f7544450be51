//! Many replicas, many writers, and writers that wait for all.

use std::time::{Duration, Instant};

use crate::actor::{Actor, LIMIT, Part};
use crate::cast::Writer;
use crate::checker::{Proof, understated};
use crate::common::{free_port, pass};
use crate::fleet::{FleetSpec, Order, Outcome};
use crate::history::{History, now};
use crate::process::{End, Process, run, tablecast};
use crate::stage::{Backend, Load, Stage, play, play_on, since, wait_for};
use crate::store::{WRITER, digest};

const TOPICS: &[&str] = &["D", "tenant-1"];

/// The processes, and how many replicas each has.
fn fleets(stage: &Stage, address: &str) -> Vec<Actor> {
    let (processes, replicas) = stage.either((2, 4), (5, 10));
    let mut fleets: Vec<_> = (0..processes)
        .map(|number| {
            Actor::start(&Part::Fleet(FleetSpec {
                name: format!("fleet-{number}"),
                replicas,
                store: stage.store(),
                address: address.into(),
                topics: TOPICS.iter().map(|topic| (*topic).into()).collect(),
                hello_interval: stage.hello(),
            }))
        })
        .collect();
    for fleet in &mut fleets {
        fleet.answer::<()>();
        fleet.ask::<Result<(), String>>(&Order::WaitSynced).unwrap();
    }
    fleets
}

/// All answers of the fleets to this order.
fn ask<T: serde::de::DeserializeOwned>(fleets: &mut [Actor], order: Order) -> Vec<T> {
    fleets.iter_mut().for_each(|fleet| fleet.tell(&order));
    let answers = fleets.iter_mut().flat_map(|fleet| fleet.answer::<Vec<T>>());
    answers.collect()
}

/// The service is killed twice under writers: all replicas equal the store within the bound, their changes are right,
/// and none understates its staleness.
#[test]
fn all_stay_equal() {
    play("many replicas, the service killed twice", Load::Half, |stage| {
        let port = free_port();
        let mut service = Some(stage.service(port, &[]));
        let address = service.as_ref().unwrap().address.clone();
        let mut fleets = fleets(stage, &address);
        let socket = stage.socket();
        let (writers, rate) = stage.either((4, 50), (10, 200));
        let mut writers: Vec<_> = (0..writers)
            .map(|number| {
                let mut spec = stage.writer_spec(&format!("w{number}"), &socket, TOPICS);
                spec.rows = 20;
                let mut writer = stage.writer(spec);
                writer.begin(rate);
                writer
            })
            .collect();
        let (start, mut kills) = (Instant::now(), 0);
        let length = stage.either(Duration::from_secs(8), Duration::from_secs(60));
        let mut proofs: Vec<Proof> = Vec::new();
        while start.elapsed() < length {
            proofs.extend(ask(&mut fleets, Order::Proofs));
            let due = length.mul_f64(f64::from(kills + 1) / 3.0);
            if kills < 2 && start.elapsed() > due {
                service = None;
                kills += 1;
            }
            pass(stage.either(Duration::from_millis(300), Duration::from_secs(2)));
            service.get_or_insert_with(|| stage.service(port, &[]));
        }
        let (mut sent, mut refused) = (0, 0);
        for writer in &mut writers {
            let outcome = writer.stop();
            (sent, refused) = (sent + outcome.sent, refused + outcome.refused);
        }
        let took = start.elapsed();
        let quiet = now();
        // Rows lost with the service are not written again.
        let stored = digest(stage.rows().values());
        wait_for(LIMIT, "not all are equal to the store", || {
            ask::<u64>(&mut fleets, Order::Digests)
                .iter()
                .all(|held| *held == stored)
        });
        let equal = since(quiet);
        proofs.extend(ask(&mut fleets, Order::Proofs));
        writers.into_iter().for_each(Writer::close);
        let outcomes: Vec<Outcome> = ask(&mut fleets, Order::End);
        fleets.into_iter().for_each(Actor::end);
        let writers = History::read_all(stage.folder(), WRITER);
        let missing = understated(&writers, &proofs);
        let changes: u64 = outcomes.iter().map(|outcome| outcome.changes).sum();
        stage.say(format!(
            "{} replicas, {:.0} writes a second for {took:.1?}, {refused} refused, {kills} kills; equal {equal:.1?} after the end \
             (bound {:?}), row changes {changes}, staleness asked {} times",
            outcomes.len(),
            (sent + refused) as f64 / took.as_secs_f64(),
            stage.bound(),
            proofs.len(),
        ));
        assert!(kills == 2 && refused > 0 && changes > 0);
        let said = proofs.iter().filter(|proof| proof.since.len() == TOPICS.len()).count();
        assert!(said > proofs.len() / 2, "{said} of {} say what is proven", proofs.len());
        assert!(
            missing.is_empty(),
            "{} are missing, the first: {:?}",
            missing.len(),
            missing[0]
        );
        for outcome in &outcomes {
            assert!(outcome.untrue.is_empty() && outcome.is_told, "{outcome:?}");
        }
        assert!(equal <= stage.bound(), "equal after {equal:?}");
    });
}

/// A writer waits for all replicas, and for one more that is stopped and named.
#[test]
fn a_writer_waits_for_all() {
    play_on(
        Backend::Sqlite,
        "a writer waits for many replicas",
        Load::Half,
        |stage| {
            let service = stage.service(free_port(), &[]);
            let mut fleets = fleets(stage, &service.address);
            let (store, socket) = (stage.store(), stage.folder().join("publisher.sock"));
            let options = ["--sqlite-path", &store, "--store-timeout-ms", "5000"];
            let options = [
                &options[..],
                &["--publisher-multiproc-socket", socket.to_str().unwrap()],
            ]
            .concat();
            let replica = [
                &[
                    "replica",
                    "--table",
                    TABLE,
                    "--id",
                    "the-one",
                    "--publisher",
                    &service.address,
                ][..],
                &options,
            ];
            let one = Process::start(tablecast(replica.concat()));
            let count = stage.either(8, 50) + 1;
            let write = |command: &str, value: &str, wait: &str| -> (Duration, End) {
                let args = [
                    "db", command, "--table", TABLE, "--key", "k", "--value", value, "--wait", wait,
                ];
                let start = Instant::now();
                let end = run(tablecast([&args[..], &options].concat()));
                (start.elapsed(), end)
            };
            write("create", "0", "5");
            let applied = format!("applied by {count} of {count} replicas");
            let mut times = Vec::new();
            let deadline = Instant::now() + LIMIT;
            for round in 0.. {
                let (took, end) = write("set", &round.to_string(), "5");
                let is_all = end.stdout.last() == Some(&applied);
                if is_all {
                    assert_eq!(end.code, Some(0), "{end:?}");
                    times.push(took);
                }
                if times.len() == 5 {
                    break;
                }
                assert!(Instant::now() < deadline, "the replicas are not all there: {end:?}");
            }
            one.signal("STOP");
            let (took, end) = write("set", "last", "5");
            one.signal("CONT");
            let most = format!("applied by {} of {count} replicas", count - 1);
            assert_eq!((end.code, end.stdout.last()), (Some(1), Some(&most)), "{end:?}");
            assert!(
                end.stderr.contains("the-one") && !end.stderr.contains("fleet-"),
                "{end:?}"
            );
            times.sort_unstable();
            stage.say(format!(
            "{count} replicas: answered after {:.0?} (the process of the writer included; at best {:.0?}, at worst {:.0?}); with one \
             stopped after {took:.1?} of 5 s",
            times[2], times[0], times[4]
        ));
            ask::<Outcome>(&mut fleets, Order::End);
            fleets.into_iter().for_each(Actor::end);
        },
    );
}

/// One of the tables that fleets hold.
const TABLE: &str = "lport";
