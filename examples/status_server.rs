//! One of several servers that share the status updates of all nodes: each update is processed by exactly one of them.
//!
//! Start it in two terminals, and the node of `status_node` in a third one, all with the same folder: `cargo run
//! --example status_server -- /tmp/network`. Enter ends it; the other servers process the updates it has not processed.

use std::path::Path;
use std::time::Duration;

use tablecast::{Config, DbUpdate, Node, Result};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).expect("usage: status_server FOLDER");
    // Servers and nodes find each other through a store, here a file; they need no configured addresses.
    let mut config = Config::default();
    config.sqlite_path = Path::new(&folder).join("rows.db");
    config.discover = true;
    // Without a publisher service: this process publishes by itself, on any free port.
    config.pub_sub_use_multiproc = false;
    config.publisher_port = 0;

    let node = Node::open(&config)?;
    // Returning from the handler is the acknowledgement. A real server would write the status into its database.
    let listener = node.listener(|update: &DbUpdate| {
        println!("{} is {}", update.key, update.value.as_deref().unwrap_or("gone"));
    })?;
    listener.wait_registered(Duration::from_secs(10))?;
    println!("ready");

    let _ = std::io::stdin().read_line(&mut String::new());
    listener.stop_within(Duration::from_secs(5))
}
