//! Random histories, for the laws in unit tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The share of each kind of operation.
pub(crate) type Weights<const N: usize> = [u32; N];

/// Other shares for one history: it does some things very often, and many or a few never. So what one thing does is not
/// hidden by what others do later.
pub(crate) fn swarm<const N: usize>(shares: Weights<N>, chance: &mut fastrand::Rng) -> Weights<N> {
    let never = chance.u8(0..4);
    shares.map(|share| match chance.u8(0..4) < never {
        true => 0,
        false => share * u32::from(chance.u8(1..)),
    })
}

/// Draws an operation.
pub(crate) fn draw(weights: &[u32], chance: &mut fastrand::Rng) -> usize {
    let mut left = chance.u32(0..weights.iter().sum::<u32>().max(1));
    let drawn = weights.iter().position(|weight| match left.checked_sub(*weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    drawn.unwrap_or_default()
}

/// Holds a law against this many histories with random seeds, or against the one of `TABLECAST_SEED`. Returns how many
/// there were.
pub(crate) fn hold(test: &str, histories: u64, law: impl Fn(u64) -> Result<(), String>) -> u64 {
    let again = std::env::var("TABLECAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let (base, histories) = again.map_or((fastrand::u64(..), histories), |seed| (seed, 1));
    for number in 0..histories {
        let seed = base.wrapping_add(number);
        let wrong = match catch_unwind(AssertUnwindSafe(|| law(seed))) {
            Ok(Ok(())) => continue,
            Ok(Err(wrong)) => wrong,
            Err(_) => "it panicked".into(),
        };
        panic!("{wrong}\nto play it again: TABLECAST_SEED={seed} cargo test --lib {test}");
    }
    histories
}
