//! `demo-subscriber`: records its updates, holds a replica if there is a store, and reports both.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tablecast::replica::{Replica, ReplicaTable};
use tablecast::{Config, DbUpdate, Node, Result, SyncReason};

use super::ledger::Ledger;
use super::protocol::{self, Order, Report};
use super::rows::{self, Held};
use crate::trials::stage::wire;

/// Arguments of a subscriber of the demo; the demo passes them.
#[derive(Debug, clap::Args)]
pub(crate) struct SubscriberArgs {
    /// Number of this subscriber, from 0.
    #[arg(long)]
    number: usize,
    /// Hold a replica of this table of the store; may be repeated.
    #[arg(long)]
    table: Vec<String>,
}

impl SubscriberArgs {
    /// The command line of these arguments.
    pub(super) fn command_line(number: usize, tables: &[String]) -> Vec<String> {
        let line = ["demo-subscriber".into(), format!("--number={number}")];
        let tables = tables.iter().map(|table| format!("--table={table}"));
        line.into_iter().chain(tables).collect()
    }
}

/// The time limit for the publisher service to confirm the topics; the demo's own is shorter.
const LIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// The time limit for the replica to catch up at the end; the demo waits longer for the report.
const CATCH_UP: Duration = Duration::from_secs(8);

/// Runs a subscriber.
///
/// # Errors
/// The errors of the subscriber, the dispatcher and the store.
pub(crate) fn run(config: &Config, args: &SubscriberArgs) -> Result<()> {
    let node = Node::open(config)?;
    let dispatcher = node.dispatcher()?;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let record = Arc::clone(&ledger);
    let on_update = move |update: &DbUpdate| record.lock().record(update, now_micros());
    dispatcher.on_update(on_update).detach();
    let number = args.number + 1;
    let on_sync = move |reason: &SyncReason| match reason {
        SyncReason::Connected { .. } => {}
        reason => log::warn!("subscriber {number}: {reason}"),
    };
    dispatcher.on_sync(on_sync).detach();
    let subscriber = node.subscriber()?;
    let held = match args.table.is_empty() {
        true => None,
        false => Some(Tables::open(&node, &args.table)?),
    };
    // The end of the orders also ends the wait, so that this process never outlives the demo.
    let (served, live) = thread::scope(|scope| {
        let live = scope.spawn(|| {
            subscriber.wait_live(LIVE_TIMEOUT)?;
            wire::report(&Report::Live)
        });
        let served = serve(&ledger, held.as_ref());
        subscriber.stop();
        (served, live.join())
    });
    served?;
    live.unwrap_or(Ok(()))
}

/// A replica of the tables.
struct Tables {
    replica: Replica,
    tables: Vec<ReplicaTable<String>>,
}

impl Tables {
    fn open(node: &Node, tables: &[String]) -> Result<Tables> {
        let replica = node.replica()?;
        let tables = tables.iter().map(|table| replica.raw_table(table.as_str()));
        let tables = tables.collect::<Result<_>>()?;
        Ok(Tables { replica, tables })
    }

    /// The rows that it holds once it has caught up.
    fn rows(&self) -> Vec<Held> {
        if let Err(e) = self.replica.wait_current(CATCH_UP) {
            log::warn!("the replica lags behind: {e}");
        }
        rows::held(&self.tables)
    }
}

fn serve(ledger: &Mutex<Ledger>, held: Option<&Tables>) -> Result<()> {
    for order in wire::orders() {
        let report = match order? {
            Order::Count => Report::Delivered(ledger.lock().delivered()),
            Order::Tell => {
                let rows = held.map_or_else(Vec::new, Tables::rows);
                Report::History(ledger.lock().history(rows))
            }
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
