//! Tables with a row type: values are decoded before the callback, and values of another type are reported.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tablecast::{Action, Config, DbUpdate, Node, Result, Table};

#[derive(Debug, Serialize, Deserialize)]
struct LogicalPort {
    chassis: String,
    macs: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LogicalSwitch {
    name: String,
    mtu: u32,
}

// Joins the name of a table and the type of its rows, for both sides.
const LPORT: Table<LogicalPort> = Table::new("lport");
const LSWITCH: Table<LogicalSwitch> = Table::new("lswitch");

fn main() -> Result<()> {
    let node = Node::builder(&Config::in_memory("network"))
        .hook(|error| println!("reported: {error}"))
        .open()?;
    let (seen, rows) = crossbeam_channel::unbounded();
    let dispatcher = node.dispatcher()?;
    let ports = seen.clone();
    let _ports = dispatcher.on_row(LPORT, move |update, port| {
        match port {
            Some(port) => println!("{} of {} is on {}", update.action, update.key, port.chassis),
            None => println!("{} of {}", update.action, update.key),
        }
        let _ = ports.send(());
    });
    let _switches = dispatcher.on_row(LSWITCH, move |update, switch| {
        println!("{} of {}: {switch:?}", update.action, update.key);
        let _ = seen.send(());
    });

    let publisher = node.publisher()?;
    let subscriber = node.subscriber()?;
    subscriber.wait_live(Duration::from_secs(1))?;

    let port = LogicalPort {
        chassis: "host1".into(),
        macs: vec!["fa:16:3e:00:00:01".into()],
    };
    let switch = LogicalSwitch {
        name: "private".into(),
        mtu: 1450,
    };
    publisher.send_event(&LSWITCH.create("net-1", &switch)?)?;
    publisher.send_event(&LPORT.create("port-1", &port)?)?;
    // Not a port: the hook gets an error, no callback is called, and everything else goes on.
    publisher.send_event(&DbUpdate::new("lport", "port-2", Action::Create).value("42"))?;
    publisher.send_event(&LPORT.delete("port-1"))?;

    for _ in 0..3 {
        rows.recv_timeout(Duration::from_secs(1)).expect("three rows arrive");
    }
    // The rows may have overtaken the wrong value.
    subscriber.stop();
    println!("{:?}", dispatcher.stats());
    Ok(())
}
