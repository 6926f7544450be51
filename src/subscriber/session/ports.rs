//! The session's inputs other than the driver's, and its outputs.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::event::SyncReason;
use crate::update::{Name, Topic};

/// A change by the program.
#[derive(Debug)]
pub(in crate::subscriber) enum Command {
    /// A topic was registered, in this generation.
    Subscribe(Topic, u64),
    Unsubscribe(Topic),
    /// An address was registered; the number identifies the registration.
    Connect(Name, u64),
    Disconnect(Name),
    /// The publisher at this address is gone; reported unless it has said goodbye.
    GiveUp(Name),
}

/// Actions, listed in the order in which the session gives them.
#[derive(Debug)]
pub(in crate::subscriber) enum Action {
    /// The updates of [`Session::updates`](super::Session::updates) go into the queue.
    Deliver,
    Tell(SyncReason),
    Report(Error),
    /// A failure goes to [`Session::handle_refused`](super::Session::handle_refused).
    Subscribe(Topic),
    Unsubscribe(Topic),
    /// A failure goes to [`Session::handle_not_connecting`](super::Session::handle_not_connecting).
    Connect(Name),
    Disconnect(Name),
    Probe(Name, Topic),
    /// The number of bytes received from this address goes to
    /// [`Session::handle_weight`](super::Session::handle_weight).
    Weigh(Name),
    /// These topics, of these generations, are not registered any more.
    Clear(BTreeMap<Topic, u64>),
}
