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

/// Asks the kernel by netlink messages (`sock_diag`), as `ss` does.
#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, SocketAddr};

    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

    use super::Ends;

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    const IPPROTO_TCP: u8 = 6;
    /// The attribute with the kernel's `tcp_info`, and the position of the received bytes in it.
    const INET_DIAG_INFO: u16 = 2;
    const BYTES_RECEIVED: usize = 128;
    /// Length of `nlmsghdr` and of `inet_diag_msg`, behind which the attributes begin.
    const HEADER: usize = 16;
    const MESSAGE: usize = 72;

    pub(super) fn received_on(ends: &Ends) -> Option<u64> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kernel = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(netlink::SOCK_DIAG),
        );
        let kernel = kernel.ok()?;
        send(&kernel, &request(ends), SendFlags::empty()).ok()?;
        let mut answer = vec![0; 4096];
        let (_, length) = recv(&kernel, &mut answer[..], RecvFlags::empty()).ok()?;
        bytes_received(answer.get(..length)?)
    }

    fn request(ends: &Ends) -> Vec<u8> {
        let family = if ends.local.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut message = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
        // Any state.
        message.extend(u32::MAX.to_ne_bytes());
        for end in [ends.local, ends.remote] {
            message.extend(end.port().to_be_bytes());
        }
        for end in [ends.local, ends.remote] {
            let mut address = [0; 16];
            match end.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
            message.extend(address);
        }
        let scope = |end| match end {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(end) => end.scope_id(),
        };
        message.extend(scope(ends.remote).to_ne_bytes());
        // Any cookie.
        message.extend([0xff; 8]);
        let mut request = Vec::with_capacity(HEADER + message.len());
        request.extend(u32::try_from(HEADER + message.len()).unwrap_or(0).to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]);
        request.extend(message);
        request
    }

    fn bytes_received(answer: &[u8]) -> Option<u64> {
        let kind = answer.get(4..6)?;
        if kind != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
            return None;
        }
        let mut rest = answer.get(HEADER + MESSAGE..)?;
        loop {
            let (length, rest_of_it) = rest.split_first_chunk::<2>()?;
            let (kind, _) = rest_of_it.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_ne_bytes(*length));
            let value = rest.get(4..length)?;
            if u16::from_ne_bytes(*kind) == INET_DIAG_INFO {
                let bytes = value.get(BYTES_RECEIVED..)?.first_chunk::<8>()?;
                return Some(u64::from_ne_bytes(*bytes));
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }
}
