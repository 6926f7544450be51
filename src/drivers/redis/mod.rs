//! The Redis driver: the topic is the channel, the message its payload. Joined updates have a second channel for each
//! topic, which only this library's subscribers have.
//!
//! An address names a Redis: one server, `redis://db1:6379`, or some nodes of a cluster, `redis://db1:6379,db2:6379`,
//! which name the others; `rediss` means TLS. Every end has one connection, to one node. Each new connection goes to
//! another node, so that many ends are spread over the nodes.
//!
//! A host is an IP address, with a scope if it needs one (`redis://[fe80::1%eth0]:6379`), or a name. A name is looked
//! up for every connection, within the time limit of the call; its addresses are tried side by side, beginning with the
//! one that answered last. If a node of a cluster cannot be reached where the other nodes say it is, the given
//! addresses are tried.

mod audience;
mod channels;
mod connecting;
mod inbound;
mod known;
mod link;
mod lookout;
mod outbound;
mod side;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::error::Result;
pub use crate::redis::RedisOptions;
use crate::redis::{self, Finder, Servers, Way};
use crate::transport::{Driver, Inbound, Outbound, Wake};

use inbound::RedisInbound;
use known::Known;
use outbound::RedisOutbound;

/// Publish and subscribe through Redis; its alias is `redis`. Channels belong to the whole server, whatever database an
/// address names.
///
/// It needs Redis 5 or newer, or Valkey, and speaks RESP3 or, where the server refuses `HELLO`, RESP2: then a
/// subscriber has a second connection, for questions about the server's health. Its commands, for access lists:
/// `PUBLISH`; `SUBSCRIBE`, `UNSUBSCRIBE` and `PING`; in RESP2 `INFO`; and with a cluster `CLUSTER SLOTS` and
/// `CLUSTER INFO`. Without the last two it works, but is spread only over the given nodes, and does not notice that a
/// node is cut off from its cluster. If two addresses are one server, `INFO`, or else `EVAL` and `EVALSHA`, shows that
/// they are no two masters. To join updates ([`JoinFrames::Auto`](crate::config::JoinFrames::Auto)), a publisher needs
/// `EVAL`, `EVALSHA`, `PUBSUB`, `INFO`, `MULTI` and `EXEC`, and all need the channels that are named as the topics, with
/// U+10FFFF and `joined/` before them. The other channels are the topics, and the library's own, whose names begin with
/// U+10FFFF and `tablecast/`.
#[derive(Debug)]
pub struct RedisDriver {
    servers: Servers,
    options: RedisOptions,
    way: Way,
    known: Known,
    turns: Arc<AtomicUsize>,
}

impl RedisDriver {
    /// Creates a driver whose publishers use this address, for example `redis://127.0.0.1:6379`. Nothing is connected
    /// yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid address,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for `rediss` without the feature `redis-tls`, and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) or [`ErrorKind::Io`](crate::ErrorKind::Io) for certificates that
    /// cannot be used.
    pub fn new(address: &str, options: RedisOptions) -> Result<RedisDriver> {
        let servers = Servers::parse(address)?;
        Ok(RedisDriver {
            way: Way::new(&options, &servers)?,
            known: Known::default(),
            servers,
            options: options.bounded(),
            turns: redis::turns(),
        })
    }
}

impl Driver for RedisDriver {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        let finder = Finder::new(
            self.servers.clone(),
            self.way.clone(),
            self.options.heartbeat_timeout,
            Arc::clone(&self.turns),
        );
        let address = self.servers.to_string();
        Ok(Box::new(RedisOutbound::new(finder, address, &self.options)))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = RedisInbound::open(&self.options, &self.known, &self.turns)?;
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        let servers = Servers::parse(address)?;
        Way::new(&self.options, &servers).map(drop)
    }

    fn known_as(&self, address: &str) -> String {
        self.known.remember(address)
    }

    fn authenticates(&self, address: &str) -> bool {
        let servers = self.known.servers(address);
        servers.is_ok_and(|servers| Way::has_tls(&self.options, &servers))
    }
}
