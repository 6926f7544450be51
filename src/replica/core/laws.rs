//! Laws over random histories: several writers, updates that are lost, doubled, late and out of order, undo, tables
//! that are deleted, topics that come and go, pages read while rows change, and stores that fail, forget changes, and
//! go back. The promises: a replica converges (C7), its row changes are right (C8), a position includes everything up
//! to it, and no proof claims too much.

mod judge;
mod reading;
mod world;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Base, Core, Read};
use crate::clock;
use crate::histories;
use crate::store::TableVersion;
use crate::update::Topic;
use world::{CHECK_INTERVAL, Kind, Play, TIMES};
use writes::Fate;

/// The number of histories.
const HISTORIES: u64 = 10_000;

/// One history.
fn play(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let kind = match chance.u8(0..10) {
        0 => Kind::Plain,
        1 => Kind::OfTables,
        _ => Kind::Full,
    };
    let goes_back = chance.u8(0..4) == 0;
    let mut weights = histories::swarm([22, 9, 2, 1, 1, 1, 1, 1, 3, 2, 3], &mut chance);
    if !goes_back {
        weights[8..].fill(0);
    }
    let mut play = Play::new(seed, kind, CHECK_INTERVAL);
    for _ in 0..chance.usize(1..40) {
        match histories::draw(&weights, &mut chance) {
            0 => {
                let fate = match chance.u8(0..14) {
                    0 => Fate::Lost,
                    1 => Fate::Doubled,
                    2 => Fate::Unversioned,
                    3 => Fate::WithoutAfter,
                    4 => Fate::Undone,
                    5 => Fate::Polled,
                    6 => Fate::Odd,
                    _ => Fate::Told,
                };
                (0..chance.usize(1..6)).for_each(|_| play.write(fate));
            }
            1 => play.pass(Duration::from_millis(chance.u64(1..900)))?,
            2 => play.lose(),
            3 => play.delete_table(),
            4 => play.toggle_topic(),
            5 => play.toggle_store(),
            6 => play.forget_log(),
            7 => play.slow_down(),
            8 => play.go_back()?,
            9 => play.take_over()?,
            _ => play.begin_anew()?,
        }
    }
    play.calm()?;
    play.judge()?;
    Ok(play.counted())
}

#[test]
fn a_replica_is_right_after_any_history() {
    let counted = Mutex::new(BTreeMap::new());
    let played = histories::hold("any_history", HISTORIES, |seed| {
        let counts = play(seed)?;
        let mut counted = counted.lock();
        counts
            .into_iter()
            .for_each(|(what, count)| *counted.entry(what).or_insert(0) += count);
        Ok(())
    });
    // Every part is reached by some histories.
    let counted = counted.into_inner();
    for (what, count) in &counted {
        assert!(*count >= played / 100, "{what}: {counted:?}");
    }
}

/// A check interval so long that no check takes place.
const SELDOM: Duration = Duration::from_secs(3_600);

/// Updates that are only late cause no reads: the chain of updates alone moves the positions.
#[test]
fn lateness_alone_makes_nothing_be_read() {
    for seed in 0..500 {
        let mut play = Play::new(seed, Kind::Full, SELDOM);
        play.be_punctual();
        play.pass(Duration::from_secs(1)).unwrap();
        for _ in 0..20 {
            (0..5).for_each(|_| play.write(Fate::Told));
            play.pass(Duration::from_millis(40)).unwrap();
        }
        play.pass(Duration::from_secs(2)).unwrap();
        play.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let counted = play.counted();
        assert_eq!((counted["catch_ups"], counted["listings"]), (0, 2), "seed {seed}");
        play.assert_positions();
    }
}

/// A hole before a received update, or an update without a version, is filled soon, without a check.
#[test]
fn holes_and_rows_without_versions_are_filled_at_once() {
    for seed in 0..500 {
        let mut play = Play::new(seed, Kind::Full, SELDOM);
        play.be_punctual();
        play.pass(Duration::from_secs(1)).unwrap();
        for fate in [Fate::Dropped, Fate::Unversioned] {
            (0..4).for_each(|_| play.write(fate));
            if fate == Fate::Dropped {
                play.write_each_topic();
            }
            play.pass(Duration::from_secs(1)).unwrap();
            play.judge()
                .unwrap_or_else(|wrong| panic!("seed {seed}, {fate:?}: {wrong}"));
        }
        assert_eq!(play.counted()["checks"], 0, "seed {seed}");
    }
}

/// A failover loses writes whose updates have arrived, and the store was not read in between.
#[test]
fn a_loss_of_what_was_heard_is_seen() {
    for seed in 0..200 {
        let mut play = Play::new(seed, Kind::Full, CHECK_INTERVAL);
        play.be_punctual();
        (0..10).for_each(|_| play.write(Fate::Told));
        // Right after a check.
        play.pass(Duration::from_secs(1)).unwrap();
        while play.counted()["checks"] == 0 {
            play.pass(Duration::from_millis(20)).unwrap();
        }
        play.pass(Duration::from_millis(300)).unwrap();
        let before = play.back_up();
        play.write_each_topic();
        play.pass(Duration::from_millis(300)).unwrap();
        play.restore(before);
        play.calm().unwrap();
        play.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert!(play.counted()["went_back"] > 0, "seed {seed}");
    }
}

/// The store is emptied and filled again, past the old versions; then updates from before arrive.
#[test]
fn updates_from_before_a_store_went_back_do_no_harm() {
    for seed in 0..200 {
        let mut play = Play::new(seed, Kind::Full, CHECK_INTERVAL);
        (0..10).for_each(|_| play.write(Fate::Told));
        play.pass(Duration::from_secs(7)).unwrap();
        (0..10).for_each(|_| play.write(Fate::Told));
        play.hold_back(Duration::from_secs(4));
        play.pass(Duration::from_millis(100)).unwrap();
        play.restore(Default::default());
        for _ in 0..8 {
            play.write(Fate::Told);
            play.pass(Duration::from_millis(450)).unwrap();
        }
        play.pass(Duration::from_millis(600)).unwrap();
        (0..40).for_each(|_| play.write(Fate::Told));
        play.calm().unwrap();
        play.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert_eq!(
            play.counted()["went_back"],
            1,
            "seed {seed}: noticed once, and for all topics"
        );
    }
}

/// A failover loses the last writes, and others are made before the next check, which nobody hears of: as many, which the
/// tip of the table shows, or one more on another server.
fn lose_writes(seed: u64, is_another_server: bool) -> Play {
    let mut play = Play::new(seed, Kind::Full, CHECK_INTERVAL);
    play.be_punctual();
    (0..10).for_each(|_| play.write(Fate::Told));
    play.pass(2 * CHECK_INTERVAL).unwrap();
    let before = play.back_up();
    (0..4).for_each(|_| play.write(Fate::Told));
    play.pass(2 * CHECK_INTERVAL).unwrap();
    let wanted = play.back_up().version + u64::from(is_another_server);
    play.restore(before);
    play.source += u64::from(is_another_server);
    while play.back_up().version < wanted {
        play.write(Fate::Dropped);
    }
    play.calm().unwrap();
    play.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    play
}

#[test]
fn as_many_other_writes_show_that_the_store_went_back() {
    for seed in 0..200 {
        let play = lose_writes(seed, false);
        assert!(play.counted()["went_back"] > 0, "seed {seed}");
    }
}

#[test]
fn another_server_shows_that_writes_may_be_lost() {
    for seed in 0..200 {
        lose_writes(seed, true);
    }
}

/// A failover loses the last writes, and as many others are made and published before the next check. An update that is
/// not newer than the position, but newer than its row, shows it.
#[test]
fn writes_of_another_history_show_that_the_store_went_back() {
    let mut seen = 0;
    for seed in 0..200 {
        let mut play = Play::new(seed, Kind::Full, SELDOM);
        play.be_punctual();
        (0..10).for_each(|_| play.write(Fate::Told));
        play.pass(Duration::from_secs(1)).unwrap();
        let before = play.back_up();
        (0..4).for_each(|_| play.write(Fate::Told));
        play.pass(Duration::from_secs(1)).unwrap();
        play.restore(before);
        (0..4).for_each(|_| play.write(Fate::Told));
        play.pass(Duration::from_secs(2)).unwrap();
        if play.counted()["went_back"] > 0 {
            seen += 1;
            play.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        }
    }
    assert!(seen > 50, "{seen} of 200");
}

/// A check whose answer comes during the first listing counts at its end, or after a catch-up to what it found.
#[test]
fn a_check_during_the_first_listing_counts() {
    let now = clock::now();
    let asked = now + Duration::from_millis(1);
    let base = |version| {
        Base::of_table(TableVersion {
            incarnation: 1,
            version,
            tip: 0,
            source: 1,
        })
    };
    for found in [0, 2] {
        let mut core = Core::<()>::new(TIMES, 0, now);
        let topic = Topic::new("a").unwrap();
        core.add_topic(&topic, now);
        let Some(Read::Listing { id, .. }) = core.poll(now) else {
            panic!()
        };
        core.demand(asked);
        let Some(Read::Versions { id: check, .. }) = core.poll(asked) else {
            panic!()
        };
        core.begin_listing(id, &topic, Some(base(0)), [], asked);
        core.take_versions(check, Some(&[base(found)]), asked);
        assert!(core.end_listing(id, &topic).is_empty());
        core.end_sweep(id, &topic, asked);
        assert_eq!(core.is_current(asked), found == 0);
        if let Some(Read::Changes { id, .. }) = core.poll(asked) {
            core.end_changes(id, &topic, base(found).version, asked);
        }
        assert!(core.is_current(asked), "{found}");
    }
}
