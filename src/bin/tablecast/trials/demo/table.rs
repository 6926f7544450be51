//! The table of results.

use std::fmt;

use super::judge::Verdict;
use super::ledger::History;

/// One row for each subscriber.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// With the comparison with the store.
    stored: bool,
}

const COLUMNS: [&str; 12] = [
    "#", "topics", "sent", "got", "lost", "double", "order", "stray", "per s", "p50", "p99", "max ms",
];

/// Columns for a run with a store.
const STORED: [&str; 2] = ["rows", "differ"];

impl Table {
    pub(super) fn new(stored: bool) -> Table {
        Table {
            rows: Vec::new(),
            stored,
        }
    }

    /// Adds a row; `differ` is the number of rows that differ from the store's.
    pub(super) fn add(&mut self, topics: String, verdict: &Verdict, history: &History, differ: usize) {
        let number = self.rows.len() + 1;
        let numbers = [
            verdict.sent,
            verdict.delivered,
            verdict.lost,
            verdict.duplicated,
            verdict.out_of_order,
            verdict.stray,
            history.rate as u64,
        ];
        let [sent, delivered, lost, duplicated, out_of_order, stray, rate] = numbers.map(|number| number.to_string());
        let [p50, p99, max] = [history.p50, history.p99, history.max].map(|us| format!("{:.2}", us as f64 / 1e3));
        let number = number.to_string();
        let mut row = vec![
            number,
            topics,
            sent,
            delivered,
            lost,
            duplicated,
            out_of_order,
            stray,
            rate,
            p50,
            p99,
            max,
        ];
        if self.stored {
            row.extend([history.rows.len(), differ].map(|number| number.to_string()));
        }
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = STORED.iter().filter(|_| self.stored);
        let head = COLUMNS.iter().chain(stored).map(|name| (*name).to_owned()).collect();
        let rows = || [&head].into_iter().chain(&self.rows);
        for row in rows() {
            for (column, cell) in row.iter().enumerate() {
                let width = rows().map(|row| row[column].len()).max().unwrap_or(0);
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    1 => write!(f, "  {cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
