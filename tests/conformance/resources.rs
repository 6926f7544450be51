//! The cost of a driver. These cases run alone, since they measure the whole process.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;

use crate::Setup;
use crate::common::{eventually, pass};
use crate::rig::{LONG, quickly, send, topic};

/// Time from a command to an idle subscriber until it is in force, through the publisher and back.
pub(crate) fn wakes_promptly(driver: &str, setup: fn() -> Setup) {
    let setup = setup();
    let (_publisher, rig) = setup.pair(&["D"]);
    let wait = |number| {
        // Idle again: the publisher's keeper has stopped ticking, and all threads sleep.
        pass(Duration::from_millis(15));
        let start = Instant::now();
        rig.subscriber.register_topic(&topic(&format!("t{number}"))).unwrap();
        rig.subscriber.wait_live(LONG).unwrap();
        start.elapsed()
    };
    let mut waits: Vec<_> = quickly(Duration::from_secs(1), "21 commands", || (0..21).map(wait).collect());
    waits.sort_unstable();
    let (median, worst) = (waits[10], waits[20]);
    println!("{driver}: a command is in force after {median:?} (median), {worst:?} (worst)");
}

pub(crate) fn idles_without_work(driver: &str, setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["D"]);
    rig.only("1", || send(&publisher, "D", "1"));
    // Checks first that the measurement works.
    let start = cpu_time();
    let (done, stop) = crossbeam_channel::bounded::<()>(0);
    let spin = move || while stop.try_recv() == Err(TryRecvError::Empty) {};
    let spinning = std::thread::Builder::new().name("tc-spin".into()).spawn(spin).unwrap();
    eventually(LONG, || cpu_time() > start);
    drop(done);
    spinning.join().unwrap();
    pass(Duration::from_millis(100));
    let before = cpu_time();
    pass(Duration::from_millis(500));
    let used = cpu_time().saturating_sub(before);
    println!("{driver}: {used:?} of CPU in 500 ms of idling");
    assert!(used <= Duration::from_millis(10), "{used:?} of CPU in 500 ms of idling");
}

pub(crate) fn leaks_nothing(setup: fn() -> Setup) {
    let cycle = || {
        let setup = setup();
        let (publisher, rig) = setup.pair(&["D"]);
        rig.only("1", || send(&publisher, "D", "1"));
    };
    let no_more_than_after_the_first = |cycles: usize| {
        cycle();
        let before = Holdings::now();
        for _ in 0..cycles {
            cycle();
        }
        before.come_back();
    };
    // The earlier cases are over.
    let mut nothing = Holdings::now();
    nothing.threads.clear();
    nothing.come_back();
    no_more_than_after_the_first(20);
    // The same while something else keeps libzmq's threads alive.
    let setup_of_other = setup();
    let (publisher, rig) = setup_of_other.pair(&["D"]);
    rig.only("1", || send(&publisher, "D", "1"));
    // A thread has its name once it runs, which this one may not have done yet.
    eventually(LONG, || {
        Holdings::now()
            .threads
            .iter()
            .any(|name| name.trim_end() == "tc-keeper")
    });
    no_more_than_after_the_first(10);
}

/// The open resources of the process, by name.
#[derive(Debug)]
struct Holdings {
    files: Vec<String>,
    threads: Vec<String>,
}

impl Holdings {
    fn now() -> Holdings {
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let name = |thread: PathBuf| fs::read_to_string(thread.join("comm")).unwrap_or_default();
        Holdings {
            files: files
                .map(|file| format!("{:?}", fs::read_link(file.path()).unwrap_or_default()))
                .collect(),
            threads: our_threads().map(name).collect(),
        }
    }

    /// Waits until the process has no more than this.
    fn come_back(&self) {
        let start = Instant::now();
        let mut now = Holdings::now();
        while now.files.len() > self.files.len() || now.threads.len() > self.threads.len() {
            assert!(start.elapsed() < LONG, "before: {self:#?}, after: {now:#?}");
            pass(Duration::from_millis(5));
            now = Holdings::now();
        }
    }
}

/// The folders in `/proc` of the threads that the library and libzmq have started.
fn our_threads() -> impl Iterator<Item = PathBuf> {
    let threads = fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    threads.filter(|thread| {
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        ["tc-", "ZMQbg"].iter().any(|prefix| name.starts_with(prefix))
    })
}

/// User and system time, in clock ticks of 10 ms.
fn cpu_time() -> Duration {
    let ticks = our_threads().filter_map(|thread| {
        let stat = fs::read_to_string(thread.join("stat")).ok()?;
        // The name, in parentheses, is the second field; the two times are the 14th and 15th.
        let times = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(2);
        Some(times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>())
    });
    Duration::from_millis(10 * ticks.sum::<u64>())
}
