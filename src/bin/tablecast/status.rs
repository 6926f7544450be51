//! `tablecast status`: how a subscriber would stand, and which replicas there are.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};
use serde::Serialize;
use tablecast::barrier::{Registered, registered};
use tablecast::subscriber::{AddressStatus, SubscriberStatus};
use tablecast::{AddressState, Config, ErrorKind, Name, Node, Result};

use crate::terminal::TableArgs;
use crate::{args, output, signal, terminal, work};

/// Connect as a subscriber would, and print the state of every address, topic and publisher.
///
/// Listens until everything is live, and then for one hello period, so that each publisher can send a hello. Publishers
/// that published lately are shown with their last numbers. After them come the replicas registered in the store under
/// an id, if any, with the tables and topics that they hold. The exit code is 1 if something is not live in time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: args::Listen,
    /// Seconds to wait until everything is live.
    #[arg(long, value_name = "S", value_parser = args::seconds, default_value = "3")]
    timeout: Duration,
    #[command(flatten)]
    format: TableArgs,
}

/// Interval of the look at the state.
const LOOK: Duration = Duration::from_millis(20);

/// Prints the status.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
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
            break Err(work::interrupted());
        }
    };
    if live.is_ok() {
        listen(config.hello_interval_ms, &signal)?;
    }
    let status = subscriber.status();
    let replicas = replicas(&node).unwrap_or_else(|e| {
        log::info!("the replicas are not known: {e}");
        Vec::new()
    });
    let text = match args.format.is_json() {
        true => lines(&status, &replicas).map_err(|e| output::failed(e.into()))?,
        false if replicas.is_empty() => table(&status),
        false => format!("{}\n{}", table(&status), replica_table(&replicas)),
    };
    let said = output::lines(text.trim_end());
    let live = live.map_err(|e| work::late(e, || not_live(&status, args.timeout)));
    live.and(said)
}

/// What is missing, and perhaps why.
fn not_live(status: &SubscriberStatus, timeout: Duration) -> String {
    let missing = status.addresses.iter().filter(|peer| peer.state != AddressState::Live);
    let missing = missing.map(|peer| match peer.state {
        AddressState::Connecting => format!("{} is not connected", peer.address),
        state => format!("{} {state}", peer.address),
    });
    let missing: Vec<String> = missing.collect();
    let missing = match status.addresses.is_empty() {
        true => "there is no publisher to listen to".into(),
        false if missing.is_empty() => "it has come only now".into(),
        false => missing.join(", "),
    };
    let is_away = |peer: &AddressStatus| peer.state == AddressState::Connecting && peer.address.contains("tcp://");
    let advice = match status.addresses.iter().any(is_away) {
        true => "; is the publisher service running?",
        false => "",
    };
    format!("not live within {timeout:?} (--timeout): {missing}{advice}")
}

/// Waits for the hellos of the publishers.
fn listen(period: Duration, signal: &Receiver<()>) -> Result<()> {
    select! {
        recv(after(period.mul_f64(1.1))) -> _ => Ok(()),
        recv(signal) -> _ => Err(work::interrupted()),
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Address {
        address: &'a str,
        state: &'a str,
        authenticated: bool,
    },
    Topic {
        topic: &'a str,
        state: String,
        publishers: Vec<PublisherLine<'a>>,
    },
    Replica {
        replica: &'a str,
        epoch: u64,
        host: &'a str,
        tables: Vec<&'a str>,
        /// `null` if there are many.
        topics: Option<Vec<&'a str>>,
    },
}

#[derive(Serialize)]
struct PublisherLine<'a> {
    publisher: &'a str,
    state: String,
    last: u64,
    heard_ms: u128,
}

fn texts(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

/// A JSON object per line.
fn lines(status: &SubscriberStatus, replicas: &[Registered]) -> serde_json::Result<String> {
    let addresses = status.addresses.iter().map(|address| Line::Address {
        address: &address.address,
        state: describe(address.state),
        authenticated: is_authenticated(address),
    });
    let topics = status.topics.iter().map(|topic| Line::Topic {
        topic: topic.topic.as_str(),
        state: topic.state.to_string(),
        publishers: topic
            .publishers
            .iter()
            .map(|publisher| PublisherLine {
                publisher: &publisher.publisher,
                state: publisher.state.to_string(),
                last: publisher.last,
                heard_ms: publisher.age.as_millis(),
            })
            .collect(),
    });
    let replicas = replicas.iter().map(|replica| Line::Replica {
        replica: &replica.id,
        epoch: replica.epoch,
        host: &replica.host,
        tables: texts(&replica.tables),
        topics: replica.topics.as_deref().map(texts),
    });
    let lines = addresses.chain(topics).chain(replicas);
    let lines: Vec<String> = lines
        .map(|line| serde_json::to_string(&line))
        .collect::<Result<_, _>>()?;
    Ok(lines.join("\n"))
}

fn table(status: &SubscriberStatus) -> String {
    let mut addresses = vec![["address", "state"].map(str::to_owned)];
    for peer in &status.addresses {
        let proof = if is_authenticated(peer) {
            output::AUTHENTICATED
        } else {
            ""
        };
        addresses.push([peer.address.to_string(), format!("{}{proof}", describe(peer.state))]);
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
    format!("{}\n{}", terminal::table(&addresses), terminal::table(&topics))
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
    terminal::table(&rows)
}

/// Names in one column; `-` if there are none.
pub(crate) fn listed(names: &[Name]) -> String {
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

/// True if there is a connection, and the publisher has proven who it is.
fn is_authenticated(address: &AddressStatus) -> bool {
    address.authenticates && address.state != AddressState::Connecting
}

pub(crate) fn describe(state: AddressState) -> &'static str {
    match state {
        AddressState::Connecting => "not connected",
        AddressState::Unconfirmed => "unconfirmed",
        AddressState::Live => "live",
        AddressState::NoHello => "sends no hellos",
        _ => "unknown",
    }
}
