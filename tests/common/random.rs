//! Random numbers whose seed is printed.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::time::Duration;

/// Random numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    /// Prints its seed, or takes the one in `TABLECAST_TEST_SEED`.
    pub(crate) fn new(what: &str) -> Random {
        let given = std::env::var("TABLECAST_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or(now.unwrap_or(Duration::ZERO).as_nanos() as u64);
        println!("{what}: TABLECAST_TEST_SEED={seed}");
        Random(seed)
    }

    /// The numbers of this seed.
    pub(crate) fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed from which the following numbers come again.
    pub(crate) fn seed(&self) -> u64 {
        self.0
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// One of these, by their weights, which are not all 0.
    pub(crate) fn among(&mut self, weights: &[usize]) -> usize {
        let mut at = self.below(weights.iter().sum());
        let is_it = |weight: &usize| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        };
        weights.iter().position(is_it).unwrap()
    }

    pub(crate) fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.next() as u8).collect()
    }
}
