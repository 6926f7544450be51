//! The outcome of one try of a request, and the meaning of a server's refusal.

use ::redis::{ServerError, ServerErrorKind, Value};

use crate::error::{Error, ErrorKind};

use super::answer::{refusal, refused};
use super::node::Node;

/// The outcome of one try.
pub(super) enum Outcome {
    Answer(Value),
    Elsewhere(Redirect),
    /// Some keys are missing, and may be where the slot is moved to, or from.
    Incomplete(Error),
    /// There is no connection.
    NotReached(Error),
    /// It was not done, but may succeed soon, here or elsewhere.
    NotYet(Error),
    /// It was not done, and the connection is lost.
    Lost(Error),
    /// It was sent, and the connection was lost without an answer.
    Unknown(Error),
    /// It was refused for good.
    Never(Error),
    /// It was not done, since the server does not know the script.
    NoScript,
}

/// A server's statement that another one has the slot, or, with `ask`, the keys of this request.
pub(super) struct Redirect {
    pub(super) node: Node,
    pub(super) from: Node,
    pub(super) ask: bool,
}

pub(super) fn not_reached(e: Error) -> Outcome {
    match e.kind() {
        // Authentication failures are permanent.
        ErrorKind::Denied => Outcome::Never(e),
        _ => Outcome::NotReached(e),
    }
}

/// The code of a refusal. Before Redis 7 that of a command in a script stands behind the place in the script.
fn code(why: &ServerError) -> &str {
    const PLACE: &str = "@user_script:";
    let details = why.details().unwrap_or_default();
    let text = match why.code() {
        PLACE => Some(details),
        "ERR" => details.rsplit_once(PLACE).map(|(_, text)| text),
        _ => None,
    };
    let hidden = text.and_then(|text| text.split_once(": ")?.1.trim_start_matches('-').split(' ').next());
    hidden.unwrap_or(why.code())
}

/// The meaning of a server's refusal.
pub(super) fn on_refusal(node: &Node, why: &ServerError) -> Outcome {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, TryAgain};
    let error = |kind| refusal(kind, node, why);
    let details = why.details().unwrap_or_default();
    match (why.kind(), code(why)) {
        (Some(kind @ (Moved | Ask)), _) => match details.split(' ').nth(1).and_then(|other| Node::told(other, node)) {
            Some(other) => Outcome::Elsewhere(Redirect {
                node: other,
                from: node.clone(),
                ask: kind == Ask,
            }),
            None => Outcome::NotYet(error(ErrorKind::Unavailable)),
        },
        (Some(NoScript), _) => Outcome::NoScript,
        (Some(TryAgain), _) => Outcome::Incomplete(error(ErrorKind::Unavailable)),
        (Some(ClusterDown | BusyLoading | MasterDown), _) | (_, "BUSY" | "NOREPLICAS" | "READONLY") => {
            Outcome::NotYet(error(ErrorKind::Unavailable))
        }
        (_, "OOM") => Outcome::Never(error(ErrorKind::Full)),
        (_, "WRONGTYPE") => Outcome::Never(error(ErrorKind::Malformed)),
        // Before Redis 7.2 an access list's refusal in a script has no code of its own.
        _ if details.contains("The user executing the script") => Outcome::Never(error(ErrorKind::Denied)),
        _ => Outcome::Never(match refused(node, why) {
            denied if denied.kind() == ErrorKind::Denied => denied,
            _ => error(ErrorKind::Unavailable),
        }),
    }
}

/// A refusal of any kind.
#[cfg(any(test, fuzzing))]
pub(super) fn on_any_refusal(node: &Node, why: &ServerError) {
    if let Outcome::Elsewhere(Redirect { node, .. }) = on_refusal(node, why) {
        assert!(!node.host.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use ::redis::parse_redis_value;

    use super::*;

    /// As Redis 5 and 7 word them.
    #[test]
    fn the_code_of_a_refusal_is_found_within_a_script() {
        let in_script = "-ERR Error running script (call to f_568f): @user_script:72: ";
        for (reply, expected) in [
            (
                "-WRONGTYPE Operation against a key script: f_568f, on @user_script:72.".to_owned(),
                "WRONGTYPE",
            ),
            (format!("{in_script}WRONGTYPE Operation against a key"), "WRONGTYPE"),
            (format!("{in_script}@user_script: 72: -OOM command not allowed"), "OOM"),
            ("-@user_script: 193: -OOM command not allowed".to_owned(), "OOM"),
            ("-ERR unknown command `X: Y`".to_owned(), "ERR"),
            ("-ERR".to_owned(), "ERR"),
        ] {
            let Ok(Value::ServerError(why)) = parse_redis_value(format!("{reply}\r\n").as_bytes()) else {
                panic!("{reply}");
            };
            assert_eq!(code(&why), expected, "{reply}");
        }
    }
}
