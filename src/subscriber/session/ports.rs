//! What goes into a session besides what the driver says, and what comes out.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::update::{Name, SyncReason, Topic};

/// What the program has changed.
#[derive(Debug)]
pub(in crate::subscriber) enum Command {
    /// A topic was registered, in this generation.
    Subscribe(Topic, u64),
    Unsubscribe(Topic),
    /// An address was registered; the number tells its registrations apart.
    Connect(Name, u64),
    Disconnect(Name),
    /// The publisher at this address is gone; the program is told, unless that one has said goodbye.
    GiveUp(Name),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(in crate::subscriber) enum Action {
    /// What is in [`Session::updates`](super::Session::updates) goes into the queue.
    Deliver,
    Tell(SyncReason),
    Report(Error),
    /// A failure is told by [`Session::handle_refused`](super::Session::handle_refused).
    Subscribe(Topic),
    Unsubscribe(Topic),
    /// A failure is told by [`Session::handle_not_connecting`](super::Session::handle_not_connecting).
    Connect(Name),
    Disconnect(Name),
    Probe(Name, Topic),
    /// How many bytes have come from there is told by [`Session::handle_weight`](super::Session::handle_weight).
    Weigh(Name),
    /// These topics, of these generations, are not registered any more.
    Clear(BTreeMap<Topic, u64>),
}
