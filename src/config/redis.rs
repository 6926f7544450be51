//! Addresses of Redis servers as they are written, and lists of them.

use std::borrow::Cow;
use std::env;

use super::address::is_host;
use super::{path, socket};

/// An address taken apart; its user and password are encoded.
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only its form is checked"))]
pub(crate) struct RedisAddress<'a> {
    pub(crate) tls: bool,
    /// Everything before the hosts, and everything behind them.
    around: [&'a str; 2],
    /// `user:password`.
    pub(crate) credentials: &'a str,
    /// Hosts with or without their ports, separated by commas; or the path of a socket as it is written.
    pub(crate) hosts: &'a str,
    /// The path of the socket, if it has one.
    pub(crate) socket: Option<String>,
    /// The hosts are Sentinels, and this is their name for the master.
    pub(crate) master: Option<&'a str>,
    pub(crate) database: u32,
}

impl<'a> RedisAddress<'a> {
    /// Takes an address apart, or returns what is expected in place of a wrong part.
    pub(crate) fn parse(address: &'a str) -> Result<RedisAddress<'a>, Cow<'static, str>> {
        let (scheme, rest) = address.split_once("://").ok_or("a scheme")?;
        let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        if credentials.contains("://") {
            return Err("one address, and %3A%2F%2F for :// in a password".into());
        }
        if credentials.contains('?') {
            return Err("no parameters, and %3F for ? in a password".into());
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
                let schemes =
                    "one of the schemes redis, rediss, valkey, valkeys, redis-sentinel, rediss-sentinel and unix";
                return Err(schemes.into());
            }
        };
        let socket = match scheme {
            "unix" => Some(socket_path(hosts)?),
            _ if rest.contains('?') => return Err("no parameters: the number of a database stands behind a /".into()),
            _ if !hosts.split(',').all(is_host) => return Err("hosts, each with or without its port".into()),
            _ => None,
        };
        if !master.is_none_or(is_master_name) {
            return Err("the name of the master, of letters, digits, and any of .-_, after a /".into());
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
            socket,
            master,
            database,
        })
    }

    /// True if at most the hosts are others.
    fn is_like(&self, other: &RedisAddress<'_>) -> bool {
        let same = (self.around[0], self.master, self.database);
        self.socket.is_none() && same == (other.around[0], other.master, other.database)
    }
}

/// The path of a socket, expanded as other paths are.
fn socket_path(text: &str) -> Result<String, Cow<'static, str>> {
    let expected = "the absolute path of a socket";
    let path = path::expand(text, |name| env::var_os(name)).map_err(|reason| format!("{expected} ({reason})"))?;
    let is_absolute = path.is_absolute() && socket::is_path(&path);
    let text = path.to_str().filter(|_| is_absolute);
    text.map(str::to_owned).ok_or(expected.into())
}

/// True if a Sentinel takes this as the name of a master.
fn is_master_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// The address that a list means: of hosts, of one address whose hosts are several items, or of addresses that differ
/// in their hosts alone. Otherwise returns what is expected.
pub(super) fn joined(items: &[String], tls: bool) -> Result<String, Cow<'static, str>> {
    let text = items.join(",");
    let text = match text.contains("://") {
        true => text,
        false => format!("{}://{text}", if tls { "rediss" } else { "redis" }),
    };
    let mut addresses: Vec<String> = Vec::new();
    for item in text.split(',') {
        match addresses.last_mut() {
            Some(last) if !item.contains("://") => last.extend([",", item]),
            None if !item.contains("://") => return Err("hosts without a scheme, or one with a scheme first".into()),
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
        _ => Err("addresses that differ in their hosts alone, with one scheme, user, password and database".into()),
    }
}
