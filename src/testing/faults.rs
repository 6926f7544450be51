//! The faults of a network, as they stand.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::transport::Wake;
use crate::update::DbUpdate;

/// The fate of an update on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It is lost for every subscriber.
    Lose,
    /// It arrives twice.
    Twice,
    /// It arrives behind what its publisher sends next, at the latest its next hello.
    Behind,
}

pub(super) type Rule = Box<dyn FnMut(&DbUpdate) -> Fate + Send>;

#[derive(Default)]
pub(super) struct Faults {
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Behind a lock of its own, so that it may cut the network, or name another rule.
    pub(super) rule: Option<Arc<Mutex<Rule>>>,
    pub(super) link: Link,
    /// How often it was cut.
    pub(super) cuts: u64,
    pub(super) lost: u64,
    /// The receiving ends, which look at `link` when they are woken.
    pub(super) wakes: Vec<Weak<dyn Wake>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Up,
    /// Nothing arrives, and nothing says so.
    Stalled,
    /// Nothing arrives yet.
    Held,
    Cut,
}

impl Link {
    /// True if frames and questions are lost.
    pub(super) fn loses(self) -> bool {
        matches!(self, Link::Stalled | Link::Cut)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    pub(super) fn set(&self, link: Link) {
        let wakes: Vec<_> = {
            let mut state = self.state.lock();
            state.cuts += u64::from(link == Link::Cut && state.link != Link::Cut);
            state.link = link;
            state.wakes.iter().filter_map(Weak::upgrade).collect()
        };
        wakes.iter().for_each(|wake| wake.wake());
    }

    /// True if what is sent now is lost.
    pub(super) fn loses(&self) -> bool {
        self.state.lock().link.loses()
    }

    pub(super) fn fate(&self, update: &DbUpdate) -> Fate {
        let Some(rule) = self.state.lock().rule.clone() else {
            return Fate::Pass;
        };
        let mut rule = rule.lock();
        let fate = (*rule)(update);
        self.state.lock().lost += u64::from(fate == Fate::Lose);
        fate
    }
}
