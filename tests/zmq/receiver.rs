//! The receiving end of a driver, without a subscriber.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tablecast::Topic;
use tablecast::transport::{Driver, Inbound, Received};

/// An event that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The payload, or its beginning.
    Frame(String),
    Connected(String),
    Disconnected(String),
    Answer,
    Failed(String),
}

/// A frame with this payload.
pub(crate) fn frame(payload: &str) -> Event {
    Event::Frame(payload.into())
}

pub(crate) struct Receiver {
    pub(crate) inbound: Box<dyn Inbound>,
    /// Events that came and were not asked for.
    pub(crate) skipped: VecDeque<Event>,
}

impl Receiver {
    /// Connects to these addresses, and subscribes to topic `D`.
    pub(crate) fn connect(driver: &dyn Driver, addresses: &[&str]) -> Receiver {
        let (mut inbound, _wake) = driver.inbound().unwrap();
        inbound.subscribe(&Topic::new("D").unwrap()).unwrap();
        for address in addresses {
            inbound.connect(address).unwrap();
        }
        Receiver {
            inbound,
            skipped: VecDeque::new(),
        }
    }

    /// The next event, if there is one in time.
    pub(crate) fn next(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            return Some(match self.inbound.recv(Some(left)) {
                Ok(Received::Frame { payload, .. }) => {
                    let payload = payload.get(..payload.len().min(20)).unwrap();
                    Event::Frame(String::from_utf8_lossy(payload).into_owned())
                }
                Ok(Received::Connected { address }) => Event::Connected(address.to_owned()),
                Ok(Received::Disconnected { address }) => Event::Disconnected(address.to_owned()),
                Ok(Received::Answer { .. }) => Event::Answer,
                Ok(Received::Idle) => return None,
                Ok(_) => continue,
                Err(e) => Event::Failed(e.to_string()),
            });
        }
    }

    /// Waits until this has happened; calls `meanwhile` repeatedly.
    #[track_caller]
    pub(crate) fn await_while(&mut self, event: &Event, mut meanwhile: impl FnMut()) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            meanwhile();
            match self.next(Duration::from_millis(50)) {
                Some(came) if came == *event => return,
                came => self.skipped.extend(came),
            }
        }
        panic!("{event:?} has not come, but {:?}", self.skipped);
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, event: &Event) {
        self.await_while(event, || {});
    }

    /// The errors that have come.
    pub(crate) fn failures(&self) -> Vec<&str> {
        let failures = self.skipped.iter().map(|event| match event {
            Event::Failed(text) => Some(text.as_str()),
            _ => None,
        });
        failures.flatten().collect()
    }
}
