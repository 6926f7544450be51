//! The system's count of bytes received on TCP connections.

use super::copy::Ends;

/// The sum for these connections; `None` if there are none, or the system does not say.
pub(super) fn received<'a>(connections: impl Iterator<Item = &'a Ends>) -> Option<u64> {
    let mut sum = None;
    for ends in connections {
        sum = Some(sum.unwrap_or(0) + received_on(ends)?);
    }
    sum
}

#[cfg(target_os = "linux")]
use linux::received_on;

#[cfg(not(target_os = "linux"))]
fn received_on(_: &Ends) -> Option<u64> {
    None
}

/// Asks the kernel (`sock_diag`), as `ss` does.
#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, SocketAddr};

    use rustix::net::netlink;

    use super::Ends;
    use crate::drivers::zmq::netlink::{Question, attributes, messages};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;
    /// The attribute with the kernel's `tcp_info`, and the position of the received bytes in it.
    const INET_DIAG_INFO: u16 = 2;
    const BYTES_RECEIVED: usize = 128;
    /// Length of `inet_diag_msg`, behind which the attributes begin.
    const MESSAGE: usize = 72;

    pub(super) fn received_on(ends: &Ends) -> Option<u64> {
        let question = Question::ask(Some(netlink::SOCK_DIAG), SOCK_DIAG_BY_FAMILY, 0, &body(ends)).ok()?;
        let answer = question.answer().ok()?;
        let (_, answer) = messages(&answer).find(|(kind, _)| *kind == SOCK_DIAG_BY_FAMILY)?;
        let (_, info) = attributes(answer.get(MESSAGE..)?).find(|(kind, _)| *kind == INET_DIAG_INFO)?;
        let bytes = info.get(BYTES_RECEIVED..)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*bytes))
    }

    fn body(ends: &Ends) -> Vec<u8> {
        let family = if ends.local.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut body = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
        // Any state.
        body.extend(u32::MAX.to_ne_bytes());
        for end in [ends.local, ends.remote] {
            body.extend(end.port().to_be_bytes());
        }
        for end in [ends.local, ends.remote] {
            let mut address = [0; 16];
            match end.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
            body.extend(address);
        }
        let scope = |end| match end {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(end) => end.scope_id(),
        };
        body.extend(scope(ends.remote).to_ne_bytes());
        // Any cookie.
        body.extend([0xff; 8]);
        body
    }
}
