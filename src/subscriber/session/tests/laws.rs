//! Laws over random histories: publishers behind two addresses, links that lose, stall, cut and break, topics and
//! addresses that come and go, subscribers that stop and start, or are suspended, an address without a publisher. The
//! promises are order (C1), no number twice (C2), no silent loss (C3), and no callback for other topics (C4).

mod play;

use super::*;
use crate::config::Resubscribe;
use crate::histories::{self, Weights};
use play::{Kind, Link, Play};

/// The shares of [`act`].
const SHARES: Weights<13> = [6, 6, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];

fn any_kind(chance: &mut fastrand::Rng) -> Kind {
    let mut kind = Kind {
        has_counts: chance.u8(0..4) > 0,
        is_mirrored: chance.u8(0..8) == 0,
        is_doubled: chance.u8(0..8) == 0,
        most: if chance.bool() { 256 } else { chance.usize(1..3) },
        ..Kind::default()
    };
    if chance.u8(0..4) == 0 {
        kind.addresses.push("nobody");
    }
    if chance.u8(0..4) == 0 {
        kind.options.resubscribe = Resubscribe::Manual;
    }
    kind
}

/// How often each kind of operation is drawn, and at which publishers and topics: few, or all.
struct Swarm {
    weights: Weights<13>,
    publishers: Vec<usize>,
    topics: Vec<usize>,
}

impl Swarm {
    fn new(chance: &mut fastrand::Rng) -> Swarm {
        let (publishers, topics) = (chance.usize(1..=4), chance.usize(1..=3));
        Swarm {
            weights: histories::swarm(SHARES, chance),
            publishers: (0..publishers).map(|_| chance.usize(0..4)).collect(),
            topics: (0..topics).map(|_| chance.usize(0..3)).collect(),
        }
    }
}

fn act(play: &mut Play, swarm: &Swarm, chance: &mut fastrand::Rng) {
    let publisher = swarm.publishers[chance.usize(0..swarm.publishers.len())];
    let topic = swarm.topics[chance.usize(0..swarm.topics.len())];
    let address = if chance.bool() {
        publisher / 2
    } else {
        chance.usize(0..2)
    };
    match histories::draw(&swarm.weights, chance) {
        0 => play.send(publisher, topic, chance.usize(1..80), false),
        1 => play.pass(match chance.u8(0..20) {
            0 => chance.u64(1..90_000),
            1..8 => chance.u64(1..200),
            _ => chance.u64(1..7_000),
        }),
        2 => {
            play.wires[address].link = match chance.u8(0..7) {
                0 => Link::Good,
                1 => Link::Slow(chance.u64(1..6_000)),
                2 => Link::Lossy(chance.u8(10..=100)),
                3 => Link::Deaf,
                4 | 5 => Link::Choosy(chance.u8(1..16)),
                _ => Link::Cut,
            }
        }
        3 => play.disconnect(address),
        4 => {
            play.end(publisher, chance.bool());
            play.begin(publisher);
        }
        5 => play.register(topic),
        6 => play.unregister(topic),
        7 => play.stop(chance.u64(1..5_000)),
        8 => play.send(publisher, topic, chance.usize(1..3), true),
        9 => play.end(publisher, chance.bool()),
        10 => play.toggle_address(address, chance.bool()),
        11 => play.suspend(chance.u64(1..9_000)),
        _ => play.toggle_refusal(chance.usize(0..4)),
    }
}

/// Loses the last updates of a publisher, which may end or begin anew then: no later operation hides it.
fn lose_last(play: &mut Play, chance: &mut fastrand::Rng) {
    let publisher = chance.usize(0..4);
    // A loss can be told only if its publisher is heard again, or was lately.
    play.wires.iter_mut().for_each(|wire| wire.link = Link::Good);
    play.pass(3_000);
    play.send(publisher, chance.usize(0..3), chance.usize(1..3), chance.bool());
    if chance.bool() {
        play.end(publisher, chance.bool());
        if chance.bool() {
            play.begin(publisher);
        }
    }
}

#[test]
fn no_loss_is_silent_and_nothing_comes_twice_or_out_of_order() {
    histories::hold("no_loss_is_silent", 1_000, |seed| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let (kind, swarm) = (any_kind(&mut chance), Swarm::new(&mut chance));
        let mut play = Play::new(seed, kind);
        for _ in 0..chance.usize(1..40) {
            act(&mut play, &swarm, &mut chance);
        }
        lose_last(&mut play, &mut chance);
        play.calm();
        play.judge()
    });
}

/// The updates of a frame are taken together only where each would be taken on its own.
#[test]
fn frames_that_are_taken_whole_make_no_difference() {
    histories::hold("frames_that_are", 300, |seed| {
        let [whole, thorough] = [false, true].map(|is_thorough| {
            let mut chance = fastrand::Rng::with_seed(seed);
            let (mut kind, swarm) = (any_kind(&mut chance), Swarm::new(&mut chance));
            kind.is_thorough = is_thorough;
            let mut play = Play::new(seed, kind);
            for _ in 0..chance.usize(1..40) {
                act(&mut play, &swarm, &mut chance);
            }
            play.calm();
            // The time of receipt is not the session's.
            let numbers = play
                .deliveries
                .iter()
                .map(|update| (update.topic.clone(), update.origin.clone()));
            (numbers.collect::<Vec<_>>(), play.syncs, play.world.session.stats())
        });
        match whole == thorough {
            true => Ok(()),
            false => Err(format!("{whole:?}\n{thorough:?}")),
        }
    });
}

/// Under load alone every late message arrives, and nothing is reported.
#[test]
fn lateness_alone_is_never_told() {
    histories::hold("lateness_alone_is_never_told", 300, |seed| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let weights = [(); 4].map(|()| u32::from(chance.u8(1..)));
        let mut play = Play::new(seed, Kind::default());
        for _ in 0..chance.usize(1..40) {
            match histories::draw(&weights, &mut chance) {
                0 => play.send(chance.usize(0..4), chance.usize(0..3), chance.usize(1..80), false),
                1 => play.pass(chance.u64(1..7_000)),
                2 => play.wires[chance.usize(0..2)].link = Link::Slow(chance.u64(1..60_000)),
                _ => play.register(chance.usize(0..3)),
            }
        }
        play.calm();
        play.pass(60_000);
        play.judge()?;
        let told: Vec<_> = play.syncs.iter().map(|(_, reason)| reason.clone()).collect();
        let (came, sent) = (play.deliveries.len(), play.sent.len());
        match told == [connected("one"), connected("two")] && came == sent {
            true => Ok(()),
            false => Err(format!("{came} of {sent} came; told: {told:?}")),
        }
    });
}

/// One lost burst is reported once.
#[test]
fn one_loss_is_told_once() {
    histories::hold("one_loss_is_told_once", 300, |seed| {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut play = Play::new(seed, Kind::default());
        let send = |play: &mut Play, chance: &mut fastrand::Rng| {
            play.send(chance.usize(0..4), chance.usize(0..3), chance.usize(1..80), false);
        };
        for _ in 0..chance.usize(0..6) {
            send(&mut play, &mut chance);
            play.pass(chance.u64(1..3_000));
        }
        play.send(chance.usize(0..4), chance.usize(0..3), chance.usize(1..80), true);
        for _ in 0..chance.usize(0..6) {
            play.pass(chance.u64(1..3_000));
            send(&mut play, &mut chance);
        }
        play.calm();
        play.judge()?;
        match play.syncs.len() {
            3 => Ok(()),
            _ => Err(format!("{:?}", play.syncs)),
        }
    });
}
