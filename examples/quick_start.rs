//! A publisher and a subscriber in one process, on the in-memory driver.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::memory::MemoryDriver;
use tablecast::{
    Action, DbUpdate, Dispatcher, DispatcherOptions, Publisher, PublisherOptions, Result, Subscriber,
    SubscriberOptions, SyncReason, Topic,
};

fn main() -> Result<()> {
    let driver = Arc::new(MemoryDriver::new("memory://network")?);

    // Callbacks run on the dispatcher's thread. Dropping a guard ends its registration.
    let dispatcher = Dispatcher::new(DispatcherOptions::default())?;
    let (updates, received) = crossbeam_channel::unbounded();
    let _ports = dispatcher.on_table("lport", move |update: &DbUpdate| {
        println!("callback: {update}");
        let _ = updates.send(update.clone());
    });
    let _syncs = dispatcher.on_sync(|reason: &SyncReason| println!("sync: {reason}: read the database now"));

    let subscriber = Subscriber::new(driver.clone(), dispatcher.queue(), SubscriberOptions::default());
    subscriber.register_topic(&Topic::ALL)?;
    subscriber.register_topic(&Topic::new("tenant1")?)?;
    subscriber.register_listen_address("memory://network")?;
    subscriber.daemonize()?;
    // From here on no change is missed silently.
    subscriber.wait_live(Duration::from_secs(1))?;

    let publisher = Publisher::new(&*driver, PublisherOptions::default())?;
    let port = DbUpdate::new("lport", "port-1", Action::Create).value(r#"{"chassis":"host1"}"#);
    publisher.send_event(&port.topic(Topic::new("tenant1")?))?;
    publisher.send_event(&DbUpdate::new("lport", "port-1", Action::Delete))?;

    for _ in 0..2 {
        received
            .recv_timeout(Duration::from_secs(1))
            .expect("both updates arrive");
    }
    subscriber.stop();
    println!("{:?}", subscriber.stats());
    Ok(())
}
