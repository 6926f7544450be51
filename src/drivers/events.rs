//! Events at the addresses of a receiving end, kept in order until they are returned.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::transport::Received;
use crate::update::Topic;

#[derive(Default)]
pub(crate) struct Events {
    queue: VecDeque<(Arc<str>, AddressEvent)>,
    /// Parts of the last event returned.
    address: Arc<str>,
    probe: Option<Topic>,
}

#[cfg_attr(
    not(feature = "zmq"),
    expect(
        dead_code,
        reason = "connections in memory never fail, and only those of ZeroMQ leave messages behind"
    )
)]
pub(crate) enum AddressEvent {
    Connected,
    /// At most this many messages came before the loss; they go first.
    Disconnected(i32),
    /// The transport has answered a probe by itself.
    Confirmed(Topic),
    Failed(Error),
}

impl Events {
    pub(crate) fn push(&mut self, address: &Arc<str>, event: AddressEvent) {
        self.queue.push_back((Arc::clone(address), event));
    }

    /// Drops the events of an address that was given up.
    pub(crate) fn forget(&mut self, address: &str) {
        self.queue.retain(|(of, _)| **of != *address);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next event.
    #[cfg(feature = "zmq")]
    pub(super) fn front_mut(&mut self) -> Option<&mut (Arc<str>, AddressEvent)> {
        self.queue.front_mut()
    }

    /// Removes the next event; [`Received::Idle`] if there is none.
    pub(crate) fn pop(&mut self) -> Result<Received<'_>> {
        let Some((address, event)) = self.queue.pop_front() else {
            return Ok(Received::Idle);
        };
        self.address = address;
        let address = &*self.address;
        match event {
            AddressEvent::Connected => Ok(Received::Connected { address }),
            AddressEvent::Disconnected(_) => Ok(Received::Disconnected { address }),
            AddressEvent::Confirmed(probe) => Ok(Received::Answer {
                address,
                probe: self.probe.insert(probe).as_str().as_bytes(),
                hello: &[],
            }),
            AddressEvent::Failed(e) => Err(e),
        }
    }
}
