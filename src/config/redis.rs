//! Addresses of Redis servers as they are written, and lists of them.

use super::MAX_SOCKET_PATH;
use super::address::is_host;

/// An address taken apart; its user and password are encoded.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only its form is checked"))]
pub(crate) struct RedisAddress<'a> {
    pub(crate) tls: bool,
    /// Everything before the hosts, and everything behind them.
    around: [&'a str; 2],
    /// `user:password`.
    pub(crate) credentials: &'a str,
    /// Hosts with or without their ports, separated by commas; or the path of a socket.
    pub(crate) hosts: &'a str,
    /// The hosts are Sentinels, and this is their name for the master.
    pub(crate) master: Option<&'a str>,
    pub(crate) database: u32,
}

impl<'a> RedisAddress<'a> {
    /// Takes an address apart, or returns what is expected in place of a wrong part.
    pub(crate) fn parse(address: &'a str) -> Result<RedisAddress<'a>, &'static str> {
        let (scheme, rest) = address.split_once("://").ok_or("a scheme")?;
        let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        if credentials.contains("://") {
            return Err("one address, and %3A%2F%2F for :// in a password");
        }
        if credentials.contains('?') {
            return Err("no parameters, and %3F for ? in a password");
        }
        let (head, _) = address.split_at(address.len() - rest.len());
        let end = rest.find(if scheme == "unix" { '?' } else { '/' });
        let (hosts, tail) = rest.split_at(end.unwrap_or(rest.len()));
        let behind = tail.get(1..).unwrap_or_default();
        let (master, database) = match scheme {
            "unix" if tail.is_empty() => (None, "0"),
            "unix" => (
                None,
                behind
                    .strip_prefix("db=")
                    .ok_or("?db=N after the path, and nothing else")?,
            ),
            "redis-sentinel" | "rediss-sentinel" => {
                let (master, database) = behind.split_once('/').unwrap_or((behind, ""));
                (Some(master), database)
            }
            "redis" | "valkey" | "rediss" | "valkeys" => (None, behind),
            _ => {
                return Err(
                    "one of the schemes redis, rediss, valkey, valkeys, redis-sentinel, rediss-sentinel and unix",
                );
            }
        };
        match scheme {
            "unix" if !hosts.starts_with('/') || hosts.len() > MAX_SOCKET_PATH => {
                return Err("the absolute path of a socket");
            }
            "unix" => {}
            _ if rest.contains('?') => return Err("no parameters: the number of a database stands behind a /"),
            _ if !hosts.split(',').all(is_host) => return Err("hosts, each with or without its port"),
            _ => {}
        }
        if !master.is_none_or(is_master_name) {
            return Err("the name of the master, of letters, digits, and any of .-_, after a /");
        }
        let database = match database {
            "" if scheme != "unix" => 0,
            number => number.parse().map_err(|_| match scheme {
                "unix" => "?db=N after the path, and nothing else",
                _ => "the number of a database",
            })?,
        };
        Ok(RedisAddress {
            tls: matches!(scheme, "rediss" | "valkeys" | "rediss-sentinel"),
            around: [head, tail],
            credentials,
            hosts,
            master,
            database,
        })
    }

    /// The path of the socket, if it has one.
    pub(crate) fn socket(&self) -> Option<&'a str> {
        self.hosts.starts_with('/').then_some(self.hosts)
    }

    /// True if at most the hosts are others.
    fn is_like(&self, other: &RedisAddress<'_>) -> bool {
        let same = (self.around[0], self.master, self.database);
        self.socket().is_none() && same == (other.around[0], other.master, other.database)
    }
}

/// True if a Sentinel takes this as the name of a master.
fn is_master_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// The address that a list means: of hosts, of one address whose hosts are several items, or of addresses that differ in
/// their hosts alone. Otherwise returns what is expected.
pub(super) fn joined(items: &[String], tls: bool) -> Result<String, &'static str> {
    let text = items.join(",");
    let text = match text.contains("://") {
        true => text,
        false => format!("{}://{text}", if tls { "rediss" } else { "redis" }),
    };
    let mut addresses: Vec<String> = Vec::new();
    for item in text.split(',') {
        match addresses.last_mut() {
            Some(last) if !item.contains("://") => last.extend([",", item]),
            None if !item.contains("://") => return Err("hosts without a scheme, or one with a scheme first"),
            _ => addresses.push(item.to_owned()),
        }
    }
    let addresses: Result<Vec<_>, _> = addresses.iter().map(|it| RedisAddress::parse(it)).collect();
    let addresses = addresses?;
    match &*addresses {
        [first, others @ ..] if others.iter().all(|other| first.is_like(other)) => {
            let hosts: Vec<_> = addresses.iter().map(|address| address.hosts).collect();
            let [head, tail] = first.around;
            Ok(format!("{head}{}{tail}", hosts.join(",")))
        }
        _ => Err("addresses that differ in their hosts alone, with one scheme, user, password and database"),
    }
}
