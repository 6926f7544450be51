//! The options of both drivers.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::JoinFrames;

/// Socket options of both drivers.
#[derive(Debug, Clone)]
pub struct ZmqOptions {
    /// Messages queued per subscriber before libzmq drops (PUB) or blocks (PUSH). Default: 100,000.
    pub send_hwm: i32,
    /// Messages queued per publisher on the receiving side. Default: 100,000.
    pub receive_hwm: i32,
    /// How long the last publisher of a process to stop waits for queued messages to be sent. Default: 500 ms.
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
    /// How long a publisher keeps what it has sent to a multicast group, for receivers that missed it, up to 60 s, at
    /// the full rate: both ends keep up to the rate times this. Use one value for all processes of a group. Default:
    /// 1 s.
    pub multicast_recovery: Duration,
    /// Policy for updates that are sent close together. Default: [`JoinFrames::Auto`].
    pub join_frames: JoinFrames,
    /// Mode of a Unix socket that is bound in the file system, for example `0o660`; connecting takes the right to
    /// write. `None`: as the umask of the process says. Default: `None`.
    pub socket_mode: Option<u32>,
    /// Group of that socket, by name or number; the process must be a member of it, or root. `None`: that of the
    /// process. Default: `None`.
    pub socket_group: Option<String>,
    /// File with this process's pair of CURVE keys, as [`KeyPair::save`](super::KeyPair::save) writes it; other users
    /// must not be able to read it. With it every TCP connection is encrypted: a bound socket lets in only clients that
    /// know its public key, and a connecting one states its own. Read once. Default: empty, none.
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
