//! Addresses, and binding them without taking them from a live server.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{MAX_SOCKET_PATH, shown_address, split_key};
use crate::error::{Error, ErrorKind, Result};

use super::access::Access;
use super::calls::{libzmq, patiently, zmq_error};
use super::key::{Key, check_curve};
use super::multicast::Group;
use super::options::ZmqOptions;
use super::path_lock::{self, PathLock};

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The role given by a leading `@` or `>`, if any.
    role: Option<Role>,
    /// The address as libzmq takes it.
    uri: String,
    /// The public key of the other end, if the address states it.
    key: Option<Key>,
    /// For a multicast address.
    group: Option<Group>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Bind,
    Connect,
}

impl Endpoint {
    pub(super) fn parse(address: &str) -> Result<Endpoint> {
        let (role, uri) = match address.split_at_checked(1) {
            Some(("@", uri)) => (Some(Role::Bind), uri),
            Some((">", uri)) => (Some(Role::Connect), uri),
            _ => (None, address),
        };
        let shown = shown_address(address);
        let invalid = |expected: &str| {
            Err(Error::new(
                ErrorKind::InvalidInput,
                format!("address {shown:?}: expected {expected}"),
            ))
        };
        if uri.contains('\0') {
            return invalid("no NUL character");
        }
        let (uri, key) = split_key(uri);
        let Some((scheme, rest)) = uri.split_once("://") else {
            return invalid("transport://address, for example tcp://127.0.0.1:8866");
        };
        match scheme {
            "tcp" => {
                let port = rest.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
                // Behind a source there is a destination too.
                if !matches!(port, Some((host, Ok(_))) if !host.is_empty() && !host.ends_with(';') && !host.contains('@'))
                {
                    return invalid("tcp://host:port with a port from 0 to 65535");
                }
            }
            "ipc" if rest.is_empty() => return invalid("ipc:// and a path"),
            "ipc" if rest.len() > MAX_SOCKET_PATH => {
                return invalid("a path of at most 107 bytes, the limit of Unix sockets");
            }
            "inproc" if rest.is_empty() => return invalid("inproc:// and a name"),
            "ipc" | "inproc" => {}
            "pgm" | "epgm" if Group::parse(scheme, rest).is_none() => {
                return invalid("interface;group:port behind the scheme, for example epgm://eth0;239.192.1.1:8866");
            }
            "pgm" | "epgm" if zmq::has("pgm") != Some(true) => {
                let context = format!(
                    "address {shown:?}: this libzmq ({}) was built without PGM; link the system's libzmq, as the page `operating` of the documentation says",
                    libzmq()
                );
                return Err(Error::new(ErrorKind::Unsupported, context));
            }
            "pgm" | "epgm" => {}
            _ => return invalid("one of the transports tcp, ipc, inproc, epgm"),
        }
        let key = match key {
            None => None,
            Some(text) => {
                let Some(key) = Key::parse(text) else {
                    return invalid("a public key of 40 characters (Z85) behind ?key=");
                };
                check_curve(&format!("address {shown:?}"))?;
                Some(key)
            }
        };
        Ok(Endpoint {
            role,
            uri: uri.to_owned(),
            key,
            group: Group::parse(scheme, rest),
        })
    }

    /// The public key of the other end, if the address states it.
    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.uri.starts_with("tcp:")
    }

    /// The group of a multicast address.
    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    pub(super) fn is_multicast(&self) -> bool {
        self.group.is_some()
    }

    pub(super) fn role_or(&self, default: Role) -> Role {
        self.role.unwrap_or(default)
    }

    /// True if libzmq has no connection events for this address: it is connected at once, and for good.
    pub(super) fn is_silent(&self) -> bool {
        !(self.uri.starts_with("tcp:") || self.uri.starts_with("ipc:"))
    }

    pub(super) fn is_ipc(&self) -> bool {
        self.uri.starts_with("ipc:")
    }

    pub(super) fn is_inproc(&self) -> bool {
        self.uri.starts_with("inproc:")
    }

    /// Host and port to resolve before libzmq gets the address, since libzmq looks names up on its only I/O thread.
    pub(super) fn host(&self, role: Role) -> Option<(&str, u16)> {
        let (host, port) = self.tcp()?.1.rsplit_once(':')?;
        // A bound address may name an interface, which libzmq finds without a name server.
        let is_interface = role == Role::Bind && Path::new("/sys/class/net").join(host).exists();
        (host != "*" && !is_interface).then_some((host, port.parse().ok()?))
    }

    /// The address as libzmq takes it, with host and port replaced by this.
    pub(super) fn at(&self, address: SocketAddr) -> String {
        let source = self.tcp().map_or("", |(source, _)| source);
        format!("tcp://{source}{address}")
    }

    /// For a TCP address: the source part with its semicolon, and the destination.
    fn tcp(&self) -> Option<(&str, &str)> {
        let rest = self.uri.strip_prefix("tcp://")?;
        Some(rest.split_at(rest.rfind(';').map_or(0, |semicolon| semicolon + 1)))
    }

    /// The address as it was given, which libzmq takes if there is no [`Endpoint::host`].
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Connects to `uri`, which is this address in numbers.
    pub(super) fn connect(&self, socket: &zmq::Socket, uri: &str) -> Result<()> {
        let connected = prepare(socket, uri).and_then(|()| patiently(|| socket.connect(uri)));
        connected.map_err(|e| zmq_error(e, format!("cannot connect to {self}")))
    }

    /// Binds `uri`, which is this address in numbers. Returns the address with its real port, and the lock to hold
    /// while it is bound.
    pub(super) fn bind(
        &self,
        socket: &zmq::Socket,
        uri: &str,
        options: &ZmqOptions,
    ) -> Result<(String, Option<PathLock>)> {
        let failed = |e| zmq_error(e, format!("cannot bind {self}"));
        if let Some(path) = self.path() {
            let mut lock = PathLock::take(path, Access::of(options)?)?;
            lock.bind(|path| bind_path(socket, path).map_err(failed))?;
            return Ok((self.uri.clone(), Some(lock)));
        }
        let bound = prepare(socket, uri).and_then(|()| patiently(|| socket.bind(uri)));
        bound.map_err(failed)?;
        let address = match socket.get_last_endpoint() {
            Ok(Ok(address)) if !self.is_silent() => address.trim_end_matches('\0').to_owned(),
            _ => self.uri.clone(),
        };
        Ok((address, None))
    }

    /// Binds a Unix socket again that something else has removed. Connected peers stay connected.
    pub(super) fn bind_again(&self, socket: &zmq::Socket, lock: &mut PathLock) -> Result<()> {
        lock.retake()?;
        let failed = |e| zmq_error(e, format!("cannot bind {self} again"));
        lock.bind(|path| bind_path(socket, path).map_err(failed))
    }

    /// The path of a Unix socket that is neither abstract nor chosen by libzmq.
    pub(super) fn path(&self) -> Option<&Path> {
        let path = self.uri.strip_prefix("ipc://")?;
        (!path.starts_with(['@', '*'])).then(|| Path::new(path))
    }
}

fn bind_path(socket: &zmq::Socket, path: &Path) -> zmq::Result<()> {
    patiently(|| socket.bind(&path_lock::uri(path)))
}

/// Uses IPv6 only if the address does; otherwise libzmq reports IPv4 addresses in an unusual form.
fn prepare(socket: &zmq::Socket, uri: &str) -> zmq::Result<()> {
    socket.set_ipv6(uri.contains('['))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in [
            "tcp://127.0.0.1:0",
            "@tcp://*:8866",
            ">tcp://[::1]:1",
            "ipc:///run/x",
            "inproc://a",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "8866",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://h:65536",
            "tcp://10.0.0.1:0;:1",
            "udp://h:1",
            "epgm://239.192.1.1:8866",
            "epgm://eth0;10.0.0.1:8866",
            "ipc://",
            "tcp://a\0:1",
        ] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        for secret in ["redis://:hunter2@h:6379", "tcp://me:hunter2@h:1", "me:hunter2@h:1"] {
            let error = Endpoint::parse(secret).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert_eq!(
            Endpoint::parse("@inproc://a").unwrap().role_or(Role::Connect),
            Role::Bind
        );
    }

    #[test]
    fn hosts_become_numbers() {
        let hosts = |address: &str, role| {
            let endpoint = Endpoint::parse(address).unwrap();
            let host = endpoint.host(role);
            host.map(|(host, port)| (host.to_owned(), port))
        };
        for role in [Role::Bind, Role::Connect] {
            assert_eq!(hosts("tcp://db1.example:80", role), Some(("db1.example".into(), 80)));
            assert_eq!(
                hosts(">tcp://[fe80::1%eth0]:8866", role),
                Some(("[fe80::1%eth0]".into(), 8866))
            );
            for other in ["tcp://*:80", "ipc:///run/a:1", "inproc://a:1"] {
                assert_eq!(hosts(other, role), None, "{other}");
            }
        }
        assert_eq!(hosts("tcp://lo:80", Role::Bind), None);
        assert_eq!(hosts("tcp://lo:80", Role::Connect), Some(("lo".into(), 80)));
        let endpoint = Endpoint::parse("tcp://10.0.0.1:0;db1:80").unwrap();
        assert_eq!(endpoint.host(Role::Connect), Some(("db1", 80)));
        assert_eq!(
            endpoint.at("[fe80::1%2]:80".parse().unwrap()),
            "tcp://10.0.0.1:0;[fe80::1%2]:80"
        );
    }
}
