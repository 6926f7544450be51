//! The Redis driver: the topic is the channel, the message its payload.
//!
//! An address names a Redis: one server, `redis://db1:6379`, or some nodes of a cluster, `redis://db1:6379,db2:6379`,
//! which name the others; `rediss` means TLS. Every end has one connection to one node, another one each time, so that
//! many ends are spread over the nodes.
//!
//! `redis-sentinel://sentinel1:26379,sentinel2:26379/mymaster` names a master by its Sentinels: all ends are connected
//! to the master, and to the next one after a failover. User and password of that address are for the Sentinels, those of
//! the options for the master; `rediss-sentinel` means TLS for both, [`RedisOptions::tls`] for the master alone.
//!
//! Of several hosts of one address that are no cluster, one has to be a master and the others its replicas: if two say
//! that they are the master, publishers use neither, and the error names both.
//!
//! A host is an IP address, with a scope if it needs one (`redis://[fe80::1%eth0]:6379`), or a name. A name is looked up
//! for every connection, within the time limit of the call; its addresses are tried side by side, first the one that
//! answered last. A node of a cluster that is not reached where the others say it is, is looked for at the addresses that
//! were given.

mod connecting;
mod inbound;
mod link;
mod outbound;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use crate::error::Result;
pub use crate::redis::RedisOptions;
use crate::redis::{self, Access, Finder, Servers};
use crate::transport::{Driver, Inbound, Outbound, Wake};

use inbound::RedisInbound;
use outbound::RedisOutbound;

/// Publish and subscribe through Redis; its alias is `redis`. Channels belong to the whole server, whatever database an address
/// names.
///
/// It needs Redis 6 or newer. Its commands, for access lists: `PUBLISH`; `SUBSCRIBE`, `UNSUBSCRIBE` and `PING`; and
/// with a cluster `CLUSTER SLOTS` and `CLUSTER INFO`. Without the last two it works, but is not spread over nodes
/// beyond the given ones, and does not notice that a node is cut off from its cluster. `INFO` shows that two of several
/// single servers are one under two names. The channels are the topics, and
/// the library's own, whose names begin with U+10FFFF and `tablecast/`.
#[derive(Debug)]
pub struct RedisDriver {
    servers: Servers,
    options: RedisOptions,
    access: Access,
    known: Known,
    turns: Arc<AtomicUsize>,
}

impl RedisDriver {
    /// A driver whose publishers use this address, for example `redis://127.0.0.1:6379`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an address that is none,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for `rediss` without the feature `redis-tls`, and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) or [`ErrorKind::Io`](crate::ErrorKind::Io) for certificates
    /// that cannot be used.
    pub fn new(address: &str, options: RedisOptions) -> Result<RedisDriver> {
        let servers = Servers::parse(address)?;
        Ok(RedisDriver {
            access: Access::new(&options, &servers)?,
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
            self.access.clone(),
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
        Access::new(&self.options, &servers).map(drop)
    }

    fn known_as(&self, address: &str) -> String {
        self.known.remember(address)
    }
}

/// The servers of the listen addresses that were given, by what they are called: that says no password. Clones share it.
#[derive(Debug, Clone, Default)]
struct Known(Arc<Mutex<HashMap<String, Servers>>>);

impl Known {
    /// Returns what the address is called from now on.
    fn remember(&self, address: &str) -> String {
        let Ok(servers) = Servers::parse(address) else {
            return address.to_owned();
        };
        let name = servers.to_string();
        // Naming it again without a password does not remove the password.
        if name != address {
            self.0.lock().insert(name.clone(), servers);
        }
        name
    }

    fn servers(&self, name: &str) -> Result<Servers> {
        let known = self.0.lock().get(name).cloned();
        known.map_or_else(|| Servers::parse(name), Ok)
    }
}
