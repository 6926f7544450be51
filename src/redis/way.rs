//! The way to the servers of an address: the credentials and, if Sentinels name the master, those.

use crate::error::Result;

use super::access::Access;
use super::address::Servers;
use super::masters::Masters;
use super::options::RedisOptions;

/// The way to the servers of an address.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(super) access: Access,
    /// Name the server.
    pub(super) masters: Option<Masters>,
}

impl Way {
    /// # Errors
    /// As [`Access::new`].
    pub(crate) fn new(options: &RedisOptions, servers: &Servers) -> Result<Way> {
        let of_options = (&options.user, &options.password);
        let of_address = (&servers.user, &servers.password);
        if servers.master.is_none() {
            let is_named = !servers.user.is_empty() || !servers.password.is_empty();
            let who = if is_named { of_address } else { of_options };
            let access = Access {
                database: servers.database,
                ..Access::new(options, who, servers.tls)?
            };
            return Ok(Way { access, masters: None });
        }
        let sentinels = Access {
            is_sentinel: true,
            ..Access::new(options, of_address, servers.tls)?
        };
        let access = Access {
            database: servers.database,
            ..Access::new(options, of_options, Way::has_tls(options, servers))?
        };
        let masters = Some(Masters::new(servers, sentinels, options));
        Ok(Way { access, masters })
    }

    /// True if connections to these servers, or to the master that they name, use TLS.
    pub(crate) fn has_tls(options: &RedisOptions, servers: &Servers) -> bool {
        servers.tls || (servers.master.is_some() && options.tls)
    }
}
