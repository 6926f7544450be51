//! The options of driver and store.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{JoinFrames, Secret};

/// Credentials, certificates and times for Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The user of Redis' access lists, for addresses that name neither user nor password, and for the master that
    /// Sentinels name. Default: empty, which means `default`.
    pub user: String,
    /// The password. Default: none.
    pub password: Secret,
    /// TLS for the master that Sentinels name, if their address is not `rediss-sentinel`, which means TLS for all.
    /// Other addresses have a scheme for it. Default: false.
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
    /// The policy for joining updates that are sent close together. Default: [`JoinFrames::Auto`]. Then an update may
    /// come twice when another client subscribes: with [`SubscriberOptions::continuity`] false, which drops nothing, set
    /// [`JoinFrames::Never`].
    ///
    /// [`SubscriberOptions::continuity`]: crate::SubscriberOptions::continuity
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
