//! The faults, a test each.

mod killed;
