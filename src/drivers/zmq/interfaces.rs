//! The network interfaces of this host, and their IPv4 addresses.

use std::io;
use std::net::Ipv4Addr;

/// The address of the interface of this name, or with this address; `None` if there is none.
#[cfg(target_os = "linux")]
pub(super) fn address_of(interface: &str) -> io::Result<Option<Ipv4Addr>> {
    let own = interface.parse().ok();
    let mut found = None;
    linux::each(|name, address| {
        if Some(address) == own || name == interface.as_bytes() {
            found.get_or_insert(address);
        }
    })?;
    Ok(found)
}

/// Elsewhere the interface is known by its address only.
#[cfg(not(target_os = "linux"))]
pub(super) fn address_of(interface: &str) -> io::Result<Option<Ipv4Addr>> {
    Ok(interface.parse().ok())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::Ipv4Addr;

    use crate::drivers::zmq::netlink::{NLM_F_DUMP, Question, attributes, messages};

    const RTM_NEWADDR: u16 = 20;
    const RTM_GETADDR: u16 = 22;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const AF_INET: u8 = 2;
    /// Length of `ifaddrmsg`, behind which the attributes begin.
    const MESSAGE: usize = 8;
    const IFA_LOCAL: u16 = 2;
    const IFA_LABEL: u16 = 3;

    /// Calls `see` with the name and the address of each interface; one with several addresses comes several times.
    pub(super) fn each(mut see: impl FnMut(&[u8], Ipv4Addr)) -> io::Result<()> {
        // The protocol 0: routing.
        let question = Question::ask(None, RTM_GETADDR, NLM_F_DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0])?;
        loop {
            for (kind, body) in messages(&question.answer()?) {
                match kind {
                    RTM_NEWADDR => {
                        let (mut name, mut address) = (&b""[..], None);
                        for (kind, value) in attributes(body.get(MESSAGE..).unwrap_or_default()) {
                            match kind {
                                IFA_LABEL => name = value.strip_suffix(b"\0").unwrap_or(value),
                                IFA_LOCAL => address = value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)),
                                _ => {}
                            }
                        }
                        if let Some(address) = address {
                            see(name, address);
                        }
                    }
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(io::Error::other("the kernel does not name its interfaces")),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name_and_its_address() {
        for interface in ["lo", "127.0.0.1"] {
            assert_eq!(address_of(interface).unwrap(), Some(Ipv4Addr::LOCALHOST), "{interface}");
        }
        for other in ["", "l", "lo0", "127.0.0.9", "192.0.2.1"] {
            assert_eq!(address_of(other).unwrap(), None, "{other}");
        }
    }
}
