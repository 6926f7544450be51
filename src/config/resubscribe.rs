//! Policy for topics after a lost connection.

use crate::words::words;

/// Policy for a subscriber's topics when the connection to a live address is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Resubscribe {
    /// Topics stay registered, and are subscribed again when the connection is back. The default.
    #[default]
    Automatic,
    /// All topics are unregistered, at every address. [`SyncReason::Cleared`](crate::SyncReason::Cleared) names them
    /// once an address is live; the program then registers them again.
    Manual,
}

words!(Resubscribe of "resubscribe": Automatic "automatic", Manual "manual");
