//! A controller's ports by chassis: a copy of a table in memory, an index, and its changes.
//!
//! Here everything is in one process, with the driver and the store in memory. A program reads the options from a file:
//! `Config::load(Some(path))`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tablecast::database::Entry;
use tablecast::replica::RowChange;
use tablecast::{Config, Node, Result, Table};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LogicalPort {
    chassis: String,
}

const LPORT: Table<LogicalPort> = Table::new("lport");
const LIMIT: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let node = Node::open(&Config::in_memory("replica"))?;

    let replica = node.replica()?;
    let ports = replica.table(LPORT)?;
    let by_chassis = ports.index(|port: &Entry<LogicalPort>| [port.row.chassis.clone()]);
    let _guard = ports.on_change(|change: &RowChange<LogicalPort>| match change {
        RowChange::Added { new } => println!("{} is on {}", new.key, new.row.chassis),
        RowChange::Changed { old, new } => {
            println!("{} moves from {} to {}", new.key, old.row.chassis, new.row.chassis);
        }
        RowChange::Removed { key, .. } => println!("{key} is gone"),
        RowChange::Malformed { new, .. } => println!("{}: {}", new.key, new.error),
    });
    replica.wait_synced(LIMIT)?;

    // A writer, usually in another process.
    let database = node.database()?;
    let rows = database.rows(LPORT);
    let on = |chassis: &str| LogicalPort {
        chassis: chassis.into(),
    };
    for (key, chassis) in [("port-1", "host1"), ("port-2", "host1"), ("port-3", "host2")] {
        rows.put(key, &on(chassis))?;
    }
    // A replica may skip states between two changes in quick succession.
    replica.wait_current(LIMIT)?;
    rows.put("port-1", &on("host2"))?;
    rows.delete("port-3")?;

    // A reader that needs the latest writes waits for them.
    replica.wait_current(LIMIT)?;
    for chassis in ["host1", "host2"] {
        let ports: Vec<String> = by_chassis
            .get(chassis)
            .iter()
            .map(|port| port.key.to_string())
            .collect();
        println!("{chassis}: {ports:?}");
    }
    println!("{:?}", replica.stats());
    Ok(())
}
