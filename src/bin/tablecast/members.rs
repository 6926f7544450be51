//! `tablecast publishers` and `tablecast listeners`: the registered members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select, tick, unbounded};
use serde::Serialize;
use tablecast::listener::LISTENERS;
use tablecast::registry::{Member, PUBLISHERS, Presence, PresenceState, RegistryOptions, Watch};
use tablecast::subscriber::AddressStatus;
use tablecast::{AddressState, Config, Error, ErrorKind, Node, Result, Stores, Subscriber};

use crate::terminal::TableArgs;
use crate::{args, output, shared, signal, terminal, work};

/// Arguments of the look.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to watch; a member that showed no sign of life by then is `unknown` [default: until all states are
    /// known].
    #[arg(long, value_name = "S", value_parser = args::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    format: TableArgs,
}

/// Time that a publisher has to answer at its address. One that cannot be reached by then is not waited for.
const ANSWER: Duration = Duration::from_secs(3);

const NOT_REACHED: &str = "not reached";

/// Interval of the look at the answers.
const LOOK: Duration = Duration::from_millis(20);

/// Prints the publishers, each of which is asked at its address.
pub(crate) fn run_publishers(config: &Config, args: &Args) -> Result<()> {
    let head = ["id", "epoch", "address", "role", "sent", "state", "renewed"];
    let ask = |addresses: Vec<String>| {
        let mut config = config.clone();
        (config.publishers, config.discover) = (addresses, false);
        let node = Node::open(&config)?;
        Ok(Some((node.subscriber()?, node)))
    };
    print(
        config,
        args,
        (PUBLISHERS, "publisher"),
        config.into(),
        head,
        ask,
        |member| {
            let role = if member.role.is_empty() { "-" } else { &member.role };
            [role.to_owned(), member.load.handled.to_string()]
        },
    )
}

/// Prints the listeners.
pub(crate) fn run_listeners(config: &Config, args: &Args) -> Result<()> {
    let head = ["id", "epoch", "topic", "handled", "waiting", "state", "renewed"];
    let options = RegistryOptions {
        timeout: config.listener_timeout_ms,
        ..config.into()
    };
    print(
        config,
        args,
        (LISTENERS, "listener"),
        options,
        head,
        |_| Ok(None),
        |member| [member.load.handled, member.load.waiting].map(|count| count.to_string()),
    )
}

/// A subscriber at the members' addresses.
type Asked = (Arc<Subscriber>, Node);

/// Prints a table of members. `ask` connects to their addresses, if they have any; `about` gives the columns in which the
/// two kinds differ.
fn print(
    config: &Config,
    args: &Args,
    (table, kind): (&str, &str),
    options: RegistryOptions,
    head: [&str; 7],
    ask: impl FnOnce(Vec<String>) -> Result<Option<Asked>>,
    about: impl Fn(&Member) -> [String; 2],
) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
    shared::store(config)?;
    let store = Stores::new().open(config)?;
    // Said at once if the store is not there, rather than again and again in the background.
    store.page_of_keys(table, None, None)?;
    let (sender, looks) = unbounded();
    // The renewal may be late by a look.
    let limit = args.timeout.unwrap_or(options.timeout + options.interval);
    let tell = move |present: &[Presence]| drop(sender.send(present.to_vec()));
    let watch = Watch::new(store, table, options, false, tell)?;
    let seen = watch_for(&looks, limit, ask, &signal).map_err(|e| e.context(format!("table {table:?}")))?;
    drop(watch);
    if seen.present.is_empty() {
        let place = output::place(config);
        let hint = match kind {
            "publisher" => "publishers that bind a port register there with the option discover",
            _ => "a listener registers when it starts: is this its store?",
        };
        output::say(&format!("no {kind} is registered in {place}; {hint}"));
    }
    if args.format.is_json() {
        return seen.present.iter().try_for_each(|presence| {
            let member = serde_json::to_string(&Line::of(presence, seen.state(presence)));
            output::result(&member.map_err(|e| output::failed(e.into()))?)
        });
    }
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(seen.present.iter().map(|presence| {
        let [first, second] = about(&presence.member);
        let renewed = match presence.state {
            PresenceState::Alive => format!("{:.1} s ago", presence.age.as_secs_f64()),
            _ => "-".into(),
        };
        let proof = if presence.member.is_authenticated() {
            output::AUTHENTICATED
        } else {
            ""
        };
        let state = format!("{}{proof}", seen.state(presence));
        let member = &presence.member;
        let (id, address) = (member.id.clone(), member.address.clone());
        [id, member.epoch.to_string(), address, first, second, state, renewed]
    }));
    output::result(terminal::table(&rows).trim_end())
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    epoch: u64,
    /// A publisher's address, a listener's topic.
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    role: &'a str,
    handled: u64,
    waiting: u64,
    state: &'a str,
    /// A publisher's row names its public key.
    authenticated: bool,
    /// Milliseconds since it renewed its registration, if it was seen to.
    renewed_ms: Option<u128>,
}

impl<'a> Line<'a> {
    fn of(presence: &'a Presence, state: &'a str) -> Line<'a> {
        let member = &presence.member;
        Line {
            id: &member.id,
            epoch: member.epoch,
            address: &member.address,
            role: &member.role,
            handled: member.load.handled,
            waiting: member.load.waiting,
            state,
            authenticated: member.is_authenticated(),
            renewed_ms: (presence.state == PresenceState::Alive).then_some(presence.age.as_millis()),
        }
    }
}

pub(crate) fn state(presence: &Presence) -> &'static str {
    match presence.member.leaving {
        true => "leaving",
        false => presence.state.as_str(),
    }
}

/// The members as last seen, and the states of their addresses, if they were asked.
#[derive(Default)]
struct Seen {
    present: Vec<Presence>,
    addresses: Vec<AddressStatus>,
}

impl Seen {
    /// The state of a member: what its renewals show, or else its answer.
    fn state(&self, presence: &Presence) -> &'static str {
        match (presence.state, self.at(presence)) {
            _ if presence.member.leaving => state(presence),
            (PresenceState::Unknown, Some(AddressState::Live)) => PresenceState::Alive.as_str(),
            (PresenceState::Unknown, Some(AddressState::Connecting)) => NOT_REACHED,
            _ => state(presence),
        }
    }

    fn at(&self, presence: &Presence) -> Option<AddressState> {
        let at = self.addresses.iter().find(|at| *at.address == *presence.member.address);
        at.map(|at| at.state)
    }

    fn is_known(&self, time: Duration) -> bool {
        self.present.iter().all(|presence| match self.state(presence) {
            NOT_REACHED => time >= ANSWER,
            state => state != PresenceState::Unknown.as_str(),
        })
    }
}

/// The members once all states are known, or the time is over.
fn watch_for(
    looks: &Receiver<Vec<Presence>>,
    limit: Duration,
    ask: impl FnOnce(Vec<String>) -> Result<Option<Asked>>,
    signal: &Receiver<()>,
) -> Result<Seen> {
    let start = Instant::now();
    let (over, note) = (after(limit), after(Duration::from_secs(1)));
    let mut answers = never();
    let (mut ask, mut asked) = (Some(ask), None);
    let mut has_looked = false;
    let mut seen = Seen::default();
    loop {
        select! {
            recv(looks) -> look => {
                has_looked = true;
                seen.present = look.map_err(|_| Error::new(ErrorKind::Stopped, "the watch ended"))?;
                if let Some(ask) = ask.take_if(|_| !seen.is_known(ANSWER)) {
                    let addresses = seen.present.iter().map(|presence| presence.member.address.clone());
                    asked = ask(addresses.collect()).unwrap_or_else(|e| {
                        log::info!("the addresses are not asked: {e}");
                        None
                    });
                    answers = asked.as_ref().map_or_else(never, |_| tick(LOOK));
                }
            }
            recv(answers) -> _ => {
                seen.addresses = asked.as_ref().map_or_else(Vec::new, |(subscriber, _)| subscriber.status().addresses);
            }
            recv(note) -> _ => output::say(&format!("waiting for answers and renewals, for {:.0} s at most", limit.as_secs_f64())),
            recv(over) -> _ => return if has_looked { Ok(seen) } else { Err(unread(limit)) },
            recv(signal) -> _ => return Err(work::interrupted()),
        }
        if has_looked && seen.is_known(start.elapsed()) {
            return Ok(seen);
        }
    }
}

fn unread(limit: Duration) -> Error {
    let context = format!("it was not read within {limit:?}; --timeout gives it more time");
    Error::new(ErrorKind::Timeout, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_not_read_is_not_an_empty_one() {
        let (sender, looks) = unbounded();
        let watch = |limit| watch_for(&looks, limit, |_| Ok(None), &never());
        let unread = watch(Duration::ZERO);
        assert_eq!(unread.err().map(|e| e.kind()), Some(ErrorKind::Timeout));
        sender.send(Vec::new()).unwrap();
        let empty = watch(Duration::from_secs(3600));
        assert!(empty.is_ok_and(|seen| seen.present.is_empty()));
    }
}
