//! A publisher's row in the registry.

use crate::config::{Config, join_key, split_key};
use crate::publisher::{host_name, new_epoch};
use crate::registry::Member;

/// The row of the publisher that is bound at this address: under the id `publisher_id`, or, if that is empty, the
/// host's name and the address without its key.
pub(super) fn of_publisher(config: &Config, bound: &str) -> Member {
    let (bound, key) = split_key(bound);
    let address = advertised(config, bound);
    let id = match config.publisher_id.as_str() {
        "" => format!("{} {address}", host_name()),
        id => id.to_owned(),
    };
    let address = key.map_or_else(|| address.clone(), |key| join_key(&address, key));
    Member {
        id,
        epoch: new_epoch(),
        address,
        role: config.publisher_role.clone(),
        ..Member::default()
    }
}

/// The address that other hosts connect to, for a publisher that is bound at this address.
fn advertised(config: &Config, bound: &str) -> String {
    let Some((host, port)) = bound.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
        return bound.to_owned();
    };
    let host = match (config.publisher_advertise.as_str(), host) {
        ("", "0.0.0.0" | "[::]" | "*") => host_name(),
        ("", host) => host.to_owned(),
        (host, _) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (host, _) => host.to_owned(),
    };
    format!("tcp://{host}:{port}")
}
