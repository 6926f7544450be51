//! Random histories of notifiers, listeners, a network that loses, doubles and reorders, and a store that fails,
//! compared with the promise: an acknowledged event is never begun again, no event of a row is begun after a newer one,
//! and everything is acknowledged in the end.

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claims::{Claims, Outcome, Step as StoreStep};
use super::event_table::EventTable;
use super::in_flight::{InFlight, Step};
use super::messages::{self, Answers, EventId, ListenerMessage};
use super::peers::Standing;
use super::sweep::Sweep;
use super::tables::LISTENERS;
use crate::error::Result;
use crate::histories::{self, Weights};
use crate::registry::Member;
use crate::store::Store;
use crate::stores::memory::MemoryStore;
use crate::update::{Action, DbUpdate, Name, Topic};
use work::{WORK, WORK_ALL};

struct World {
    store: Arc<dyn Store>,
    now: Instant,
    notifiers: Vec<Notifier>,
    listeners: Vec<Listener>,
    network: Vec<Message>,
    /// All messages sent to listeners.
    sent: Vec<Message>,
    born: usize,
    /// The events for which handlers were called, and the runs of the listeners that did it.
    begun: BTreeMap<(usize, u64), Vec<Topic>>,
    ended: BTreeSet<(usize, u64)>,
    acknowledged: BTreeSet<(usize, u64)>,
    /// The last begun event of each row.
    newest: BTreeMap<Name, u64>,
    /// Runs that were killed or declared dead.
    dead: BTreeSet<Topic>,
    chance: fastrand::Rng,
    /// One step of the store in this many fails.
    fails: u8,
}

struct Notifier {
    in_flight: InFlight,
    topic: Topic,
    given: u64,
}

struct Listener {
    id: usize,
    events: EventTable,
    claims: Claims,
    inbox: Vec<ListenerMessage>,
    turns: Vec<EventId>,
    handling: Vec<EventId>,
    /// The step under way, its run, and its outcome.
    step: Option<(StoreStep, Topic, Option<Result<Outcome>>)>,
    sweep: Sweep,
    /// Its process is stopped.
    is_suspended: bool,
    /// Its process was killed, and its row still exists.
    is_killed: bool,
}

#[derive(Clone)]
enum Message {
    ToListener(Name, DbUpdate),
    ToNotifier(usize, Answers),
}

/// Longer than a history.
const RETENTION: Duration = Duration::from_secs(3600);

const ACK: Duration = Duration::from_millis(100);

/// The number of updates of each notifier, and of their rows.
const UPDATES: u64 = 12;
const ROWS: u64 = 4;

impl World {
    fn new(seed: u64) -> World {
        let now = Instant::now();
        let notifier = |number| Notifier {
            in_flight: InFlight::new(ACK, 6, ACK * 100),
            topic: Topic::new(format!("notifier/{number}")).unwrap(),
            given: 0,
        };
        let mut world = World {
            store: Arc::new(MemoryStore::new()),
            now,
            notifiers: (0..2).map(notifier).collect(),
            listeners: Vec::new(),
            network: Vec::new(),
            sent: Vec::new(),
            born: 0,
            begun: BTreeMap::new(),
            ended: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            newest: BTreeMap::new(),
            dead: BTreeSet::new(),
            chance: fastrand::Rng::with_seed(seed),
            fails: 0,
        };
        world.listener_comes();
        world.look(0);
        world
    }

    fn listener_comes(&mut self) {
        let id = self.born;
        self.born += 1;
        let topic = Topic::new(format!("listener/{id}")).unwrap();
        self.register(&topic);
        self.listeners.push(Listener {
            id,
            events: EventTable::new(topic),
            claims: Claims::new(Arc::clone(&self.store)),
            inbox: Vec::new(),
            turns: Vec::new(),
            handling: Vec::new(),
            step: None,
            sweep: Sweep::default(),
            is_suspended: false,
            is_killed: false,
        });
    }

    fn register(&self, topic: &Topic) {
        let member = format!(r#"{{"epoch":1,"address":"{topic}"}}"#);
        self.store
            .create(LISTENERS, topic.as_str(), &member, &Topic::ALL)
            .unwrap();
    }

    fn is_registered(&self, topic: &Topic) -> bool {
        self.store.get(LISTENERS, topic.as_str(), None).is_ok()
    }

    /// Lets a notifier read the registered listeners.
    fn look(&mut self, notifier: usize) {
        let rows = self.store.entries(LISTENERS, None).map(Result::unwrap);
        let chance = &mut self.chance;
        let present = rows.map(|row| {
            let member = Member::from_row(&row).unwrap();
            let (may, waiting) = (chance.u8(0..8) > 0, chance.u64(0..4));
            (Name::from(member.address), Standing { may, waiting })
        });
        let present = present.collect();
        self.notifiers[notifier].in_flight.listeners(present, self.now);
        self.act(notifier);
    }

    fn give(&mut self, number: usize) {
        let notifier = &mut self.notifiers[number];
        if notifier.given < UPDATES {
            notifier.given += 1;
            let key = format!("{number}-{}", notifier.given % ROWS);
            let update = DbUpdate::new("lport", key, Action::Set).priority(self.chance.i32(0..2));
            notifier.in_flight.add(notifier.given, update, self.now);
            self.act(number);
        }
    }

    /// Carries out the actions of a notifier.
    fn act(&mut self, number: usize) {
        let Notifier { in_flight, topic, .. } = &mut self.notifiers[number];
        in_flight.tick(self.now);
        let low = in_flight.low();
        for step in in_flight.steps() {
            let (listener, message) = match step {
                Step::Send {
                    number,
                    attempt,
                    listener,
                    ..
                } => {
                    let update = in_flight.update(number).unwrap();
                    let notifier = topic.clone();
                    let message = messages::event(&EventId { notifier, number }, attempt, low, update);
                    (listener, message)
                }
                Step::Ask { about, listener } => (listener, messages::questions(topic, low, &about)),
                Step::Confirm { numbers, listener } => (listener, messages::confirmation(topic, low, &numbers)),
                Step::Processed { .. } | Step::NoListener => continue,
            };
            let on = Topic::new(listener.clone()).unwrap();
            let message = Message::ToListener(listener, message.unwrap().topic(on));
            self.sent.push(message.clone());
            self.network.push(message);
        }
    }

    fn deliver(&mut self, at: usize, is_kept: bool) {
        let message = match is_kept {
            true => self.network[at].clone(),
            false => self.network.remove(at),
        };
        match message {
            Message::ToNotifier(number, answers) => {
                self.notifiers[number].in_flight.answered(answers, self.now);
                // Acknowledged updates are no longer pending.
                self.note_acknowledged(number);
                self.act(number);
            }
            Message::ToListener(topic, message) => {
                let mut listeners = self.listeners.iter_mut();
                let to = listeners.find(|it| it.events.run().as_str() == topic.as_str() && !it.is_killed);
                // A suspended listener reads it later.
                if let Some(listener) = to {
                    listener.inbox.push(messages::parse_message(&message).unwrap());
                }
            }
        }
    }

    fn note_acknowledged(&mut self, number: usize) {
        let Notifier { in_flight, given, .. } = &self.notifiers[number];
        let done = (1..=*given).filter(|event| !in_flight.is_pending(*event));
        self.acknowledged.extend(done.map(|event| (number, event)));
        let unfounded = self.acknowledged.difference(&self.ended).next();
        assert_eq!(unfounded, None, "acknowledged, but not processed");
    }

    /// Removes the row of a listener that does not renew it, unless it is in its handler, where a repeat is a
    /// documented limit.
    fn remove(&mut self, at: usize) {
        let listener = &self.listeners[at];
        let is_gone = listener.is_killed || listener.is_suspended && listener.handling.is_empty();
        if is_gone {
            let _ = self.store.delete(LISTENERS, listener.events.run().as_str());
            self.dead.insert(listener.events.run().clone());
            if listener.is_killed {
                self.listeners.remove(at);
            }
        }
    }

    fn act_on(&mut self, what: usize) {
        let chance = &mut self.chance;
        self.now += Duration::from_millis(chance.u64(0..32));
        let (messages, count) = (self.network.len(), self.listeners.len());
        let (message, at) = (chance.usize(0..messages.max(1)), chance.usize(0..count.max(1)));
        let notifier = chance.usize(0..self.notifiers.len());
        match what {
            0 => self.give(notifier),
            1 | 2 if messages > 0 => self.deliver(message, what == 2),
            3 if messages > 0 => drop(self.network.remove(message)),
            4 => {
                // Patience doubles.
                self.now += ACK * if chance.u8(0..4) == 0 { chance.u32(1..20) } else { 1 };
                self.act(notifier);
            }
            5 => self.look(notifier),
            6 if count < 4 => self.listener_comes(),
            7 if count > 0 => self.listeners[at].is_killed = true,
            8 if count > 0 => self.listeners[at].events.stop(self.now),
            9 if count > 0 => self.listeners[at].is_suspended ^= true,
            10 if count > 0 => self.remove(at),
            11 if count > 1 => self.absence(at),
            12.. if count > 0 => self.work(at, WORK[what - 12]),
            _ => {}
        }
    }

    /// Lets every party do its due work; no message is lost.
    fn round(&mut self) {
        self.now += Duration::from_millis(20);
        for number in 0..self.notifiers.len() {
            self.give(number);
            self.look(number);
            self.act(number);
        }
        while !self.network.is_empty() {
            self.deliver(0, false);
        }
        for at in (0..self.listeners.len()).rev() {
            self.remove(at);
        }
        self.work_all();
    }

    /// Suspends a listener until others declare it dead and do its work; then it continues.
    fn absence(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        if listener.is_killed || !listener.handling.is_empty() {
            return;
        }
        let id = listener.id;
        listener.is_suspended = true;
        self.remove(at);
        (0..20).for_each(|_| self.round());
        let back = self.listeners.iter_mut().find(|listener| listener.id == id);
        back.unwrap().is_suspended = false;
    }

    fn work_all(&mut self) {
        for at in (0..self.listeners.len()).rev() {
            for what in WORK_ALL {
                if at < self.listeners.len() {
                    self.work(at, what);
                }
            }
        }
    }

    /// Delivers everything that was ever sent once more.
    fn echo(&mut self) {
        for message in std::mem::take(&mut self.sent) {
            self.network.push(message);
            self.deliver(0, false);
        }
        (0..UPDATES).for_each(|_| self.work_all());
    }

    /// Ends all failures; everything must be acknowledged.
    fn calm_down(&mut self) {
        self.listener_comes();
        for listener in &mut self.listeners {
            listener.is_suspended = false;
        }
        self.fails = 0;
        for round in 0..3000 {
            self.round();
            if round > UPDATES && self.notifiers.iter().all(|notifier| notifier.in_flight.is_empty()) {
                return;
            }
        }
        panic!("not everything is acknowledged: {:?}", self.notifiers[0].in_flight);
    }
}

/// The shares of [`World::act_on`].
const SHARES: Weights<21> = [3, 5, 2, 1, 3, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 1, 1];

#[test]
fn what_is_acknowledged_is_never_begun_again() {
    histories::hold("what_is_acknowledged", 700, |seed| {
        let mut world = World::new(seed);
        let weights = histories::swarm(SHARES, &mut world.chance);
        world.fails = world.chance.u8(0..8);
        for _ in 0..world.chance.usize(0..2000) {
            let what = histories::draw(&weights, &mut world.chance);
            world.act_on(what);
        }
        world.calm_down();
        world.echo();
        match world.begun.len() as u64 {
            count if count == 2 * UPDATES => Ok(()),
            count => Err(format!("{count} of {} were begun", 2 * UPDATES)),
        }
    });
}
