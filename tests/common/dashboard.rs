//! The dashboard of `contrib/grafana`.

/// The queries of its panels.
pub(crate) fn panels() -> Vec<String> {
    let dashboard = include_str!("../../contrib/grafana/tablecast.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().into()).collect();
    assert!(queries.len() >= panels.len());
    queries
}

/// A query as it is for all processes.
pub(crate) fn filled(query: &str) -> String {
    query.replace("$instance", ".*").replace("$__rate_interval", "1m")
}
