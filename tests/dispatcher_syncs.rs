//! Sync events while every worker is inside a callback.

use std::time::Duration;

use crossbeam_channel::{bounded, never, unbounded};
use tablecast::{Action, DbUpdate, Dispatcher, DispatcherOptions, SyncReason};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_sync_event_does_not_wait_for_a_worker() {
    let options = DispatcherOptions {
        workers: 1,
        ..Default::default()
    };
    let dispatcher = Dispatcher::new(options).unwrap();
    let (open, gate) = bounded::<()>(0);
    let (entered, running) = unbounded();
    let callback = move |update: &DbUpdate| {
        let _ = entered.send(update.key.clone());
        let _ = gate.recv();
    };
    dispatcher.on_update(callback).detach();
    let (synced, syncs) = unbounded();
    dispatcher.on_sync(synced).detach();

    let mut updates = ["1", "2"].map(|key| DbUpdate::new("t", key, Action::Set)).to_vec();
    dispatcher.queue().push(&mut updates, &never()).unwrap();
    assert_eq!(running.recv_timeout(LIMIT).unwrap(), "1");
    dispatcher.queue().sync(SyncReason::Requested);
    assert_eq!(syncs.recv_timeout(LIMIT), Ok(SyncReason::Requested));
    assert!(running.is_empty());
    drop(open);
    assert_eq!(running.recv_timeout(LIMIT).unwrap(), "2");
}
