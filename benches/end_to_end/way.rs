//! A way of moving updates, and what both its ends need.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tablecast::codec::{Codec, Encoder};
use tablecast::drivers::zmq::ZmqOptions;
use tablecast::{Action, DbUpdate, Topic};

/// The file with the pair of keys that both ends have, and the variable that names it to the sending process.
pub static PAIR: OnceLock<PathBuf> = OnceLock::new();
pub const PAIR_VARIABLE: &str = "TABLECAST_BENCH_PAIR";

/// Topics of a round with many.
const TOPICS: usize = 100_000;

/// Words between dashes: `raw` for the zmq crate alone; `hop` for the same with a second thread behind a channel;
/// `unchecked` without looking for losses; `service` through a publisher service; `topics` with many topics; `fan` to
/// many subscribers; `curve` with keys; and the codec.
#[derive(Clone, Copy)]
pub struct Way<'a>(pub &'a str);

impl Way<'_> {
    fn has(self, word: &str) -> bool {
        self.0.split('-').any(|has| has == word)
    }

    pub fn is_raw(self) -> bool {
        self.has("raw") || self.hops()
    }

    pub fn hops(self) -> bool {
        self.has("hop")
    }

    pub fn checks(self) -> bool {
        !self.has("unchecked")
    }

    pub fn through_service(self) -> bool {
        self.has("service")
    }

    pub fn fans(self) -> bool {
        self.has("fan")
    }

    pub fn topics(self) -> Vec<Topic> {
        match self.has("topics") {
            true => (0..TOPICS)
                .map(|number| Topic::new(format!("tenant-{number:08}")).unwrap())
                .collect(),
            false => vec![Topic::ALL],
        }
    }

    pub fn codec(self) -> Codec {
        match self.has("msgpack") {
            true => Codec::MessagePack,
            false => Codec::Json,
        }
    }

    /// The usual hello interval, or one longer than a round.
    pub fn hello_interval(self) -> Duration {
        Duration::from_secs(if self.checks() { 1 } else { 600 })
    }

    pub fn is_secured(self) -> bool {
        self.has("curve")
    }

    /// Unlimited on both sides, so that neither side drops: the work per update is compared.
    pub fn options(self) -> ZmqOptions {
        ZmqOptions {
            curve_secret_key_file: if self.is_secured() {
                pair().into()
            } else {
                PathBuf::new()
            },
            send_hwm: 0,
            receive_hwm: 0,
            linger: Duration::from_secs(30),
            ..ZmqOptions::default()
        }
    }

    pub fn payload(self) -> Vec<u8> {
        let encoder = Encoder::new(self.codec(), "writer-1".into(), 1);
        let mut buf = Vec::new();
        let update = update();
        encoder.begin(&update, &Topic::ALL, &mut buf);
        encoder.finish(0, update.timestamp, 123_456, Duration::ZERO, &mut buf);
        buf
    }
}

pub fn update() -> DbUpdate {
    let value = r#"{"id":"9b2e1f34","name":"vm-17","chassis":"host-3","lswitch":"net-1","version":7}"#;
    DbUpdate::new("lport", "port-00000000", Action::Set).value(value)
}

pub fn micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

fn pair() -> &'static Path {
    PAIR.get_or_init(|| std::env::var_os(PAIR_VARIABLE).expect("a file with keys").into())
}

/// A field of the pair's file.
pub fn key(field: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(pair()).unwrap();
    let line = text.lines().find(|line| line.trim().starts_with(field)).unwrap();
    line.split('"').nth(1).unwrap().into()
}
