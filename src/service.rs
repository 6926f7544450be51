//! The publisher service: one process a host that binds the port and passes on what the others send it.

mod losses;
mod options;
mod progress;
mod relay;
mod waiting;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::codec::Encoder;
use crate::counter::Counter;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::identity::{new_epoch, unique_id};
use crate::publisher::{Link, LinkOptions};
use crate::thread::{self, Thread};
use crate::transport::{Driver, Inbound, Wake};
pub use options::{ServiceOptions, ServiceStats};
use progress::Progress;
use relay::Relay;

/// Forwards frames from the processes of this host to the network.
///
/// It runs on a thread of its own from its creation; dropping it stops it.
pub struct Service {
    relay: Arc<Relay>,
    address: Option<String>,
    wake: Arc<dyn Wake>,
    /// Ends the waits for the network.
    interrupt: Option<Arc<dyn Wake>>,
    thread: Mutex<Option<Thread>>,
}

/// The longest time that a stopping service goes on passing on what has come in.
const DRAIN: Duration = Duration::from_millis(200);

impl Service {
    /// Binds both ends and begins to forward: when this returns, processes and subscribers can connect.
    ///
    /// # Errors
    /// [`ErrorKind::AddressInUse`] if another service is there, and the errors of the drivers.
    pub fn start(
        multiproc: &dyn Driver,
        socket: &str,
        network: &dyn Driver,
        options: ServiceOptions,
    ) -> Result<Service> {
        // The local end first: where another service runs, this is what finds out.
        let local = Service::bind_local(multiproc, socket)?;
        Service::begin(local, network, options)
    }

    /// Binds the end that the processes of the host send to.
    pub(crate) fn bind_local(multiproc: &dyn Driver, socket: &str) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (mut inbound, wake) = multiproc.inbound()?;
        inbound.connect(socket)?;
        Ok((inbound, wake))
    }

    /// Binds the end that subscribers connect to, and begins to pass on to it.
    pub(crate) fn begin(
        (mut inbound, wake): (Box<dyn Inbound>, Arc<dyn Wake>),
        network: &dyn Driver,
        options: ServiceOptions,
    ) -> Result<Service> {
        let encoder = Encoder::new(options.codec, unique_id(), new_epoch());
        let link_options = LinkOptions {
            hello_interval: options.hello_interval,
            max_message_bytes: options.max_message_bytes,
            send_timeout: options.send_timeout,
            begins: true,
            hook: options.hook.clone(),
        };
        let mut outbound = network.outbound()?;
        // Asked before the link uses it, which may take long.
        let (interrupt, address) = (outbound.interrupt()?, outbound.address());
        let link = Link::new(outbound, encoder, link_options)?;
        let relay = Arc::new(Relay {
            options,
            last_chance: OnceLock::new(),
            responded: AtomicBool::new(true),
            progress: Progress::default(),
            forwarded: Counter::new(),
            malformed: Counter::new(),
            failed: Counter::new(),
            errors: Counter::new(),
            hellos: link.hellos(),
            crowd: link.crowd(),
        });
        let run = Arc::clone(&relay);
        // The thread owns both ends, and closes them when it ends.
        let hook = run.options.hook.clone();
        let body = move || run.run(&mut *inbound, &link);
        let thread = thread::spawn_fallible("tc-service", hook, body)?;
        Ok(Service {
            relay,
            address,
            wake,
            interrupt,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Returns the address that subscribers connect to; a port of 0 is resolved.
    pub fn address(&self) -> Option<String> {
        self.address.clone()
    }

    /// Stops passing on, and returns when both ends are closed. What the processes have sent until then is still passed
    /// on, for at most 200 ms; the rest is counted and reported. A send that waits for the network is given up then, or
    /// after its time limit with a driver that has no [`interrupt`](crate::transport::Outbound::interrupt).
    pub fn stop(&self) {
        let end = *self.relay.last_chance.get_or_init(|| Instant::now() + DRAIN);
        self.wake.wake();
        let thread = self.thread.lock().take();
        if let (Some(thread), Some(interrupt)) = (&thread, &self.interrupt)
            && !thread.is_current()
            && !thread.ends_by(end)
        {
            interrupt.wake();
        }
        drop(thread);
    }

    /// True until the service is stopped. If it is false before that, the service can no longer forward anything: the
    /// driver between the processes has returned [`ErrorKind::Stopped`], and the hook was called.
    pub fn is_running(&self) -> bool {
        self.thread.lock().as_ref().is_some_and(|thread| !thread.has_ended())
    }

    /// True if the service's thread has responded to the previous call, which woke it, or has been waiting for the
    /// network for no longer than `send_timeout` plus a second. For a watchdog.
    pub fn is_responsive(&self) -> bool {
        let responded = self.relay.responded.swap(false, Ordering::Relaxed);
        self.wake.wake();
        let limit = self.relay.options.send_timeout;
        self.relay.progress.is_sending(limit, Instant::now()) || responded
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> ServiceStats {
        ServiceStats {
            forwarded: self.relay.forwarded.get(),
            malformed: self.relay.malformed.get(),
            failed: self.relay.failed.get(),
            errors: self.relay.errors.get(),
            hellos: self.relay.hellos.get(),
            subscribers: self.relay.crowd.count(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
