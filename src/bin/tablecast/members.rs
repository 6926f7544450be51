//! `tablecast publishers` and `tablecast listeners`: the registered members.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select, unbounded};
use serde::Serialize;
use tablecast::listener::LISTENERS;
use tablecast::registry::{Member, PUBLISHERS, Presence, PresenceState, RegistryOptions, Watch};
use tablecast::{Config, Error, ErrorKind, Result, Stores};

use crate::terminal::FormatArgs;
use crate::{args, output, signal};

/// Arguments of the look.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Time to watch; a member that was not seen by then is `unknown` [default: until all is known].
    #[arg(long, value_name = "S", value_parser = args::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    format: FormatArgs,
}

/// Time that a signal leaves for printing the rest.
const GRACE: Duration = Duration::from_millis(900);

/// Prints the publishers.
pub(crate) fn run_publishers(config: &Config, args: &Args) -> Result<()> {
    let head = ["id", "epoch", "address", "role", "sent", "state", "renewed"];
    print(config, args, PUBLISHERS, config.into(), head, |member| {
        let role = if member.role.is_empty() { "-" } else { &member.role };
        [role.to_owned(), member.load.handled.to_string()]
    })
}

/// Prints the listeners.
pub(crate) fn run_listeners(config: &Config, args: &Args) -> Result<()> {
    let head = ["id", "epoch", "topic", "handled", "waiting", "state", "renewed"];
    let options = RegistryOptions {
        timeout: config.listener_timeout_ms,
        ..config.into()
    };
    print(config, args, LISTENERS, options, head, |member| {
        [member.load.handled, member.load.waiting].map(|count| count.to_string())
    })
}

/// Prints a table of members; `about` gives the columns in which the two kinds differ.
fn print(
    config: &Config,
    args: &Args,
    table: &str,
    options: RegistryOptions,
    head: [&str; 7],
    about: impl Fn(&Member) -> [String; 2],
) -> Result<()> {
    let signal = signal::channel(GRACE)?;
    let store = Stores::new().open(config)?;
    // Said at once if the store is not there, rather than again and again in the background.
    store.page_of_keys(table, None, None)?;
    let (sender, looks) = unbounded();
    // The renewal may be late by a look.
    let limit = args.timeout.unwrap_or(options.timeout + options.interval);
    let tell = move |present: &[Presence]| drop(sender.send(present.to_vec()));
    let watch = Watch::new(store, table, options, false, tell)?;
    let present = watch_for(&looks, limit, &signal)?;
    drop(watch);
    if args.format.is_json() {
        return present.iter().try_for_each(|presence| {
            let member = serde_json::to_string(&Line::of(presence));
            output::result(&member.map_err(|e| output::failed(e.into()))?)
        });
    }
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(present.into_iter().map(|presence| {
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
        let state = format!("{}{proof}", state(&presence));
        let member = presence.member;
        let epoch = member.epoch.to_string();
        [member.id, epoch, member.address, first, second, state, renewed]
    }));
    output::result(output::columns(&rows).trim_end())
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

impl Line<'_> {
    fn of(presence: &Presence) -> Line<'_> {
        let member = &presence.member;
        Line {
            id: &member.id,
            epoch: member.epoch,
            address: &member.address,
            role: &member.role,
            handled: member.load.handled,
            waiting: member.load.waiting,
            state: state(presence),
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

/// The members once all states are known, or the time is over.
fn watch_for(looks: &Receiver<Vec<Presence>>, limit: Duration, signal: &Receiver<()>) -> Result<Vec<Presence>> {
    let start = Instant::now();
    let over = after(limit);
    let mut last = Vec::new();
    let mut waited = false;
    loop {
        select! {
            recv(looks) -> look => {
                last = look.map_err(|_| Error::new(ErrorKind::Stopped, "the watch ended"))?;
                let is_known = |presence: &Presence| presence.member.leaving || presence.state != PresenceState::Unknown;
                if last.iter().all(is_known) {
                    return Ok(last);
                }
                if !waited && start.elapsed() > Duration::from_secs(1) {
                    waited = true;
                    output::say(&format!("waiting for renewals, for {:.0} s at most", limit.as_secs_f64()));
                }
            }
            recv(over) -> _ => return Ok(last),
            recv(signal) -> _ => return Err(Error::new(ErrorKind::Stopped, "a signal came")),
        }
    }
}
