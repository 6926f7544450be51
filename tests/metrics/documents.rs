//! The documentation of the metrics, and the files for Prometheus and Grafana, against the table of series.

use tablecast::metrics::{Kind, Series, series};

use crate::dashboard::panels;

#[test]
fn the_page_has_every_series() {
    let row = |series: &&Series| {
        let labels = match series.labels {
            [] => "-".to_owned(),
            labels => labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let name = series.name.trim_start_matches("tablecast_");
        format!("| `{name}` | {} | {labels} | {} |", series.kind, series.help)
    };
    let rows: Vec<String> = series().iter().map(row).collect();
    let head = "| `tablecast_..` | kind | labels | meaning |\n|---|---|---|---|";
    let table = format!("{head}\n{}\n", rows.join("\n"));
    assert!(
        include_str!("../../src/docs/metrics.md").contains(&table),
        "src/docs/metrics.md should show:\n{table}"
    );
}

const ALERTS: &str = include_str!("../../contrib/prometheus/alerts.yml");

/// The expressions of the alerts.
fn rules() -> impl Iterator<Item = &'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: "))
}

/// All queries: those of the alerts, and those of the dashboard's panels.
pub(crate) fn queries() -> Vec<String> {
    let mut queries = panels();
    queries.extend(rules().map(str::to_owned));
    queries
}

/// What queries choose by the values of the series' labels: the name of the series, the label, and a value.
#[cfg(feature = "zmq")]
pub(crate) fn choices() -> Vec<(String, String, String)> {
    let mut choices = Vec::new();
    for query in queries() {
        for (before, rest) in query.match_indices('{').map(|(at, _)| (&query[..at], &query[at + 1..])) {
            let name = words(before).last().unwrap();
            let (chosen, _) = rest.split_once('}').unwrap();
            for one in chosen.split(',') {
                let (label, values) = one.split_once('=').unwrap();
                let values = values.trim_start_matches('~').trim_matches('"');
                let known = |series: &&&Series| series.name == name && series.labels.contains(&label);
                if series().iter().any(|series| known(&series)) {
                    choices.extend(values.split('|').map(|value| (name.into(), label.into(), value.into())));
                }
            }
        }
    }
    assert!(choices.len() > 5, "{choices:?}");
    choices
}

/// The tests of the alerts, which promtool runs.
const ALERT_TESTS: &str = include_str!("alerts.yml");

#[test]
fn each_alert_is_seen_to_come() {
    let names = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let expected = format!("alertname: {name}\n        exp_alerts:\n");
        assert!(ALERT_TESTS.contains(&expected), "{name} is not tested");
    }
}

#[test]
fn alerts_and_dashboard_name_only_what_is_there() {
    for query in queries() {
        // Prometheus has that one of each process.
        let mut count = words(&query).filter(|word| *word == "up").count();
        for name in words(&query).filter(|word| word.starts_with("tablecast_")) {
            count += 1;
            let is_known = |series: &&&Series| match series.kind {
                Kind::Histogram => name.strip_suffix("_bucket") == Some(series.name),
                _ => name == series.name,
            };
            let series = series().iter().find(is_known);
            let series = series.unwrap_or_else(|| panic!("no series {name} in {query}"));
            // Labels that Prometheus adds, and those of the series.
            let labels = ["instance", "le"].iter().chain(series.labels);
            let labels: Vec<&str> = labels.copied().collect();
            let by = query.split_once(" by (").and_then(|(_, rest)| rest.split_once(')'));
            for label in by.into_iter().flat_map(|(by, _)| words(by)) {
                assert!(labels.contains(&label), "{label} in {query}");
            }
        }
        assert!(count > 0, "{query}");
    }
}

#[test]
fn what_goes_wrong_has_an_alert() {
    let wrong = [
        "up",
        "tablecast_background_errors_total",
        "tablecast_failed_threads_total",
        "tablecast_frames_dropped_total",
        "tablecast_listener_failed_total",
        "tablecast_monitor_store_went_back_total",
        "tablecast_notifier_failed_total",
        "tablecast_publisher_id_clashes_total",
        "tablecast_replica_malformed_rows",
        "tablecast_replica_store_went_back_total",
        "tablecast_service_dropped_frames_total",
        "tablecast_service_errors_total",
        "tablecast_service_running",
        "tablecast_start_time_seconds",
        "tablecast_store_errors_total",
        "tablecast_updates_lost_total",
    ];
    for name in wrong {
        assert!(rules().any(|rule| words(rule).any(|word| word == name)), "{name}");
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}
