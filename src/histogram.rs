//! A histogram of times in fixed buckets, which any thread may add to without a lock.

use std::time::Duration;

use crate::counter::Counter;

/// The upper bounds of the buckets in microseconds; one more bucket has what is above.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// A longer time counts as this, an hour: peers can make up times, and the sum must not overflow.
const LONGEST: u64 = 3600 * 1_000_000;

/// Counts of times, and their sum.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    /// In microseconds.
    sum: Counter,
}

/// The content of a histogram, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counts {
    /// The upper bound of each bucket, and the number of times that it alone has; the last bound is infinite.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Histogram {
    /// Adds a time `count` times.
    pub(crate) fn record_many(&self, micros: u64, count: u64) {
        let micros = micros.min(LONGEST);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(count);
        self.sum.add(micros.saturating_mul(count));
    }

    pub(crate) fn record(&self, time: Duration) {
        self.record_many(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), 1);
    }

    pub(crate) fn counts(&self) -> Counts {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(Counter::get);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        Counts {
            count: buckets.iter().map(|(_, count)| count).sum(),
            sum: self.sum.get() as f64 / 1e6,
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.record_many(micros, 1);
        }
        histogram.record(Duration::from_millis(1));
        let counts = histogram.counts();
        let filled = counts.buckets.iter().filter(|(_, count)| *count > 0);
        let filled: Vec<(f64, u64)> = filled.copied().collect();
        assert_eq!(
            filled,
            [(0.0001, 2), (0.00025, 1), (0.001, 1), (10.0, 1), (f64::INFINITY, 1)]
        );
        assert_eq!((counts.count, counts.sum), (6, 20.001_202));
    }
}
