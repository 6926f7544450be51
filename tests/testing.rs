//! The faults that the module for programs' own tests makes, as a program sees them.
#![cfg(feature = "testing")]

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use tablecast::store::Store as _;
use tablecast::testing::{Fate, FaultyStore, Network, eventually, within};
use tablecast::{Action, AddressState, DbUpdate, ErrorKind, Event, Node, Replica, RowChange, SyncReason, Table, Topic};

const LIMIT: Duration = Duration::from_secs(30);
const PORT: Table<u64> = Table::new("port");

/// A writer and a reader on one network and one store.
struct Pair {
    network: Network,
    store: Arc<FaultyStore>,
    writer: Node,
    reader: Node,
    events: Receiver<Event>,
}

impl Pair {
    fn new() -> Pair {
        let (network, store) = (Network::new(), Arc::new(FaultyStore::new()));
        let writer = network.node(store.clone()).unwrap();
        writer.publisher().unwrap();
        let reader = network.node(store.clone()).unwrap();
        let (sender, events) = unbounded();
        reader.dispatcher().unwrap().on_event(sender).detach();
        reader.subscriber().unwrap().wait_live(LIMIT).unwrap();
        Pair {
            network,
            store,
            writer,
            reader,
            events,
        }
    }

    fn put(&self, key: &str, number: u64) {
        self.writer.database().unwrap().rows(PORT).put(key, &number).unwrap();
    }

    /// The numbers of the updates, up to this one, and the sync events in between.
    fn until(&self, last: &str) -> (Vec<String>, Vec<SyncReason>) {
        let (mut numbers, mut syncs) = (Vec::new(), Vec::new());
        loop {
            match self.events.recv_timeout(LIMIT).unwrap() {
                Event::Update(update) => {
                    numbers.push(update.value.clone().unwrap_or_default());
                    if numbers.last().is_some_and(|number| number == last) {
                        return (numbers, syncs);
                    }
                }
                Event::Sync(reason) => syncs.push(reason),
                other => panic!("{other:?}"),
            }
        }
    }

    fn sync(&self, is_wanted: impl Fn(&SyncReason) -> bool) {
        loop {
            if let Event::Sync(reason) = self.events.recv_timeout(LIMIT).unwrap()
                && is_wanted(&reason)
            {
                return;
            }
        }
    }

    fn replica(&self) -> Replica {
        let replica = self.reader.replica().unwrap();
        replica.table(PORT).unwrap();
        replica.wait_synced(LIMIT).unwrap();
        replica
    }
}

#[test]
fn a_lost_update_is_a_gap_and_one_that_comes_twice_is_not_delivered_twice() {
    within(LIMIT, || {
        let pair = Pair::new();
        pair.put("a", 1);
        pair.until("1");
        pair.network.next(1, Fate::Lose);
        pair.put("a", 2);
        pair.network.next(1, Fate::Twice);
        pair.put("a", 3);
        pair.network.judge(|_| Fate::Pass);
        pair.put("a", 4);
        let (numbers, _) = pair.until("4");
        assert_eq!(numbers, ["3", "4"]);
        pair.sync(|reason| matches!(reason, SyncReason::Gap { .. }));
        assert_eq!(pair.network.lost(), 1);
        assert_eq!(pair.reader.subscriber().unwrap().stats().duplicates, 1);
    })
    .unwrap();
}

#[test]
fn each_update_of_a_batch_has_its_own_fate() {
    within(LIMIT, || {
        let pair = Pair::new();
        let update = |number: u64| DbUpdate::new("port", "a", Action::Set).value(number.to_string());
        let publisher = pair.writer.publisher().unwrap();
        pair.network.judge(|update| match update.value.as_deref() {
            Some("2") => Fate::Lose,
            _ => Fate::Pass,
        });
        publisher.send_batch(&Topic::ALL, &[1, 2, 3].map(update)).unwrap();
        let (numbers, _) = pair.until("3");
        assert_eq!(numbers, ["1", "3"]);
        assert_eq!(pair.network.lost(), 1);
    })
    .unwrap();
}

#[test]
fn an_update_is_overtaken_and_nothing_is_lost() {
    within(LIMIT, || {
        let pair = Pair::new();
        let (replica, table) = (pair.replica(), PORT);
        pair.put("a", 1);
        pair.put("b", 1);
        let ports = replica.table(table).unwrap();
        pair.network
            .judge(|update| if &*update.key == "a" { Fate::Behind } else { Fate::Pass });
        pair.put("a", 2);
        pair.put("b", 2);
        let is_right = |key: &str| ports.get(key).unwrap().is_some_and(|entry| entry.row == 2);
        eventually(LIMIT, || is_right("a") && is_right("b")).unwrap();
    })
    .unwrap();
}

#[test]
fn a_cut_is_reported_and_its_end_too() {
    within(LIMIT, || {
        let pair = Pair::new();
        let replica = pair.replica();
        let ports = replica.table(PORT).unwrap();
        pair.network.cut();
        pair.sync(|reason| matches!(reason, SyncReason::AddressLost { .. }));
        pair.put("a", 1);
        let status = pair.reader.subscriber().unwrap().status();
        assert!(
            status
                .addresses
                .iter()
                .all(|address| address.state != AddressState::Live)
        );
        pair.network.mend();
        pair.sync(|reason| matches!(reason, SyncReason::Reconnected { .. }));
        eventually(LIMIT, || ports.len() == 1).unwrap();
    })
    .unwrap();
}

#[test]
fn a_stall_is_noticed() {
    within(LIMIT, || {
        let pair = Pair::new();
        pair.network.stall();
        pair.sync(|reason| matches!(reason, SyncReason::AddressLost { .. }));
        pair.network.mend();
        pair.sync(|reason| matches!(reason, SyncReason::Reconnected { .. }));
    })
    .unwrap();
}

#[test]
fn a_store_that_fails_and_one_that_is_emptied_are_survived() {
    within(LIMIT, || {
        let pair = Pair::new();
        let replica = pair.replica();
        let ports = replica.table(PORT).unwrap();
        let (sender, changes) = unbounded();
        ports.on_change(sender).detach();
        pair.put("a", 1);
        assert!(matches!(changes.recv_timeout(LIMIT), Ok(RowChange::Added { .. })));
        pair.store.fail(ErrorKind::Unavailable);
        let database = pair.writer.database().unwrap();
        let refused = database.rows(PORT).put("a", &2).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.row()),
            (ErrorKind::Unavailable, Some(("port", "a")))
        );
        pair.store.mend();
        pair.store.empty();
        pair.put("b", 1);
        eventually(LIMIT, || {
            ports.get("a").unwrap().is_none() && ports.get("b").unwrap().is_some()
        })
        .unwrap();
    })
    .unwrap();
}

/// A publisher that is dropped and comes back is another run of it.
#[test]
fn a_publisher_is_restarted() {
    within(LIMIT, || {
        let mut pair = Pair::new();
        pair.put("a", 1);
        pair.until("1");
        pair.writer = pair.network.node(pair.store.clone()).unwrap();
        pair.put("a", 2);
        pair.until("2");
    })
    .unwrap();
}

#[test]
fn a_test_that_hangs_or_panics_fails() {
    let (_never, gate) = unbounded::<()>();
    let hangs = within(Duration::from_millis(50), move || gate.recv().is_ok());
    assert_eq!(hangs.unwrap_err().kind(), ErrorKind::Timeout);
    let panics = within(LIMIT, || panic!("no row of port-7"));
    assert!(panics.unwrap_err().to_string().contains("no row of port-7"));
    let late = eventually(Duration::from_millis(5), || false);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn what_is_held_back_comes_late_but_in_order() {
    within(LIMIT, || {
        let pair = Pair::new();
        pair.network.hold();
        (1..=3).for_each(|number| pair.put("a", number));
        assert!(!pair.events.try_iter().any(|event| matches!(event, Event::Update(_))));
        pair.network.mend();
        assert_eq!(pair.until("3").0, ["1", "2", "3"]);
    })
    .unwrap();
}

#[test]
fn every_write_is_made_though_its_reply_is_lost() {
    let store = FaultyStore::new();
    let is_lost = |kind: Option<ErrorKind>| assert_eq!(kind, Some(ErrorKind::Unconfirmed));
    store.lose_replies();
    is_lost(store.create_table("t").err().map(|e| e.kind()));
    is_lost(store.create("t", "k", "1", &Topic::ALL).err().map(|e| e.kind()));
    is_lost(store.allocate_unique_key("t").err().map(|e| e.kind()));
    assert_eq!(store.get("t", "k", None).unwrap().value, "1");
    is_lost(store.delete_table("t").err().map(|e| e.kind()));
    assert_eq!(store.tables().unwrap(), []);
    store.mend();
    assert!(store.create_table("t").unwrap());
    assert_eq!(store.allocate_unique_key("t").unwrap(), 2);
}

#[test]
fn calls_wait_for_a_store_that_is_locked() {
    within(LIMIT, || {
        let store = FaultyStore::new();
        store.lock(Duration::from_millis(20));
        assert_eq!(store.create_table("t").unwrap_err().kind(), ErrorKind::Unavailable);
        store.lock(2 * LIMIT);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| store.create_table("t"));
            store.mend();
            assert!(call.join().unwrap().unwrap());
        });
    })
    .unwrap();
}
