//! A publisher and a subscriber in one process, on the in-memory driver.

use std::time::Duration;

use tablecast::{Action, Config, DbUpdate, Node, Result, SyncReason, Topic};

fn main() -> Result<()> {
    let mut config = Config::in_memory("network");
    config.topics.push(Topic::new("tenant1")?);
    let node = Node::open(&config)?;

    // Callbacks run on the dispatcher's thread. Dropping a guard ends its registration.
    let dispatcher = node.dispatcher()?;
    let (updates, received) = crossbeam_channel::unbounded();
    let _ports = dispatcher.on_table("lport", move |update: &DbUpdate| {
        println!("callback: {update}");
        let _ = updates.send(update.clone());
    });
    let _syncs = dispatcher.on_sync(|reason: &SyncReason| println!("sync: {reason}: read the database now"));

    let publisher = node.publisher()?;
    let subscriber = node.subscriber()?;
    // From here on no change is missed silently.
    subscriber.wait_live(Duration::from_secs(1))?;

    let port = DbUpdate::new("lport", "port-1", Action::Create).value(r#"{"chassis":"host1"}"#);
    publisher.send_event(&port.topic(Topic::new("tenant1")?))?;
    publisher.send_event(&DbUpdate::new("lport", "port-1", Action::Delete))?;

    for _ in 0..2 {
        received
            .recv_timeout(Duration::from_secs(1))
            .expect("both updates arrive");
    }
    println!("{:?}", subscriber.stats());
    Ok(())
}
