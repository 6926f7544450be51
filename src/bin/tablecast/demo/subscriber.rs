//! `demo-subscriber`: writes down what it gets, and tells.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tablecast::{Config, DbUpdate, Dispatcher, Drivers, Result, Subscriber, SyncReason};

use super::ledger::Ledger;
use super::protocol::{self, Order, Report};
use crate::stage::wire;

/// What a subscriber of the demo must know; the demo passes it.
#[derive(Debug, clap::Args)]
pub(crate) struct SubscriberArgs {
    /// Which subscriber this is, from 0.
    #[arg(long)]
    number: usize,
    /// Keep the rows, to be held against the store.
    #[arg(long)]
    stored: bool,
}

impl SubscriberArgs {
    /// The arguments that make these.
    pub(super) fn command_line(number: usize, stored: bool) -> Vec<String> {
        let line = ["demo-subscriber".into(), format!("--number={number}")];
        line.into_iter().chain(stored.then(|| "--stored".into())).collect()
    }
}

/// How long the publisher service may take to confirm the topics; the demo does not wait that long.
const LIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a subscriber.
///
/// # Errors
/// What the subscriber and the dispatcher say.
pub(crate) fn run(config: &Config, args: &SubscriberArgs) -> Result<()> {
    let dispatcher = Dispatcher::new(config.into())?;
    let ledger = Arc::new(Mutex::new(Ledger::new(args.stored)));
    let record = Arc::clone(&ledger);
    let on_update = move |update: &DbUpdate| record.lock().record(update, now_micros());
    dispatcher.on_update(on_update).detach();
    let number = args.number + 1;
    let on_sync = move |reason: &SyncReason| match reason {
        SyncReason::Connected { .. } => {}
        reason => log::warn!("subscriber {number}: {reason}"),
    };
    dispatcher.on_sync(on_sync).detach();
    let subscriber = Subscriber::open(config, &Drivers::new(), dispatcher.queue())?;
    subscriber.daemonize()?;
    // The end of the orders ends the waiting too, so that this process never outlives the demo.
    let (served, live) = thread::scope(|scope| {
        let live = scope.spawn(|| {
            subscriber.wait_live(LIVE_TIMEOUT)?;
            wire::report(&Report::Live)
        });
        let served = serve(&ledger);
        subscriber.stop();
        (served, live.join())
    });
    served?;
    live.unwrap_or(Ok(()))
}

fn serve(ledger: &Mutex<Ledger>) -> Result<()> {
    for order in wire::orders() {
        let report = match order? {
            Order::Count => Report::Delivered(ledger.lock().delivered()),
            Order::Tell => Report::History(ledger.lock().history()),
            order => return Err(protocol::not_for_me(&order)),
        };
        wire::report(&report)?;
    }
    Ok(())
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
