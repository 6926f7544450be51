//! A publisher's row in the registry.

use crate::config::Config;
use crate::publisher::{host_name, new_epoch};
use crate::registry::Member;

/// The row of the publisher that is bound at this address: under the id `publisher_id`, or, if that is empty, the
/// host's name and the address.
pub(super) fn of_publisher(config: &Config, bound: &str) -> Member {
    let address = advertised(config, bound);
    let id = match config.publisher_id.as_str() {
        "" => format!("{} {address}", host_name()),
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
