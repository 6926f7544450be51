//! Random histories of notifiers, listeners, a network that loses, doubles and reorders, and a store that fails,
//! compared with the promise: an acknowledged event is never begun again, no event of a row is begun after a newer one,
//! and everything is acknowledged in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::claims::Claims;
use super::event_table::EventTable;
use super::in_flight::{InFlight, Step};
use super::messages::{self, Answers, EventId, ListenerMessage};
use super::peers::Standing;
use super::tables::LISTENERS;
use crate::error::{Error, ErrorKind};
use crate::registry::Member;
use crate::store::Store;
use crate::stores::memory::MemoryStore;
use crate::update::{Action, DbUpdate, Name, Topic};

struct World {
    store: Arc<dyn Store>,
    now: Instant,
    notifiers: Vec<Notifier>,
    listeners: Vec<Listener>,
    network: Vec<Message>,
    /// All messages sent to listeners.
    sent: Vec<Message>,
    born: usize,
    /// The events for which handlers were called, and the listeners that did it.
    begun: BTreeMap<(usize, u64), Vec<usize>>,
    acknowledged: BTreeSet<(usize, u64)>,
    /// The last begun event of each row.
    newest: BTreeMap<Name, u64>,
    /// Listeners that were killed or declared dead.
    dead: BTreeSet<usize>,
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

const ACK: Duration = Duration::from_millis(100);

/// The number of updates of each notifier, and of their rows.
const UPDATES: u64 = 12;
const ROWS: u64 = 4;

impl World {
    fn new() -> World {
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
            acknowledged: BTreeSet::new(),
            newest: BTreeMap::new(),
            dead: BTreeSet::new(),
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
        let present = rows.map(|row| {
            let member = Member::from_row(&row).unwrap();
            let (may, waiting) = (true, 0);
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
            let update = DbUpdate::new("lport", key, Action::Set);
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
    }

    /// Lets a listener do a part of its work; `fails` decides the fate of its step of the store.
    fn work(&mut self, at: usize, what: u8, fails: u8) {
        let is_held = self.is_registered(self.listeners[at].events.run());
        let listener = &mut self.listeners[at];
        if listener.is_suspended || listener.is_killed {
            return;
        }
        if !is_held && !listener.events.is_stopping() {
            // It notices that it was declared dead.
            let topic = Topic::new(format!("listener/{}/again/{}", listener.id, self.born)).unwrap();
            self.born += 1;
            listener.turns.clear();
            listener.events.begin_run(topic.clone());
            self.register(&topic);
            return;
        }
        match what {
            0 => {
                let run = listener.events.run().clone();
                let step = listener.events.step(is_held, self.now + Duration::from_secs(1));
                let outage = || Error::new(ErrorKind::Unconfirmed, "an outage");
                let outcome = match fails {
                    0 => Err(outage()),
                    1 => listener.claims.take(&step, &run).and_then(|_| Err(outage())),
                    _ => listener.claims.take(&step, &run),
                };
                let (turns, _) = listener.events.end_step(outcome, self.now);
                listener.turns.extend(turns.into_iter().map(|turn| turn.id));
            }
            1 => {
                let Some(id) = listener.turns.pop() else { return };
                let Some(update) = listener.events.begin(&id, is_held, self.now) else {
                    return;
                };
                listener.handling.push(id.clone());
                let (id, by) = (id, listener.id);
                self.begins(&id, &update, by);
            }
            2 => {
                let received = listener.inbox.drain(..);
                received.for_each(|message| listener.events.receive(message, self.now));
            }
            3 => {
                if let Some(id) = listener.handling.pop() {
                    listener.events.ended(id, false, self.now);
                }
            }
            _ => {
                let answers = listener.events.answers(self.now + Duration::from_secs(1));
                for (topic, about) in answers {
                    let answers = Answers {
                        listener: listener.events.run().as_str().into(),
                        waiting: 0,
                        leaving: listener.events.is_stopping(),
                        about,
                    };
                    let notifier = self.notifiers.iter().position(|notifier| notifier.topic == topic);
                    self.network.push(Message::ToNotifier(notifier.unwrap(), answers));
                }
                if listener.events.is_stopping() && !listener.events.is_busy() {
                    let listener = self.listeners.remove(at);
                    let _ = self.store.delete(LISTENERS, listener.events.run().as_str());
                }
            }
        }
    }

    fn begins(&mut self, id: &EventId, update: &DbUpdate, by: usize) {
        let notifier = self.notifiers.iter().position(|notifier| notifier.topic == id.notifier);
        let event = (notifier.unwrap(), id.number);
        assert!(
            !self.acknowledged.contains(&event),
            "{event:?} is begun after it was acknowledged"
        );
        let before = self.begun.entry(event).or_default();
        let again = before.iter().all(|one| self.dead.contains(one));
        assert!(again, "{event:?} is begun by {by} after {before:?}, of which one lives");
        before.push(by);
        let newest = self.newest.entry(update.key.clone()).or_insert(0);
        assert!(*newest <= id.number, "{event:?} is begun after {newest}");
        *newest = id.number;
    }

    /// Removes the row of a listener that does not renew it, unless it is in its handler, where a repeat is a
    /// documented limit.
    fn remove(&mut self, at: usize) {
        let listener = &self.listeners[at];
        let is_gone = listener.is_killed || listener.is_suspended && listener.handling.is_empty();
        if is_gone {
            let _ = self.store.delete(LISTENERS, listener.events.run().as_str());
            self.dead.insert(listener.id);
            if listener.is_killed {
                self.listeners.remove(at);
            }
        }
    }

    fn play(&mut self, [what, which, work, fails]: [u8; 4]) {
        let (what, which) = (what % 32, usize::from(which));
        self.now += Duration::from_millis(u64::from(fails % 32));
        let count = self.listeners.len();
        let notifier = which % self.notifiers.len();
        match what {
            0..3 => self.give(notifier),
            3..10 if !self.network.is_empty() => self.deliver(which % self.network.len(), what < 5),
            10 if !self.network.is_empty() => drop(self.network.remove(which % self.network.len())),
            11..14 => {
                self.now += ACK;
                self.act(notifier);
            }
            14 => self.look(notifier),
            15 if count < 4 => self.listener_comes(),
            16 if count > 0 => self.listeners[which % count].is_killed = true,
            17 if count > 0 => self.listeners[which % count].events.stop(self.now),
            18 if count > 0 => self.listeners[which % count].is_suspended ^= true,
            19 if count > 0 => self.remove(which % count),
            20 if count > 1 && fails < 32 => self.absence(which % count),
            21..32 if count > 0 => self.work(which % count, work % 5, fails % 16),
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
            for what in [2, 0, 1, 3, 0, 4] {
                if at < self.listeners.len() {
                    self.work(at, what, 9);
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
        for round in 0..3000 {
            self.round();
            if round > UPDATES && self.notifiers.iter().all(|notifier| notifier.in_flight.is_empty()) {
                return;
            }
        }
        panic!("not everything is acknowledged: {:?}", self.notifiers[0].in_flight);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_acknowledged_is_never_begun_again(choices in prop::collection::vec(any::<[u8; 4]>(), 0..2000)) {
        let mut world = World::new();
        for choice in choices {
            world.play(choice);
        }
        world.calm_down();
        world.echo();
        assert_eq!(world.begun.len() as u64, 2 * UPDATES);
    }
}
