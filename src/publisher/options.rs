//! The options and counters of a publisher.

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::Publisher;
use super::link::LinkOptions;
use crate::codec::Codec;
use crate::error::ErrorHook;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::update::Name;

/// Identity, limits and times of a [`Publisher`].
#[derive(Clone)]
pub struct PublisherOptions {
    /// The publisher's id, of at most 255 bytes; no two running publishers may share one. Default: made from the host's
    /// name, the process id and a random number.
    pub id: Option<Name>,
    /// The wire format of updates. Default: MessagePack.
    pub codec: Codec,
    /// Time limit of a send before it fails with [`ErrorKind::Timeout`]. Default: 1 s.
    pub send_timeout: Duration,
    /// A larger payload is refused. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// A longer topic is refused. Default: 65,536 bytes.
    pub max_topic_bytes: usize,
    /// A longer key is refused. Default: 65,536 bytes.
    pub max_key_bytes: usize,
    /// Period of the publisher's hellos, which name its last numbers. A subscriber notices within two periods that the
    /// last update was lost, and within three that the publisher is gone. Default: 1 s.
    pub hello_interval: Duration,
    /// Called for every failure in the background. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for PublisherOptions {
    fn default() -> PublisherOptions {
        PublisherOptions {
            id: None,
            codec: Codec::default(),
            send_timeout: Duration::from_secs(1),
            max_message_bytes: 16 << 20,
            max_topic_bytes: 65_536,
            max_key_bytes: 65_536,
            hello_interval: Duration::from_secs(1),
            hook: None,
        }
    }
}

impl PublisherOptions {
    pub(super) fn link(&self) -> LinkOptions {
        LinkOptions {
            hello_interval: self.hello_interval,
            max_message_bytes: self.max_message_bytes,
            send_timeout: self.send_timeout,
            begins: false,
            hook: self.hook.clone(),
        }
    }
}

impl fmt::Debug for PublisherOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherOptions")
            .field("id", &self.id)
            .field("codec", &self.codec)
            .field("send_timeout", &self.send_timeout)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("max_topic_bytes", &self.max_topic_bytes)
            .field("max_key_bytes", &self.max_key_bytes)
            .field("hello_interval", &self.hello_interval)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Publisher`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Updates accepted.
    pub sent: u64,
    /// Updates refused; the caller got an error for each.
    pub failed: u64,
    /// Updates accepted in a burst that could not be sent. Subscribers find their numbers missing.
    pub lost: u64,
    /// Hellos sent: answers to subscribers' probes, and those of the option `hello_interval`.
    pub hellos: u64,
    /// Subscribers, as [`Publisher::wait_subscribers`](super::Publisher::wait_subscribers) counts them; `None` if the
    /// driver does not know.
    pub subscribers: Option<usize>,
}
