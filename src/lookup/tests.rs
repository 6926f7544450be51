use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, unbounded};

use super::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

type Resolved = io::Result<Vec<SocketAddr>>;

/// A name server that answers what a test says, when it says it.
struct Server {
    resolver: Arc<Resolver>,
    /// Each look-up, with where its answer goes.
    asked: Receiver<(String, Sender<Resolved>)>,
}

impl Server {
    fn start() -> Server {
        let (asking, asked) = unbounded();
        let resolver = Resolver::new(move |host| {
            let (answer, answers) = bounded(1);
            asking.send((host.to_owned(), answer)).unwrap();
            answers.recv_timeout(LONG).map_err(io::Error::other)?
        });
        Server {
            resolver: Arc::new(resolver),
            asked,
        }
    }

    fn next(&self) -> (String, Sender<Resolved>) {
        self.asked.recv_timeout(LONG).expect("nothing is looked up")
    }

    /// Begins a look-up; the channel is disconnected when it is done or abandoned.
    fn begin(&self, host: &str) -> (Lookup, Receiver<&'static str>) {
        let (done, told) = bounded(1);
        let say = move || {
            // The test may not want to hear it.
            let _ = done.send("done");
        };
        let lookup = self.resolver.begin(host, 1, say);
        (lookup, told)
    }

    fn threads(&self) -> usize {
        self.resolver.jobs.lock().threads
    }
}

fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 0)
}

fn texts(answer: Result<Vec<SocketAddr>>) -> Vec<String> {
    answer.unwrap().iter().map(ToString::to_string).collect()
}

fn soon() -> Instant {
    Instant::now() + LONG
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline);
        let _ = never::<()>().recv_timeout(Duration::from_millis(1));
    }
}

#[test]
fn ip_addresses_are_answered_at_once() {
    let server = Server::start();
    for (host, expected) in [
        ("127.0.0.1", "127.0.0.1:1"),
        ("::1", "[::1]:1"),
        ("[::1]", "[::1]:1"),
        ("[fe80::1%7]", "[fe80::1%7]:1"),
        // The first interface of every Linux.
        ("fe80::1%lo", "[fe80::1%1]:1"),
    ] {
        let (lookup, told) = server.begin(host);
        assert_eq!(texts(lookup.poll().unwrap()), [expected], "{host}");
        assert_eq!(told.try_recv(), Ok("done"), "{host}");
    }
    let error = server.begin("fe80::1%nosuch").0.poll().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.to_string().contains("fe80::1%nosuch"), "{error}");
    assert_eq!(server.threads(), 0);
    assert!(server.asked.is_empty());
}

#[test]
fn an_answer_has_each_address_once_in_order() {
    let server = Server::start();
    let (lookup, told) = server.begin("db1");
    let (host, answer) = server.next();
    assert_eq!(host, "db1");
    assert!(lookup.poll().is_none());
    assert!(told.is_empty());
    let addresses = ["::1", "127.0.0.1", "::1", "10.0.0.1"].map(address);
    answer.send(Ok(addresses.to_vec())).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok("done"));
    let expected = ["[::1]:1", "127.0.0.1:1", "10.0.0.1:1"];
    assert_eq!(texts(lookup.poll().unwrap()), expected);
    assert_eq!(texts(lookup.wait(soon())), expected);
    eventually(|| server.threads() == 0);
}

#[test]
fn a_name_without_an_address_is_an_error() {
    let server = Server::start();
    for resolved in [Ok(Vec::new()), Err(io::Error::other("there is no such host"))] {
        let (lookup, _) = server.begin("db1");
        server.next().1.send(resolved).unwrap();
        let error = lookup.wait(soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport);
        assert!(error.to_string().contains(r#"host "db1""#), "{error}");
    }
}

#[test]
fn those_who_ask_for_a_name_meanwhile_share_its_answer() {
    let server = Server::start();
    let (first, first_told) = server.begin("db1");
    let (_, answer) = server.next();
    let second = server.resolver.begin("db1", 2, || {});
    answer.send(Ok(vec![address("::1")])).unwrap();
    assert_eq!(texts(second.wait(soon())), ["[::1]:2"]);
    assert_eq!(texts(first.wait(soon())), ["[::1]:1"]);
    assert_eq!(first_told.recv_timeout(LONG), Ok("done"));
    assert!(server.asked.is_empty());
    // Not by a later caller.
    let third = server.begin("db1").0;
    server.next().1.send(Ok(vec![address("::2")])).unwrap();
    assert_eq!(texts(third.wait(soon())), ["[::2]:1"]);
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let server = Server::start();
    let (lookup, _) = server.begin("db1");
    let error = lookup.wait(Instant::now() + SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains(r#"host "db1""#), "{error}");
    server.next().1.send(Ok(vec![address("::1")])).unwrap();
    assert_eq!(texts(lookup.wait(soon())), ["[::1]:1"]);
}

#[test]
fn names_that_hang_do_not_hold_up_others() {
    let server = Server::start();
    let hanging: Vec<_> = (1..MAX_THREADS).map(|n| server.begin(&format!("hang{n}"))).collect();
    let hung: Vec<_> = hanging.iter().map(|_| server.next()).collect();
    for name in ["db1", "db2"] {
        let (lookup, _) = server.begin(name);
        let (host, answer) = server.next();
        assert_eq!(host, name);
        answer.send(Ok(vec![address("::1")])).unwrap();
        assert_eq!(texts(lookup.wait(soon())), ["[::1]:1"]);
    }
    drop(hung);
}

#[test]
fn threads_are_bounded_and_end() {
    let server = Server::start();
    let count = 2 * MAX_THREADS;
    let lookups: Vec<_> = (0..count).map(|n| server.begin(&format!("db{n}"))).collect();
    let mut asked: Vec<_> = (0..MAX_THREADS).map(|_| server.next()).collect();
    assert_eq!(server.asked.recv_timeout(SHORT).unwrap_err(), RecvTimeoutError::Timeout);
    assert_eq!(server.threads(), MAX_THREADS);
    while let Some((_, answer)) = asked.pop() {
        answer.send(Ok(vec![address("::1")])).unwrap();
        asked.extend(server.asked.recv_timeout(SHORT));
    }
    for (lookup, _) in &lookups {
        assert_eq!(texts(lookup.wait(soon())), ["[::1]:1"]);
    }
    eventually(|| server.threads() == 0);
    assert!(server.resolver.jobs.lock().callers.is_empty());
}

#[test]
fn a_look_up_that_is_dropped_is_abandoned() {
    let server = Server::start();
    let (lookup, told) = server.begin("db1");
    let (_, answer) = server.next();
    drop(lookup);
    assert_eq!(told.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    // A late answer is for the next caller, which need not wait for it again.
    answer.send(Ok(vec![address("::1")])).unwrap();
    eventually(|| server.threads() == 0);
    let (lookup, told) = server.begin("db1");
    assert_eq!(texts(lookup.poll().unwrap()), ["[::1]:1"]);
    assert_eq!(told.try_recv(), Ok("done"));
    // Once only, for it grows old.
    let again = server.begin("db1").0;
    assert!(again.poll().is_none());
    server.next();
}

#[test]
fn a_name_that_nobody_waits_for_any_more_is_not_begun() {
    let server = Server::start();
    let names = (0..MAX_THREADS).map(|n| server.begin(&format!("hang{n}")));
    let hanging: Vec<_> = names.collect();
    let hung: Vec<_> = hanging.iter().map(|_| server.next()).collect();
    drop(server.begin("abandoned"));
    let wanted = server.begin("wanted").0;
    drop(hung);
    let (host, answer) = server.next();
    assert_eq!(host, "wanted");
    answer.send(Ok(vec![address("::1")])).unwrap();
    wanted.wait(soon()).unwrap();
}

#[test]
fn the_system_is_asked_on_a_thread() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let lookup = Lookup::begin("localhost", 80, move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let addresses = lookup.wait(soon()).unwrap();
    assert!(addresses.iter().all(|it| it.ip().is_loopback() && it.port() == 80));
    eventually(|| calls.load(Ordering::Relaxed) == 1);
}
