//! Replicas.
mod core;
mod map;
mod row;

pub use row::{MalformedRow, RowChange};
