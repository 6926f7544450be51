//! The rows of `top`, and their order and choice.

use std::cmp::Ordering;
use std::time::Duration;

use serde::Serialize;

use crate::terminal::Kind;

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What it is about: an address, a topic, a publisher, a replica or a listener.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) state: String,
    /// Updates per second.
    pub(crate) rate: Option<f64>,
    /// From send to callback, in milliseconds.
    pub(crate) lag_ms: Option<f64>,
    pub(crate) waiting: Option<u64>,
    /// The staleness of a replica, in milliseconds.
    pub(crate) stale_ms: Option<u64>,
    /// Milliseconds since the last sign of life.
    pub(crate) seen_ms: Option<u64>,
    pub(crate) detail: String,
}

/// The head of the table.
pub(crate) const HEAD: [&str; 9] = [
    "kind", "name", "state", "rate/s", "lag ms", "waiting", "stale s", "seen s", "detail",
];

impl Row {
    pub(crate) fn new(kind: &'static str, name: &str, state: &str) -> Row {
        Row {
            kind,
            name: name.to_owned(),
            state: state.to_owned(),
            rate: None,
            lag_ms: None,
            waiting: None,
            stale_ms: None,
            seen_ms: None,
            detail: String::new(),
        }
    }

    pub(crate) fn seen(self, age: Duration) -> Row {
        Row {
            seen_ms: Some(millis(age)),
            ..self
        }
    }

    pub(crate) fn cells(&self) -> [String; 9] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.1}"));
        let seconds = |ms: Option<u64>| number(ms.map(|ms| ms as f64 / 1000.0));
        [
            self.kind.to_owned(),
            self.name.clone(),
            self.state.clone(),
            number(self.rate),
            number(self.lag_ms),
            self.waiting.map_or_else(|| "-".into(), |waiting| waiting.to_string()),
            seconds(self.stale_ms),
            seconds(self.seen_ms),
            self.detail.clone(),
        ]
    }

    /// The colour: whether it is as it should be.
    pub(crate) fn look(&self) -> Kind {
        match self.state.as_str() {
            "live" | "alive" => Kind::Good,
            "unconfirmed" | "unknown" | "leaving" => Kind::Changed,
            "-" => Kind::Plain,
            _ => Kind::Bad,
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The column that decides on the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Kind,
    Name,
    Rate,
    Lag,
    Waiting,
    Stale,
    Seen,
}

impl Sort {
    /// The order that a key chooses.
    pub(crate) fn of_key(key: char) -> Option<Sort> {
        Some(match key {
            'k' => Sort::Kind,
            'n' => Sort::Name,
            'r' => Sort::Rate,
            'l' => Sort::Lag,
            'w' => Sort::Waiting,
            't' => Sort::Stale,
            's' => Sort::Seen,
            _ => return None,
        })
    }

    /// Names rise; numbers fall, and rows without one come last.
    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let falling = |number: fn(&Row) -> Option<f64>| {
            let key = |row| number(row).unwrap_or(-1.0);
            key(other).total_cmp(&key(one))
        };
        match self {
            Sort::Kind => Ordering::Equal,
            Sort::Name => one.name.cmp(&other.name),
            Sort::Rate => falling(|row| row.rate),
            Sort::Lag => falling(|row| row.lag_ms),
            Sort::Waiting => falling(|row| row.waiting.map(|waiting| waiting as f64)),
            Sort::Stale => falling(|row| row.stale_ms.map(|ms| ms as f64)),
            Sort::Seen => falling(|row| row.seen_ms.map(|ms| ms as f64)),
        }
    }
}

/// The rows with this text in some cell, in this order. Equal ones stay in the order of kinds.
pub(crate) fn arrange(rows: &[Row], sort: Sort, filter: &str) -> Vec<Row> {
    let wanted = filter.to_lowercase();
    let has = |row: &&Row| row.cells().iter().any(|cell| cell.to_lowercase().contains(&wanted));
    let mut chosen: Vec<Row> = rows.iter().filter(has).cloned().collect();
    chosen.sort_by(|one, other| sort.compare(one, other));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &'static str, name: &str, rate: Option<f64>) -> Row {
        Row {
            rate,
            ..Row::new(kind, name, "live")
        }
    }

    #[test]
    fn rows_are_sorted_and_chosen() {
        let rows = [
            row("topic", "b", None),
            row("topic", "c", Some(2.0)),
            row("listener", "a", Some(10.0)),
        ];
        let names = |sort, filter: &str| {
            let chosen = arrange(&rows, sort, filter).into_iter();
            chosen.map(|row| row.name).collect::<String>()
        };
        assert_eq!(names(Sort::Kind, ""), "bca");
        assert_eq!(names(Sort::Name, ""), "abc");
        assert_eq!(names(Sort::Rate, ""), "acb");
        assert_eq!(names(Sort::Rate, "TOPIC"), "cb");
        assert_eq!(names(Sort::Lag, "10.0"), "a");
        assert_eq!(names(Sort::Lag, "nothing"), "");
        assert_eq!(Sort::of_key('r'), Some(Sort::Rate));
        assert_eq!(Sort::of_key('x'), None);
    }
}
