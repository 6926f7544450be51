//! The table of options; [`Config`], its defaults, its documentation and its parsers all come from it.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::address::{Transport, is_redis, is_uri};
use super::join_frames::JoinFrames;
use super::resubscribe::Resubscribe;
use super::secret::Secret;
use super::source::ENVIRONMENT_PREFIX;
use super::{address, database, path, socket};
use crate::codec::{Codec, MAX_ID_BYTES};
use crate::queue::Overflow;
use crate::update::Topic;

/// An option as documented on the page of options and in `--help`.
#[non_exhaustive]
#[doc(hidden)]
pub struct OptionDoc {
    /// The name: a key of the TOML file and a field of [`Config`].
    pub name: &'static str,
    /// The default, as written in the environment; empty for an empty text or list.
    pub default: &'static str,
    /// The unit of a number, for example `milliseconds`; may be empty.
    pub unit: &'static str,
    /// The accepted values.
    pub accepts: &'static str,
    /// Its meaning.
    pub doc: &'static str,
    /// The type in a TOML file, as `toml::Value::type_str` calls it.
    pub(super) toml_type: &'static str,
    /// No error shows its value.
    pub(super) secret: bool,
    /// Sets the option, or returns the wrong part of the text.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// Returns the option's present value, as one would write it in the environment.
    pub(super) get: fn(&Config) -> String,
    /// Returns what is wrong with the option's present value, which a program may have assigned itself.
    pub(super) check: fn(&Config) -> Result<(), String>,
}

impl OptionDoc {
    /// Returns the environment variable, for example `TABLECAST_PUBLISHER_PORT`.
    pub fn variable(&self) -> String {
        format!("{}{}", ENVIRONMENT_PREFIX, self.name.to_ascii_uppercase())
    }

    /// Returns the flag without its dashes, for example `publisher-port`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

impl fmt::Debug for OptionDoc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OptionDoc({})", self.name)
    }
}

macro_rules! default_doc {
    ("") => {
        " Default: empty."
    };
    ($default:tt $($unit:literal)?) => {
        concat!(" Default: `", $default, "`" $(, " ", $unit)?, ".")
    };
}

/// `name: type = default unit, [rule], doc;` for each option. A rule is a range of whole numbers, or a text that says
/// what is accepted, with a test of the value (`is`) or of each item (`each`) unless the type decides.
macro_rules! options {
    ($($name:ident: $type:ty = $default:tt $($unit:literal)?, [$($rule:tt)+], $doc:literal;)+) => {
        /// Every option, under its name in a TOML file.
        ///
        /// A program may assign the fields itself and then call [`Config::validate`].
        #[derive(Clone, PartialEq)]
        #[non_exhaustive]
        pub struct Config {
            $(#[doc = concat!($doc, default_doc!($default $($unit)?))] pub $name: $type,)+
        }

        /// Without the passwords of addresses.
        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct("Config");
                $(shown.field(stringify!($name), &format_args!("{}", address::without_password(&format!("{:?}", self.$name))));)+
                shown.finish()
            }
        }

        impl Default for Config {
            fn default() -> Config {
                let config = Config { $($name: Value::parse(concat!($default)).unwrap_or_default(),)+ };
                Config {
                    publisher_multiproc_socket: socket::default_path(),
                    sqlite_path: database::default_path(),
                    ..config
                }
            }
        }

        pub(super) static OPTIONS: &[OptionDoc] = &[$(OptionDoc {
            name: stringify!($name),
            default: concat!($default),
            unit: concat!($($unit)?),
            accepts: accepts!($($rule)+),
            doc: $doc,
            toml_type: <$type as Value>::TOML_TYPE,
            secret: <$type as Value>::SECRET,
            set: |config, text| {
                let value: $type = Value::parse(text)?;
                check!(value, $($rule)+)?;
                config.$name = value;
                Ok(())
            },
            get: |config| Value::text(&config.$name),
            check: |config| check!(config.$name, $($rule)+),
        },)+];
    };
}

macro_rules! accepts {
    ($low:literal ..= $high:literal) => {
        concat!("a whole number from ", $low, " to ", $high)
    };
    ($how:ident $accepts:literal $(, $test:expr)?) => {
        $accepts
    };
}

macro_rules! check {
    ($value:expr, $low:literal ..= $high:literal) => {
        within(&$value, $low, $high)
    };
    ($value:expr, is $accepts:literal) => {{
        let _ = &$value;
        Ok::<(), String>(())
    }};
    ($value:expr, $how:ident $accepts:literal, $test:expr) => {
        $how(&$value, $test)
    };
}

options! {
    pub_sub_driver: String = "zmq", [is "an alias that is not empty", not_empty],
        "Alias of the driver between hosts.";
    pub_sub_multiproc_driver: String = "zmq-multiproc", [is "an alias that is not empty", not_empty],
        "Alias of the driver between the processes of one host.";
    pub_sub_use_multiproc: bool = true, [is "true or false"],
        "Publishers send through the publisher service of their host; with `false` each publisher binds the network \
        address itself.";
    publisher_transport: Transport = "tcp", [is "tcp, ipc, inproc or epgm"],
        "Transport of the network driver.";
    publisher_bind_address: String = "127.0.0.1", [is "an address that is not empty", not_empty],
        "Address that a publisher binds: an IPv4 or IPv6 address, a host name, `*` for all of IPv4, `::` for those of IPv6 as well, \
        or an interface if libzmq supports it; with ipc a path, in which ~/ and $NAME are expanded, with inproc a name, \
        with epgm `interface;group`.";
    publisher_port: u16 = 8866, [0..=65535],
        "Port that a publisher binds with tcp or epgm; with tcp, 0 takes any free one.";
    publisher_multiproc_socket: PathBuf = "$XDG_RUNTIME_DIR/tablecast/publisher.sock",
        [is "a path of at most 107 bytes that does not begin with @ or *", socket::is_path],
        "Socket between the processes of one host and their publisher service; the path may begin with `ipc://`. \
        Without `$XDG_RUNTIME_DIR` it is `tablecast-<user id>/publisher.sock` in the folder for temporary files.";
    publisher_multiproc_socket_mode: String = "", [is "an octal number from 0 to 777, or nothing", socket::is_mode],
        "Mode of that socket, for example `660`: who may write to it may publish. Empty means as the umask of the \
        publisher service says.";
    publisher_multiproc_socket_group: String = "", [is "the name or number of a group, or nothing", socket::is_group],
        "Group of that socket, of which the publisher service must be a member unless it is root. Empty means that \
        of the service.";
    publishers: Vec<String> = "",
        [each "tcp://host:port, tcp://host:port?key=public key, ipc://path, in which ~/ and $NAME are expanded, or another scheme that the driver takes and ://address; @ before it binds, > connects",
        is_uri],
        "Listen addresses that a subscriber connects to. An empty list means: with the driver `redis` the \
        servers of `remote_db_hosts`, otherwise with `discover` the registered publishers alone, otherwise the address \
        that a publisher of this host binds.";
    curve_secret_key_file: PathBuf = "", [is "a path, in which ~/ and $NAME are expanded"],
        "File with this process's pair of CURVE keys, as `tablecast keygen` writes it; only this user may have the right \
        to read it. With it, TCP connections of the driver `zmq` are encrypted, and a bound socket lets in only clients \
        that know its public key.";
    curve_allowed_clients: PathBuf = "", [is "a path, in which ~/ and $NAME are expanded"],
        "File, or folder of files, with the public keys of the clients that a bound socket lets in; read again when it \
        changes. Empty means all that know its public key.";
    curve_server_key: String = "", [is "a public key of 40 characters (Z85), or nothing", address::is_curve_key_or_empty],
        "Public key of the publishers whose addresses have none of their own. Empty means this process's own key if \
        it has a pair, and otherwise that these connections are not encrypted.";
    topics: Vec<Topic> = "D", [is "topics that are not empty"],
        "Topics that a subscriber registers at its start.";
    publisher_id: String = "", [is "at most 255 bytes without control characters", is_id],
        "Id of the publisher. An empty id is made from the host name, the process id and a random part.";
    codec: Codec = "msgpack", [is "json, msgpack or dragonflow-1"],
        "Format of the messages sent; receivers understand all of them. `dragonflow-1` is for \
        Dragonflow's processes of up to mid-2016.";
    join_frames: JoinFrames = "auto", [is "auto, never or always"],
        "Updates of one topic that are sent close together share a frame, which Dragonflow does not understand: \
        `auto` while all subscribers are known to be tablecast's, `never`, or `always`.";
    send_timeout_ms: Duration = 1000 "milliseconds", [1..=600_000],
        "Time limit of a send.";
    linger_ms: Duration = 500 "milliseconds", [0..=60_000],
        "Time for which a publisher that stops waits for unsent messages; of several in a process, the last to stop.";
    live_timeout_ms: Duration = 2000 "milliseconds", [10..=600_000],
        "Time within which a connected publisher has to answer; after that it counts as one that sends no hellos.";
    hello_interval_ms: Duration = 1000 "milliseconds", [10..=600_000],
        "Period in which a publisher or publisher service sends a hello and a subscriber asks. A lost last update \
        is noticed within two periods, a publisher that is gone or cut off within three.";
    continuity: bool = true, [is "true or false"],
        "Subscribers look for losses; with `false` they report no `gap`, `unproven`, `restarted`, `silence` or \
        `hellos-missed`, and no state of topics.";
    resync_without_hellos_ms: Duration = 0 "milliseconds", [0..=86_400_000],
        "While a publisher sends no hellos (Dragonflow's), and once updates without numbers have come, as through a \
        service from one, the program is asked to read the store again at least once in this time, since losses of that \
        publisher do not show. 0 disables this.";
    resubscribe: Resubscribe = "automatic", [is "automatic or manual"],
        "Handling of a subscriber's topics when it loses the connection to a live address. `automatic` subscribes \
        them again on reconnection; `manual` clears them, and the program registers them again on the sync event \
        `cleared`.";
    heartbeat_interval_ms: Duration = 1000 "milliseconds", [10..=600_000],
        "Interval at which the system checks an idle TCP connection, rounded up to seconds.";
    heartbeat_timeout_ms: Duration = 3000 "milliseconds", [20..=600_000],
        "Time without an answer to these checks after which the connection counts as lost; a ZeroMQ publisher with \
        unacknowledged data waits twenty times as long.";
    reconnect_interval_ms: Duration = 100 "milliseconds", [1..=60_000],
        "Wait before the first attempt to connect again.";
    reconnect_max_ms: Duration = 2000 "milliseconds", [1..=600_000],
        "Maximum that this wait grows to.";
    send_hwm: u32 = 100_000 "messages", [1..=10_000_000],
        "Messages that a publisher keeps per subscriber before the transport drops; updates that were joined, up to \
        64 KiB, are one.";
    receive_hwm: u32 = 100_000 "messages", [1..=10_000_000],
        "Messages that the transport keeps for a subscriber; updates that were joined, up to 64 KiB, are one.";
    multicast_rate: u32 = 100_000 "kilobits per second", [1..=1_000_000],
        "Maximum that a publisher sends to a multicast group (`epgm`); messages beyond this rate wait, up to `send_hwm` \
        messages. Use one value for all processes of a group.";
    multicast_recovery_ms: Duration = 1000 "milliseconds", [10..=60_000],
        "Time for which a publisher keeps what it has sent to a multicast group, at the full rate, for receivers that \
        have missed it; each end needs memory for that much. Use one value for all processes of a group.";
    queue_capacity: usize = 65_536 "updates", [1..=10_000_000],
        "Updates that may wait for the dispatcher before the queue is full.";
    queue_overflow: Overflow = "coalesce", [is "coalesce, block or drop-and-sync"],
        "Policy of a full queue: `coalesce` keeps the newest update of each row, from half of the capacity on; `block` \
        makes the subscriber wait; `drop-and-sync` drops updates and emits a sync event.";
    queue_max_overtake_ms: Duration = 1000 "milliseconds", [0..=600_000],
        "Time for which more urgent updates may overtake one that waits.";
    dispatcher_workers: usize = 0 "threads", [0..=256],
        "Threads that share the callbacks; with 0 the dispatcher calls them itself.";
    max_message_bytes: usize = 16_777_216 "bytes", [64..=1_073_741_824],
        "Size limit of a message that is sent or received. Updates that share a frame are received up to 64 KiB \
         together, whatever the limit.";
    max_topic_bytes: usize = 65_536 "bytes", [1..=1_048_576],
        "Length limit of a topic.";
    max_key_bytes: usize = 65_536 "bytes", [1..=1_048_576],
        "Length limit of the key of a row.";
    remote_db_hosts: Vec<String> = "127.0.0.1:6379", [each "host, host:port, redis://user:password@host:port/db, rediss://.., valkey://.., unix:///path or redis-sentinel://user:password@host:port,host:port/master", is_redis],
        "Hosts of the database: a Redis server, or some nodes of a Redis cluster, which name the others. The first, \
        or each, may be a URL, with one user, password and database for all; then its scheme decides about TLS \
        instead of `redis_tls`, and `redis_user` and `redis_password` apply only if it has neither user nor password. With `redis-sentinel://` the hosts are Sentinels and user and password theirs; the three options are for \
        the master. `rediss-sentinel://` means TLS for both. In the path of a socket ~/ and $NAME are expanded. Rows belong to \
        the database of that number, updates to the whole server: those published at `/4` are received at `/3` too.";
    redis_user: String = "", [is "at most 255 bytes without control characters", is_id],
        "User of Redis' access lists; empty means `default`.";
    redis_password: Secret = "", [is "a password"],
        "Password for Redis. Other users of the host can see a flag, so set it in the file or the environment.";
    redis_tls: bool = false, [is "true or false"],
        "Connections to Redis use TLS.";
    redis_tls_ca: PathBuf = "", [is "a path, in which ~/ and $NAME are expanded"],
        "PEM file with the certificate authorities of Redis' servers; empty means those of the system.";
    redis_tls_cert: PathBuf = "", [is "a path, in which ~/ and $NAME are expanded"],
        "PEM file with the client certificate, for servers that ask for one.";
    redis_tls_key: PathBuf = "", [is "a path, in which ~/ and $NAME are expanded"],
        "PEM file with the key of the client certificate.";
    redis_retries: u32 = 3 "retries", [0..=1000],
        "Retries of a request to the store after a server was lost or temporarily refused it; the wait begins with \
        `reconnect_interval_ms` and doubles.";
    nb_db_class: String = "sqlite", [is "an alias that is not empty", not_empty],
        "Alias of the store: `sqlite`, a file that the processes of a host share; `redis`, a server or a cluster; \
        or `memory`, within one process.";
    sqlite_path: PathBuf = "$XDG_DATA_HOME/tablecast/tablecast.db", [is "a path that is not empty, in which ~/ and $NAME are expanded", not_empty_path],
        "File of the store `sqlite`; a missing file is created, with its folder. `$XDG_DATA_HOME` is \
        `$HOME/.local/share` if it is not set; without a home the folder is `/var/lib/tablecast`.";
    monitor_tables: Vec<String> = "", [each "tables, whose names are not empty", not_empty],
        "Tables that the publisher service monitors because other programs write them without publishing. It stores \
        what it has published under `publisher_id`, or, if that is empty, under the service's socket, and outside \
        of `sqlite` the host name.";
    monitor_interval_ms: Duration = 1000 "milliseconds", [10..=86_400_000],
        "Pause of the publisher service between two polls of the monitored tables.";
    discover: bool = false, [is "true or false"],
        "Publishers that bind a port register themselves in the store, and subscribers follow the registered ones \
        besides the addresses of `publishers`.";
    discover_roles: Vec<String> = "", [each "roles", is_id],
        "Roles of the publishers that subscribers follow; an empty list means all.";
    discover_interval_ms: Duration = 1000 "milliseconds", [10..=3_600_000],
        "Interval at which subscribers read the registered publishers; at least four times within \
        `publisher_timeout_ms`.";
    publisher_role: String = "", [is "at most 255 bytes without control characters", is_id],
        "Role of the publisher; subscribers may follow some roles only.";
    publisher_timeout_ms: Duration = 30_000 "milliseconds", [100..=86_400_000],
        "Time after which a publisher that has not renewed its registration counts as gone; it renews at a third of \
        that. Use one value for all processes of a store.";
    publisher_advertise: String = "", [is "a host or an IP address, or nothing", is_id],
        "Host at which a registered publisher is reached, if it is not `publisher_bind_address`. Empty means the \
        bound address, or the host's name if that is all addresses.";
    listener_timeout_ms: Duration = 10_000 "milliseconds", [100..=86_400_000],
        "Time after which a listener of status updates that has not renewed its registration counts as gone, and \
        others take over its claims; it renews at a third of that. Use one value for all processes of a store.";
    ack_timeout_ms: Duration = 1000 "milliseconds", [10..=600_000],
        "Time that a notifier waits for a listener's answer before it asks; after three unanswered questions it \
        chooses another listener.";
    batch_amount: usize = 1000 "rows", [1..=1_000_000],
        "Rows that a listing takes from the store at a time.";
    store_timeout_ms: Duration = 5000 "milliseconds", [1..=600_000],
        "Time limit of a call of the store, for example while other processes write.";
    deletes_remembered: u32 = 10000 "writes", [1..=10_000_000],
        "Writes of its table for which a store remembers a delete, at least 1,000. A replica that is further behind \
        reads the whole table. Redis keeps up to 63 changes more of each topic, and those of a topic that is no \
        longer written.";
}

/// A type that an option can have.
trait Value: Sized {
    const TOML_TYPE: &'static str;

    /// True if the value must not be shown.
    const SECRET: bool = false;

    /// Parses a value, or returns the wrong part of the text, quoted, and the reason if it is not plain.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text that [`Value::parse`] makes this of.
    fn text(&self) -> String;
}

macro_rules! value_from_str {
    ($($type:ty: $toml_type:literal)+) => {$(
        impl Value for $type {
            const TOML_TYPE: &'static str = $toml_type;
            fn parse(text: &str) -> Result<Self, String> {
                FromStr::from_str(text).map_err(|_| quoted(text))
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

value_from_str! {
    bool: "boolean"
    u16: "integer"
    u32: "integer"
    usize: "integer"
    String: "string"
    Transport: "string"
    Codec: "string"
    Overflow: "string"
    Resubscribe: "string"
    JoinFrames: "string"
}

impl Value for Duration {
    const TOML_TYPE: &'static str = "integer";
    fn parse(text: &str) -> Result<Duration, String> {
        text.parse().map(Duration::from_millis).map_err(|_| quoted(text))
    }
    fn text(&self) -> String {
        self.as_millis().to_string()
    }
}

impl Value for Topic {
    const TOML_TYPE: &'static str = "string";
    fn parse(text: &str) -> Result<Topic, String> {
        Topic::new(text).map_err(|_| quoted(text))
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for Secret {
    const TOML_TYPE: &'static str = "string";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Secret, String> {
        Ok(Secret::new(text))
    }
    fn text(&self) -> String {
        self.expose().to_owned()
    }
}

impl Value for PathBuf {
    const TOML_TYPE: &'static str = "string";
    fn parse(text: &str) -> Result<PathBuf, String> {
        let expanded = path::expand(text.strip_prefix("ipc://").unwrap_or(text), |name| {
            std::env::var_os(name)
        });
        expanded.map_err(|reason| format!("{text:?}: {reason}"))
    }
    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Value> Value for Vec<T> {
    const TOML_TYPE: &'static str = "array";
    fn parse(text: &str) -> Result<Vec<T>, String> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        text.split(',').map(|item| T::parse(item.trim())).collect()
    }
    fn text(&self) -> String {
        self.iter().map(T::text).collect::<Vec<_>>().join(",")
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A value with a range.
trait Number {
    fn number(&self) -> u128;
}

macro_rules! number {
    ($($type:ty)+) => {$(
        impl Number for $type {
            fn number(&self) -> u128 {
                *self as u128
            }
        }
    )+};
}

number! { u16 u32 usize }

impl Number for Duration {
    fn number(&self) -> u128 {
        self.as_millis()
    }
}

fn within(value: &impl Number, low: u128, high: u128) -> Result<(), String> {
    let number = value.number();
    if (low..=high).contains(&number) {
        Ok(())
    } else {
        Err(number.to_string())
    }
}

fn is<T: fmt::Debug + Borrow<B>, B: ?Sized>(value: &T, test: impl Fn(&B) -> bool) -> Result<(), String> {
    if test(value.borrow()) {
        Ok(())
    } else {
        Err(format!("{value:?}"))
    }
}

fn each<T: fmt::Debug + Borrow<B>, B: ?Sized>(items: &[T], test: impl Fn(&B) -> bool) -> Result<(), String> {
    items.iter().try_for_each(|item| is(item, &test))
}

fn not_empty(text: &str) -> bool {
    !text.is_empty()
}

fn not_empty_path(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && !text.chars().any(char::is_control)
}
