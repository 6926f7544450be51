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
//!
//! [Writing a driver](crate::docs::writing_a_driver) has a table of the kinds of errors.

mod parts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::update::Topic;
pub(crate) use parts::send_parts;

/// A way to move frames: makes both ends. Dragonflow calls this a manager.
pub trait Driver: fmt::Debug + Send + Sync {
    /// A new sending end, bound or connected as the driver was configured.
    ///
    /// # Errors
    /// The program gets them as they are, and there is no publisher: [`ErrorKind::AddressInUse`],
    /// [`ErrorKind::Denied`], [`ErrorKind::Config`] for options that do not work, [`ErrorKind::Unsupported`], and
    /// [`ErrorKind::Io`] or [`ErrorKind::Transport`] for the rest. A server that is away is none: [`Outbound::send`]
    /// waits for it.
    fn outbound(&self) -> Result<Box<dyn Outbound>>;

    /// A new receiving end, connected to nothing yet, and what wakes its [`Inbound::recv`].
    ///
    /// # Errors
    /// The program gets them as they are, and the subscriber does not start: [`ErrorKind::Config`],
    /// [`ErrorKind::Unsupported`], [`ErrorKind::Io`] or [`ErrorKind::Transport`].
    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)>;

    /// Checks the form of an address, without looking at the network.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] or [`ErrorKind::Unsupported`] for what [`Inbound::connect`] could never take.
    fn check_address(&self, address: &str) -> Result<()>;

    /// Returns the name of the address from then on: in [`Inbound::connect`], in events and in logs. An address with a
    /// password is named without it, and the driver remembers it. By default, the address itself.
    fn known_as(&self, address: &str) -> String {
        address.to_owned()
    }

    /// True if a connection to the address comes about only once the other end has proven who it is, by a key or a
    /// certificate. Default: false.
    fn authenticates(&self, address: &str) -> bool {
        let _ = address;
        false
    }
}

/// The sending end.
pub trait Outbound: Send {
    /// Sends one frame, or fails after `timeout`: with zero it is tried once.
    ///
    /// `Ok` means that the transport has it, not that a subscriber received it.
    ///
    /// `topic` is what [`Inbound`] matches: usually a [`Topic`], but the publisher service passes on what came in.
    ///
    /// # Errors
    /// After [`ErrorKind::Unconfirmed`] the frame may have been sent: its number is used up. After any other error it
    /// was not, and will not be. [`ErrorKind::Timeout`] means that the transport took nothing in time: updates that
    /// were gathered in a burst are kept and tried again, after any other kind they are given up and reported as lost.
    /// The next call may succeed: faults are mended within calls, or in the background.
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()>;

    /// True if updates of one topic that are sent close together, or as a batch, may be joined to one payload, an array
    /// of maps, for [`Outbound::send_joined`]. False where other receivers than this library's may be present, which
    /// understand one map in a frame only. Default: false.
    fn takes_joined(&self) -> bool {
        false
    }

    /// True if a send ends with a confirmation, for which it takes a round trip. Then updates that were gathered in a
    /// burst always get the whole time limit of a send, since with less they would be
    /// [`ErrorKind::Unconfirmed`], and only those of one topic are gathered at a time. Default: false.
    fn confirms(&self) -> bool {
        false
    }

    /// As [`Outbound::send`], for a payload that may be an array of maps. A driver that sees a receiver which
    /// understands one map in a frame only, sends the maps one by one. Default: that too if
    /// [`Outbound::takes_joined`] is false, otherwise [`Outbound::send`].
    ///
    /// # Errors
    /// As [`Outbound::send`]; [`ErrorKind::Unconfirmed`] if some of the maps were sent.
    fn send_joined(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        match self.takes_joined() {
            true => self.send(topic, payload, timeout),
            false => send_parts(self, topic, payload, timeout),
        }
    }

    /// The address that subscribers connect to, if this end has one; a port of 0 is resolved.
    fn address(&self) -> Option<String> {
        None
    }

    /// Takes what subscribers have asked for since the last call: the topics of their probes, each to be answered
    /// with a hello on that topic. Never blocks. A transport that confirms by itself has none.
    ///
    /// A driver that connects does so here too.
    ///
    /// # Errors
    /// Any kind, for example news of a connection: each is returned once and reported, whatever its kind, and the next
    /// call goes on.
    fn probes(&mut self) -> Result<Vec<Topic>> {
        Ok(Vec::new())
    }

    /// True if the last [`Outbound::probes`] has left some for the next. Default: false.
    fn has_unread(&self) -> bool {
        false
    }

    /// Number of subscribers that have subscribed to all their topics, where the transport knows.
    fn subscribers(&self) -> Option<usize> {
        None
    }

    /// True if there is a subscription to this topic, as of the last [`Outbound::probes`], where the transport knows.
    /// Asked only where [`Outbound::waiter`] gave a wait.
    fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        let _ = topic;
        None
    }

    /// Returns a wait for the next [`Outbound::probes`] that does not hold this end; `None` if there never are any.
    /// Asked once.
    ///
    /// # Errors
    /// Usually [`ErrorKind::Io`]. There is no publisher then, as after an error of [`Driver::outbound`].
    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        Ok(None)
    }

    /// Returns what ends the waits of this end, for a sender that is about to stop: once it was woken, the present send
    /// and all later ones fail as soon as they would wait. `None` if a send never waits, or waits until its time limit
    /// whatever happens. Asked once. Default: `None`.
    ///
    /// # Errors
    /// As [`Outbound::waiter`]; only a publisher service asks.
    fn interrupt(&mut self) -> Result<Option<Arc<dyn Wake>>> {
        Ok(None)
    }
}

/// The error for updates of which some were sent, and another one failed with `e`. A number is used up for those that
/// were not, so that subscribers find them missing.
pub(crate) fn partly_sent(e: Error) -> Error {
    Error::new(ErrorKind::Unconfirmed, "only a part of the updates was sent").with_source(e)
}

/// Result of [`Outbound::waiter`]: the wait, and its interruption.
pub type WaiterAndWake = (Box<dyn Waiter>, Arc<dyn Wake>);

/// Waits for something to do at an [`Outbound`].
pub trait Waiter: Send {
    /// Returns when [`Outbound::probes`] may have something, when the paired [`Wake`] was called, or after
    /// `timeout` (`None`: never). May return early.
    ///
    /// # Errors
    /// Any kind; it is reported, and the wait is repeated. Time that has passed is no error.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()>;
}

/// The receiving end; owned by one thread, which receives all the time: much of the work is done within
/// [`Inbound::recv`].
///
/// The driver makes a connection anew that ended for any reason, or could not be made, with pauses that grow and
/// differ; it looks names up again, and tries each of their addresses. Before it reports [`Received::Connected`] it has
/// asked for everything that was subscribed. A driver that cannot do so by itself reports [`Received::Disconnected`]
/// and waits for the next [`Inbound::connect`]. The caller, which cannot distinguish the two, connects again after each
/// [`Received::Disconnected`]; it disconnects first if it wants to end the present connection.
pub trait Inbound: Send {
    /// Begins to receive from `address`. Need not wait for the connection, nor for the look-up of its name:
    /// [`Received::Connected`] reports it. May be repeated: does nothing if a connection is there or is being tried.
    ///
    /// # Errors
    /// Faults that are known at once, also those that may pass, for example an address that is in use or too few file
    /// descriptors. The address is not known then, and may be connected again.
    fn connect(&mut self, address: &str) -> Result<()>;

    /// Ends receiving from `address`, and drops all that is known of it: nothing is reported of it any more. One that
    /// is not known is no error.
    ///
    /// # Errors
    /// Any kind; it is reported and not repeated, and the address counts as disconnected.
    fn disconnect(&mut self, address: &str) -> Result<()>;

    /// Asks every address, present and future, for this topic. May deliver more; the subscriber compares exactly.
    ///
    /// # Errors
    /// Any kind, if the topic is not asked for everywhere: it is reported, no address is live meanwhile, and the call
    /// is repeated after a while. A connection that is away is none: the topic is asked for when it is back.
    fn subscribe(&mut self, topic: &Topic) -> Result<()>;

    /// Takes [`Inbound::subscribe`] back.
    ///
    /// # Errors
    /// Any kind; it is reported and not repeated: updates of the topic may still come and are dropped.
    fn unsubscribe(&mut self, topic: &Topic) -> Result<()>;

    /// Asks for a proof that all that was subscribed before this call is in force at `address`; it comes as
    /// [`Received::Answer`] with the same `probe`, behind everything that came from there before. A newer probe
    /// replaces an older one of the same address, and a connection that ends takes the probe with it. Where a
    /// subscriber cannot ask, as over a multicast, the next hello is the answer.
    ///
    /// # Errors
    /// Any kind; it is reported. No answer comes then, and the address is asked again.
    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()>;

    /// Returns how many bytes have come from `address` at the level of the transport, on the present connection: a
    /// message that takes long to arrive counts before it is whole. `None` where the transport does not count, or there
    /// is no connection. May cost system calls: asked rarely, before an address from which no frame comes is given up.
    /// Default: `None`.
    fn received_bytes(&mut self, address: &str) -> Option<u64> {
        let _ = address;
        None
    }

    /// The next thing that happens: returns [`Received::Idle`] after `timeout` (`None`: never, zero: do not wait), and
    /// not before.
    ///
    /// Ready events are returned before anything is waited for, and no source starves another. Messages that have come
    /// on a connection are returned before its end is, except for those that the transport hands over late.
    ///
    /// # Errors
    /// Failures of an address, which the text names; each is returned once, not with each retry. Nothing is lost by an
    /// error, nothing ends, and the next call goes on. Only an error that comes again at once is one of the whole
    /// receiving end: let some time pass before the next call.
    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>>;
}

/// Result of [`Inbound::recv`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Received<'a> {
    /// A message.
    Frame {
        /// Its source: as given to [`Inbound::connect`].
        address: &'a str,
        /// The topic, as sent.
        topic: &'a [u8],
        /// The payload, as sent.
        payload: &'a [u8],
    },
    /// A message that does not have the transport's form, for example three parts instead of two. It is counted.
    Malformed,
    /// The connection to this address is there; everything subscribed was asked for again.
    Connected {
        /// The address as given to [`Inbound::connect`].
        address: &'a str,
    },
    /// The connection to this address was lost.
    Disconnected {
        /// The address as given to [`Inbound::connect`].
        address: &'a str,
    },
    /// The proof that [`Inbound::probe`] asked for.
    Answer {
        /// The address as given to [`Inbound::connect`].
        address: &'a str,
        /// The probe as given to [`Inbound::probe`].
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
