//! `storm-listener`: a listener that takes its share of the updates and reports it.

use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tablecast::{Config, DbUpdate, Result};

use crate::seat;
use crate::trials::stage::{self, wire};

/// Arguments of a listener of the storm; the storm passes them.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenerArgs {
    /// Microseconds of computing for each update.
    #[arg(long)]
    work: u64,
}

impl ListenerArgs {
    /// The command line of these arguments.
    pub(super) fn command_line(work: u64) -> Vec<String> {
        vec!["storm-listener".into(), format!("--work={work}")]
    }
}

/// Orders of the storm.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Report the number of unsettled events.
    Count,
    /// Report the processed updates.
    Tell,
}

/// Reports of a listener.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It is registered; with its processor time so far, in microseconds.
    Ready { cpu: u64 },
    /// The number of events that are claimed and not confirmed yet.
    Unsettled(u64),
    /// The updates that it has processed, and its processor time.
    Processed { keys: Vec<u32>, cpu: u64 },
}

/// Runs a listener.
///
/// # Errors
/// The errors of the listener, the publisher and the subscriber.
pub(crate) fn run(config: Config, args: &ListenerArgs) -> Result<()> {
    let node = seat::open(config)?;
    let keys = Arc::new(Mutex::new(Vec::new()));
    let (record, work) = (Arc::clone(&keys), args.work);
    let handler = move |update: &DbUpdate| {
        compute(work);
        // A key that was never sent gets a number that no update has.
        record.lock().push(update.key.parse().unwrap_or(u32::MAX));
    };
    let listener = node.listener(handler)?;
    listener.wait_registered(stage::START)?;
    let cpu = || micros(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    wire::report(&Report::Ready { cpu: cpu() })?;
    for order in wire::orders() {
        let report = match order? {
            Order::Count => Report::Unsettled(listener.stats().claims),
            Order::Tell => Report::Processed {
                keys: keys.lock().clone(),
                cpu: cpu(),
            },
        };
        wire::report(&report)?;
    }
    listener.stop_within(stage::END / 2)
}

/// Uses the processor for this many microseconds.
fn compute(work: u64) {
    let now = || micros(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let start = now();
    while work > 0 && now() < start + work {
        std::hint::spin_loop();
    }
}

fn micros(clock: ClockId) -> u64 {
    // Both clocks exist on all supported systems.
    let time = clock_gettime(clock).map_or_else(|_| std::time::Duration::ZERO, Into::into);
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
