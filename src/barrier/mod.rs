//! Barriers: waiting until the present replicas have applied a write.
//!
//! A replica with an id registers in the table `replica`, with its tables and topics. A waiting writer publishes a
//! question to all replicas behind its write: is this version applied? Each replica answers in its row once it is. So
//! an answer needs neither a publisher at the replica nor a subscriber at the writer. Rows of replicas that were killed
//! are removed by the others, or by the writers that wait for them.

mod answers;
mod question;
mod replicas;
mod unrenewed;
mod wait;

pub(crate) use answers::{Answers, Applied, Asked, Standing};
pub use replicas::{REPLICAS, Registered, registered};
pub use wait::Barrier;
