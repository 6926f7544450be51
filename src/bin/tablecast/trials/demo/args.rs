//! The arguments of the demo.

use clap::builder::NonEmptyStringValueParser;

use crate::args;

/// Start writers and subscribers as processes on this machine, with a publisher service or a Redis server between them,
/// and check that every update reaches its subscribers, once and in order.
///
/// The writers send the history of a small network with several tenants. The first subscriber subscribes to every
/// topic, each other one to a tenant's topic and to everyone's. Of the options only codec is used, and with --redis
/// those that begin with redis.
///
/// --driver zmq or redis chooses the transport. With --store sqlite or redis, writers write rows, which are stored and
/// then published (with redis for both, in one step); each subscriber holds a replica, and at the end its rows are
/// compared with the store.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Send this many generated updates of about 240 bytes instead.
    #[arg(long, value_name = "N", value_parser = args::count)]
    pub(super) updates: Option<u64>,
    /// Number of writing processes, 1 to 64.
    #[arg(long, value_name = "W", default_value = "3", value_parser = args::number::<usize, 1, 64>)]
    pub(super) writers: usize,
    /// Number of subscribing processes, 1 to 64.
    #[arg(long, value_name = "S", default_value = "2", value_parser = args::number::<usize, 1, 64>)]
    pub(super) subscribers: usize,
    /// Send at most this many updates per second, 100 or more. [default: 250 for the network, unlimited for generated
    /// updates]
    #[arg(long, value_name = "R", value_parser = args::number::<u64, 100, { u64::MAX }>)]
    pub(super) rate: Option<u64>,
    /// Use this Redis, for example redis://127.0.0.1:6379, instead of a redis-server that the demo starts: any address
    /// that the option remote_db_hosts accepts. Topics and tables get a unique prefix there, and the rows are deleted
    /// at the end.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub(super) redis: Option<String>,
    /// Give up when nothing was delivered for this many seconds.
    #[arg(long, value_name = "S", default_value = "10", value_parser = args::count)]
    pub(super) timeout: u64,
}
