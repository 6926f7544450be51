//! A publisher's row in the registry.

use crate::config::{Config, join_key, split_key};
use crate::identity::{host_name, new_epoch};
use crate::registry::Member;

/// The row of the publisher that is bound at this address: under the id `publisher_id`, or, if that is empty, the
/// host's name and the address without its key, as they are now.
pub(super) fn of_publisher(config: &Config, bound: &str) -> Member {
    let address = advertised(&config.publisher_advertise, bound);
    let id = match config.publisher_id.as_str() {
        "" => format!("{} {}", host_name(), split_key(&address).0),
        id => id.to_owned(),
    };
    Member {
        id,
        epoch: new_epoch(),
        address,
        role: config.publisher_role.clone(),
        ..Member::default()
    }
}

/// The address that other hosts connect to now, for a publisher that is bound at this address: a host may be renamed.
pub(super) fn advertised(advertise: &str, bound: &str) -> String {
    let (bound, key) = split_key(bound);
    let address = without_key(advertise, bound);
    key.map_or_else(|| address.clone(), |key| join_key(&address, key))
}

fn without_key(advertise: &str, bound: &str) -> String {
    let Some((host, port)) = bound.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
        return bound.to_owned();
    };
    let host = match (advertise, host) {
        ("", "0.0.0.0" | "[::]" | "*") => host_name(),
        ("", host) => host.to_owned(),
        (host, _) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (host, _) => host.to_owned(),
    };
    format!("tcp://{host}:{port}")
}
