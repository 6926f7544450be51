//! `tablecast service`: the publisher service of this host.

use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use tablecast::monitor::Monitors;
use tablecast::registry::{Load, Registration};
use tablecast::{Config, Drivers, Error, ErrorKind, Result, Service, Stores};

use crate::{output, signal};

/// Time that the service needs to stop, besides its linger time.
const GRACE: Duration = Duration::from_millis(700);

/// Interval at which the service notes how much it has sent, for its next renewal.
const LOAD: Duration = Duration::from_secs(1);

/// Runs the service until a signal comes.
pub(crate) fn run(config: &Config) -> Result<()> {
    let signal = signal::channel(GRACE + config.linger_ms)?;
    let service = Service::open(config, &Drivers::new())?;
    let monitors = Monitors::open(config, &Stores::new(), &Drivers::new(), None)?;
    let registration = Registration::of_publisher(config, &Stores::new(), service.address(), None)?;
    let network = service.address().map_or_else(|| config.publish_address(), Ok)?;
    output::result(&format!("ready {network} {}", config.multiproc_address()))?;
    // Another error would mean that no signal can come any more.
    while signal.recv_timeout(LOAD) == Err(RecvTimeoutError::Timeout) {
        if !service.is_running() {
            let context = "the service can pass on nothing any more; the log has the reason";
            return Err(Error::new(ErrorKind::Stopped, context));
        }
        if let Some(registration) = &registration {
            registration.set_load(Load {
                handled: service.stats().forwarded,
                waiting: 0,
            });
        }
    }
    // The monitors' last updates are still passed on.
    monitors.stop();
    monitors.iter().for_each(|monitor| log::info!("stopped: {monitor:?}"));
    drop(monitors);
    service.stop();
    // Followers have its goodbye by now.
    drop(registration);
    log::info!("stopped: {:?}", service.stats());
    Ok(())
}
