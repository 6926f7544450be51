//! `tablecast service`: the publisher service of this host.

use std::time::Duration;

use tablecast::monitor::Monitors;
use tablecast::registry::Registration;
use tablecast::{Config, Drivers, Result, Service, Stores};

use crate::{output, signal};

/// What the service needs to stop, beside the time that it lingers.
const GRACE: Duration = Duration::from_millis(700);

/// Runs the service until a signal comes.
pub(crate) fn run(config: &Config) -> Result<()> {
    let signal = signal::channel(GRACE + config.linger_ms)?;
    let service = Service::open(config, &Drivers::new())?;
    let monitors = Monitors::open(config, &Stores::new(), &Drivers::new(), None)?;
    let registration = Registration::of_publisher(config, &Stores::new(), service.address(), None)?;
    let network = service.address().map_or_else(|| config.publish_address(), Ok)?;
    output::result(&format!("ready {network} {}", config.multiproc_address()))?;
    // An error would mean that no signal can come any more.
    let _ = signal.recv();
    drop(registration);
    // What they have published is still passed on.
    monitors.stop();
    monitors.iter().for_each(|monitor| log::info!("stopped: {monitor:?}"));
    drop(monitors);
    service.stop();
    log::info!("stopped: {:?}", service.stats());
    Ok(())
}
