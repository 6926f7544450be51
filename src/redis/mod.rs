//! Connections to Redis, shared by the driver and the store: a single server or a cluster, with or without a password,
//! plain or over TLS.
//!
//! The `redis` crate builds requests, parses replies and distinguishes refusals. Its connections are not used: here
//! every wait as a whole has a deadline and can be cancelled, it is known of every request whether it may have been
//! done, and a message is decoded in the receive buffer.

mod address;
mod buffer;
mod client;
mod cluster;
mod conn;
mod finder;
mod flat;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod input;
mod login;
mod master;
mod masters;
mod message;
mod node;
mod opening;
mod poller;
mod pool;
mod reply;
mod rivals;
mod sentinel;
mod sentinels;
mod slots;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(feature = "redis-tls")]
mod trust;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ServerError, Value, from_redis_value_ref};
use parking_lot::Mutex;
use socket2::SockAddr;

use crate::config::{JoinFrames, Secret};
use crate::error::{Error, ErrorKind, Result};

pub(crate) use address::Servers;
pub(crate) use client::{Client, Request};
pub(crate) use conn::Conn;
#[cfg(feature = "metrics")]
pub(crate) use conn::connections;
pub(crate) use finder::{Finder, turns};
pub(crate) use health::Health;
pub(crate) use input::Incoming;
use masters::Masters;
pub(crate) use node::Node;
use rivals::Unasked;
pub(crate) use stream::{Limit, poll, signal};

/// Credentials, certificates and times for Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The user of Redis' access lists, for addresses that name neither user nor password, and for the master that
    /// Sentinels name. Default: empty, which means `default`.
    pub user: String,
    /// The password. Default: none.
    pub password: Secret,
    /// TLS for the master that Sentinels name, if their address is not `rediss-sentinel`, which means TLS for all. Other
    /// addresses have a scheme for it. Default: false.
    pub tls: bool,
    /// The certificate authorities of servers, as a PEM file. Default: empty, which means the system's.
    pub tls_ca: PathBuf,
    /// The client certificate, as a PEM file, for servers that ask for one. Default: empty, which means none.
    pub tls_cert: PathBuf,
    /// The key of the client certificate, as a PEM file.
    pub tls_key: PathBuf,
    /// The interval at which a server is asked for a sign of life, at least 10 ms. Default: 1 s.
    pub heartbeat_interval: Duration,
    /// The silence after which a server counts as lost, at least 20 ms. Default: 3 s.
    pub heartbeat_timeout: Duration,
    /// The wait before the first try to reconnect, at least a millisecond; it doubles with each try, up to
    /// `reconnect_max`. Default: 100 ms.
    pub reconnect_interval: Duration,
    /// The longest wait between two tries. Default: 2 s.
    pub reconnect_max: Duration,
    /// A larger message is skipped and counted as malformed. Default: 64 MiB.
    pub max_frame_bytes: usize,
    /// The policy for joining updates that are sent close together. Default: [`JoinFrames::Auto`], which does not join
    /// them here.
    pub join_frames: JoinFrames,
    /// How often a store's request is repeated after a server was lost or could not do it yet. The first repetition
    /// follows after `reconnect_interval`, each next one after twice the time. Default: 3.
    pub retries: u32,
}

/// The least values of `heartbeat_interval`, `heartbeat_timeout` and `reconnect_interval`.
const SHORTEST: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(1),
];

impl RedisOptions {
    /// The same options, with times no shorter than allowed.
    pub(crate) fn bounded(&self) -> RedisOptions {
        let [interval, timeout, reconnect] = SHORTEST;
        RedisOptions {
            heartbeat_interval: self.heartbeat_interval.max(interval),
            heartbeat_timeout: self.heartbeat_timeout.max(timeout),
            reconnect_interval: self.reconnect_interval.max(reconnect),
            reconnect_max: self.reconnect_max.max(reconnect),
            ..self.clone()
        }
    }

    /// The wait before the next try, after one of `wait`.
    pub(crate) fn next_wait(&self, wait: Duration) -> Duration {
        let doubled = wait.saturating_mul(2).max(self.reconnect_interval);
        doubled.min(self.reconnect_max)
    }
}

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            user: String::new(),
            password: Secret::default(),
            tls: false,
            tls_ca: PathBuf::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(3),
            reconnect_interval: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(2),
            max_frame_bytes: 64 << 20,
            join_frames: JoinFrames::default(),
            retries: 3,
        }
    }
}

/// The credentials of connections.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    user: String,
    password: Secret,
    database: u32,
    #[cfg(feature = "redis-tls")]
    tls: Option<tls::Tls>,
    answered: Answered,
    unasked: Unasked,
    /// The server is a Sentinel.
    is_sentinel: bool,
    /// Name the server.
    masters: Option<Masters>,
}

/// The address at which each server with several addresses last answered, which is tried first. Clones share it.
#[derive(Debug, Clone, Default)]
struct Answered(Arc<Mutex<HashMap<Node, SockAddr>>>);

impl Answered {
    fn put_first(&self, node: &Node, addresses: &mut [SockAddr]) {
        if let Some(good) = self.0.lock().get(node) {
            addresses.sort_by_key(|address| address != good);
        }
    }

    fn remember(&self, node: &Node, address: SockAddr) {
        self.0.lock().insert(node.clone(), address);
    }
}

impl Access {
    /// # Errors
    /// [`ErrorKind::Unsupported`] for TLS in a build without it; [`ErrorKind::Config`] or [`ErrorKind::Io`] if the
    /// certificates cannot be used.
    pub(crate) fn new(options: &RedisOptions, servers: &Servers) -> Result<Access> {
        let of_options = (&options.user, &options.password);
        let of_address = (&servers.user, &servers.password);
        if servers.master.is_none() {
            let is_named = !servers.user.is_empty() || !servers.password.is_empty();
            let who = if is_named { of_address } else { of_options };
            return Ok(Access {
                database: servers.database,
                ..Access::with(options, who, servers.tls)?
            });
        }
        let sentinels = Access {
            is_sentinel: true,
            ..Access::with(options, of_address, servers.tls)?
        };
        Ok(Access {
            database: servers.database,
            masters: Some(Masters::new(servers, sentinels, options)),
            ..Access::with(options, of_options, Access::has_tls(options, servers))?
        })
    }

    /// True if connections to these servers, or to the master that they name, use TLS.
    pub(crate) fn has_tls(options: &RedisOptions, servers: &Servers) -> bool {
        servers.tls || (servers.master.is_some() && options.tls)
    }

    fn with(options: &RedisOptions, (user, password): (&String, &Secret), tls: bool) -> Result<Access> {
        #[cfg(not(feature = "redis-tls"))]
        if tls {
            let context = "Redis over TLS needs the feature redis-tls, which this build lacks";
            return Err(Error::new(ErrorKind::Unsupported, context));
        }
        #[cfg(not(feature = "redis-tls"))]
        let _ = options;
        Ok(Access {
            user: user.clone(),
            password: password.clone(),
            database: 0,
            #[cfg(feature = "redis-tls")]
            tls: if tls { Some(tls::Tls::new(options)?) } else { None },
            answered: Answered::default(),
            unasked: Unasked::default(),
            is_sentinel: false,
            masters: None,
        })
    }
}

/// The error for a server's refusal.
pub(crate) fn refused(node: &Node, why: &ServerError) -> Error {
    refusal(kind_of(why), node, why)
}

/// The error for the refusal of a login, which may quote the request, and so the password.
fn turned_away(kind: ErrorKind, node: &Node, why: &ServerError, password: &Secret, hint: &str) -> Error {
    let details = why.details().unwrap_or_default();
    let said = without(&format!("{} {details}", why.code()), password.expose());
    Error::new(kind, format!("Redis at {node} refuses: {said}{hint}"))
}

/// An error of this kind with a server's refusal.
fn refusal(kind: ErrorKind, node: &Node, why: &ServerError) -> Error {
    let (code, details) = (why.code(), why.details().unwrap_or_default());
    Error::new(kind, format!("Redis at {node} refuses: {code} {details}"))
}

fn kind_of(why: &ServerError) -> ErrorKind {
    match why.code() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => ErrorKind::Denied,
        _ => ErrorKind::Transport,
    }
}

/// A server cuts what it quotes: so many characters of a password are hidden like the whole.
const TELLING: usize = 4;

/// The text, with three stars in place of the password and of each piece that it begins with.
fn without(text: &str, password: &str) -> String {
    let telling = password.chars().count().clamp(1, TELLING);
    let (mut shown, mut rest) = (String::new(), text.chars());
    while let Some(next) = rest.clone().next() {
        // Line ends are quoted as spaces.
        let is_same = |(ours, quoted): &(char, char)| ours == quoted || (ours.is_control() && *quoted == ' ');
        let same = password.chars().zip(rest.clone()).take_while(is_same).count();
        if same >= telling {
            shown.push_str("***");
            rest.nth(same - 1);
        } else {
            shown.push(next);
            rest.next();
        }
    }
    shown
}

/// The field of this name in an answer that is a map.
fn field(answer: &Value, name: &str) -> Option<String> {
    let text = |value| from_redis_value_ref::<String>(value).ok();
    let mut entries = answer.as_map_iter()?;
    entries.find_map(|(key, value)| text(key).filter(|key| key == name).and_then(|_| text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_shows_a_password() {
        for (text, password, shown) in [
            ("ERR got 'hunter2', 'hunter2'", "hunter2", "ERR got '***', '***'"),
            // Cut, also within a character, and with the end of a line.
            ("ERR got 'hunt", "hunter2", "ERR got '***"),
            ("ERR got 'pässwö\u{fffd}", "pässwörd", "ERR got '***\u{fffd}"),
            ("ERR got 'a b c d'", "a\nb\rc\td", "ERR got '***'"),
            ("ERR got pw", "pw", "ERR got ***"),
            ("ERR hunting", "", "ERR hunting"),
            ("WRONGPASS invalid hub", "hunter2", "WRONGPASS invalid hub"),
            ("hhhunter2hunter2", "hunter2", "hh******"),
        ] {
            assert_eq!(without(text, password), shown, "{text}");
        }
    }
}
