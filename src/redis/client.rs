//! Requests about keys: to the right server of a cluster, and repeated if a server is lost.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ::redis::{Arg, Cmd, ServerErrorKind, Value, cmd};

use crate::error::{Error, ErrorKind, Result};
use crate::thread;

use super::address::Servers;
use super::conn::Conn;
use super::node::Node;
use super::options::RedisOptions;
use super::outcome::{Outcome, Redirect, not_reached, on_refusal};
use super::pool::Pool;
use super::slots::slot;
use super::stream::Limit;

/// Makes requests, from any thread.
pub(crate) struct Client(pub(super) Pool);

/// A request that may be repeated: a read, or a write that notices its repetition.
pub(crate) struct Request<'a> {
    /// One of its keys, which are all in one slot.
    pub(crate) key: &'a [u8],
    pub(crate) command: &'a Cmd,
    /// For `EVALSHA`: the script, in case the server does not know it.
    pub(crate) script: Option<&'a str>,
    /// Makes the command of each try after one that may have been done, if it differs.
    pub(crate) again: Option<&'a dyn Fn() -> Cmd>,
    /// True if it may change something.
    pub(crate) writes: bool,
}

/// How many redirects of a request in a row are followed at once.
const MAX_REDIRECTS: u32 = 8;

impl Client {
    /// A client without connections yet.
    pub(crate) fn new(servers: Servers, options: &RedisOptions) -> Result<Client> {
        Ok(Client(Pool::new(servers, options)?))
    }

    /// True if this address names the same servers, as far as is known without asking.
    pub(crate) fn is_at(&self, address: &str) -> bool {
        Servers::parse(address).is_ok_and(|servers| self.0.knows(&servers))
    }

    /// Makes a request, repeated if that may help, and returns the answer, which is no refusal.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] for an outage, [`ErrorKind::Unconfirmed`] if a write may
    /// have been made; [`ErrorKind::Denied`], [`ErrorKind::Full`] and others for refusals.
    pub(crate) fn call(&self, request: &Request<'_>, timeout: Duration) -> Result<Value> {
        let (pool, options) = (&self.0, self.0.options());
        let limit = Limit::until(thread::deadline(timeout));
        let slot = slot(request.key);
        let (mut retries, mut redirects) = (0, 0);
        let mut elsewhere = None;
        let mut wait = options.reconnect_interval;
        let (mut is_unconfirmed, mut is_repeated) = (false, false);
        loop {
            let again = request.again.filter(|_| is_repeated).map(|again| again());
            let command = again.as_ref().unwrap_or(request.command);
            let error = match self.attempt((command, request.script), slot, elsewhere.take(), limit) {
                Outcome::Answer(value) => return Ok(value),
                Outcome::Elsewhere(redirect) if redirects < MAX_REDIRECTS => {
                    if !redirect.ask && !redirect.node.is_unnamed() {
                        pool.moved(slot, &redirect.node);
                    }
                    redirects += 1;
                    elsewhere = Some(redirect);
                    continue;
                }
                Outcome::Elsewhere(_) => Error::new(
                    ErrorKind::Unavailable,
                    "too many redirects: each server names another one as the owner of the slot",
                ),
                Outcome::Never(e) if is_unconfirmed => return Err(self.failed(ErrorKind::Unconfirmed, e)),
                Outcome::Never(e) => return Err(e),
                Outcome::Unknown(e) => {
                    is_unconfirmed |= request.writes;
                    is_repeated = true;
                    e
                }
                Outcome::NotReached(e) | Outcome::NotYet(e) | Outcome::Incomplete(e) | Outcome::Lost(e) => e,
                Outcome::NoScript => Error::new(
                    ErrorKind::Unavailable,
                    "a server does not know a script that was just loaded",
                ),
            };
            pool.doubt();
            redirects = 0;
            if retries == options.retries || limit.is_over() {
                return Err(self.failed(give_up(is_unconfirmed, limit), error));
            }
            pool.pause(limit, wait);
            retries += 1;
            wait = options.next_wait(wait);
        }
    }

    /// Tries one possible address of the server after another, until one answers.
    fn attempt(
        &self,
        request: (&Cmd, Option<&str>),
        slot: u16,
        redirect: Option<Redirect>,
        limit: Limit<'_>,
    ) -> Outcome {
        let pool = &self.0;
        let (node, from, ask) = match redirect {
            Some(Redirect { node, from, ask }) => (node, Some(from), ask),
            None => match pool.node_of(slot, limit) {
                Ok(node) => (node, None, false),
                Err(e) => return not_reached(e),
            },
        };
        let mut places = VecDeque::from(pool.places(&node, from.as_ref()));
        let mut missed = None;
        while let Some(place) = places.pop_front() {
            let outcome = self.attempt_at(&place, request, from.as_ref().filter(|_| ask), limit);
            match &outcome {
                Outcome::NotReached(_) => {
                    if place == node {
                        places.extend(pool.stand_ins(&node));
                    }
                    missed = Some(outcome);
                    continue;
                }
                Outcome::Elsewhere(redirect) if redirect.node == node => {
                    missed.get_or_insert(outcome);
                    continue;
                }
                Outcome::Answer(_) if node.is_unnamed() && !ask => pool.moved(slot, &place),
                Outcome::Answer(_) if missed.is_some() && !node.is_unnamed() => pool.found(&node, &place),
                _ => {}
            }
            return outcome;
        }
        missed
            .unwrap_or_else(|| Outcome::Never(Error::new(ErrorKind::Unavailable, "there are no Redis servers to ask")))
    }

    /// Makes one try at one address. `asking` is the server that has redirected only this request.
    pub(super) fn attempt_at(
        &self,
        place: &Node,
        (command, script): (&Cmd, Option<&str>),
        asking: Option<&Node>,
        limit: Limit<'_>,
    ) -> Outcome {
        let (pool, patience) = (&self.0, self.0.options().heartbeat_timeout);
        let master = match pool.hold(place) {
            Ok(master) => master,
            Err(e) => return not_reached(e),
        };
        let check = || master.as_ref().map_or(Ok(()), |master| master.check());
        let limit = master.as_ref().map_or(limit, |master| master.limit(limit));
        let mut pooled = match pool.take(place, limit.share(patience)) {
            Ok(pooled) => pooled,
            Err(e) => return not_reached(e),
        };
        if let Err(e) = check() {
            return not_reached(e);
        }
        let (conn, limit, ask) = (&mut pooled.conn, limit.patient(patience), asking.is_some());
        let mut outcome = exchange(conn, command, ask, limit);
        if let (Outcome::NoScript, Some(script)) = (&outcome, script)
            && check().is_ok()
        {
            outcome = exchange(conn, &eval(command, script), ask, limit);
        }
        if let (Outcome::Incomplete(_), Some(script), Some(from)) = (&outcome, script, asking)
            && self.has_none(from, command, limit)
        {
            outcome = exchange(conn, &eval_by_one_key(command, script), ask, limit);
        }
        let checked = check();
        let is_former = checked.is_err();
        if let Err(e) = checked {
            outcome = match outcome {
                Outcome::Lost(e) => Outcome::Lost(e),
                // What it did is lost with it.
                Outcome::Answer(_) | Outcome::Unknown(_) => Outcome::Unknown(e),
                // It was not done.
                _ => Outcome::NotYet(e),
            };
        }
        match outcome {
            Outcome::Lost(_) | Outcome::Unknown(_) => pool.lose(conn.node()),
            _ if is_former => pool.lose(conn.node()),
            _ => pool.put(pooled),
        }
        outcome
    }

    /// True if a server whose slot is being moved away has none of the script's keys left; it gets none again.
    fn has_none(&self, node: &Node, command: &Cmd, limit: Limit<'_>) -> bool {
        let pool = &self.0;
        let Ok(mut pooled) = pool.take(node, limit.share(pool.options().heartbeat_timeout)) else {
            return false;
        };
        let (keys, _) = keys_and_args(command);
        for key in &keys {
            pooled.conn.push(cmd("EXISTS").arg(key));
        }
        if pooled.conn.flush(limit).is_err() {
            return false;
        }
        let mut has_none = true;
        for _ in &keys {
            match pooled.conn.reply(limit) {
                Ok(Value::ServerError(why)) => has_none &= why.kind() == Some(ServerErrorKind::Ask),
                Ok(_) => has_none = false,
                Err(_) => return false,
            }
        }
        pool.put(pooled);
        has_none
    }

    pub(super) fn failed(&self, kind: ErrorKind, cause: Error) -> Error {
        let servers = self.0.servers();
        match &servers.nodes[..] {
            // The cause names it already.
            [node] if servers.master.is_none() && cause.to_string().contains(&node.to_string()) => cause.of_kind(kind),
            _ => Error::new(kind, servers.to_string()).with_source(cause),
        }
    }
}

/// Sends a command and waits for the answer.
fn exchange(conn: &mut Conn, command: &Cmd, ask: bool, limit: Limit<'_>) -> Outcome {
    if ask {
        conn.push(&cmd("ASKING"));
    }
    conn.push(command);
    if let Err(e) = conn.flush(limit) {
        return Outcome::Lost(e);
    }
    let asked = if ask { conn.reply(limit).map(drop) } else { Ok(()) };
    match asked.and_then(|()| conn.reply(limit)) {
        Ok(Value::ServerError(why)) => on_refusal(conn.node(), &why),
        Ok(answer) => Outcome::Answer(answer),
        Err(e) => Outcome::Unknown(e),
    }
}

/// Splits an `EVALSHA` into its keys and its other arguments.
fn keys_and_args(command: &Cmd) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let mut args = command.args_iter().skip(2).filter_map(|arg| match arg {
        Arg::Simple(arg) => Some(arg),
        _ => None,
    });
    let count = args.next().and_then(|count| str::from_utf8(count).ok()?.parse().ok());
    let keys = args.by_ref().take(count.unwrap_or(0)).collect();
    (keys, args.collect())
}

/// The `EVAL` of an `EVALSHA`: the script in place of its name.
fn eval(command: &Cmd, script: &str) -> Cmd {
    let (keys, args) = keys_and_args(command);
    let mut eval = cmd("EVAL");
    eval.arg(script).arg(keys.len()).arg(keys).arg(args);
    eval
}

/// As [`eval`], but it names only one key and passes the others as arguments: a server to which a slot is being moved
/// runs no script with several keys if one of them is missing.
fn eval_by_one_key(command: &Cmd, script: &str) -> Cmd {
    const TAKE_KEYS: &str = "for _ = 1, tonumber(table.remove(ARGV, 1)) do KEYS[#KEYS + 1] = table.remove(ARGV, 1) end";
    let (keys, args) = keys_and_args(command);
    let (first, others) = keys.split_at(keys.len().min(1));
    let mut eval = cmd("EVAL");
    eval.arg(format!("{TAKE_KEYS}\n{script}"));
    eval.arg(first.len()).arg(first).arg(others.len()).arg(others).arg(args);
    eval
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.servers())
    }
}

pub(super) fn give_up(is_unconfirmed: bool, limit: Limit<'_>) -> ErrorKind {
    match is_unconfirmed {
        true => ErrorKind::Unconfirmed,
        false if limit.is_over() => ErrorKind::Timeout,
        false => ErrorKind::Unavailable,
    }
}
