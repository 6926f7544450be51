//! The options that are durations.

use std::time::Duration;

use crate::subscriber::SubscriberOptions;

/// Lower bound of the hello interval: a process may be without a processor for about as long.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The options that are durations, limited to values that arithmetic and a processor can bear.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) live_timeout: Duration,
    pub(super) hello_interval: Duration,
    pub(super) retry_interval: Duration,
    pub(super) retry_max: Duration,
    /// `None`: never.
    pub(super) resync: Option<Duration>,
}

impl From<&SubscriberOptions> for Times {
    fn from(options: &SubscriberOptions) -> Times {
        let bounded = |time: Duration| time.clamp(Duration::from_millis(10), Duration::from_secs(24 * 3600));
        Times {
            live_timeout: bounded(options.live_timeout),
            hello_interval: bounded(options.hello_interval).max(MIN_INTERVAL),
            retry_interval: bounded(options.retry_interval),
            retry_max: bounded(options.retry_max),
            resync: Some(options.resync_without_hellos)
                .filter(|period| !period.is_zero())
                .map(|period| bounded(period).max(MIN_INTERVAL)),
        }
    }
}
