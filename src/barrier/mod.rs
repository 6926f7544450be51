//! Barriers: waiting until the present replicas have applied a write.
//!
//! A replica with an id registers in the table [`REPLICAS`], with its tables and topics. A waiting writer publishes a
//! question to all replicas behind its write: is this version applied? Each replica answers in its row once it is. So
//! an answer needs neither a publisher at the replica nor a subscriber at the writer.

mod answers;
mod question;
mod replicas;
mod wait;

pub(crate) use answers::{Answers, Applied};
pub use replicas::{REPLICAS, Registered, registered};
pub use wait::Barrier;
