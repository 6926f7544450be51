//! A handled signal, and `setuid` in the process, interrupt the waits of its threads: every thread goes on.
#![cfg(all(feature = "zmq", feature = "redis", feature = "bin"))]

mod common;
#[path = "common/reexec.rs"]
mod reexec;
#[path = "common/rig.rs"]
mod rig;
#[path = "common/redis.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{eventually, pass, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, setuid};
use reexec::Process;
use rig::{LONG, Rig, update};
use tablecast::monitor::{Monitor, MonitorOptions};
use tablecast::{Config, Drivers, Node, Topic, failed_threads};

const LIMIT: Duration = Duration::from_secs(120);

/// How often every thread is disturbed.
const TIMES: u32 = 200;

/// The file that tells the process to begin.
const GO: &str = "go";

const FOLDER: &str = "TABLECAST_TEST_FOLDER";
const REDIS: &str = "TABLECAST_TEST_REDIS";
const SETUID: &str = "TABLECAST_TEST_SETUID";

fn config(folder: &Path, redis: &str) -> Config {
    let mut config = Config::default();
    config.publisher_multiproc_socket = folder.join("publisher.sock");
    config.publisher_port = 0;
    config.topics = vec![Topic::ALL];
    config.send_timeout_ms = Duration::from_secs(5);
    config.discover = true;
    config.discover_interval_ms = Duration::from_millis(50);
    config.publisher_timeout_ms = Duration::from_secs(30);
    config.dispatcher_workers = 2;
    match redis {
        "" => config.nb_db_class = "memory".into(),
        host => {
            config.nb_db_class = "redis".into();
            config.pub_sub_driver = "redis".into();
            config.remote_db_hosts = vec![host.into()];
        }
    }
    config
}

/// The names of the threads of a process, with their numbers.
fn threads(pid: &str) -> BTreeMap<String, u32> {
    let mut names = BTreeMap::new();
    for (_, name) in tasks(pid) {
        *names.entry(name).or_default() += 1;
    }
    names
}

fn tasks(pid: &str) -> Vec<(i32, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks = tasks.filter_map(|task| {
        let task = task.ok()?;
        // It may have ended meanwhile.
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    });
    tasks.collect()
}

/// Not a test: the body of a process with a thread of every kind, started by [`disturbed`].
#[test]
fn process_of_the_signals() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut config = config(Path::new(&folder), &std::env::var(REDIS).unwrap());
    let is_setuid = std::env::var(SETUID).unwrap() == "true";
    let signals = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&signals);
    let mut handled = signal_hook::iterator::Signals::new([Signal::SIGINT as i32]).unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
    std::thread::spawn(move || {
        handled
            .forever()
            .for_each(|_| _ = count.fetch_add(1, Ordering::Relaxed));
    });

    let host = Node::open(&config).unwrap();
    let (service, registration) = (host.service().unwrap(), host.registration());
    config.publishers = vec![service.address().unwrap()];
    let node = Node::open(&config).unwrap();
    let (store, dispatcher) = (node.store().unwrap(), node.dispatcher().unwrap());
    let (sender, seen) = crossbeam_channel::unbounded();
    dispatcher.on_table("row", sender).detach();
    let (sender, monitored) = crossbeam_channel::unbounded();
    dispatcher.on_table("monitored", sender).detach();
    let (subscriber, publisher) = (node.subscriber().unwrap(), node.publisher().unwrap());
    let options = MonitorOptions {
        interval: Duration::from_millis(20),
        ..MonitorOptions::default()
    };
    let monitor = Monitor::new(Arc::clone(&store), Arc::clone(&publisher), "monitored", "id", options).unwrap();
    let (sender, processed) = crossbeam_channel::unbounded();
    let handler = move |update: &tablecast::DbUpdate| drop(sender.send(update.key.clone()));
    let (listener, notifier) = (node.listener(handler).unwrap(), node.notifier().unwrap());
    match registration {
        Some(registration) => registration.wait_registered(LONG).unwrap(),
        None => assert_eq!(config.pub_sub_driver, "redis"),
    }
    listener.wait_registered(LONG).unwrap();
    notifier.wait_listeners(1, LONG).unwrap();
    subscriber.wait_live(LONG).unwrap();
    store.create("monitored", "row", "-", &Topic::ALL).unwrap();
    monitored.recv_timeout(LONG).unwrap();
    // Threads that only connect come and go.
    let lasting = || {
        let mut threads = threads("self");
        threads.retain(|name, _| name != "tc-connect");
        threads
    };
    let before = lasting();
    println!("ready {}", service.address().unwrap());
    let go = Path::new(&folder).join(GO);
    eventually(LONG, || go.exists());

    // All threads work while they are disturbed.
    for round in 0..TIMES {
        publisher.send_event(&update("own").value(round.to_string())).unwrap();
        notifier.notify(update(&format!("status-{round}"))).unwrap();
        store.set("monitored", "row", &round.to_string()).unwrap();
        if is_setuid {
            // Another user if that is allowed. The C library interrupts every thread in either case.
            let user = if Uid::current().is_root() {
                Uid::from_raw(65534)
            } else {
                Uid::current()
            };
            setuid(user).unwrap();
        }
        pass(Duration::from_millis(10));
    }
    println!("worked");
    let _ = std::io::stdin().read(&mut [0]);

    notifier.flush(LONG).unwrap();
    assert_eq!(
        processed.iter().take(TIMES as usize).collect::<BTreeSet<_>>().len(),
        TIMES as usize
    );
    let mut own = 0;
    while own < TIMES {
        let update = seen.recv_timeout(LONG).unwrap();
        if update.key == "own" {
            assert_eq!(update.value, Some(own.to_string()));
            own += 1;
        }
    }
    let last = Some((TIMES - 1).to_string());
    while monitored.recv_timeout(LONG).unwrap().value != last {}
    assert_eq!(lasting(), before);
    assert!(service.is_running());
    assert_eq!(failed_threads(), 0);
    let expected = if is_setuid { 0 } else { 1 };
    assert!(signals.load(Ordering::Relaxed) >= expected, "no signal was handled");
    let names: Vec<_> = before.into_keys().collect();
    println!("threads {}", names.join(","));
    let _ = std::io::stdout().flush();
    // In the order in which a program ends.
    drop((notifier, listener, monitor, node));
    println!("forwarded {}", service.stats().forwarded);
}

/// Lets writers send through a service that is disturbed, and expects everything they sent, in order.
fn disturbed(redis: Option<&servers::Server>, is_setuid: bool) {
    let folder = tempfile::tempdir().unwrap();
    // For the user that the process becomes.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let host = redis.map(servers::Server::host).unwrap_or_default();
    let variables = [
        (FOLDER, folder.path().to_str().unwrap()),
        (REDIS, &*host),
        (SETUID, if is_setuid { "true" } else { "false" }),
    ];
    let mut process = Process::start("process_of_the_signals", &variables);
    let address = process.said("ready ");
    let config = config(folder.path(), &host);
    let drivers = Drivers::new();
    let rig = Rig::new(&drivers.network(&config).unwrap());
    rig.listen(&["D"], &address);

    let stop = Arc::new(AtomicBool::new(false));
    let write = |number: u32| {
        let publisher = Node::open(&config).unwrap().publisher().unwrap();
        let stop = Arc::clone(&stop);
        let write = move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let update = update(&format!("writer-{number}")).value(sent.to_string());
                publisher.send_event(&update).unwrap();
                sent += 1;
                if sent % 2 == 0 {
                    pass(Duration::from_millis(1));
                }
            }
            sent
        };
        std::thread::Builder::new().spawn(write).unwrap()
    };
    let writers: Vec<_> = (0..2).map(write).collect();
    let pid = process.id().to_string();
    fs::write(folder.path().join(GO), "").unwrap();
    if !is_setuid {
        for _ in 0..TIMES {
            for (task, _) in tasks(&pid) {
                // To this thread; it may have ended meanwhile.
                let _ = kill(Pid::from_raw(task), Signal::SIGINT);
            }
            pass(Duration::from_millis(10));
        }
    }
    process.said("worked");
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<u32> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let mut next = [0, 0];
    while next.as_slice() != sent.as_slice() {
        let update = rig.next();
        if let Some(number) = update.key.strip_prefix("writer-") {
            let next = &mut next[number.parse::<usize>().unwrap()];
            assert_eq!(update.value, Some(next.to_string()), "from {}", update.key);
            *next += 1;
        }
    }
    println!("sent and received: {sent:?}");
    eventually(LONG, || !rig.syncs.is_empty());
    assert_eq!(rig.next_sync().as_str(), "connected");
    // An update that stood in a queue for long may prove nothing about earlier ones.
    let lost: Vec<_> = rig
        .syncs
        .try_iter()
        .filter(|reason| reason.as_str() != "unproven")
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    let rest = process.finish();
    println!("{rest}");
    for thread in [
        "tc-service",
        "tc-keeper",
        "tc-subscriber",
        "tc-dispatcher",
        "tc-worker-1",
        "tc-syncs",
        "tc-monitor",
        "tc-registration",
        "tc-listener",
        "tc-answers",
        "tc-notifier",
    ] {
        assert!(rest.contains(thread), "there was no thread {thread}");
    }
}

#[test]
fn a_service_and_its_host_go_on_after_handled_signals() {
    within(LIMIT, || disturbed(None, false));
}

#[test]
fn a_service_and_its_host_go_on_after_setuid() {
    within(LIMIT, || disturbed(None, true));
}

#[test]
fn they_go_on_after_handled_signals_on_redis() {
    within(LIMIT, || disturbed(Some(&servers::Server::start()), false));
}

#[test]
fn they_go_on_after_setuid_on_redis() {
    within(LIMIT, || disturbed(Some(&servers::Server::start()), true));
}
