//! The cost of a call must not depend on other tables and topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tablecast::{Store, Topic};

use crate::Setup;
use crate::suite::{all, topic};

/// Rows of the measured topic, and other rows.
const MINE: usize = 100;
const OTHERS: usize = 8_000;

const PATIENCE: Duration = Duration::from_secs(20);

/// The shortest time of `call`, since the machine's other work only adds to it.
fn least(mut call: impl FnMut()) -> Duration {
    let time = || {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    std::iter::repeat_with(time).take(15).min().unwrap()
}

/// Calls with the times that they took.
fn measure(store: &dyn Store, mine: &Topic) -> BTreeMap<&'static str, Duration> {
    BTreeMap::from([
        (
            "entries of a topic",
            least(|| assert_eq!(all(store.entries("t", Some(mine))).len(), MINE)),
        ),
        (
            "keys of a topic",
            least(|| assert_eq!(all(store.keys("t", Some(mine))).len(), MINE)),
        ),
        (
            "entries of a table",
            least(|| assert_eq!(all(store.entries("small", None)).len(), MINE)),
        ),
        (
            "keys of a table",
            least(|| assert_eq!(all(store.keys("small", None)).len(), MINE)),
        ),
        (
            "gets",
            least(|| {
                (0..MINE).for_each(|number| assert!(store.get("t", &format!("mine{number}"), Some(mine)).is_ok()));
            }),
        ),
    ])
}

pub(crate) fn costs_what_it_returns(setup: Setup) {
    let store = setup.open();
    let mine = topic("mine");
    for number in 0..MINE {
        store.create("t", &format!("mine{number}"), "value", &mine).unwrap();
        store
            .create("small", &format!("{number}"), "value", &Topic::ALL)
            .unwrap();
    }
    let before = measure(&*store, &mine);
    for number in 0..OTHERS {
        let (table, name) = if number % 2 == 0 {
            ("t", "other")
        } else {
            ("large", "mine")
        };
        store
            .create(table, &format!("{number}"), "value", &topic(name))
            .unwrap();
    }
    let mut after = measure(&*store, &mine);
    let deadline = Instant::now() + PATIENCE;
    // Looking at the other rows would cost forty times as much, always; other work of the machine only now and then.
    let ratio = |(before, after): (&Duration, &Duration)| after.as_secs_f64() / before.as_secs_f64();
    while before.values().zip(after.values()).map(ratio).any(|ratio| ratio > 5.0) {
        assert!(
            Instant::now() < deadline,
            "{before:?}, beside {OTHERS} other rows {after:?}"
        );
        for (what, again) in measure(&*store, &mine) {
            after.entry(what).and_modify(|least| *least = again.min(*least));
        }
    }
    println!("{before:?}, beside {OTHERS} other rows {after:?}");
}
