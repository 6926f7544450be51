//! Commands that start processes of their own and judge what happens: the demo, and the storm of status updates.

pub(crate) mod demo;
pub(crate) mod stage;
pub(crate) mod storm;
