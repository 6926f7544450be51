//! The credentials of connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::SockAddr;

use crate::config::Secret;
use crate::error::Result;
#[cfg(not(feature = "redis-tls"))]
use crate::error::{Error, ErrorKind};

use super::node::Node;
use super::options::RedisOptions;
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
}

/// The address at which each server with several addresses last answered, which is tried first. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered(Arc<Mutex<HashMap<Node, SockAddr>>>);

/// The servers that could not be asked whether they are masters, each of which was reported once. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Unasked(Arc<Mutex<BTreeSet<Node>>>);

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

impl Unasked {
    /// Returns true if it is new.
    pub(super) fn add(&self, node: &Node) -> bool {
        self.0.lock().insert(node.clone())
    }

    pub(super) fn remove(&self, node: &Node) {
        self.0.lock().remove(node);
    }
}

impl Access {
    /// The credentials of a user with this password.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for TLS in a build without it; [`ErrorKind::Config`] or [`ErrorKind::Io`] if the
    /// certificates cannot be used.
    pub(super) fn new(options: &RedisOptions, (user, password): (&String, &Secret), tls: bool) -> Result<Access> {
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
        })
    }
}
