//! `demo-writer`: sends its share of the updates, as far as ordered.

use std::collections::BTreeMap;
use std::sync::Arc;

use tablecast::store::Write;
use tablecast::{Action, Config, Database, DbUpdate, Node, Publisher, Result, Topic};

use super::args::Args;
use super::protocol::{self, Order, Report};
use super::workload::Workload;
use crate::trials::stage::{Setup, wire};

/// Arguments of a writer of the demo; the demo passes them.
#[derive(Debug, clap::Args)]
pub(crate) struct WriterArgs {
    /// Number of this writer, from 0.
    #[arg(long)]
    number: u64,
    /// Number of writers.
    #[arg(long)]
    writers: u64,
    /// Number of generated updates, as for the demo.
    #[arg(long)]
    updates: Option<u64>,
    /// Prefix of the names of topics and tables.
    #[arg(long, default_value = "")]
    namespace: String,
    /// Write rows, which are then published.
    #[arg(long)]
    stored: bool,
}

impl WriterArgs {
    /// The command line of these arguments.
    pub(super) fn command_line(number: usize, args: &Args, setup: &Setup) -> Vec<String> {
        let mut line = vec![
            "demo-writer".into(),
            format!("--number={number}"),
            format!("--writers={}", args.writers),
            format!("--namespace={}", setup.namespace),
        ];
        line.extend(setup.store.map(|_| "--stored".to_owned()));
        line.extend(args.updates.map(|updates| format!("--updates={updates}")));
        line
    }
}

/// Runs a writer.
///
/// # Errors
/// The errors of the publisher and the store.
pub(crate) fn run(config: &Config, args: &WriterArgs) -> Result<()> {
    let teller = Teller::open(config, args.stored)?;
    let mut updates = Workload::new(args.updates).share(args.number, args.writers.max(1));
    let mut topics = BTreeMap::<String, u64>::new();
    let mut sent = 0;
    let mut done = false;
    for order in wire::orders() {
        let up_to = match order? {
            Order::Send { up_to } => up_to,
            order => return Err(protocol::not_for_me(&order)),
        };
        while sent < up_to && !done {
            let Some(update) = updates.next() else {
                done = true;
                break;
            };
            let mut update = update?;
            if !args.namespace.is_empty() {
                update.table = format!("{}{}", args.namespace, update.table).into();
                update.topic = Topic::new(format!("{}{}", args.namespace, update.topic))?;
            }
            teller.tell(&update)?;
            sent += 1;
            match topics.get_mut(update.topic.as_str()) {
                Some(count) => *count += 1,
                None => drop(topics.insert(update.topic.to_string(), 1)),
            }
        }
        wire::report(&Report::Sent {
            topics: topics.clone(),
            done,
        })?;
    }
    Ok(())
}

/// The sender of updates: directly, or as writes of rows.
enum Teller {
    Publisher(Arc<Publisher>),
    Database(Arc<Database>),
}

impl Teller {
    fn open(config: &Config, stored: bool) -> Result<Teller> {
        let node = Node::open(config)?;
        Ok(match stored {
            false => Teller::Publisher(node.publisher()?),
            true => Teller::Database(node.database()?),
        })
    }

    fn tell(&self, update: &DbUpdate) -> Result<()> {
        let database = match self {
            Teller::Publisher(publisher) => return publisher.send_event(update),
            Teller::Database(database) => database,
        };
        let (table, key) = (update.table.as_str(), update.key.as_str());
        let value = update.value.as_deref().unwrap_or_default();
        let write = match update.action {
            Action::Create => Write::create(table, key, value),
            Action::Delete => Write::delete(table, key),
            _ => Write::set(table, key, value),
        };
        database.write(&write.topic(&update.topic), update.priority).map(drop)
    }
}
