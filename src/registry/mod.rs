//! Members: rows that their owners renew, and by which others judge them.
//!
//! - A [`Registration`] keeps a row in a table of the store: it creates the row, renews it at a third of the timeout,
//!   with jitter, and deletes it when it stops. None of this is published. If it stops before all observers can have
//!   seen it, it marks its row as leaving instead, and an observer removes the row later.
//! - An observer reads the table periodically and reports the members. Each write gives a row a new version, so a row
//!   whose version stays the same for the timeout has an owner that is gone. The time is the observer's own, and counts
//!   only while it looks, and while the store can be read and written; no two clocks are compared. The first observer
//!   to notice removes the row, but only in the version that it saw: a row renewed meanwhile stays.
//! - A [`Discovery`] makes a [`Subscriber`](crate::Subscriber) follow the publishers of a table.
//!
//! If the store went back to an earlier state, by `FLUSHALL` or an older file, no process has removed the missing rows:
//! their owners count as present for the timeout, within which the live ones write their rows again.
//!
//! A member that was declared dead, for example because its process was stopped for long, registers again with its next
//! renewal.

mod discovery;
mod member;
mod options;
mod own_row;
mod registration;
mod renewer;
mod roster;
mod watch;

pub use discovery::{Discovery, PUBLISHERS};
pub use member::{Load, Member};
pub(crate) use options::Keep;
pub use options::RegistryOptions;
pub use registration::Registration;
pub use roster::{Presence, PresenceState};
pub use watch::Watch;
