//! The addresses of servers: `redis://user:password@host:port,host:port/db`, `rediss://`, `valkey://`, `unix:///path`,
//! and of a master by its Sentinels: `redis-sentinel://host:port,host:port/master/db`, `rediss-sentinel://`.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::config::{self, RedisAddress, Secret};
use crate::error::{Error, ErrorKind, Result};

use super::node::Node;

/// Some servers of a Redis, with user and password; they name the others of a cluster. Or some Sentinels, which name
/// the server. The text form shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Servers {
    pub(crate) tls: bool,
    pub(crate) nodes: Vec<Node>,
    /// The nodes are Sentinels, and user and password theirs; this is their name for the master.
    pub(super) master: Option<String>,
    /// If empty, that of the options.
    pub(super) user: String,
    pub(super) password: Secret,
    /// The number of the database.
    pub(super) database: u32,
}

/// The form of an address, for errors.
const FORM: &str = "a Redis address is redis://host:port,host:port, with rediss:// for TLS, or unix:///path, or \
                    redis-sentinel://host:port,host:port/master";

impl Servers {
    /// Parses an address.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; the text never shows a password.
    pub(crate) fn parse(address: &str) -> Result<Servers> {
        let wrong = |expected: &str| {
            let shown = config::shown_address(address);
            let context = format!("{FORM}; expected {expected}, got {shown}");
            Error::new(ErrorKind::InvalidInput, context)
        };
        let written = RedisAddress::parse(address).map_err(|expected| wrong(&expected))?;
        let decoded = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded
                .map(String::from)
                .map_err(|_| wrong("user and password in UTF-8"))
        };
        let credentials = written.credentials;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (user, password) = (decoded(user)?, Secret::new(decoded(password)?));
        let port = written.master.map_or(DEFAULT_PORT, |_| SENTINEL_PORT);
        let nodes: Option<Vec<_>> = match &written.socket {
            Some(path) => Some(vec![Node::at_path(path)]),
            None => written.hosts.split(',').map(|host| Node::parse(host, port)).collect(),
        };
        Ok(Servers {
            tls: written.tls,
            nodes: nodes.ok_or_else(|| wrong("hosts, each with or without its port"))?,
            master: written.master.map(str::to_owned),
            user,
            password,
            database: written.database,
        })
    }
}

/// The default ports of a server and of a Sentinel.
const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.nodes.iter().find_map(Node::path);
        f.write_str(match (path, &self.master, self.tls) {
            (Some(_), ..) => "unix://",
            (None, None, false) => "redis://",
            (None, None, true) => "rediss://",
            (None, Some(_), false) => "redis-sentinel://",
            (None, Some(_), true) => "rediss-sentinel://",
        })?;
        for (number, node) in self.nodes.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            write!(f, "{separator}{node}")?;
        }
        if let Some(master) = &self.master {
            write!(f, "/{master}")?;
        }
        match (self.database, path) {
            (0, _) => Ok(()),
            (database, Some(_)) => write!(f, "?db={database}"),
            (database, None) => write!(f, "/{database}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_servers() {
        for (address, tls, nodes, database, shown) in [
            ("redis://db1:6379", false, vec![("db1", 6379)], 0, "redis://db1:6379"),
            ("redis://db1", false, vec![("db1", 6379)], 0, "redis://db1:6379"),
            ("valkey://db1/3", false, vec![("db1", 6379)], 3, "redis://db1:6379/3"),
            ("valkeys://db1", true, vec![("db1", 6379)], 0, "rediss://db1:6379"),
            (
                "redis://a:1,b:2/",
                false,
                vec![("a", 1), ("b", 2)],
                0,
                "redis://a:1,b:2",
            ),
            (
                "rediss://db1:1,[::1]:2,10.0.0.1:3",
                true,
                vec![("db1", 1), ("::1", 2), ("10.0.0.1", 3)],
                0,
                "rediss://db1:1,[::1]:2,10.0.0.1:3",
            ),
            (
                "unix:///run/r.sock",
                false,
                vec![("/run/r.sock", 0)],
                0,
                "unix:///run/r.sock",
            ),
            (
                "unix:///r.sock?db=2",
                false,
                vec![("/r.sock", 0)],
                2,
                "unix:///r.sock?db=2",
            ),
            (
                "redis-sentinel://h1,h2:1/my.master",
                false,
                vec![("h1", 26_379), ("h2", 1)],
                0,
                "redis-sentinel://h1:26379,h2:1/my.master",
            ),
            (
                "rediss-sentinel://[::1]/m/3",
                true,
                vec![("::1", 26_379)],
                3,
                "rediss-sentinel://[::1]:26379/m/3",
            ),
        ] {
            let servers = Servers::parse(address).unwrap();
            let parsed: Vec<_> = servers.nodes.iter().map(|node| (&*node.host, node.port)).collect();
            assert_eq!(
                (servers.tls, parsed, servers.database),
                (tls, nodes, database),
                "{address}"
            );
            assert_eq!(servers.to_string(), shown);
            assert_eq!(Servers::parse(shown).unwrap(), servers);
        }
        for wrong in [
            "",
            "redis://",
            "db1:6379",
            "tcp://db1:6379",
            "redis://db1:0",
            "redis://a:1,",
            "redis://a:1/x",
            "redis://a:1/2/",
            "redis://a:1/2?protocol=3",
            "redis://a:1?db=2",
            "redis://:x@a:1,redis://:x@b:2",
            "unix:///r.sock?db=",
            "unix:///r.sock?db=3&x=1",
            "unix://relative",
            "unix:///r.sock?database=1",
            "redis-sentinel://h1:26379",
            "redis-sentinel://h1:26379/",
            "redis-sentinel://h1:26379/my master",
            "redis-sentinel:///mymaster",
            "redis-sentinel://h1/mymaster/x",
        ] {
            assert_eq!(
                Servers::parse(wrong).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{wrong}"
            );
        }
    }

    #[test]
    fn who_is_let_in_stands_in_the_address_and_is_not_shown() {
        for (address, user, password) in [
            ("redis://me:hunter2@db1:6379/1", "me", "hunter2"),
            ("redis://:hunter2@db1", "", "hunter2"),
            ("redis://me@db1", "me", ""),
            ("redis://m%40e:hunter2%2F%3A@db1", "m@e", "hunter2/:"),
            ("unix://me:hunter2@/r.sock", "me", "hunter2"),
            ("redis-sentinel://me:hunter2@h1,h2/m", "me", "hunter2"),
        ] {
            let servers = Servers::parse(address).unwrap();
            assert_eq!((&*servers.user, servers.password.expose()), (user, password));
            assert!(!format!("{servers} {servers:?}").contains("hunter2"));
        }
        for wrong in [
            "redis://:hunter2@db1:x",
            "redis://:hunter2@db1/x",
            "tcp://:hunter2@db1",
            "redis://%ff:hunter2@a",
            "redis-sentinel://:hunter2@h1",
            "redis://h?password=hunter2",
            "redis://h/?password=x@hunter2",
            "redis://h:1/?password=hunter2@x",
            "unix:///r.sock?db=3&password=hunter2",
            "Redis://:hunter2@h",
            ":hunter2@h",
        ] {
            let error = Servers::parse(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
