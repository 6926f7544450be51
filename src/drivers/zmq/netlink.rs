//! Questions to the kernel, by netlink messages.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Length of `nlmsghdr`.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
/// All objects of a kind.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// The kernel sends no more at once.
const MOST: usize = 32 << 10;

/// A question that was sent.
pub(super) struct Question(OwnedFd);

impl Question {
    /// Sends a question of this kind.
    pub(super) fn ask(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<Question> {
        let how = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kernel = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, how, protocol)?;
        let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&kernel, &message, SendFlags::empty())?;
        Ok(Question(kernel))
    }

    /// The next messages of the answer. They are there at once.
    pub(super) fn answer(&self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; MOST];
        let (_, length) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// The kind and the body of each message.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The kind and the value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
