//! The addresses that publishers bind and subscribers connect to.

use super::address::{Transport, expanded, is_bracketed, is_ipv6, is_name, shown};
use super::options::Config;
use super::redis::{self, RedisAddress};
use super::socket;
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// Returns the address that a publisher binds, for example `tcp://127.0.0.1:8866`, `tcp://*:8866` or
    /// `tcp://[::1]:8866`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `publisher_bind_address` does not suit `publisher_transport`.
    pub fn publish_address(&self) -> Result<String> {
        let (transport, port) = (self.publisher_transport, self.publisher_port);
        let address = self.publisher_bind_address.as_str();
        let wrong = |expected| {
            let context = format!(
                "option publisher_bind_address: with publisher_transport {transport}, expected {expected}, got {:?}",
                shown(address)
            );
            Err(Error::new(ErrorKind::Config, context))
        };
        match transport {
            Transport::Tcp if address == "*" || is_name(address) || is_bracketed(address) => {
                Ok(format!("tcp://{address}:{port}"))
            }
            Transport::Tcp if is_ipv6(address) => Ok(format!("tcp://[{address}]:{port}")),
            Transport::Tcp => wrong("an IP address, a host name, an interface, or *; the port is publisher_port"),
            Transport::Ipc => match socket::expanded(address) {
                Some(path) if address.contains('/') => Ok(format!("ipc://{}", path.display())),
                _ => wrong("a path with a / and of at most 107 bytes, in which ~/ and $NAME are expanded"),
            },
            Transport::Inproc => Ok(format!("inproc://{address}")),
            Transport::Epgm if port == 0 => {
                let context = "option publisher_port: with publisher_transport epgm, expected 1 to 65535, got 0";
                Err(Error::new(ErrorKind::Config, context))
            }
            Transport::Epgm if address.contains(';') => Ok(format!("epgm://{address}:{port}")),
            Transport::Epgm => wrong("interface;group, for example eth0;239.192.1.1"),
        }
    }

    /// The options that determine where a publisher binds, with their values, for errors.
    pub(crate) fn where_bound(&self) -> String {
        let (address, port) = (&self.publisher_bind_address, self.publisher_port);
        format!("options publisher_bind_address {address:?} and publisher_port {port}")
    }

    /// Returns the address of the local end of the publisher service, for example
    /// `ipc:///run/tablecast/publisher.sock`.
    pub fn multiproc_address(&self) -> String {
        format!("ipc://{}", self.publisher_multiproc_socket.display())
    }

    /// Returns the address that publishers and subscribers share with Redis, for example `redis://db1:6379,db2:6379`;
    /// with `redis_tls` its scheme is `rediss`. It contains the password, if `remote_db_hosts` contains one.
    pub fn redis_address(&self) -> String {
        // What does not pass `validate` is no address either.
        redis::joined(&self.remote_db_hosts, self.redis_tls).unwrap_or_else(|_| self.remote_db_hosts.join(","))
    }

    /// Checks the addresses of Redis as a whole.
    pub(super) fn check_redis(&self) -> Result<()> {
        let failed = |option: &str, expected: &str, address: &str| {
            let context = format!("option {option}: expected {expected}, got {}", shown(address));
            Err(Error::new(ErrorKind::Config, context))
        };
        let is_driver = self.pub_sub_driver == "redis";
        let hosts = &self.remote_db_hosts;
        if (is_driver || self.nb_db_class == "redis" || !hosts.is_empty())
            && let Err(expected) = redis::joined(hosts, self.redis_tls)
        {
            return failed("remote_db_hosts", &expected, &hosts.join(","));
        }
        // One of another driver is refused where it is connected: the program may replace it.
        let is_redis = |address: &str| ["redis", "valkey", "unix"].iter().any(|it| address.starts_with(it));
        for address in self.publishers.iter().filter(|address| is_driver && is_redis(address)) {
            if let Err(expected) = RedisAddress::parse(address) {
                return failed("publishers", &expected, address);
            }
        }
        Ok(())
    }

    /// Returns the addresses that a subscriber connects to: `publishers`, if there are any; otherwise, with the driver
    /// `redis`, the [`redis_address`](Config::redis_address); otherwise, unless `discover` is on, the
    /// [`publish_address`](Config::publish_address) as seen from this host.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as `publish_address`, or if there are no `publishers` and `publisher_port` is 0.
    pub fn listen_addresses(&self) -> Result<Vec<String>> {
        if !self.publishers.is_empty() {
            return Ok(self.publishers.iter().map(|uri| expanded(uri)).collect());
        }
        if self.pub_sub_driver == "redis" {
            return Ok(vec![self.redis_address()]);
        }
        if self.discover {
            return Ok(Vec::new());
        }
        let port = self.publisher_port;
        if self.publisher_transport == Transport::Tcp {
            if port == 0 {
                let context = "option publishers: expected the address of a publisher, since publisher_port is 0, \
                               which takes any free port";
                return Err(Error::new(ErrorKind::Config, context));
            }
            match self.publisher_bind_address.as_str() {
                "*" | "0.0.0.0" => return Ok(vec![format!("tcp://127.0.0.1:{port}")]),
                "::" | "[::]" => return Ok(vec![format!("tcp://[::1]:{port}")]),
                _ => {}
            }
        }
        Ok(vec![self.publish_address()?])
    }
}
