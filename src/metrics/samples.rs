//! Samples of the series, and their text.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::collect::collect;
use super::series::{Kind, Series, series};
use crate::histogram::Counts;
use crate::node::Running;

/// A longer value of a label is cut.
const MAX_LABEL: usize = 128;

/// The samples of one scrape. Each has the values of its series' labels.
#[derive(Default)]
pub(super) struct Samples(BTreeMap<&'static str, Vec<(Vec<String>, Value)>>);

enum Value {
    Count(u64),
    Gauge(f64),
    Histogram(Counts),
}

impl Samples {
    pub(super) fn count(&mut self, series: &Series, labels: &[&str], value: u64) {
        self.put(series, labels, Value::Count(value));
    }

    pub(super) fn gauge(&mut self, series: &Series, labels: &[&str], value: f64) {
        self.put(series, labels, Value::Gauge(value));
    }

    pub(super) fn histogram(&mut self, series: &Series, labels: &[&str], value: Counts) {
        self.put(series, labels, Value::Histogram(value));
    }

    fn put(&mut self, series: &Series, labels: &[&str], value: Value) {
        let labels = labels.iter().map(|label| cut(label)).collect();
        self.0.entry(series.name).or_default().push((labels, value));
    }

    fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for series in series() {
            let Some(samples) = self.0.get(series.name) else {
                continue;
            };
            let (name, kind) = match series.kind {
                // The encoder adds the suffix.
                Kind::Counter => (series.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (series.name, MetricType::Gauge),
                Kind::Histogram => (series.name, MetricType::Histogram),
            };
            let mut family = encoder.encode_descriptor(name, series.help, None, kind)?;
            for (values, value) in samples {
                let labels = series.labels.iter().copied().zip(values.iter().map(String::as_str));
                let labels: Vec<(&str, &str)> = labels.collect();
                value.write(&mut family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn write(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => encoder.encode_counter(count, None::<&Exemplar<NoLabelSet, u64>>),
            Value::Gauge(gauge) => encoder.encode_gauge(gauge),
            Value::Histogram(counts) => {
                encoder.encode_histogram::<NoLabelSet>(counts.sum, counts.count, &counts.buckets, None)
            }
        }
    }
}

/// The value of a label; a long one is cut, and a sum of the whole keeps it apart from others.
fn cut(label: &str) -> String {
    if label.len() <= MAX_LABEL {
        return label.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    label.hash(&mut hasher);
    let end = (0..=MAX_LABEL - 18).rev().find(|end| label.is_char_boundary(*end));
    let begin = &label[..end.unwrap_or(0)];
    format!("{begin}..{:016x}", hasher.finish())
}

/// Takes samples whenever the metrics are written.
pub(super) struct Collector(pub(super) Arc<Mutex<Running>>);

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = Samples::default();
        collect(&self.0, &mut samples);
        samples.write(&mut encoder)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_stay_short_and_apart() {
        let long = "ä".repeat(1000);
        let longer = format!("{long}b");
        assert_eq!(cut(&long[..MAX_LABEL]), long[..MAX_LABEL]);
        assert!(cut(&long).len() <= MAX_LABEL && cut(&long).starts_with("ää"));
        assert_ne!(cut(&long), cut(&longer));
    }
}
