//! The queue, and the dispatcher that calls back.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod queue;
mod syncs;
mod workers;
