//! A network in memory with faults.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::codec::{Decoder, Message};
use crate::config::Config;
use crate::drivers::memory::MemoryDriver;
use crate::error::Result;
use crate::node::Node;
use crate::store::Store;
use crate::transport::{Driver, Inbound, Outbound, Wake};
use crate::update::{DbUpdate, Topic};

use super::faults::{Fate, Faults, Link, Rule};
use super::inbound::FaultyInbound;

/// The address of every publisher of a network, and the option that stands for it.
const ADDRESS: &str = "inproc://testing";
const NAME: &str = "testing";

/// A shorter hello period than in the field: losses show sooner.
const HELLO: Duration = Duration::from_millis(100);

/// A network in memory for nodes of one process. Clones are the same network.
///
/// To restart a publisher, drop its node and make another one.
#[derive(Debug, Clone)]
pub struct Network {
    driver: MemoryDriver,
    faults: Arc<Faults>,
}

impl Default for Network {
    fn default() -> Network {
        Network::new()
    }
}

impl Network {
    /// A network without faults.
    pub fn new() -> Network {
        Network {
            driver: MemoryDriver::named(ADDRESS),
            faults: Arc::default(),
        }
    }

    /// The options of a node of this network, with hellos each 100 ms.
    pub fn config(&self) -> Config {
        let mut config = Config::in_memory(NAME);
        config.hello_interval_ms = HELLO;
        config
    }

    /// A node on this network with this store.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn node(&self, store: Arc<dyn Store>) -> Result<Node> {
        self.node_with(&self.config(), store)
    }

    /// As [`Network::node`], with these options, which begin as [`Network::config`].
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn node_with(&self, config: &Config, store: Arc<dyn Store>) -> Result<Node> {
        Node::builder(config)
            .network(Arc::new(self.clone()))
            .store(store)
            .open()
    }

    /// From now on this decides on each update, when it is sent, one after the other. It must not send by itself.
    pub fn judge(&self, rule: impl FnMut(&DbUpdate) -> Fate + Send + 'static) {
        let rule: Rule = Box::new(rule);
        let before = self.faults.state.lock().rule.replace(Arc::new(Mutex::new(rule)));
        // The program's, so without the lock.
        drop(before);
    }

    /// The next `count` updates have this fate, and all others pass.
    pub fn next(&self, count: usize, fate: Fate) {
        let mut left = count;
        self.judge(move |_| {
            let is_one = left > 0;
            left = left.saturating_sub(1);
            if is_one { fate } else { Fate::Pass }
        });
    }

    /// How many updates were lost, by [`Fate::Lose`].
    pub fn lost(&self) -> u64 {
        self.faults.state.lock().lost
    }

    /// Ends every connection: later updates are lost, and every subscriber reports its addresses as lost.
    pub fn cut(&self) {
        self.faults.set(Link::Cut);
    }

    /// Drops everything from now on without a sign of it, as when a cable is cut.
    pub fn stall(&self) {
        self.faults.set(Link::Stalled);
    }

    /// From now on everything is held back. It arrives after [`Network::mend`], late but in order.
    pub fn hold(&self) {
        self.faults.set(Link::Held);
    }

    /// Ends [`Network::cut`], [`Network::stall`] and [`Network::hold`].
    pub fn mend(&self) {
        self.faults.set(Link::Up);
    }
}

impl Driver for Network {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(FaultyOutbound {
            inner: self.driver.outbound()?,
            faults: Arc::clone(&self.faults),
            decoder: Decoder::new(),
            messages: Vec::new(),
            behind: VecDeque::new(),
        }))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inner, wake) = self.driver.inbound()?;
        {
            let wakes = &mut self.faults.state.lock().wakes;
            wakes.retain(|wake| wake.strong_count() > 0);
            wakes.push(Arc::downgrade(&wake));
        }
        let inbound = FaultyInbound::new(inner, Arc::clone(&self.faults));
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        self.driver.check_address(address)
    }

    fn known_as(&self, address: &str) -> String {
        self.driver.known_as(address)
    }

    fn authenticates(&self, address: &str) -> bool {
        self.driver.authenticates(address)
    }
}

struct FaultyOutbound {
    inner: Box<dyn Outbound>,
    faults: Arc<Faults>,
    decoder: Decoder,
    messages: Vec<Message>,
    /// The topics and payloads that arrive behind the next ones.
    behind: VecDeque<(Vec<u8>, Vec<u8>)>,
}

impl FaultyOutbound {
    /// The fate of a frame; only updates have one.
    fn fate(&mut self, topic: &[u8], payload: &[u8]) -> Fate {
        let topic = std::str::from_utf8(topic).ok().and_then(|topic| Topic::new(topic).ok());
        self.messages.clear();
        let decoded = topic.map(|topic| self.decoder.decode(&topic, payload, &mut self.messages));
        match self.messages.first() {
            Some(Message::Update(update)) if matches!(decoded, Some(Ok(()))) => self.faults.fate(update),
            _ => Fate::Pass,
        }
    }

    /// Sends a frame, unless the link loses it.
    fn pass(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        match self.faults.loses() {
            true => Ok(()),
            false => self.inner.send(topic, payload, timeout),
        }
    }
}

/// One update in each frame, so that each has a fate of its own.
impl Outbound for FaultyOutbound {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        match self.fate(topic, payload) {
            Fate::Lose => return Ok(()),
            Fate::Behind => {
                self.behind.push_back((topic.to_vec(), payload.to_vec()));
                return Ok(());
            }
            Fate::Twice => self.pass(topic, payload, timeout)?,
            Fate::Pass => {}
        }
        self.pass(topic, payload, timeout)?;
        while let Some((topic, payload)) = self.behind.pop_front() {
            self.pass(&topic, &payload, timeout)?;
        }
        Ok(())
    }

    fn address(&self) -> Option<String> {
        self.inner.address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Received;

    /// Faults that end before the receiving end looks have had their effect.
    #[test]
    fn short_faults_are_faults() {
        let network = Network::new();
        let mut outbound = network.outbound().unwrap();
        let (mut inbound, _wake) = network.inbound().unwrap();
        inbound.connect(ADDRESS).unwrap();
        inbound.subscribe(&Topic::ALL).unwrap();
        let mut send = |payload: &[u8]| outbound.send(b"D", payload, Duration::ZERO).unwrap();
        let mut came = || {
            let mut came = String::new();
            loop {
                match inbound.recv(Some(Duration::ZERO)).unwrap() {
                    Received::Connected { .. } => came.push('+'),
                    Received::Disconnected { .. } => came.push('-'),
                    Received::Frame { payload, .. } => came.push_str(str::from_utf8(payload).unwrap()),
                    Received::Idle => return came,
                    _ => {}
                }
            }
        };
        send(b"1");
        assert_eq!(came(), "+1");
        network.cut();
        send(b"2");
        network.mend();
        send(b"3");
        assert_eq!(came(), "-+3");
        network.stall();
        send(b"4");
        network.mend();
        assert_eq!(came(), "");
        network.cut();
        assert_eq!(came(), "-");
        network.mend();
        network.cut();
        assert_eq!(came(), "");
        send(b"5");
        network.hold();
        send(b"6");
        assert_eq!(came(), "+");
        network.mend();
        assert_eq!(came(), "6");
        network.mend();
        network.cut();
        network.mend();
        network.cut();
        assert_eq!(came(), "-");
    }
}
