//! Multicast addresses. They are checked here, since libzmq ends the process if it cannot open one on its own thread.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::error::{Error, ErrorKind, Result};

use super::interfaces;

/// A group, and the interface of this host through which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    scheme: Scheme,
    /// The name of the interface, or its address.
    interface: String,
    group: Ipv4Addr,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// PGM in UDP.
    Epgm,
    /// PGM on IP, without ports of the system.
    Pgm,
}

/// The number of PGM among the protocols of IP.
const IPPROTO_PGM: u32 = 113;

impl Group {
    /// Reads an address; `rest` is what follows `scheme://`. `None` if it is not one of a multicast.
    pub(super) fn parse(scheme: &str, rest: &str) -> Option<Group> {
        let (interface, rest) = rest.split_once(';')?;
        let (group, port) = rest.split_once(':')?;
        let group = Group {
            scheme: match scheme {
                "epgm" => Scheme::Epgm,
                "pgm" => Scheme::Pgm,
                _ => return None,
            },
            interface: interface.to_owned(),
            group: group.parse().ok()?,
            port: port.parse().ok()?,
        };
        (!group.interface.is_empty() && group.group.is_multicast() && group.port > 0).then_some(group)
    }

    /// The address with the interface in numbers, as libzmq takes it, once a socket of this process could join the
    /// group.
    pub(super) fn open(&self) -> Result<String> {
        let Group {
            interface, group, port, ..
        } = self;
        let own = interfaces::address_of(interface).map_err(|e| self.failed(e))?;
        let own = own.ok_or_else(|| {
            let context = format!("cannot join {self}: this host has no interface {interface:?} with an IPv4 address");
            Error::new(ErrorKind::InvalidInput, context)
        })?;
        self.try_to_join(own).map_err(|e| self.failed(e.into()))?;
        Ok(format!("{}://{own};{group}:{port}", self.scheme))
    }

    /// Does what libzmq will do, and takes it back.
    fn try_to_join(&self, own: Ipv4Addr) -> Result<(), Errno> {
        let (kind, protocol) = match self.scheme {
            Scheme::Epgm => (SocketType::DGRAM, None),
            Scheme::Pgm => (SocketType::RAW, NonZeroU32::new(IPPROTO_PGM).map(Protocol::from_raw)),
        };
        let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, protocol)?;
        if self.scheme == Scheme::Epgm {
            // As libzmq does: several processes of a user may receive.
            sockopt::set_socket_reuseport(&socket, true)?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.port))?;
        }
        sockopt::set_ip_add_membership(&socket, &self.group, &own)
    }

    fn failed(&self, e: io::Error) -> Error {
        let kind = match e.kind() {
            io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            io::ErrorKind::PermissionDenied => ErrorKind::Io,
            _ => ErrorKind::Transport,
        };
        let hint = match (kind, self.scheme) {
            (ErrorKind::Io, Scheme::Pgm) => " without the right to open raw sockets; epgm needs none",
            _ => "",
        };
        Error::new(kind, format!("cannot join {self}{hint}")).with_source(e)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Group {
            scheme,
            interface,
            group,
            port,
        } = self;
        write!(f, "{scheme}://{interface};{group}:{port}")
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Epgm => "epgm",
            Scheme::Pgm => "pgm",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_address_names_an_interface_a_group_and_a_port() {
        for good in [
            "eth0;239.192.1.1:5555",
            "127.0.0.1;224.0.0.1:1",
            "br-ex.100;239.1.2.3:65535",
        ] {
            let group = Group::parse("epgm", good).unwrap();
            assert_eq!(group.to_string(), format!("epgm://{good}"));
        }
        for bad in [
            "",
            "239.192.1.1:5555",
            ";239.192.1.1:5555",
            "eth0;239.192.1.1",
            "eth0;239.192.1.1:0",
            "eth0;239.192.1.1:65536",
            "eth0;10.0.0.1:5555",
            "eth0;[ff02::1]:5555",
            "eth0;239.192.1.1,239.192.1.2;239.192.1.3:5555",
        ] {
            assert_eq!(Group::parse("epgm", bad), None, "{bad}");
        }
        assert_eq!(Group::parse("tcp", "eth0;239.192.1.1:5555"), None);
    }

    #[test]
    fn what_libzmq_could_not_open_is_an_error() {
        let open = |interface: &str, port| {
            let address = format!("{interface};239.192.1.1:{port}");
            Group::parse("epgm", &address).unwrap().open()
        };
        // Another program may have the port, and shares it only if it says so.
        let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(open("lo", port).unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(taken);
        let error = open("no0", port).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(r#"no interface "no0""#), "{error}");
        for interface in ["lo", "127.0.0.1"] {
            let address = format!("epgm://127.0.0.1;239.192.1.1:{port}");
            assert_eq!(open(interface, port).unwrap(), address);
        }
    }
}
