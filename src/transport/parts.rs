//! Joined updates for a receiver that does not take them: one message each.

use std::time::{Duration, Instant};

use crate::codec;
use crate::error::Result;
use crate::thread;

use super::{Outbound, partly_sent};

/// Sends the maps of a payload one by one, with one time limit, after which each is only tried at once.
pub(crate) fn send_parts<T: Outbound + ?Sized>(
    outbound: &mut T,
    topic: &[u8],
    payload: &[u8],
    timeout: Duration,
) -> Result<()> {
    let Some(parts) = codec::parts(payload) else {
        return outbound.send(topic, payload, timeout);
    };
    let deadline = thread::deadline(timeout);
    for (place, part) in parts.into_iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = outbound.send(topic, part, left);
        sent.map_err(|e| if place == 0 { e } else { partly_sent(e) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Joined};
    use crate::error::{Error, ErrorKind};

    /// Takes so many messages.
    struct Full(usize);

    impl Outbound for Full {
        fn send(&mut self, _: &[u8], _: &[u8], _: Duration) -> Result<()> {
            let full = || Error::new(ErrorKind::Timeout, "it is full");
            self.0 = self.0.checked_sub(1).ok_or_else(full)?;
            Ok(())
        }
    }

    /// Those that were sent have used up their numbers.
    #[test]
    fn parts_that_cannot_all_be_sent_are_unconfirmed() {
        let mut joined = Joined::new(Codec::Json);
        (0..3).for_each(|_| joined.push(|bytes| bytes.extend(b"{}")));
        let send = |room| send_parts(&mut Full(room), b"t", joined.payload(), Duration::ZERO);
        let kinds = [0, 1, 2].map(|room| send(room).unwrap_err().kind());
        let unconfirmed = ErrorKind::Unconfirmed;
        assert_eq!(kinds, [ErrorKind::Timeout, unconfirmed, unconfirmed]);
        send(3).unwrap();
    }

    /// Notes what it sends.
    struct Plain(Vec<Vec<u8>>, bool);

    impl Outbound for Plain {
        fn send(&mut self, _: &[u8], payload: &[u8], _: Duration) -> Result<()> {
            self.0.push(payload.to_vec());
            Ok(())
        }

        fn takes_joined(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn a_driver_gets_an_array_only_if_it_takes_one() {
        let mut joined = Joined::new(Codec::Json);
        (0..3).for_each(|_| joined.push(|bytes| bytes.extend(b"{}")));
        for (takes, expected) in [(false, &[&b"{}"[..]; 3][..]), (true, &[joined.payload()])] {
            let mut plain = Plain(Vec::new(), takes);
            plain.send_joined(b"t", joined.payload(), Duration::ZERO).unwrap();
            assert_eq!(plain.0, expected);
        }
    }
}
