//! The documentation of the metrics, and the files for Prometheus and Grafana, against the table of series.

use tablecast::metrics::series;

#[test]
fn the_page_has_every_series() {
    let row = |series: &&tablecast::metrics::Series| {
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
