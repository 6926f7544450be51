//! The drivers: each moves frames one way, without policy.

pub mod memory;
#[cfg(feature = "zmq")]
pub mod zmq;
