//! A Redis server that is killed, hangs, and comes back.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::redis::RedisOptions;
use tablecast::store::StoreOptions;
use tablecast::stores::redis::RedisStore;
use tablecast::{Action, Store, Topic};

use crate::Host;
use crate::common::{Stopwatch, eventually, within};
use crate::rig::LONG;
use crate::servers::Server;

/// A store with a short time limit.
pub(crate) fn store(server: &Server) -> Arc<dyn Store> {
    let options = StoreOptions {
        batch_amount: 10,
        timeout: Duration::from_secs(2),
        ..StoreOptions::default()
    };
    Arc::new(RedisStore::new(&server.address(), options, &RedisOptions::default()).unwrap())
}

fn fill(store: &dyn Store) {
    for number in 0..25 {
        store.create("t", &format!("{number:02}"), "x", &Topic::ALL).unwrap();
    }
}

#[test]
fn a_server_that_is_killed_has_deleted_nothing() {
    within(Duration::from_secs(60), || {
        let mut server = Server::with(&["--appendonly", "yes"]);
        let store = store(&server);
        let host = Host::new();
        fill(&*store);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(25).len(), 25);
        host.nothing_more(&monitor);
        for round in 0..2 {
            let failures = monitor.stats().failures;
            server.kill();
            eventually(LONG, || monitor.stats().failures > failures + 1);
            server.restart();
            let key = format!("new {round}");
            eventually(LONG, || store.create("t", &key, "x", &Topic::ALL).is_ok());
            assert_eq!(host.keys(1), [(key, Action::Create)]);
            host.nothing_more(&monitor);
        }
        assert_eq!(monitor.stats().deleted, 0);
        store.delete("t", "07").unwrap();
        assert_eq!(host.keys(1), [("07".to_owned(), Action::Delete)]);
        host.nothing_more(&monitor);
    });
}

#[test]
fn a_server_that_hangs_has_deleted_nothing_and_holds_nobody_up() {
    within(Duration::from_secs(60), || {
        let server = Server::start();
        let store = store(&server);
        let host = Host::new();
        fill(&*store);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(25).len(), 25);
        host.nothing_more(&monitor);
        server.hang();
        let failures = monitor.stats().failures;
        eventually(LONG, || monitor.stats().failures > failures + 1);
        let start = Stopwatch::start();
        monitor.stop();
        start.assert_within(Duration::from_millis(900), "stop");
        server.resume();
        let monitor = host.monitor(&store);
        host.nothing_more(&monitor);
        store.delete("t", "07").unwrap();
        assert_eq!(host.keys(1), [("07".to_owned(), Action::Delete)]);
        host.nothing_more(&monitor);
    });
}
