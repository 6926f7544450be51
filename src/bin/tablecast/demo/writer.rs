//! `demo-writer`: sends its share of the updates, as far as it is told.

use std::collections::BTreeMap;

use tablecast::{Config, Drivers, Publisher, Result};

use super::protocol::{self, Order, Report};
use super::workload::Workload;

/// What a writer of the demo must know; the demo passes it.
#[derive(Debug, clap::Args)]
pub(crate) struct WriterArgs {
    /// Which writer this is, from 0.
    #[arg(long)]
    number: u64,
    /// How many there are.
    #[arg(long)]
    writers: u64,
    /// As the demo's.
    #[arg(long)]
    updates: Option<u64>,
}

impl WriterArgs {
    /// The arguments that make these.
    pub(super) fn command_line(number: usize, writers: usize, updates: Option<u64>) -> Vec<String> {
        let mut line = vec![
            "demo-writer".into(),
            format!("--number={number}"),
            format!("--writers={writers}"),
        ];
        line.extend(updates.map(|updates| format!("--updates={updates}")));
        line
    }
}

/// Runs a writer.
///
/// # Errors
/// What the publisher says.
pub(crate) fn run(config: &Config, args: &WriterArgs) -> Result<()> {
    let publisher = Publisher::open(config, &Drivers::new())?;
    let mut updates = Workload::new(args.updates).share(args.number, args.writers.max(1));
    let mut topics = BTreeMap::<String, u64>::new();
    let mut sent = 0;
    let mut done = false;
    for order in protocol::orders() {
        let up_to = match order? {
            Order::Send { up_to } => up_to,
            order => return Err(protocol::not_for_me(&order)),
        };
        while sent < up_to && !done {
            let Some(update) = updates.next() else {
                done = true;
                break;
            };
            let update = update?;
            publisher.send_event(&update)?;
            sent += 1;
            match topics.get_mut(update.topic.as_str()) {
                Some(count) => *count += 1,
                None => drop(topics.insert(update.topic.to_string(), 1)),
            }
        }
        protocol::report(&Report::Sent {
            topics: topics.clone(),
            done,
        })?;
    }
    Ok(())
}
