//! The wait of both ends for their own topics.

use std::time::Duration;

use crate::subscriber::Subscriber;

/// Waits until newly registered topics are live, but not for long: anything lost before is sent again.
pub(super) fn wait_live(subscriber: &Subscriber) {
    if subscriber.is_running()
        && let Err(e) = subscriber.wait_live(Duration::from_millis(500))
    {
        log::debug!("status updates begin before their topics are live: {e}");
    }
}
