//! The tables of the store that listeners use.

/// The table of registered listeners: each row is a [`Member`](crate::registry::Member) whose address is the
/// listener's topic.
pub const LISTENERS: &str = "listener";

/// The table of the events that listeners have claimed. A claim is removed when no listener can receive its event any
/// more.
#[doc(hidden)]
pub const CLAIMS: &str = "listener_claim";
