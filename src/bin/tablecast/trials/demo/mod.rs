//! `tablecast demo`: a publisher service, writers and subscribers as processes, and a verdict on their delivery.
//!
//! ```text
//! demo -orders-> writers ==PUSH==> service ==PUB==> subscribers <-orders- demo
//!      <-reports-                                               -reports->
//! ```

mod args;
mod cast;
mod judge;
mod ledger;
mod pacer;
mod protocol;
mod rows;
mod subscriber;
mod table;
mod workload;
mod writer;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tablecast::{Config, Error, ErrorKind, Result, Store};

use crate::trials::stage::progress::Progress;
use crate::trials::stage::{Flags, Redis, Setup, Who, late, unexpected};
use cast::{Cast, writer_id};
use judge::{Sent, judge};
use ledger::History;
use pacer::Pacer;
use protocol::{Order, Report};
use table::Table;
use workload::Workload;

pub(crate) use args::Args;
pub(crate) use subscriber::{SubscriberArgs, run as run_subscriber};
pub(crate) use writer::{WriterArgs, run as run_writer};

/// The interval at which subscribers are asked for their number of updates.
const TICK: Duration = Duration::from_millis(10);

/// The wait for late duplicates at the end.
const AFTERMATH: Duration = Duration::from_millis(200);

/// Runs the demo. It succeeds if every subscriber received every update of its topics, once and in order, and holds the
/// store's rows, if there is a store.
///
/// # Errors
/// If a process cannot be started or ends too early, or if a signal came.
pub(crate) fn run(config: &Config, args: &Args, flags: Flags<'_>, signals: &Receiver<()>) -> Result<ExitCode> {
    let setup = Setup::new(config, flags, args.redis.as_deref())?;
    let topics = topics_of(args.subscribers, &setup.namespace);
    let workload = Workload::new(args.updates);
    let rate = args.rate.or(args.updates.is_none().then_some(250));
    let (writers, subscribers) = (args.writers, args.subscribers);
    let mut progress = Progress::new(workload.len(), "sent");
    progress.say(&format!(
        "starting {}writers: {writers}, subscribers: {subscribers}",
        setup.describe()
    ));

    let tables: Vec<_> = workload
        .tables()?
        .iter()
        .map(|table| setup.namespace.clone() + table)
        .collect();
    // Outlives the writers, also when something fails.
    let mut cleanup = Cleanup {
        tables: &tables,
        store: None,
    };
    let mut cast = Cast::start(&setup, args, &topics, &tables, signals)?;
    let store = setup.store.map(|_| cast.open_store()).transpose()?;
    if let Some(Redis::Running(_)) = setup.redis {
        cleanup.store.clone_from(&store);
    }
    let mut pacer = Pacer::new(writers, &topics, rate);
    let start = Instant::now();
    play(&mut cast, &mut pacer, Duration::from_secs(args.timeout), &mut progress)?;
    let seconds = start.elapsed().as_secs_f64();
    cast.rest(AFTERMATH)?;
    let histories = histories(&mut cast, subscribers)?;
    let mut differ = Vec::new();
    for (topics, history) in topics.iter().zip(&histories) {
        differ.push(match &store {
            Some(store) => rows::differing(&history.rows, &rows::stored(&**store, &tables, topics)?),
            None => 0,
        });
    }
    let ended = cast.end();
    progress.end();

    let total = pacer.total_sent();
    let sent = pacer.into_sent().into_iter().enumerate();
    let sent: Sent = sent.map(|(number, sent)| (writer_id(number), sent)).collect();
    let mut good = total == workload.len();
    let mut table = Table::new(store.is_some());
    for ((topics, history), differ) in topics.iter().zip(&histories).zip(&differ) {
        let verdict = judge(&sent, topics, history);
        good &= verdict.is_good();
        let names: Vec<_> = topics.iter().map(|topic| &topic[setup.namespace.len()..]).collect();
        let shown = match names.as_slice() {
            [first, _, rest @ ..] => format!("{first} +{}", rest.len() + 1),
            names => names.concat(),
        };
        table.add(shown, &verdict, history, *differ);
    }
    let (planned, per_second) = (workload.len(), total as f64 / seconds);
    let text = format!(
        "{table}\n{total} of {planned} updates were sent in {seconds:.1} s, {per_second:.0} per second. \
         Latency is from send to callback{}.\n{}\n",
        if rate.is_none() {
            "; at full speed it is mostly waiting"
        } else {
            ""
        },
        match good {
            true => "Every subscriber got every update of its topics, once and in order.",
            false => "NOT every subscriber got every update of its topics, once and in order.",
        }
    );
    let same = differ.iter().all(|differ| *differ == 0);
    let about_rows = match (&store, same) {
        (None, _) => "",
        (_, true) => "The rows that every subscriber holds are those of its topics in the store.\n",
        (_, false) => "The rows that every subscriber holds are NOT those of its topics in the store.\n",
    };
    let text = text + about_rows;
    let written = crate::output::stdout().write_all(text.as_bytes());
    written.map_err(|e| Error::new(ErrorKind::Io, "cannot write the result").with_source(e))?;
    ended?;
    Ok(if good && same {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The topics of each subscriber: all for the first; for the others everyone's and a tenant's.
fn topics_of(subscribers: usize, namespace: &str) -> Vec<Vec<String>> {
    let all: Vec<_> = Workload::topics()
        .iter()
        .map(|topic| namespace.to_owned() + topic)
        .collect();
    let (everyone, tenants) = all.split_at(1);
    let rest = tenants
        .iter()
        .cycle()
        .map(|tenant| [everyone, std::slice::from_ref(tenant)].concat());
    [all.clone()].into_iter().chain(rest).take(subscribers).collect()
}

/// Lets the writers write until everything is delivered, or nothing has moved for `timeout`.
fn play(cast: &mut Cast, pacer: &mut Pacer, timeout: Duration, progress: &mut Progress) -> Result<()> {
    let start = Instant::now();
    let mut moved = start;
    let mut tick = start;
    let mut asked = vec![false; pacer.subscribers()];
    while !pacer.is_done() && moved.elapsed() < timeout {
        for (writer, up_to) in pacer.grants(start.elapsed()) {
            cast.order_writer(writer, up_to)?;
        }
        let news = match cast.hear(tick)? {
            Some((Who::Writer(number), Report::Sent { topics, done })) => pacer.sent(number, topics, done),
            Some((Who::Subscriber(number), Report::Delivered(updates))) => {
                asked[number] = false;
                pacer.delivered(number, updates)
            }
            Some((who, report)) => return Err(unexpected(who, &report)),
            None => {
                tick = Instant::now() + TICK;
                for (number, asked) in asked.iter_mut().enumerate().filter(|(_, asked)| !**asked) {
                    cast.order_subscriber(number, &Order::Count)?;
                    *asked = true;
                }
                progress.at(pacer.total_sent());
                false
            }
        };
        if news {
            moved = Instant::now();
        }
    }
    Ok(())
}

/// Deletes the tables of a store that lives on, also when the demo fails.
struct Cleanup<'a> {
    tables: &'a [String],
    store: Option<Arc<dyn Store>>,
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        for (store, table) in self
            .store
            .iter()
            .flat_map(|store| self.tables.iter().map(move |table| (store, table)))
        {
            if let Err(e) = store.delete_table(table) {
                log::warn!("the table {table} is left in the store: {e}");
            }
        }
    }
}

/// The histories of all subscribers.
fn histories(cast: &mut Cast, subscribers: usize) -> Result<Vec<History>> {
    for number in 0..subscribers {
        cast.order_subscriber(number, &Order::Tell)?;
    }
    let mut histories: Vec<Option<History>> = (0..subscribers).map(|_| None).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while histories.iter().any(Option::is_none) {
        match cast.hear(deadline)? {
            Some((Who::Subscriber(number), Report::History(history))) => histories[number] = Some(history),
            // Late answers to earlier orders.
            Some((_, Report::Delivered(_) | Report::Sent { .. })) => {}
            Some((who, report)) => return Err(unexpected(who, &report)),
            None => return Err(late("a subscriber has not reported its updates")),
        }
    }
    Ok(histories.into_iter().flatten().collect())
}
