//! Metrics as Prometheus reads them: of a program's node, and of the tool.
#![cfg(feature = "metrics")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dashboard.rs"]
mod dashboard;
mod documents;
#[cfg(feature = "bin")]
#[path = "../common/host.rs"]
mod host;
mod node;
#[cfg(feature = "bin")]
#[path = "../common/process.rs"]
mod process;
#[cfg(feature = "bin")]
mod prometheus;
mod scrape;
mod server;
#[cfg(all(feature = "bin", feature = "redis"))]
#[path = "../common/redis.rs"]
mod servers;
#[cfg(feature = "bin")]
mod tool;
#[cfg(feature = "zmq")]
mod whole;

use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// More than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);
