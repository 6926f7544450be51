//! The address of a server.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config;

/// A server: a host name or IP address with a port, or the path of its socket in place of the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Node {
    /// Parses a server, for example `db1:6379`, `[::1]:6379` or `db1`, which has the default port.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Node> {
        let with_port = match config::is_host_port(text) {
            true => text.to_owned(),
            false => format!("{text}:{default_port}"),
        };
        let (host, port) = with_port
            .rsplit_once(':')
            .filter(|_| config::is_host_port(&with_port))?;
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

/// The host of a server that does not know its name.
const UNNAMED: &str = "?";

impl Node {
    /// The server that `from` names as `host:port`; it may omit its own host, and write an IPv6 address without
    /// brackets.
    pub(crate) fn told(text: &str, from: &Node) -> Option<Node> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Node {
            host: from.host_told(host),
            port: port.parse().ok()?,
        })
    }

    /// The host that this server calls `host`: its own if that is empty; a link-local address gets the scope of its
    /// own.
    pub(crate) fn host_told(&self, host: &str) -> String {
        let is_link_local = || host.parse().is_ok_and(|it: Ipv6Addr| it.is_unicast_link_local());
        match (host, self.host.split_once('%')) {
            ("", _) => self.host.clone(),
            (_, Some((_, scope))) if is_link_local() => format!("{host}%{scope}"),
            _ => host.to_owned(),
        }
    }

    /// The server at a socket in the file system.
    pub(super) fn at_path(path: &str) -> Node {
        Node {
            host: path.to_owned(),
            port: 0,
        }
    }

    /// The path of its socket, if it has one.
    pub(crate) fn path(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(&*self.host)
    }

    /// True if only the port is known.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.host == UNNAMED
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            _ if self.path().is_some() => f.write_str(&self.host),
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// These nodes, beginning with the one whose turn it is.
pub(crate) fn in_turn(mut nodes: Vec<Node>, turn: usize) -> Vec<Node> {
    let turn = turn % nodes.len().max(1);
    nodes.rotate_left(turn);
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_leave_out_its_own_host_and_scope() {
        let from = Node::parse("db1:1", 0).unwrap();
        for (text, expected) in [("db2:2", "db2:2"), (":3", "db1:3"), ("::1:4", "[::1]:4")] {
            assert_eq!(Node::told(text, &from).unwrap().to_string(), expected);
        }
        assert_eq!(Node::told("db2", &from), None);
        let from = Node::parse("[fe80::1%eth0]:1", 0).unwrap();
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
}
