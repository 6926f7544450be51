//! The printed results of storms.

use std::fmt::Write as _;

use super::round::Outcome;
use crate::terminal;

/// A row for each storm, and a comparison of them.
pub(super) fn text(outcomes: &[Outcome]) -> String {
    let head = [
        "nodes",
        "updates",
        "listeners",
        "workers",
        "online s",
        "took s",
        "updates/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "retries",
        "lost",
        "again",
        "chi-squared",
        "cores",
        "processed by each",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(outcomes.iter().map(row));
    let mut text = terminal::table(&rows);
    text.push_str(
        "\nThe latency is from an update to its acknowledgement, and in a storm mostly waiting. cores: processors that a \
         listener keeps busy, on average.\n",
    );
    if let (Some(most_nodes), Some(most_listeners), Some(first)) = (
        outcomes.iter().map(|outcome| outcome.round.nodes).max(),
        outcomes.iter().map(|outcome| outcome.round.listeners).max(),
        outcomes.first(),
    ) {
        let workers = first.round.workers;
        let plain = || outcomes.iter().filter(move |outcome| outcome.round.workers == workers);
        let by_listeners = plain().filter(|outcome| outcome.round.nodes == most_nodes);
        growth(&mut text, "listeners", by_listeners, |outcome| outcome.round.listeners);
        let by_nodes = plain().filter(|outcome| outcome.round.listeners == most_listeners);
        growth(&mut text, "nodes", by_nodes, |outcome| outcome.round.nodes);
        let by_workers = outcomes.iter().filter(|outcome| {
            (outcome.round.nodes, outcome.round.listeners) == (first.round.nodes, first.round.listeners)
        });
        growth(&mut text, "workers", by_workers, |outcome| outcome.round.workers);
    }
    text
}

fn row(outcome: &Outcome) -> [String; 16] {
    let round = &outcome.round;
    let ms = |share| format!("{:.1}", outcome.latency.quantile(share) as f64 / 1e3);
    let cores = outcome.cores.iter().fold(0.0, |sum, cores| sum + cores) / outcome.cores.len().max(1) as f64;
    let handled: Vec<_> = outcome.handled.iter().map(ToString::to_string).collect();
    [
        round.nodes.to_string(),
        round.updates().to_string(),
        round.listeners.to_string(),
        round.workers.to_string(),
        format!("{:.2}", outcome.online.as_secs_f64()),
        format!("{:.2}", outcome.took.as_secs_f64()),
        format!("{:.0}", per_second(outcome)),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        outcome.retried.to_string(),
        outcome.lost.to_string(),
        outcome.again.to_string(),
        format!("{:.2}", chi_squared(&outcome.handled)),
        format!("{cores:.2}"),
        handled.join(" "),
    ]
}

fn per_second(outcome: &Outcome) -> f64 {
    outcome.round.updates() as f64 / outcome.took.as_secs_f64()
}

/// The distance of the shares from even ones; with fair lots about one less than the number of shares.
fn chi_squared(shares: &[usize]) -> f64 {
    let even = shares.iter().sum::<usize>() as f64 / shares.len().max(1) as f64;
    let far = |share: &usize| (*share as f64 - even).powi(2) / even.max(1.0);
    shares.iter().map(far).sum()
}

/// Adds a line that compares load, latency and retries for the fewest and the most.
fn growth<'a>(
    text: &mut String,
    of: &str,
    outcomes: impl Iterator<Item = &'a Outcome>,
    number: impl Fn(&Outcome) -> usize,
) {
    let mut outcomes: Vec<_> = outcomes.collect();
    outcomes.sort_by_key(|outcome| number(outcome));
    let (Some(few), Some(many)) = (outcomes.first(), outcomes.last()) else {
        return;
    };
    if number(few) == number(many) {
        return;
    }
    let load = |outcome: &Outcome| outcome.handled.iter().copied().max().unwrap_or(0);
    let p99 = |outcome: &Outcome| outcome.latency.quantile(0.99) as f64 / 1e3;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{of} {} -> {}: the most for one listener {} -> {}, p99 {:.0} -> {:.0} ms, retries {} -> {}, updates/s {:.0} -> {:.0}",
        number(few),
        number(many),
        load(few),
        load(many),
        p99(few),
        p99(many),
        few.retried,
        many.retried,
        per_second(few),
        per_second(many),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenness() {
        assert_eq!(chi_squared(&[5, 5, 5]), 0.0);
        assert_eq!(chi_squared(&[]), 0.0);
        assert!((chi_squared(&[10, 20]) - 10.0 / 3.0).abs() < 1e-9);
    }
}
