//! Where a server is, and the addresses that name servers.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config;
use crate::error::{Error, ErrorKind, Result};

/// A server: a host's name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Node {
    /// The server of a text such as `db1:6379` or `[::1]:6379`.
    fn parse(text: &str) -> Option<Node> {
        let (host, port) = text.rsplit_once(':').filter(|_| config::is_host_port(text))?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Some(Node {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// The host of a server that says it does not know its name.
const UNNAMED: &str = "?";

impl Node {
    /// The server that `from` tells of as `host:port`; it may leave out the host that it has itself, and put an IPv6
    /// address without brackets.
    pub(crate) fn told(text: &str, from: &Node) -> Option<Node> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Node {
            host: from.host_told(host),
            port: port.parse().ok()?,
        })
    }

    /// The host that this server calls `host`: its own if that is empty, and a link-local address on the link of its
    /// own.
    pub(crate) fn host_told(&self, host: &str) -> String {
        let is_link_local = || host.parse().is_ok_and(|it: Ipv6Addr| it.is_unicast_link_local());
        match (host, self.host.split_once('%')) {
            ("", _) => self.host.clone(),
            (_, Some((_, scope))) if is_link_local() => format!("{host}%{scope}"),
            _ => host.to_owned(),
        }
    }

    /// True if only its port is known.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.host == UNNAMED
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// These, beginning with the one whose turn it is.
pub(crate) fn in_turn(mut nodes: Vec<Node>, turn: usize) -> Vec<Node> {
    let turn = turn % nodes.len().max(1);
    nodes.rotate_left(turn);
    nodes
}

/// Some servers of one Redis; the others of a cluster are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Servers {
    pub(crate) tls: bool,
    pub(crate) nodes: Vec<Node>,
}

impl Servers {
    /// The servers of an address such as `redis://db1:6379,db2:6379`; with `rediss` they are spoken to over TLS.
    pub(crate) fn parse(address: &str) -> Result<Servers> {
        // Whoever writes a password into an address is not to read it in a log.
        let wrong = |expected: &str| {
            let shown = if address.contains('@') {
                "a user's address"
            } else {
                address
            };
            let context = format!("a Redis address is redis://host:port,host:port; expected {expected}, got {shown}");
            Error::new(ErrorKind::InvalidInput, context)
        };
        if address.contains('@') {
            return Err(wrong("user and password in the options redis_user and redis_password"));
        }
        let (tls, hosts) = match address.split_once("://") {
            Some(("redis", hosts)) => (false, hosts),
            Some(("rediss", hosts)) => (true, hosts),
            _ => return Err(wrong("redis:// or rediss://")),
        };
        let nodes = hosts.trim_end_matches('/').split(',').map(Node::parse);
        let nodes: Option<Vec<_>> = nodes.collect();
        Ok(Servers {
            tls,
            nodes: nodes.ok_or_else(|| wrong("each host with its port"))?,
        })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        for (number, node) in self.nodes.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            write!(f, "{separator}{node}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_leave_out_its_own_host_and_scope() {
        let from = Node::parse("db1:1").unwrap();
        for (text, expected) in [("db2:2", "db2:2"), (":3", "db1:3"), ("::1:4", "[::1]:4")] {
            assert_eq!(Node::told(text, &from).unwrap().to_string(), expected);
        }
        assert_eq!(Node::told("db2", &from), None);
        let from = Node::parse("[fe80::1%eth0]:1").unwrap();
        for (text, expected) in [
            (":2", "[fe80::1%eth0]:2"),
            ("fe80::2:3", "[fe80::2%eth0]:3"),
            ("fe80::2%eth1:3", "[fe80::2%eth1]:3"),
            ("::1:4", "[::1]:4"),
            ("db2:5", "db2:5"),
        ] {
            assert_eq!(Node::told(text, &from).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn addresses_name_servers() {
        for (address, tls, nodes) in [
            ("redis://db1:6379", false, vec![("db1", 6379)]),
            (
                "rediss://db1:1,[::1]:2,10.0.0.1:3",
                true,
                vec![("db1", 1), ("::1", 2), ("10.0.0.1", 3)],
            ),
        ] {
            let servers = Servers::parse(address).unwrap();
            assert_eq!(servers.tls, tls);
            let parsed: Vec<_> = servers.nodes.iter().map(|node| (&*node.host, node.port)).collect();
            assert_eq!(parsed, nodes);
            assert_eq!(servers.to_string(), address);
        }
        for wrong in [
            "",
            "redis://",
            "db1:6379",
            "tcp://db1:6379",
            "redis://db1",
            "redis://db1:0",
            "redis://a:1,",
            "redis://a:1/0",
        ] {
            assert_eq!(
                Servers::parse(wrong).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{wrong}"
            );
        }
        let error = Servers::parse("redis://:hunter2@db1:6379").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
