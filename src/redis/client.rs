//! Requests about keys, wherever those are: to the right server of a cluster, and again when one is lost.

use std::fmt;
use std::time::Duration;

use ::redis::{Arg, Cmd, ServerError, ServerErrorKind, Value, cmd};

use crate::error::{Error, ErrorKind, Result};
use crate::thread;

use super::node::{Node, Servers};
use super::pool::Pool;
use super::slots::slot;
use super::stream::Limit;
use super::{Conn, RedisOptions, refusal, refused};

/// Makes requests; any thread may.
pub(crate) struct Client(Pool);

/// A request that may be made again: a read, or a write that notices that it was made already.
pub(crate) struct Request<'a> {
    /// A key; all keys of a request are in one slot.
    pub(crate) key: &'a [u8],
    pub(crate) command: &'a Cmd,
    /// For `EVALSHA`: the script, which the server may not know.
    pub(crate) script: Option<&'a str>,
    /// The command after a try that may have been done, if it is another.
    pub(crate) again: Option<&'a dyn Fn() -> Cmd>,
    /// It may change something.
    pub(crate) writes: bool,
}

/// What came of one try.
enum Outcome {
    Answer(Value),
    /// Another server has the slot, or, if `ask`, what this request is about.
    Elsewhere {
        node: Node,
        ask: bool,
    },
    /// It was not done, but may be soon, here or elsewhere.
    NotYet(Error),
    /// The same, and the connection is lost.
    Lost(Error),
    /// The connection is lost: it was sent, and no answer came.
    Unknown(Error),
    /// It will not be done.
    Never(Error),
    /// It was not done, since the server does not know the script.
    NoScript,
}

/// So often in a row a request is sent elsewhere at once, each time as a server says.
const MAX_REDIRECTS: u32 = 8;

impl Client {
    /// Nothing is connected yet.
    pub(crate) fn new(servers: Servers, options: &RedisOptions) -> Result<Client> {
        Ok(Client(Pool::new(servers, options)?))
    }

    /// Whether this address names the same servers, as far as is known without asking.
    pub(crate) fn is_at(&self, address: &str) -> bool {
        Servers::parse(address).is_ok_and(|servers| self.0.knows(&servers))
    }

    /// Makes a request, again if that may help, and returns the answer, which is no refusal.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] for an outage, [`ErrorKind::Unconfirmed`] for one that leaves
    /// open whether a write was made; [`ErrorKind::Denied`], [`ErrorKind::Full`] and others for what is refused.
    pub(crate) fn call(&self, request: &Request<'_>, timeout: Duration) -> Result<Value> {
        let (pool, options) = (&self.0, self.0.options());
        let limit = Limit {
            deadline: thread::deadline(timeout),
            cancel: None,
        };
        let slot = slot(request.key);
        let (mut retries, mut redirects) = (0, 0);
        let mut elsewhere = None;
        let mut wait = options.reconnect_interval;
        let mut is_unconfirmed = false;
        let mut again = None;
        loop {
            let share = limit.share(options.heartbeat_timeout);
            let command = again.as_ref().unwrap_or(request.command);
            let error = match self.attempt((command, request.script), slot, elsewhere.take(), share) {
                Outcome::Answer(value) => return Ok(value),
                Outcome::Elsewhere { node, ask } if redirects < MAX_REDIRECTS => {
                    if !ask {
                        pool.moved(slot, &node);
                    }
                    redirects += 1;
                    elsewhere = Some((node, ask));
                    continue;
                }
                Outcome::Elsewhere { .. } => {
                    Error::new(ErrorKind::Unavailable, "each server says that another one has it")
                }
                Outcome::Never(e) if is_unconfirmed => return Err(self.failed(ErrorKind::Unconfirmed, e)),
                Outcome::Never(e) => return Err(e),
                Outcome::Unknown(e) => {
                    is_unconfirmed |= request.writes;
                    again = again.or_else(|| request.again.map(|again| again()));
                    e
                }
                Outcome::NotYet(e) | Outcome::Lost(e) => e,
                Outcome::NoScript => Error::new(ErrorKind::Unavailable, "a server does not know what it was just told"),
            };
            pool.doubt();
            redirects = 0;
            if retries == options.retries || limit.is_over() {
                return Err(self.failed(give_up(is_unconfirmed, limit), error));
            }
            limit.pause(wait);
            retries += 1;
            wait = options.next_wait(wait);
        }
    }

    fn attempt(
        &self,
        (command, script): (&Cmd, Option<&str>),
        slot: u16,
        elsewhere: Option<(Node, bool)>,
        limit: Limit<'_>,
    ) -> Outcome {
        let pool = &self.0;
        let node = match elsewhere {
            Some((node, ask)) => Ok((node, ask)),
            None => pool.node_of(slot, limit).map(|node| (node, false)),
        };
        let taken = node.and_then(|(node, ask)| Ok((pool.take(&node, limit)?, ask)));
        let (mut pooled, ask) = match taken {
            Ok(taken) => taken,
            // Nobody lets us in tomorrow whom we do not know the password of today.
            Err(e) if e.kind() == ErrorKind::Denied => return Outcome::Never(e),
            Err(e) => return Outcome::NotYet(e),
        };
        let conn = &mut pooled.conn;
        let mut outcome = exchange(conn, command, ask, limit);
        if let (Outcome::NoScript, Some(script)) = (&outcome, script) {
            outcome = exchange(conn, &eval(command, script), ask, limit);
        }
        match outcome {
            Outcome::Lost(_) | Outcome::Unknown(_) => pool.lose(conn.node()),
            _ => pool.put(pooled),
        }
        outcome
    }

    fn failed(&self, kind: ErrorKind, cause: Error) -> Error {
        Error::new(kind, self.0.servers().to_string()).with_source(cause)
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

/// The `EVAL` of an `EVALSHA`: the script in place of its name.
fn eval(command: &Cmd, script: &str) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(script);
    for arg in command.args_iter().skip(2) {
        if let Arg::Simple(arg) = arg {
            eval.arg(arg);
        }
    }
    eval
}

/// What a server that refuses means; the code says it, unless a script hides it.
fn on_refusal(node: &Node, why: &ServerError) -> Outcome {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, ReadOnly, TryAgain};
    let error = |kind| refusal(kind, node, why);
    let details = why.details().unwrap_or_default();
    match (why.kind(), why.code()) {
        (Some(kind @ (Moved | Ask)), _) => match details.split(' ').nth(1).and_then(|other| Node::told(other, node)) {
            Some(node) => Outcome::Elsewhere { node, ask: kind == Ask },
            None => Outcome::NotYet(error(ErrorKind::Unavailable)),
        },
        (Some(NoScript), _) => Outcome::NoScript,
        (Some(TryAgain | ClusterDown | BusyLoading | ReadOnly | MasterDown), _) | (_, "BUSY" | "NOREPLICAS") => {
            Outcome::NotYet(error(ErrorKind::Unavailable))
        }
        (_, "OOM") => Outcome::Never(error(ErrorKind::Full)),
        (_, "WRONGTYPE") => Outcome::Never(error(ErrorKind::Malformed)),
        _ if details.contains("READONLY ") => Outcome::NotYet(error(ErrorKind::Unavailable)),
        _ if details.contains("OOM ") => Outcome::Never(error(ErrorKind::Full)),
        // Before Redis 7.2 what an access list refuses to a script has no code of its own.
        _ if details.contains("The user executing the script") => Outcome::Never(error(ErrorKind::Denied)),
        _ => Outcome::Never(match refused(node, why) {
            denied if denied.kind() == ErrorKind::Denied => denied,
            _ => error(ErrorKind::Unavailable),
        }),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.servers())
    }
}

fn give_up(is_unconfirmed: bool, limit: Limit<'_>) -> ErrorKind {
    match is_unconfirmed {
        true => ErrorKind::Unconfirmed,
        false if limit.is_over() => ErrorKind::Timeout,
        false => ErrorKind::Unavailable,
    }
}
