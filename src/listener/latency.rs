//! A histogram of latencies in bounded memory, with percentiles at most 3 % too high.

#[cfg(feature = "metrics")]
use crate::histogram::{Counts, Histogram};

/// Values below this have a bucket each; above, each doubling has half as many buckets.
const EXACT: u64 = 64;

/// A histogram of durations in microseconds; a few kilobytes, however many samples.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// The number of values of each bucket; grown on demand, to at most about two thousand.
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Latency {
    /// Adds a sample.
    pub fn record(&mut self, micros: u64) {
        let bucket = bucket_of(micros);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Latency) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (bucket, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += count;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The longest sample; 0 without samples.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The upper bound of this share of the samples, from 0 to 1, at most 3 % too high; 0 without samples.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut rest = (self.count as f64 * share).ceil() as u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            if *count >= rest {
                return highest_in(bucket).min(self.max);
            }
            rest -= count;
        }
        self.max
    }
}

#[cfg(feature = "metrics")]
impl Latency {
    /// The samples in the buckets of metrics.
    pub(crate) fn counts(&self) -> Counts {
        let histogram = Histogram::default();
        for (bucket, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            histogram.record_many(highest_in(bucket).min(self.max), *count);
        }
        histogram.counts()
    }
}

fn bucket_of(value: u64) -> usize {
    // A value's highest six bits are kept.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(EXACT.trailing_zeros());
    (u64::from(shift) * (EXACT / 2) + (value >> shift)) as usize
}

fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / (EXACT / 2)).saturating_sub(1);
    let top = bucket - shift * (EXACT / 2);
    (top << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buckets_hold_their_values(value in 0..1u64 << 50) {
            let highest = highest_in(bucket_of(value));
            prop_assert!(value <= highest && highest - value <= value / 32, "{value} {highest}");
            prop_assert!(bucket_of(highest) == bucket_of(value) && bucket_of(highest + 1) == bucket_of(value) + 1);
        }

        #[test]
        fn merged_is_counted_together(
            one in proptest::collection::vec(0..1u64 << 30, 0..50),
            other in proptest::collection::vec(0..1u64 << 30, 0..50),
            share in 0.0..=1.0,
        ) {
            let counted = |values: &[u64]| {
                let mut latency = Latency::default();
                values.iter().for_each(|value| latency.record(*value));
                latency
            };
            let mut merged = counted(&one);
            merged.merge(&counted(&other));
            let together = counted(&[one, other].concat());
            prop_assert_eq!(merged.quantile(share), together.quantile(share));
            prop_assert_eq!(merged.max(), together.max());
        }
    }

    #[test]
    fn quantiles() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), 0);
        (1..=100).for_each(|micros| latency.record(micros));
        assert_eq!(
            (latency.quantile(0.5), latency.quantile(0.99), latency.max()),
            (50, 99, 100)
        );
    }
}
