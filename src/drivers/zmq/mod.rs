//! The ZeroMQ drivers: `zmq` (PUB/SUB over tcp, ipc, inproc, epgm) and `zmq-multiproc` (PUSH/PULL over ipc).
//!
//! An address may state its role, as in CZMQ: `@tcp://…` binds, `>tcp://…` connects. Without a sign a publisher and the
//! service's receiving end bind, and the other ends connect.

mod access;
mod backoff;
mod census;
mod clients;
mod connection;
mod context;
mod copy;
mod curve;
mod cut;
mod endpoint;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod inbound;
mod interfaces;
mod keepalive;
mod key;
mod line;
mod monitor;
mod multicast;
#[cfg(target_os = "linux")]
mod netlink;
mod outbound;
mod path_lock;
mod peer;
mod push;
mod room;
mod story;
mod topics;
mod traffic;
mod zap;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::JoinFrames;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Driver, Inbound, Outbound, Wake};

use curve::Curve;
use endpoint::Endpoint;
use inbound::ZmqInbound;
use outbound::ZmqOutbound;
use push::PushOutbound;

pub use key::KeyPair;

/// Socket options of both drivers.
#[derive(Debug, Clone)]
pub struct ZmqOptions {
    /// Messages queued per subscriber before libzmq drops (PUB) or blocks (PUSH). Default: 100,000.
    pub send_hwm: i32,
    /// Messages queued per publisher on the receiving side. Default: 100,000.
    pub receive_hwm: i32,
    /// How long a closed socket continues to send queued messages. Default: 500 ms.
    pub linger: Duration,
    /// Interval at which the system checks an idle TCP connection (`TCP_KEEPALIVE`), in whole seconds, rounded up. Only
    /// on Linux, if the process may copy its own descriptors (`pidfd_getfd`). Default: 1 s.
    pub heartbeat_interval: Duration,
    /// How long the other system may be silent before the connection is closed. The sending end waits twenty times as
    /// long, since a merely slow receiver looks the same to it. Default: 3 s.
    pub heartbeat_timeout: Duration,
    /// The first wait before an ended or failed connection is tried again; it doubles up to `reconnect_max`, and each
    /// wait is shortened by up to a half at random. Default: 100 ms.
    pub reconnect_interval: Duration,
    /// The longest wait between two tries. Default: 2 s.
    pub reconnect_max: Duration,
    /// Size of a message above which libzmq closes the connection, which is then begun anew. It should be well above
    /// the `max_message_bytes` of a subscriber, which only skips the message. Default: 64 MiB.
    pub max_frame_bytes: i64,
    /// Kilobits per second that a publisher sends to a multicast group at most, up to 1,000,000. What is sent faster
    /// waits, up to `send_hwm` messages. Use one value for all processes of a group. Default: 100,000.
    pub multicast_rate: u32,
    /// How long a publisher keeps what it has sent to a multicast group, for receivers that missed it, up to 60 s, at the
    /// full rate: both ends keep up to the rate times this. Use one value for all processes of a group. Default: 1 s.
    pub multicast_recovery: Duration,
    /// Policy for updates that are sent close together. Default: [`JoinFrames::Auto`].
    pub join_frames: JoinFrames,
    /// Mode of a Unix socket that is bound in the file system, for example `0o660`; connecting takes the right to write.
    /// `None`: as the umask of the process says. Default: `None`.
    pub socket_mode: Option<u32>,
    /// Group of that socket, by name or number; the process must be a member of it, or root. `None`: that of the process.
    /// Default: `None`.
    pub socket_group: Option<String>,
    /// File with this process's pair of CURVE keys, as [`KeyPair::save`] writes it; other users must not be able to read
    /// it. With it every TCP connection is encrypted: a bound socket lets in only clients that know its public key, and
    /// a connecting one states its own. Read once. Default: empty, none.
    pub curve_secret_key_file: PathBuf,
    /// File, or folder of files, with the public keys of the clients that a bound socket lets in: certificates, or one
    /// key a line. Read again when it changes; a client whose key is taken off the list is cut off within two seconds,
    /// as all connections of the socket are begun anew. Default: empty, all clients that know the socket's public key.
    pub curve_allowed_clients: PathBuf,
    /// Public key of the other end for addresses that state none with `?key=`, in 40 characters (Z85). Default: empty,
    /// this process's own key if it has a pair.
    pub curve_server_key: String,
}

impl Default for ZmqOptions {
    fn default() -> ZmqOptions {
        ZmqOptions {
            send_hwm: 100_000,
            receive_hwm: 100_000,
            linger: Duration::from_millis(500),
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(3),
            reconnect_interval: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(2),
            max_frame_bytes: 64 << 20,
            multicast_rate: 100_000,
            multicast_recovery: Duration::from_secs(1),
            join_frames: JoinFrames::default(),
            socket_mode: None,
            socket_group: None,
            curve_secret_key_file: PathBuf::new(),
            curve_allowed_clients: PathBuf::new(),
            curve_server_key: String::new(),
        }
    }
}

/// The options, with the keys that they name.
#[derive(Debug, Clone)]
struct Settings {
    options: ZmqOptions,
    curve: Arc<Curve>,
}

impl Settings {
    fn new(options: ZmqOptions) -> Result<Settings> {
        let curve = Arc::new(Curve::of(&options)?);
        Ok(Settings { options, curve })
    }
}

impl Deref for Settings {
    type Target = ZmqOptions;

    fn deref(&self) -> &ZmqOptions {
        &self.options
    }
}

/// PUB/SUB, the network driver; its alias is `zmq`.
#[derive(Debug)]
pub struct ZmqDriver {
    publish: Endpoint,
    settings: Settings,
}

impl ZmqDriver {
    /// Creates a driver whose publishers use this address, for example `tcp://127.0.0.1:8866`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an invalid address, [`ErrorKind::Unsupported`] for a transport, or CURVE, that this
    /// libzmq lacks, [`ErrorKind::Config`] for keys that cannot be used.
    pub fn new(publish: &str, options: ZmqOptions) -> Result<ZmqDriver> {
        Ok(ZmqDriver {
            publish: Endpoint::parse(publish)?,
            settings: Settings::new(options)?,
        })
    }
}

impl Driver for ZmqDriver {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(ZmqOutbound::open(&self.publish, &self.settings)?))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = ZmqInbound::open(peer::SUB, &self.settings)?;
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        Endpoint::parse(address).map(drop)
    }

    fn authenticates(&self, address: &str) -> bool {
        Endpoint::parse(address).is_ok_and(|endpoint| self.settings.curve.secures(&endpoint))
    }
}

/// PUSH/PULL between the processes of one host; its alias is `zmq-multiproc`.
///
/// Its sending end connects on the first send; its receiving end binds.
#[derive(Debug)]
pub struct ZmqMultiproc {
    socket: Endpoint,
    settings: Settings,
}

impl ZmqMultiproc {
    /// Creates a driver on this socket, for example `ipc:///run/tablecast/publisher.sock`.
    ///
    /// # Errors
    /// As [`ZmqDriver::new`].
    pub fn new(socket: &str, options: ZmqOptions) -> Result<ZmqMultiproc> {
        Ok(ZmqMultiproc {
            socket: Endpoint::parse(socket)?,
            settings: Settings::new(options)?,
        })
    }
}

impl Driver for ZmqMultiproc {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(PushOutbound::new(self.socket.clone(), self.settings.clone())))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = ZmqInbound::open(peer::PULL, &self.settings)?;
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        Endpoint::parse(address).map(drop)
    }
}

/// Returns libzmq's version and the features of this build of it, for example `4.3.4 (ipc curve)`.
pub fn libzmq() -> String {
    let (major, minor, patch) = zmq::version();
    let abilities = ["ipc", "pgm", "tipc", "norm", "curve", "gssapi", "draft"];
    let has: Vec<_> = abilities
        .into_iter()
        .filter(|ability| zmq::has(ability) == Some(true))
        .collect();
    format!("{major}.{minor}.{patch} ({})", has.join(" "))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Converts an error of libzmq.
fn zmq_error(e: zmq::Error, context: String) -> Error {
    let kind = match e {
        zmq::Error::EADDRINUSE => ErrorKind::AddressInUse,
        zmq::Error::EINVAL | zmq::Error::ENODEV | zmq::Error::ENAMETOOLONG => ErrorKind::InvalidInput,
        zmq::Error::EPROTONOSUPPORT | zmq::Error::ENOTSUP | zmq::Error::ENOCOMPATPROTO => ErrorKind::Unsupported,
        zmq::Error::EACCES | zmq::Error::ENOENT => ErrorKind::Io,
        zmq::Error::EMSGSIZE => ErrorKind::TooLarge,
        _ => ErrorKind::Transport,
    };
    Error::new(kind, context).with_source(e)
}

/// Repeats a call of libzmq until no signal interrupts it before it begins.
fn patiently<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            done => return done,
        }
    }
}

/// Waits until one of `items` is ready, or `until` has passed (`None`: never). `now` is the time of the call. A signal
/// does not end the wait. Returns true if an item is ready.
fn poll(items: &mut [zmq::PollItem<'_>], until: Option<Instant>, mut now: Instant) -> zmq::Result<bool> {
    loop {
        let left = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(now);
            // Rounded up, since a wait of less than a millisecond must not become a busy loop.
            i64::from(millis(left.saturating_add(Duration::from_micros(999))))
        });
        match zmq::poll(items, left) {
            Err(zmq::Error::EINTR) => now = Instant::now(),
            done => return done.map(|ready| ready > 0),
        }
    }
}
