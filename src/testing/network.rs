//! A network in memory with faults.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::codec::{Decoder, Message};
use crate::config::Config;
use crate::drivers::memory::MemoryDriver;
use crate::error::Result;
use crate::node::Node;
use crate::store::Store;
use crate::thread::deadline;
use crate::transport::{Driver, Inbound, Outbound, Received, Wake};
use crate::update::{DbUpdate, Topic};

/// The address of every publisher of a network, and the option that stands for it.
const ADDRESS: &str = "inproc://testing";
const NAME: &str = "testing";

/// A shorter hello period than in the field: losses show sooner.
const HELLO: Duration = Duration::from_millis(100);

/// What becomes of an update on its way.
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

/// A network in memory for nodes of one process. Clones are the same network.
///
/// To restart a publisher, drop its node and make another one.
#[derive(Debug, Clone)]
pub struct Network {
    driver: MemoryDriver,
    faults: Arc<Faults>,
}

type Rule = Box<dyn FnMut(&DbUpdate) -> Fate + Send>;

#[derive(Default)]
struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Behind a lock of its own, so that it may cut the network, or name another rule.
    rule: Option<Arc<Mutex<Rule>>>,
    link: Link,
    lost: u64,
    /// The receiving ends, which look at `link` when they are woken.
    wakes: Vec<Weak<dyn Wake>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Link {
    #[default]
    Up,
    /// Nothing arrives, and nothing says so.
    Stalled,
    Cut,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
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

    /// The options of a node of this network: all topics, and hellos each 100 ms.
    pub fn config(&self) -> Config {
        let mut config = Config::in_memory(NAME);
        config.topics = vec![Topic::ALL];
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
        self.faults.state.lock().rule = Some(Arc::new(Mutex::new(Box::new(rule))));
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

    /// Ends every connection: what is sent from now on is lost, and every subscriber is told that its addresses are gone.
    pub fn cut(&self) {
        self.faults.set(Link::Cut);
    }

    /// From now on nothing arrives, and nothing says so, as when a cable is cut.
    pub fn stall(&self) {
        self.faults.set(Link::Stalled);
    }

    /// Ends [`Network::cut`] and [`Network::stall`].
    pub fn mend(&self) {
        self.faults.set(Link::Up);
    }
}

impl Faults {
    fn set(&self, link: Link) {
        let wakes: Vec<_> = {
            let mut state = self.state.lock();
            state.link = link;
            state.wakes.iter().filter_map(Weak::upgrade).collect()
        };
        wakes.iter().for_each(|wake| wake.wake());
    }

    fn fate(&self, update: &DbUpdate) -> Fate {
        let Some(rule) = self.state.lock().rule.clone() else {
            return Fate::Pass;
        };
        let mut rule = rule.lock();
        let fate = (*rule)(update);
        self.state.lock().lost += u64::from(fate == Fate::Lose);
        fate
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
        let inbound = FaultyInbound {
            inner,
            faults: Arc::clone(&self.faults),
            link: Link::Up,
            connected: BTreeSet::new(),
            changes: VecDeque::new(),
            is_woken: false,
            address: String::new(),
            topic: Vec::new(),
            payload: Vec::new(),
        };
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
            Fate::Twice => self.inner.send(topic, payload, timeout)?,
            Fate::Pass => {}
        }
        self.inner.send(topic, payload, timeout)?;
        while let Some((topic, payload)) = self.behind.pop_front() {
            self.inner.send(&topic, &payload, timeout)?;
        }
        Ok(())
    }

    fn address(&self) -> Option<String> {
        self.inner.address()
    }
}

struct FaultyInbound {
    inner: Box<dyn Inbound>,
    faults: Arc<Faults>,
    /// The link as this end has last seen it.
    link: Link,
    connected: BTreeSet<String>,
    /// Addresses whose connection came or went, to be reported.
    changes: VecDeque<(String, bool)>,
    is_woken: bool,
    /// Parts of the last result.
    address: String,
    topic: Vec<u8>,
    payload: Vec<u8>,
}

impl FaultyInbound {
    /// Takes note of a link that was cut or mended.
    fn look(&mut self) {
        let link = self.faults.state.lock().link;
        let before = std::mem::replace(&mut self.link, link);
        if (before == Link::Cut) != (link == Link::Cut) {
            let is_up = link != Link::Cut;
            let changes = self.connected.iter().map(|address| (address.clone(), is_up));
            self.changes.extend(changes);
        }
    }
}

impl Inbound for FaultyInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        self.inner.connect(address)
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.connected.remove(address);
        self.changes.retain(|(of, _)| of != address);
        self.inner.disconnect(address)
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.inner.subscribe(topic)
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.inner.unsubscribe(topic)
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        self.look();
        match self.link {
            Link::Up => self.inner.probe(address, probe),
            Link::Stalled | Link::Cut => Ok(()),
        }
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        let until = timeout.map(deadline);
        loop {
            self.look();
            if let Some((address, is_up)) = self.changes.pop_front() {
                self.address = address;
                let address = &*self.address;
                return Ok(match is_up {
                    true => Received::Connected { address },
                    false => Received::Disconnected { address },
                });
            }
            if std::mem::take(&mut self.is_woken) {
                return Ok(Received::Woken);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let (address, first, second, is_answer) = match self.inner.recv(left)? {
                Received::Idle => return Ok(Received::Idle),
                Received::Woken => {
                    self.is_woken = true;
                    continue;
                }
                Received::Connected { address } => {
                    if self.link != Link::Cut {
                        self.changes.push_back((address.to_owned(), true));
                    }
                    self.connected.insert(address.to_owned());
                    continue;
                }
                Received::Frame {
                    address,
                    topic,
                    payload,
                } => (address, topic, payload, false),
                Received::Answer { address, probe, hello } => (address, probe, hello, true),
                Received::Disconnected { .. } | Received::Malformed => continue,
            };
            if self.link != Link::Up {
                continue;
            }
            address.clone_into(&mut self.address);
            first.clone_into(&mut self.topic);
            second.clone_into(&mut self.payload);
            let (address, topic, payload) = (&*self.address, &*self.topic, &*self.payload);
            return Ok(match is_answer {
                false => Received::Frame {
                    address,
                    topic,
                    payload,
                },
                true => Received::Answer {
                    address,
                    probe: topic,
                    hello: payload,
                },
            });
        }
    }
}
