//! The credentials of connections.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::SockAddr;

use crate::config::Secret;
use crate::error::Result;
#[cfg(not(feature = "redis-tls"))]
use crate::error::{Error, ErrorKind};

use super::address::Servers;
use super::masters::Masters;
use super::node::Node;
use super::options::RedisOptions;
use super::rivals::Unasked;
#[cfg(feature = "redis-tls")]
use super::tls::Tls;

/// The credentials of connections.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) database: u32,
    #[cfg(feature = "redis-tls")]
    pub(super) tls: Option<Tls>,
    pub(super) answered: Answered,
    pub(super) unasked: Unasked,
    /// The server is a Sentinel.
    pub(super) is_sentinel: bool,
    /// Name the server.
    pub(super) masters: Option<Masters>,
}

/// The address at which each server with several addresses last answered, which is tried first. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered(Arc<Mutex<HashMap<Node, SockAddr>>>);

impl Answered {
    pub(super) fn put_first(&self, node: &Node, addresses: &mut [SockAddr]) {
        if let Some(good) = self.0.lock().get(node) {
            addresses.sort_by_key(|address| address != good);
        }
    }

    pub(super) fn remember(&self, node: &Node, address: SockAddr) {
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
            tls: if tls { Some(Tls::new(options)?) } else { None },
            answered: Answered::default(),
            unasked: Unasked::default(),
            is_sentinel: false,
            masters: None,
        })
    }
}
