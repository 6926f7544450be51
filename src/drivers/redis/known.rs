//! The servers behind the known listen addresses.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::redis::Servers;

/// The servers of the given listen addresses, by the address without its password. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<HashMap<String, Servers>>>);

impl Known {
    /// Returns the address without its password, by which the servers are known from now on.
    pub(super) fn remember(&self, address: &str) -> String {
        let Ok(servers) = Servers::parse(address) else {
            return address.to_owned();
        };
        let name = servers.to_string();
        // Naming an address again without its password does not remove the password.
        if name != address {
            self.0.lock().insert(name.clone(), servers);
        }
        name
    }

    pub(super) fn servers(&self, name: &str) -> Result<Servers> {
        let known = self.0.lock().get(name).cloned();
        known.map_or_else(|| Servers::parse(name), Ok)
    }
}
