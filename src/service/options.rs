//! The options and counters of a service.

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::Service;
use crate::codec::Codec;
use crate::error::ErrorHook;

/// Limits and times of a [`Service`].
#[derive(Clone)]
pub struct ServiceOptions {
    /// Time limit for the network driver to accept a frame before it is dropped. Default: 1 s.
    pub send_timeout: Duration,
    /// A larger payload is dropped and counted; hellos of up to 1 KiB pass, and joined updates of up to 64 KiB. Default:
    /// 16 MiB.
    pub max_message_bytes: usize,
    /// The format of the service's own answers to subscribers. Default: MessagePack.
    pub codec: Codec,
    /// Period of the service's hellos: subscribers notice within three of these that it is gone. Default: 1 s.
    pub hello_interval: Duration,
    /// Called with every failure in the background; for messages that are not passed on at most every 10 s, with their
    /// numbers. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for ServiceOptions {
    fn default() -> ServiceOptions {
        ServiceOptions {
            send_timeout: Duration::from_secs(1),
            max_message_bytes: 16 << 20,
            codec: Codec::default(),
            hello_interval: Duration::from_secs(1),
            hook: None,
        }
    }
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions")
            .field("send_timeout", &self.send_timeout)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Service`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Frames passed on to the network.
    pub forwarded: u64,
    /// Frames dropped because they had not two parts, or were too large.
    pub malformed: u64,
    /// Frames that the network driver refused, or that were left when the service stopped.
    pub failed: u64,
    /// Failures to receive from the local processes; the service tries again.
    pub errors: u64,
    /// The service's own hellos: answers to subscribers that asked, and those of the option `hello_interval`.
    pub hellos: u64,
    /// Subscribers, as [`Publisher::wait_subscribers`](crate::Publisher::wait_subscribers) counts them; `None` if the
    /// network driver does not know.
    pub subscribers: Option<usize>,
}
