//! Servers that are killed, restarted, stopped and continued, cut off from their store, and replaced, under a storm of
//! status updates: an acknowledged update is never processed again, and no older state of a row after a newer one.

use crate::crew::{Carrier, Crew, Server};
use crate::proxy::{BOTH_WAYS, Way};
use crate::redis_server;
use crate::stage::{Load, is_long, play};

/// Where the servers' store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Sqlite,
    Redis,
}

/// Plays the scenario with these rows through this carrier; in the long form through every carrier.
fn play_status(name: &'static str, rows: Rows, carrier: Carrier, body: fn(Crew<'_>, &str)) {
    let all = [Carrier::Ports, Carrier::Service, Carrier::Redis];
    for carrier in all.into_iter().filter(|one| is_long() || *one == carrier) {
        play(name, Load::Half, move |stage| {
            let redis = redis_server::Server::start();
            let crew = Crew::begin(stage, carrier, &redis.host(), rows == Rows::Sqlite);
            body(crew, &format!("{rows:?} and {carrier:?}"));
        });
    }
}

/// The rounds that are played: in the short form the first one.
fn rounds<T>(all: &[T]) -> &[T] {
    if is_long() { all } else { &all[..1] }
}

/// Each of them is replaced by another one. A server that is behind finds claims of gone ones.
fn killed(mut crew: Crew<'_>, what: &str) {
    for &(number, id) in rounds(&[(0, "d"), (2, "e")]) {
        crew.go_on(0.1);
        crew.delay(1);
        crew.go_on(0.15);
        crew.change(number, Server::kill, Some(id));
        crew.pass_timeouts(2.0);
    }
    crew.verdict(what);
}

#[test]
fn killed_over_sqlite() {
    play_status("servers killed", Rows::Sqlite, Carrier::Service, killed);
}

#[test]
fn killed_over_redis() {
    play_status("servers killed", Rows::Redis, Carrier::Redis, killed);
}

fn restarted(mut crew: Crew<'_>, what: &str) {
    for round in 0..6 {
        crew.go_on(0.1);
        crew.change(round % 3, Server::kill, None);
    }
    crew.verdict(what);
}

#[test]
fn restarted_over_sqlite() {
    play_status(
        "servers killed and restarted",
        Rows::Sqlite,
        Carrier::Service,
        restarted,
    );
}

#[test]
fn restarted_over_redis() {
    play_status("servers killed and restarted", Rows::Redis, Carrier::Redis, restarted);
}

/// Updates that wait at a stopped server not yet taken for dead go to other servers, one of which is killed and
/// restarted: then the first one finds claims of a run that is gone.
fn restarted_beside_one_that_is_behind(mut crew: Crew<'_>, what: &str) {
    for number in 0..3 {
        crew.go_on(0.1);
        crew.suspend(number);
        crew.pass_timeouts(0.3);
        crew.change((number + 1) % 3, Server::kill, None);
        crew.servers[number].resume();
    }
    crew.verdict(what);
}

#[test]
fn restarted_beside_one_that_is_behind_over_sqlite() {
    let name = "a server behind, another restarted";
    play_status(name, Rows::Sqlite, Carrier::Redis, restarted_beside_one_that_is_behind);
}

#[test]
fn restarted_beside_one_that_is_behind_over_redis() {
    let name = "a server behind, another restarted";
    play_status(name, Rows::Redis, Carrier::Service, restarted_beside_one_that_is_behind);
}

/// For so long that they are taken for dead.
fn stopped(mut crew: Crew<'_>, what: &str) {
    for &number in rounds(&[0, 2]) {
        crew.go_on(0.1);
        crew.delay(1);
        crew.go_on(0.15);
        crew.suspend(number);
        crew.await_known(number, false);
        crew.go_on(0.1);
        crew.servers[number].resume();
        crew.await_known(number, true);
    }
    crew.verdict(what);
}

#[test]
fn stopped_over_sqlite() {
    play_status("servers stopped and continued", Rows::Sqlite, Carrier::Service, stopped);
}

#[test]
fn stopped_over_redis() {
    play_status("servers stopped and continued", Rows::Redis, Carrier::Redis, stopped);
}

/// One server for a while; one for so long that it is taken for dead; and one whose requests still arrive.
fn cut(mut crew: Crew<'_>, what: &str) {
    crew.go_on(0.1);
    crew.servers[1].cut(BOTH_WAYS);
    crew.pass_timeouts(0.5);
    crew.servers[1].mend();
    for (number, ways) in [(0, BOTH_WAYS), (2, &[Way::ToSubscriber])] {
        crew.go_on(0.1);
        crew.delay(1);
        crew.go_on(0.15);
        crew.servers[number].cut(ways);
        crew.await_known(number, false);
        crew.go_on(0.1);
        crew.servers[number].mend();
        crew.await_known(number, true);
    }
    crew.verdict(what);
}

#[test]
fn cut_over_sqlite() {
    play_status("servers cut off from the store", Rows::Sqlite, Carrier::Ports, cut);
}

#[test]
fn cut_over_redis() {
    play_status("servers cut off from the store", Rows::Redis, Carrier::Redis, cut);
}

/// Without faults nothing is processed twice: neither when a server ends and begins again under its id, nor when a
/// listener is replaced while its handler takes longer than the stop waits for.
fn replaced(mut crew: Crew<'_>, what: &str) {
    for number in 0..3 {
        crew.go_on(0.1);
        crew.servers[(number + 1) % 3].replace();
        crew.go_on(0.1);
        crew.change(number, Server::end, None);
    }
    let tally = crew.verdict(what);
    assert_eq!(tally.repeated, 0, "{what}: {tally}");
}

#[test]
fn replaced_over_sqlite() {
    play_status("servers replaced", Rows::Sqlite, Carrier::Service, replaced);
}

#[test]
fn replaced_over_redis() {
    play_status("servers replaced", Rows::Redis, Carrier::Redis, replaced);
}
