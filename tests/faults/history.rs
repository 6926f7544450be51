//! The logs of writers and programs: one event a line, with its time, in a file of its own.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Microseconds since this machine was started: the same clock for all processes, and one that is never set.
pub(crate) type Time = i64;

pub(crate) fn now() -> Time {
    let since = clock_gettime(ClockId::Boottime);
    since.tv_sec * 1_000_000 + since.tv_nsec / 1_000
}

/// Microseconds since the Unix epoch.
pub(crate) fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// As microseconds.
pub(crate) fn micros(time: Duration) -> Time {
    i64::try_from(time.as_micros()).unwrap()
}

/// One event of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at: Time,
    pub(crate) event: Event,
}

/// A row of the store after one write of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) topic: String,
    pub(crate) table: String,
    pub(crate) key: String,
    /// The version in the store. 0 if an update does not state one.
    pub(crate) version: u64,
    pub(crate) deleted: bool,
}

/// A table and a key.
pub(crate) type Row = (String, String);

impl Change {
    pub(crate) fn row(&self) -> Row {
        (self.table.clone(), self.key.clone())
    }
}

/// Kind of a row change of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Added,
    Changed,
    Removed,
}

/// The number that the library gave to an update.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) publisher: String,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// A sync event, with what it concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The reason in one word.
    pub(crate) reason: String,
    /// The publishers that it names.
    pub(crate) publishers: Vec<String>,
    /// `None`: every topic.
    pub(crate) topics: Option<Vec<String>>,
    /// The first and the last missing number.
    pub(crate) range: Option<(u64, u64)>,
}

/// A state of a row, as a notifier sends it; the states of a row are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) row: String,
    pub(crate) state: u64,
}

/// The resources that a process held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) threads: u64,
    pub(crate) files: u64,
    pub(crate) kib: u64,
}

/// Events of a writer, a program, a server with a listener, and a node with notifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A publisher was created.
    Opened {
        publisher: String,
        epoch: u64,
    },
    /// A row was written to the store, and is about to be published.
    Stored(Change),
    /// The last stored change was published under the number `seq` of its topic; the call took this many microseconds.
    Sent {
        seq: u64,
        took: Time,
    },
    /// The last stored change was not published.
    Refused {
        kind: String,
        took: Time,
    },
    /// The publisher is gone, with a goodbye.
    Closed,

    /// The topic is about to be registered.
    Registered(String),
    /// The topic was unregistered.
    Unregistered(String),
    /// A callback was called.
    Update {
        change: Change,
        number: Option<Number>,
    },
    /// The replica reported a change of a row, which had version `old` before.
    RowChange {
        kind: Kind,
        change: Change,
        old: Option<u64>,
    },
    /// A sync event came.
    Sync(Told),
    /// Every topic is live, or no longer.
    Live(bool),
    /// The resources of the process before it made the subscriber, and after it had dropped it.
    Before(Held),
    After(Held),
    /// A row as the program has it at its end.
    Row(Change),
    /// The end: when the replica last changed, and how many updates its queue has replaced.
    Settled {
        since: Time,
        coalesced: u64,
    },
    /// The process was killed.
    Killed,

    /// The handler of a listener was called, and returned.
    Begun(Status),
    Handled(Status),

    /// A notifier is about to be given this state.
    Notified(Status),
    /// The state was acknowledged.
    Acknowledged(Status),
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Log(Mutex<BufWriter<File>>);

impl Log {
    /// Appends to the file.
    pub(crate) fn append_to(path: &Path) -> Log {
        let file = File::options().create(true).append(true).open(path).unwrap();
        Log(Mutex::new(BufWriter::with_capacity(1 << 16, file)))
    }

    /// Writes an event that need not be in the file at once.
    pub(crate) fn note(&self, event: Event) {
        self.note_at(now(), event);
    }

    fn note_at(&self, at: Time, event: Event) {
        let mut line = serde_json::to_vec(&Line { at, event }).unwrap();
        line.push(b'\n');
        self.0.lock().write_all(&line).unwrap();
    }

    /// Writes an event, and everything before it.
    pub(crate) fn write(&self, event: Event) {
        self.note(event);
        self.flush();
    }

    pub(crate) fn flush(&self) {
        self.0.lock().flush().unwrap();
    }
}

/// A file that is read while it is written.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    read: u64,
    /// An incomplete line.
    rest: Vec<u8>,
}

impl Tail {
    pub(crate) fn of(path: &Path) -> Tail {
        Tail {
            path: path.to_owned(),
            read: 0,
            rest: Vec::new(),
        }
    }

    /// The lines since the last call.
    pub(crate) fn next(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.read(|line| lines.push(line));
        lines
    }

    /// Passes on the lines since the last call one by one, in little memory.
    pub(crate) fn read(&mut self, mut take: impl FnMut(Line)) {
        let Ok(mut file) = File::open(&self.path) else {
            return;
        };
        file.seek(SeekFrom::Start(self.read)).unwrap();
        loop {
            let read = Read::take(&mut file, CHUNK).read_to_end(&mut self.rest).unwrap();
            if read == 0 {
                return;
            }
            self.read += read as u64;
            let whole = self
                .rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let lines = self.rest[..whole].split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.is_empty());
            lines.for_each(|line| take(serde_json::from_slice(line).unwrap()));
            self.rest.drain(..whole);
        }
    }
}

/// Size of a read.
const CHUNK: u64 = 64 << 10;

/// The log of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

impl History {
    pub(crate) fn read(path: &Path) -> History {
        History {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            lines: Tail::of(path).next(),
        }
    }

    /// The histories in this folder whose names begin with `prefix`, by name.
    pub(crate) fn read_all(folder: &Path, prefix: &str) -> Vec<History> {
        paths(folder, prefix).iter().map(|path| History::read(path)).collect()
    }
}

/// The files in this folder whose names begin with `prefix`, by name.
pub(crate) fn paths(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut paths: Vec<_> = files
        .filter(|file| file.file_name().to_string_lossy().starts_with(prefix))
        .map(|file| file.path())
        .collect();
    paths.sort_unstable();
    paths
}
