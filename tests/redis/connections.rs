//! The connections shared by the threads of a program: slow, lost on the way, or in each other's way.

use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::thread::{Builder, scope};
use std::time::{Duration, Instant};

use tablecast::drivers::redis::RedisOptions;
use tablecast::store::{Changes, StoreOptions, Write};
use tablecast::stores::redis::RedisStore;
use tablecast::{ErrorKind, Result, Store, Topic};

use crate::common::{eventually, pass, within};
use crate::proxy::{Fault, Proxy};
use crate::rig::{LONG, quickly};
use crate::servers::Server;
use crate::store::{is_outage, limits, store, store_with};
use crate::{BEAT, SECOND, SILENCE, hasty, options};

const LIMIT: Duration = Duration::from_secs(60);

const THREADS: usize = 16;

/// It gives up a server that is silent.
fn hasty_store(address: &str) -> RedisStore {
    RedisStore::new(address, limits(), &hasty()).unwrap()
}

/// Runs `call` on as many threads at once. Returns the results, and the time of each.
fn together<T: Send>(call: impl Fn() -> T + Sync) -> Vec<(T, Duration)> {
    let timed = || {
        let start = Instant::now();
        (call(), start.elapsed())
    };
    scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| Builder::new().spawn_scoped(scope, timed).unwrap())
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A store with as many idle connections through the proxy, which are due for a check.
fn with_idle_connections(server: &Server, proxy: &Proxy) -> RedisStore {
    store(&server.address()).create("t", "k", "v", &Topic::ALL).unwrap();
    let store = store(&proxy.address());
    // So slow that no thread finds a connection that another one has returned.
    proxy.set(Fault::Delay(Duration::from_millis(30)));
    eventually(LONG, || {
        for (got, _) in together(|| store.get("t", "k", None)) {
            got.unwrap();
        }
        server.clients() > THREADS / 2
    });
    proxy.set(Fault::None);
    pass(2 * BEAT);
    store
}

#[test]
fn one_forgotten_connection_stands_for_all() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let store = with_idle_connections(&server, &proxy);
        proxy.forget();
        let before = proxy.accepted();
        store.get("t", "k", None).unwrap();
        for _ in 0..THREADS {
            quickly(SECOND, "get", || store.get("t", "k", None)).unwrap();
        }
        assert!(proxy.accepted() <= before + 2);
    });
}

/// Several times as long as a server may be silent.
#[test]
fn a_reply_that_is_still_arriving_is_waited_for() {
    within(LIMIT, || {
        let server = Server::start();
        let value = "v".repeat(100 << 10);
        for number in 0..20 {
            let key = format!("k{number}");
            store(&server.address()).create("t", &key, &value, &Topic::ALL).unwrap();
        }
        let proxy = Proxy::to(server.port());
        let store = hasty_store(&proxy.address());
        store.get("t", "k0", None).unwrap();
        proxy.set(Fault::Rate(1 << 20));
        let start = Instant::now();
        let rows: Result<Vec<_>> = store.entries("t", None).collect();
        assert_eq!(rows.unwrap().len(), 20);
        assert!(start.elapsed() > 3 * SILENCE);
        // A silent connection is given up as soon as usual.
        let cut = Builder::new().spawn({
            let store = store.clone();
            move || store.entries("t", None).collect::<Result<Vec<_>>>()
        });
        pass(SILENCE);
        proxy.forget();
        let before = proxy.accepted();
        assert_eq!(cut.unwrap().join().unwrap().unwrap().len(), 20);
        assert!(proxy.accepted() > before);
    });
}

#[test]
fn a_request_that_is_still_going_out_is_waited_for() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let store = hasty_store(&proxy.address());
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        proxy.set(Fault::SlowRequest(4 << 20));
        let value = "v".repeat(16 << 20);
        let start = Instant::now();
        assert_eq!(store.set("t", "k", &value).unwrap(), 2);
        assert!(start.elapsed() > 3 * SILENCE);
    });
}

#[test]
fn a_refusal_keeps_its_words_whatever_its_bytes() {
    within(LIMIT, || {
        let server = Server::with(&["--rename-command", "HMGET", "HMGET-IS-NOT-HERE"]);
        let store = store(&server.address());
        // Redis quotes the beginning of its input, and cuts it within a character for one of these.
        for shift in ["", "x"] {
            let key = format!("{shift}{}", "é".repeat(200));
            let error = store.get("t", &key, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("unknown command 'HMGET'"), "{error}");
        }
    });
}

/// Sixteen small rows, and then large ones.
#[test]
fn a_page_costs_the_server_no_more_than_a_page() {
    within(LIMIT, || {
        let server = Server::start();
        let store = store(&server.address());
        let large = "v".repeat(2 << 20);
        for number in 0..144 {
            let value = if number < 16 { "v" } else { &large };
            store.create("t", &format!("{number:03}"), value, &Topic::ALL).unwrap();
        }
        let (before, after) = server.growth(|| {
            let page = store.page_of_entries("t", None, None).unwrap();
            assert_eq!(page.items.len(), 18);
        });
        let grown = after.saturating_sub(before) >> 20;
        println!("the server has grown by {grown} MiB");
        assert!(grown < 64, "{grown} MiB");
        assert_eq!(store.entries("t", None).filter(Result::is_ok).count(), 144);
        assert_eq!(store.keys("t", None).count(), 144);
    });
}

/// Rows that were written again later are read only for that.
#[test]
fn changes_cost_the_server_no_more_than_a_few_pages() {
    within(LIMIT, || {
        let server = Server::start();
        let store = store(&server.address());
        let large = "v".repeat(1 << 20);
        let keys: Vec<_> = (0..40).map(|number| format!("{number:02}")).collect();
        keys.iter()
            .for_each(|key| _ = store.create("t", key, "v", &Topic::ALL).unwrap());
        let now = || store.table_version("t").unwrap().unwrap();
        let mut since = now();
        for _ in 0..2 {
            keys.iter().for_each(|key| _ = store.set("t", key, &large).unwrap());
        }
        let (mut found, mut pages, mut empty) = (Vec::new(), 0, 0);
        loop {
            let Changes::Page(page) = store.changes("t", &Topic::ALL, since).unwrap() else {
                panic!("unknown");
            };
            pages += 1;
            empty += usize::from(page.changes.is_empty());
            assert!(!page.more || page.version.version > since.version);
            since = page.version;
            found.extend(page.changes.into_iter().map(|change| change.key.to_string()));
            if !page.more {
                break;
            }
        }
        assert_eq!((found, since), (keys, now()));
        // Two have read 16 rows each, one 8 and the first 4 changes; nine have 4 each, and the last has none left.
        assert_eq!((pages, empty), (13, 3));
    });
}

#[test]
fn writes_are_bundled_by_their_bytes_too() {
    within(LIMIT, || {
        let server = Server::start();
        let store = store(&server.address());
        store.write_each(&[Write::create("t", "0", "v")]).unwrap();
        let scripts = || {
            let calls: String = server.ask(&["INFO", "commandstats"]);
            let calls = calls.split_once("cmdstat_evalsha:calls=").unwrap().1;
            calls.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        let before = scripts();
        let large = "v".repeat(3 << 20);
        let writes = ["1", "2", "3", "4", "5"].map(|key| Write::create("t", key, &large));
        let written = store.write_each(&writes).unwrap();
        let versions: Vec<_> = written.into_iter().map(|written| written.unwrap().version).collect();
        assert_eq!(versions, [2, 3, 4, 5, 6]);
        assert_eq!(scripts() - before, 3);
    });
}

/// Connections are checked now and then; only the thread that has taken one waits for that.
#[test]
fn threads_do_not_wait_for_each_other() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        store(&server.address()).create("t", "k", "v", &Topic::ALL).unwrap();
        let redis = RedisOptions {
            // Each call checks first.
            heartbeat_interval: Duration::from_millis(10),
            ..options()
        };
        let store = store_with(&proxy.address(), redis);
        proxy.set(Fault::Delay(Duration::from_millis(100)));
        drop(together(|| store.get("t", "k", None).unwrap()));
        pass(2 * BEAT);
        // A check and a request: four times the delay.
        let times = quickly(3 * SECOND, "each call at once", || {
            together(|| store.get("t", "k", None).unwrap())
        });
        let longest = times.iter().map(|(_, took)| took).max();
        println!("the longest of {THREADS} calls has taken {longest:?}");
    });
}

/// A server that takes `time` to say that it has neither a row nor its table, and then answers nothing but signs of
/// life. Returns its address.
fn falling_silent(time: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let serve = move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            while let Ok(length @ 1..) = stream.read(&mut request) {
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let answer = if request.contains("HELLO") {
                    "%2\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
                } else if request.contains("PING") {
                    "+PONG\r\n"
                } else if request.contains("HMGET") {
                    pass(time);
                    "*2\r\n_\r\n_\r\n"
                } else {
                    continue;
                };
                // The client may have gone.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    };
    Builder::new().spawn(serve).unwrap();
    address
}

/// A missing row of a missing table takes two requests.
#[test]
fn a_call_of_several_requests_has_one_time_limit() {
    within(LIMIT, || {
        let address = falling_silent(5 * SECOND / 2);
        let timeout = 6 * SECOND;
        let limits = StoreOptions { timeout, ..limits() };
        let store = RedisStore::new(&address, limits, &options()).unwrap();
        let error = quickly(timeout + SECOND, "get", || store.get("t", "k", None)).unwrap_err();
        assert!(is_outage(&error), "{error}");
    });
}
