//! Addresses that are lost or unregistered.

use super::Continuity;
use super::run::RunState;

impl Continuity {
    /// Called when the loss of this address is reported, which covers the silence of publishers heard through it.
    pub(in crate::subscriber::session) fn lose(&mut self, address: &str) {
        self.leave(address, RunState::Silent);
    }

    /// Called when the address is unregistered: nothing is expected of runs heard through it alone.
    pub(in crate::subscriber::session) fn forget(&mut self, address: &str) {
        for run in self.publishers.values_mut().flatten() {
            run.also.take_if(|also| *also == *address);
            if run.state == RunState::Running
                && run.address == *address
                && let Some(also) = run.also.take()
            {
                run.address = also;
            }
        }
        self.leave(address, RunState::Left);
    }

    fn leave(&mut self, address: &str, state: RunState) {
        for run in self.publishers.values_mut().flatten() {
            if matches!(run.state, RunState::Running | RunState::Silent) && run.address == *address {
                run.state = state;
            }
        }
    }
}
