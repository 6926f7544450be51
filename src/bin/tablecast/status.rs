//! `tablecast status`: how a subscriber would stand, and which replicas there are.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};
use tablecast::barrier::{Registered, registered};
use tablecast::subscriber::SubscriberStatus;
use tablecast::{AddressState, Config, Error, ErrorKind, Name, Node, Result};

use crate::{cli, output, signal};

/// Connect as a subscriber would, and print how it stands with every address, topic and publisher.
///
/// Listens until everything is live, and then for one hello period, so that publishers can send a hello: those that
/// published lately show with their last numbers. Then come the replicas that have an id and are registered in the store, if there
/// are any: what they hold, in tables and topics. The exit code is 1 if something is not live in time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: cli::Listen,
    /// Time to wait until everything is live.
    #[arg(long, value_name = "S", value_parser = cli::seconds, default_value = "3")]
    timeout: Duration,
}

/// Time that a signal leaves for printing the rest.
const GRACE: Duration = Duration::from_millis(900);

/// Interval of the look at the state.
const LOOK: Duration = Duration::from_millis(20);

/// Prints the status.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(GRACE)?;
    args.listen.apply(&mut config)?;
    let node = Node::open(&config)?;
    let subscriber = node.subscriber()?;
    let start = Instant::now();
    let live = loop {
        match subscriber.wait_live(LOOK) {
            Err(e) if e.kind() == ErrorKind::Timeout && start.elapsed() < args.timeout => {}
            live => break live,
        }
        if signal.try_recv().is_ok() {
            break Err(interrupted());
        }
    };
    if live.is_ok() {
        listen(config.hello_interval_ms, &signal)?;
    }
    let mut text = table(&subscriber.status());
    match replicas(&node) {
        Ok(replicas) if replicas.is_empty() => {}
        Ok(replicas) => text += &format!("\n{}", replica_table(&replicas)),
        Err(e) => log::info!("the replicas are not known: {e}"),
    }
    output::result(text.trim_end())?;
    live.map_err(|e| match e.kind() {
        ErrorKind::Timeout => Error::new(ErrorKind::Timeout, format!("not live within {:?}", args.timeout)),
        _ => e,
    })
}

/// Waits for the hellos of the publishers.
fn listen(period: Duration, signal: &Receiver<()>) -> Result<()> {
    select! {
        recv(after(period.mul_f64(1.1))) -> _ => Ok(()),
        recv(signal) -> _ => Err(interrupted()),
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Stopped, "interrupted")
}

fn table(status: &SubscriberStatus) -> String {
    let mut addresses = vec![["address", "state"].map(str::to_owned)];
    for peer in &status.addresses {
        addresses.push([peer.address.to_string(), describe(peer.state).to_owned()]);
    }
    let mut topics = vec![["topic", "state", "publisher", "state", "last number", "heard"].map(str::to_owned)];
    for topic in &status.topics {
        let (name, state) = (topic.topic.to_string(), topic.state.to_string());
        if topic.publishers.is_empty() {
            topics.push([name, state, "-".into(), "-".into(), "-".into(), "-".into()]);
            continue;
        }
        for publisher in &topic.publishers {
            topics.push([
                name.clone(),
                state.clone(),
                publisher.publisher.to_string(),
                publisher.state.to_string(),
                publisher.last.to_string(),
                format!("{:.1} s ago", publisher.age.as_secs_f64()),
            ]);
        }
    }
    format!("{}\n{}", output::columns(&addresses), output::columns(&topics))
}

fn replicas(node: &Node) -> Result<Vec<Registered>> {
    let config = node.config();
    // To look makes no file.
    if config.nb_db_class == "sqlite" && !config.sqlite_path.exists() {
        return Ok(Vec::new());
    }
    registered(&*node.store()?)
}

fn replica_table(replicas: &[Registered]) -> String {
    let mut rows = vec![["replica", "epoch", "host", "tables", "topics"].map(str::to_owned)];
    for replica in replicas {
        let topics = replica.topics.as_deref().map_or_else(|| "many".into(), listed);
        let (epoch, host) = (replica.epoch.to_string(), listed(std::slice::from_ref(&replica.host)));
        rows.push([replica.id.to_string(), epoch, host, listed(&replica.tables), topics]);
    }
    output::columns(&rows)
}

/// Names in one column; `-` if there are none.
fn listed(names: &[Name]) -> String {
    let names: Vec<&str> = names
        .iter()
        .map(|name| &**name)
        .filter(|name| !name.is_empty())
        .collect();
    match names.is_empty() {
        true => "-".into(),
        false => names.join(","),
    }
}

fn describe(state: AddressState) -> &'static str {
    match state {
        AddressState::Connecting => "not connected",
        AddressState::Unconfirmed => "unconfirmed",
        AddressState::Live => "live",
        AddressState::NoHello => "sends no hellos",
        _ => "unknown",
    }
}
