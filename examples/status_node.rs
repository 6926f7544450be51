//! A node that reports the status of its ports to whichever server is there; see `status_server`.

use std::path::Path;
use std::time::Duration;

use tablecast::{Action, Config, DbUpdate, Node, Result};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).expect("usage: status_node FOLDER");
    // The same options as the servers': both sides publish and subscribe.
    let mut config = Config::default();
    config.sqlite_path = Path::new(&folder).join("rows.db");
    config.discover = true;
    config.pub_sub_use_multiproc = false;
    config.publisher_port = 0;

    let node = Node::open(&config)?;
    let notifier = node.notifier()?;
    for port in 1..=20 {
        notifier.notify(DbUpdate::new("lport", format!("port-{port}"), Action::Set).value("up"))?;
    }
    // Waits until a server has processed each update, however many servers come and go meanwhile.
    notifier.flush(Duration::from_secs(30))?;
    println!("acknowledged: {}", notifier.stats().acknowledged);
    Ok(())
}
