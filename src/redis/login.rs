//! The login: with `HELLO` in RESP3 or, for a server that does not know that, as before Redis 6, in RESP2.

use std::error::Error as _;
use std::io;

use ::redis::{Cmd, ServerError, Value};
use socket2::Socket;

use crate::error::{Error, ErrorKind, Result};

use super::access::Access;
use super::answer::{field, kind_of, turned_away};
use super::conn::Conn;
use super::health::{Health, line};
use super::input::Incoming;
use super::node::Node;
use super::reply::Resp;

/// A connection that logs in.
pub(super) struct Login {
    pub(super) conn: Conn,
    /// The request whose answer is missing.
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Hello,
    /// The rest of `HELLO`, for servers without it.
    Authenticate,
    Name,
    About,
    Select,
}

impl Login {
    pub(super) fn begin(socket: Socket, node: &Node, access: &Access) -> Result<Login> {
        let mut conn = Conn::new(socket, node, access)?;
        conn.push(&request(Step::Hello, access));
        let step = Step::Hello;
        Ok(Login { conn, step })
    }

    /// Continues without waiting; returns true once the login has succeeded.
    pub(super) fn go_on(&mut self, access: &Access) -> Result<bool> {
        self.advance(access).map_err(|e| self.unanswered(e))
    }

    /// The error for a failed login; without an answer, it says why that may be.
    pub(super) fn unanswered(&self, e: Error) -> Error {
        let node = self.conn.node();
        let cause = e.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        let may_doubt = self.conn.received == 0 && node.path().is_none();
        let doubt = cause.and_then(|cause| self.conn.doubt(cause.kind()));
        match doubt.filter(|_| may_doubt) {
            Some(doubt) => {
                let context = format!("Redis at {node} does not answer: {doubt}");
                e.context(context)
            }
            None => e,
        }
    }

    fn advance(&mut self, access: &Access) -> Result<bool> {
        loop {
            self.conn.send_some()?;
            match self.conn.next(usize::MAX)? {
                Some(Incoming::Value(answer)) => match self.after(answer, access)? {
                    Some(step) => {
                        self.conn.push(&request(step, access));
                        self.step = step;
                    }
                    None => return Ok(true),
                },
                Some(_) => {}
                None if self.conn.fill()? => {}
                None => return Ok(false),
            }
        }
    }

    /// The step after this answer; `None` after the last one.
    fn after(&mut self, answer: Value, access: &Access) -> Result<Option<Step>> {
        let has_login = has_login(access);
        match (self.step, answer) {
            (Step::Hello, Value::ServerError(why)) if may_be_unknown(&why, has_login) => {
                self.conn.resp = Resp::Two;
                Ok(Some(if has_login { Step::Authenticate } else { Step::Name }))
            }
            // The name is only for the administrator's eyes.
            (Step::Name, _) => Ok(Some(Step::About)),
            (step, Value::ServerError(why)) => {
                let node = self.conn.node();
                // The next try would fail alike. Before Redis 6 a wrong password has no code of its own.
                let is_final = matches!(step, Step::Authenticate | Step::About | Step::Select) && why.code() == "ERR";
                let kind = if is_final { ErrorKind::Denied } else { kind_of(&why) };
                let hint = match (step, why.code()) {
                    (Step::Authenticate, "ERR") if !is_default(&access.user) => {
                        "; a server before Redis 6 knows no users"
                    }
                    (Step::About, "ERR" | "NOPERM") => "; without HELLO, the login needs INFO",
                    _ => "",
                };
                Err(turned_away(kind, node, &why, &access.password, hint))
            }
            (Step::Authenticate, _) => Ok(Some(Step::Name)),
            (Step::Hello | Step::About, about) => {
                self.learn(&about, access)?;
                Ok((access.database != 0).then_some(Step::Select))
            }
            (Step::Select, _) => Ok(None),
        }
    }

    /// Takes what the server says of itself.
    fn learn(&mut self, about: &Value, access: &Access) -> Result<()> {
        let Some(mode) = field(about, "mode").or_else(|| line(about, "redis_mode")) else {
            return Err(self.conn.nonsense("it does not say what it is"));
        };
        let node = self.conn.node();
        match (mode == "sentinel", access.is_sentinel) {
            (true, true) => return Ok(()),
            (false, false) => {}
            (true, false) => {
                let context = format!(
                    "{node} is a Sentinel, not a Redis server: give redis-sentinel://{node}/ and the master's name"
                );
                return Err(Error::new(ErrorKind::Denied, context));
            }
            (false, true) => {
                let context = format!("{node} is a Redis server, not a Sentinel: give redis://{node}");
                return Err(Error::new(ErrorKind::Denied, context));
            }
        }
        self.conn.in_cluster = mode == "cluster";
        // One name may stand for a master and its replicas.
        if !self.conn.in_cluster && Health::read(about).is_some_and(|health| !health.ok) {
            return Err(self.conn.cut_off());
        }
        Ok(())
    }
}

fn request(step: Step, access: &Access) -> Cmd {
    let (user, password) = (&*access.user, access.password.expose());
    let mut request = Cmd::new();
    match step {
        Step::Hello => {
            request.arg("HELLO").arg(3);
            if has_login(access) {
                let user = if user.is_empty() { "default" } else { user };
                request.arg("AUTH").arg(user).arg(password);
            }
            request.arg("SETNAME").arg(NAME);
        }
        Step::Authenticate if is_default(user) => _ = request.arg("AUTH").arg(password),
        Step::Authenticate => _ = request.arg("AUTH").arg(user).arg(password),
        Step::Name => _ = request.arg("CLIENT").arg("SETNAME").arg(NAME),
        Step::About => _ = request.arg("INFO"),
        Step::Select => _ = request.arg("SELECT").arg(access.database),
    }
    request
}

/// The connection's name in the server's lists.
const NAME: &str = "tablecast";

fn has_login(access: &Access) -> bool {
    !(access.user.is_empty() && access.password.expose().is_empty())
}

fn is_default(user: &str) -> bool {
    matches!(user, "" | "default")
}

/// True if the server, or a proxy before it, may refuse `HELLO` because it does not know that, or RESP3. Each has words
/// of its own for it, and some want a login first.
fn may_be_unknown(why: &ServerError, has_login: bool) -> bool {
    let details = why.details().unwrap_or_default();
    match why.code() {
        "WRONGPASS" | "NOPERM" | "DENIED" => false,
        "NOAUTH" => has_login,
        _ => !details.starts_with("max number of clients"),
    }
}
