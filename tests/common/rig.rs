//! A subscriber with its dispatcher, whose events come through channels.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{
    Action, AddressState, DbUpdate, Dispatcher, DispatcherOptions, Publisher, Subscriber, SubscriberOptions,
    SyncReason, Topic,
};

/// More than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    // Dropped first, as a program would.
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) updates: Receiver<DbUpdate>,
    pub(crate) syncs: Receiver<SyncReason>,
}

impl Rig {
    pub(crate) fn new(driver: &Arc<dyn Driver>) -> Rig {
        Rig::with(driver, SubscriberOptions::default(), QueueOptions::default())
    }

    pub(crate) fn with(driver: &Arc<dyn Driver>, options: SubscriberOptions, queue: QueueOptions) -> Rig {
        let options_of_dispatcher = DispatcherOptions {
            queue,
            ..DispatcherOptions::default()
        };
        let dispatcher = Dispatcher::new(options_of_dispatcher).unwrap();
        let (sender, updates) = unbounded();
        dispatcher.on_update(sender).detach();
        let (sender, syncs) = unbounded();
        dispatcher.on_sync(sender).detach();
        let subscriber = Subscriber::new(Arc::clone(driver), dispatcher.queue(), options);
        Rig {
            subscriber: Arc::new(subscriber),
            dispatcher,
            updates,
            syncs,
        }
    }

    /// Registers topics and an address, starts the subscriber if necessary, and waits until it is live.
    pub(crate) fn listen(&self, topics: &[&str], address: &str) -> &Rig {
        for name in topics {
            self.subscriber.register_topic(&topic(name)).unwrap();
        }
        self.subscriber.register_listen_address(address).unwrap();
        if !self.subscriber.is_running() {
            self.subscriber.daemonize().unwrap();
        }
        self.subscriber.wait_live(LONG).unwrap();
        self
    }

    /// The addresses and their states.
    pub(crate) fn peers(&self) -> Vec<(String, AddressState)> {
        let peers = self.subscriber.status().addresses.into_iter();
        peers.map(|peer| (peer.address.to_string(), peer.state)).collect()
    }

    #[track_caller]
    pub(crate) fn next(&self) -> DbUpdate {
        self.updates.recv_timeout(LONG).expect("no update came")
    }

    /// The key of the next update.
    #[track_caller]
    pub(crate) fn next_key(&self) -> String {
        self.next().key.to_string()
    }

    #[track_caller]
    pub(crate) fn next_sync(&self) -> SyncReason {
        self.syncs.recv_timeout(LONG).expect("no sync event came")
    }

    /// The next sync event except `unproven`, which comes at any time if a publisher's answer is late or a loss was
    /// recent.
    #[track_caller]
    pub(crate) fn next_certain_sync(&self) -> SyncReason {
        let mut reasons = std::iter::repeat_with(|| self.next_sync());
        reasons.find(|reason| reason.as_str() != "unproven").unwrap()
    }

    /// Checks that the next update is the one with this key, which `send` sends. A connection keeps the order, so
    /// nothing else can still be on its way.
    #[track_caller]
    pub(crate) fn only(&self, key: &str, send: impl FnOnce()) {
        send();
        assert_eq!(self.next_key(), key);
        assert!(self.updates.is_empty());
    }
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// An update on the topic of all.
pub(crate) fn update(key: &str) -> DbUpdate {
    DbUpdate::new("row", key, Action::Set).value("{}")
}

pub(crate) fn send(publisher: &Publisher, name: &str, key: &str) {
    publisher.send_event(&update(key).topic(topic(name))).unwrap();
}

/// Runs `body` and fails if it takes longer than `limit`, on an idle machine.
#[track_caller]
pub(crate) fn quickly<T>(limit: Duration, what: &str, body: impl FnOnce() -> T) -> T {
    let watch = crate::common::Stopwatch::start();
    let result = body();
    watch.assert_within(limit, what);
    result
}
