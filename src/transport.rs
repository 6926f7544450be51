//! The contract between the library and a driver: raw frames, no policy.
//!
//! A driver moves frames. Receive loops, the bookkeeping of topics and addresses, decoding, counting, stop and
//! drop are written once, in [`Subscriber`](crate::Subscriber) and [`Publisher`](crate::Publisher).
//!
//! Topics that begin with U+10FFFF and `tablecast/` are the library's own: hellos, probes and answers. A driver moves
//! them like all others, and needs to know none of them.
//!
//! A time limit holds for everything that a call waits for, also for the look-up of a name. Zero means not to wait, and
//! [`Duration::MAX`] for ever; a signal that interrupts a wait does not end it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::update::Topic;

/// A way to move frames: hands out both ends. This is the manager of the seeds.
pub trait PubSub: fmt::Debug + Send + Sync {
    /// A new sending end, bound or connected as the driver was configured.
    fn outbound(&self) -> Result<Box<dyn Outbound>>;

    /// A new receiving end, connected to nothing yet, and what wakes its [`Inbound::recv`].
    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)>;

    /// Fails with [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) or
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for what [`Inbound::connect`] could never take.
    fn check_address(&self, address: &str) -> Result<()>;

    /// What the address is called from then on: in [`Inbound::connect`], in events and in logs. One that has a password is called
    /// without it, and the driver remembers it. By default, the address itself.
    fn known_as(&self, address: &str) -> String {
        address.to_owned()
    }
}

/// The sending end.
pub trait Outbound: Send {
    /// Sends one frame, or fails after `timeout`: with zero it is tried once.
    ///
    /// `Ok` means that the transport has it, not that anybody received it. After
    /// [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed) it may have been sent; after any other error it was not, and
    /// will not be. The next call may succeed: what is broken is mended within calls, or in the background.
    ///
    /// `topic` is what [`Inbound`] matches: usually a [`Topic`], but the publisher service passes on what came in.
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()>;

    /// The address that subscribers connect to, if this end has one; a port of 0 is resolved.
    fn address(&self) -> Option<String> {
        None
    }

    /// Takes what subscribers have asked for since the last call: the topics of their probes, each to be answered
    /// with a hello on that topic. Never blocks. A transport that confirms by itself has none.
    ///
    /// A driver that connects does so here too, and an error may be news of that: it is told once, and the next call goes on.
    fn probes(&mut self) -> Result<Vec<Topic>> {
        Ok(Vec::new())
    }

    /// How many subscribers are there, where the transport can tell.
    fn subscribers(&self) -> Option<usize> {
        None
    }

    /// Whether somebody has subscribed to this topic, as of the last [`Outbound::probes`], where the transport can tell.
    fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        let _ = topic;
        None
    }

    /// What to wait on for the next [`Outbound::probes`] without holding this end; `None` if there never are any.
    /// Asked once.
    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        Ok(None)
    }
}

/// What [`Outbound::waiter`] hands out: the wait, and what ends it.
pub type WaiterAndWake = (Box<dyn Waiter>, Arc<dyn Wake>);

/// Waits for something to do at an [`Outbound`].
pub trait Waiter: Send {
    /// Returns when [`Outbound::probes`] may have something, when the paired [`Wake`] was called, or after
    /// `timeout` (`None`: never). May return early.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()>;
}

/// The receiving end; owned by one thread, which receives all the time: much of the work is done within [`Inbound::recv`].
///
/// A connection that ended, whatever ended it, or that could not be made, is begun anew by the driver, with pauses that grow
/// and differ; it looks names up again, and tries each of their addresses. Before it reports [`Received::Connected`] it has
/// asked for everything that was subscribed. A driver that cannot do so by itself reports [`Received::Disconnected`] and
/// waits for the next [`Inbound::connect`]. The caller, which cannot tell the two apart, connects again after each
/// [`Received::Disconnected`]; it disconnects first if it wants an end of what is there.
pub trait Inbound: Send {
    /// Begins to receive from `address`. Need not wait for the connection, nor for the look-up of its name:
    /// [`Received::Connected`] tells of it. May be repeated: does nothing if a connection is there or is being tried.
    ///
    /// # Errors
    /// What can be known at once to be wrong, also what may be right later, for example an address that is in use or too few
    /// file descriptors. The address is not known then, and may be connected again.
    fn connect(&mut self, address: &str) -> Result<()>;

    /// Ends receiving from `address`, and drops all that is known of it: nothing is reported of it any more. One that is not
    /// known is no error.
    fn disconnect(&mut self, address: &str) -> Result<()>;

    /// Asks every address, present and future, for this topic. May deliver more; the subscriber compares exactly.
    fn subscribe(&mut self, topic: &Topic) -> Result<()>;

    /// Takes [`Inbound::subscribe`] back.
    fn unsubscribe(&mut self, topic: &Topic) -> Result<()>;

    /// Asks for a proof that all that was subscribed before this call is in force at `address`; it comes as
    /// [`Received::Answer`] with the same `probe`, behind everything that came from there before. A newer probe replaces an older one of the same address, and a connection
    /// that ends takes the probe with it.
    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()>;

    /// How many bytes have come from `address` at the level of the transport, on the connection that is there now: a message
    /// that is on its way for long counts before it is whole. `None` where the transport does not tell, or there is no
    /// connection. May cost system calls: asked rarely, before an address from which no frame comes is given up.
    /// Default: `None`.
    fn received_bytes(&mut self, address: &str) -> Option<u64> {
        let _ = address;
        None
    }

    /// The next thing that happens: returns [`Received::Idle`] after `timeout` (`None`: never, zero: do not wait), and not
    /// before.
    ///
    /// What is ready is returned before anything is waited for, and no source starves another. What has come on a
    /// connection is returned before its end is, but for what the transport hands over late.
    ///
    /// # Errors
    /// News of what went wrong with an address, which the text names; each is told once, not with each retry. Nothing is lost
    /// by an error, nothing ends, and the next call goes on. Only an error that comes again at once is one of the whole
    /// receiving end: let some time pass before the next call.
    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>>;
}

/// What [`Inbound::recv`] returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received<'a> {
    /// A message.
    Frame {
        /// Where it came from: as given to [`Inbound::connect`].
        address: &'a str,
        /// The topic, as sent.
        topic: &'a [u8],
        /// The payload, as sent.
        payload: &'a [u8],
    },
    /// A message that has not the transport's form, for example three parts where two belong. It is counted.
    Malformed,
    /// The connection to this address is there; everything subscribed was asked for again.
    Connected {
        /// As given to [`Inbound::connect`].
        address: &'a str,
    },
    /// The connection to this address was lost.
    Disconnected {
        /// As given to [`Inbound::connect`].
        address: &'a str,
    },
    /// The proof that [`Inbound::probe`] asked for.
    Answer {
        /// As given to [`Inbound::connect`].
        address: &'a str,
        /// As given to [`Inbound::probe`].
        probe: &'a [u8],
        /// The publisher's hello; empty where the transport itself confirms.
        hello: &'a [u8],
    },
    /// The paired [`Wake`] was called. May also come for reasons of the driver's own.
    Woken,
    /// Nothing happened in time.
    Idle,
}

/// Wakes a blocked [`Inbound::recv`] or [`Waiter::wait`] from any thread.
pub trait Wake: Send + Sync {
    /// Never blocks; wakes that come together count as one. A wake that comes before the wait ends the next one.
    fn wake(&self);
}
