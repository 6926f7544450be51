//! The drivers, which move frames and have no policy, and their registry by alias.

#[cfg(feature = "zmq")]
pub(crate) mod accepted;
pub(crate) mod events;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "zmq", feature = "redis"))]
mod wake;
#[cfg(feature = "zmq")]
pub mod zmq;

#[cfg(feature = "zmq")]
use std::path::PathBuf;
use std::sync::Arc;

use crate::aliases::Aliases;
#[cfg(feature = "redis")]
use crate::codec::{MAX_JOINED, MIN_HELLO};
use crate::config::Config;
#[cfg(feature = "redis")]
use crate::config::JoinFrames;
use crate::error::Result;
use crate::transport::Driver;

/// Minimum of libzmq's limit for a message, since a topic has up to 1 MiB.
#[cfg(feature = "zmq")]
const LEAST_FRAME: i64 = 4 << 20;

/// The drivers by alias; a program may add its own.
///
/// ```
/// use std::sync::Arc;
/// use tablecast::drivers::{Drivers, memory::MemoryDriver};
/// use tablecast::Config;
///
/// let mut drivers = Drivers::new();
/// drivers.register("private", |_: &Config| Ok(Arc::new(MemoryDriver::new("private")?)))?;
///
/// let mut config = Config::default();
/// config.pub_sub_driver = "private".into();
/// assert!(drivers.network(&config).is_ok());
/// # Ok::<(), tablecast::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Drivers(Aliases<dyn Driver>);

impl Drivers {
    /// Returns the drivers of this build: `memory`, with the feature `zmq` also `zmq` and `zmq-multiproc`, and with the
    /// feature `redis` also `redis`.
    pub fn new() -> Drivers {
        let drivers = Aliases::new("driver").with("memory", memory_driver);
        #[cfg(feature = "redis")]
        let drivers = drivers.with("redis", redis_driver);
        #[cfg(feature = "zmq")]
        let drivers = drivers.with("zmq", zmq_driver).with("zmq-multiproc", multiproc_driver);
        Drivers(drivers)
    }

    /// Adds a driver.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the alias is empty or taken.
    pub fn register(
        &mut self,
        alias: impl Into<String>,
        factory: impl Fn(&Config) -> Result<Arc<dyn Driver>> + Send + Sync + 'static,
    ) -> Result<()> {
        self.0.register(alias.into(), factory)
    }

    /// Returns the known aliases.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    /// Returns the driver between hosts, which the option `pub_sub_driver` names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no driver of this alias, and the driver's error for
    /// its options.
    pub fn network(&self, config: &Config) -> Result<Arc<dyn Driver>> {
        self.0.open("pub_sub_driver", &config.pub_sub_driver, config)
    }

    /// Returns the driver between the processes of a host, which the option `pub_sub_multiproc_driver` names.
    ///
    /// # Errors
    /// As [`Drivers::network`].
    pub fn multiproc(&self, config: &Config) -> Result<Arc<dyn Driver>> {
        self.0
            .open("pub_sub_multiproc_driver", &config.pub_sub_multiproc_driver, config)
    }
}

impl Default for Drivers {
    fn default() -> Drivers {
        Drivers::new()
    }
}

fn memory_driver(config: &Config) -> Result<Arc<dyn Driver>> {
    let driver = memory::MemoryDriver::shared(&config.publish_address()?)?;
    Ok(Arc::new(driver.join_frames(config.join_frames)))
}

#[cfg(feature = "redis")]
fn redis_driver(config: &Config) -> Result<Arc<dyn Driver>> {
    let driver = redis::RedisDriver::new(&config.redis_address(), config.into());
    Ok(Arc::new(driver?))
}

#[cfg(feature = "redis")]
impl From<&Config> for redis::RedisOptions {
    fn from(config: &Config) -> redis::RedisOptions {
        redis::RedisOptions {
            user: config.redis_user.clone(),
            password: config.redis_password.clone(),
            tls: config.redis_tls,
            tls_ca: config.redis_tls_ca.clone(),
            tls_cert: config.redis_tls_cert.clone(),
            tls_key: config.redis_tls_key.clone(),
            heartbeat_interval: config.heartbeat_interval_ms,
            heartbeat_timeout: config.heartbeat_timeout_ms,
            reconnect_interval: config.reconnect_interval_ms,
            reconnect_max: config.reconnect_max_ms,
            max_frame_bytes: config
                .max_message_bytes
                .saturating_mul(4)
                .max(MAX_JOINED.max(MIN_HELLO)),
            join_frames: match config.join_frames {
                // Nothing drops what comes on both channels of a topic.
                JoinFrames::Auto if !config.continuity => JoinFrames::Never,
                join_frames => join_frames,
            },
            retries: config.redis_retries,
        }
    }
}

#[cfg(feature = "zmq")]
impl From<&Config> for zmq::ZmqOptions {
    fn from(config: &Config) -> zmq::ZmqOptions {
        let hwm = |messages: u32| i32::try_from(messages).unwrap_or(i32::MAX);
        zmq::ZmqOptions {
            send_hwm: hwm(config.send_hwm),
            receive_hwm: hwm(config.receive_hwm),
            linger: config.linger_ms,
            heartbeat_interval: config.heartbeat_interval_ms,
            heartbeat_timeout: config.heartbeat_timeout_ms,
            reconnect_interval: config.reconnect_interval_ms,
            reconnect_max: config.reconnect_max_ms,
            // Well above the size from which a subscriber skips a message, since libzmq closes the connection. Topics
            // and hellos have to fit too.
            max_frame_bytes: i64::try_from(config.max_message_bytes)
                .unwrap_or(i64::MAX)
                .saturating_mul(4)
                .max(LEAST_FRAME),
            multicast_rate: config.multicast_rate,
            multicast_recovery: config.multicast_recovery_ms,
            join_frames: config.join_frames,
            curve_secret_key_file: config.curve_secret_key_file.clone(),
            curve_allowed_clients: config.curve_allowed_clients.clone(),
            curve_server_key: config.curve_server_key.clone(),
            ..zmq::ZmqOptions::default()
        }
    }
}

#[cfg(feature = "zmq")]
fn zmq_driver(config: &Config) -> Result<Arc<dyn Driver>> {
    let address = config.publish_address()?;
    // Errors about keys name their options.
    zmq::check_address(&address).map_err(|e| {
        let context = format!("option publisher_transport: {}", config.publisher_transport);
        e.context(context)
    })?;
    let driver = zmq::ZmqDriver::new(&address, config.into());
    Ok(Arc::new(driver?))
}

#[cfg(feature = "zmq")]
fn multiproc_driver(config: &Config) -> Result<Arc<dyn Driver>> {
    // The socket's mode and group protect it, and its users may have no right to read the keys.
    let options = zmq::ZmqOptions {
        socket_mode: config.socket_mode(),
        socket_group: config.socket_group(),
        curve_secret_key_file: PathBuf::new(),
        curve_allowed_clients: PathBuf::new(),
        curve_server_key: String::new(),
        ..config.into()
    };
    Ok(Arc::new(zmq::ZmqMultiproc::new(&config.multiproc_address(), options)?))
}
