//! Answers of servers: refusals as errors, and fields.

use ::redis::{ServerError, Value, from_redis_value_ref};

use crate::config::Secret;
use crate::error::{Error, ErrorKind};

use super::node::Node;

/// The error for a server's refusal.
pub(crate) fn refused(node: &Node, why: &ServerError) -> Error {
    refusal(kind_of(why), node, why)
}

/// The error for the refusal of a login, which may quote the request, and so the password.
pub(super) fn turned_away(kind: ErrorKind, node: &Node, why: &ServerError, password: &Secret, hint: &str) -> Error {
    let details = why.details().unwrap_or_default();
    let said = without(&format!("{} {details}", why.code()), password.expose());
    Error::new(kind, format!("Redis at {node} refuses: {said}{hint}"))
}

/// An error of this kind with a server's refusal.
pub(super) fn refusal(kind: ErrorKind, node: &Node, why: &ServerError) -> Error {
    let (code, details) = (why.code(), why.details().unwrap_or_default());
    Error::new(kind, format!("Redis at {node} refuses: {code} {details}"))
}

pub(super) fn kind_of(why: &ServerError) -> ErrorKind {
    match why.code() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => ErrorKind::Denied,
        _ => ErrorKind::Transport,
    }
}

/// The number of characters of a password that are hidden like the whole, since a server cuts what it quotes.
const TELLING: usize = 4;

/// The text, with three stars in place of the password and of each piece that it begins with.
fn without(text: &str, password: &str) -> String {
    let telling = password.chars().count().clamp(1, TELLING);
    let (mut shown, mut rest) = (String::new(), text.chars());
    while let Some(next) = rest.clone().next() {
        // Line ends are quoted as spaces.
        let is_same = |(ours, quoted): &(char, char)| ours == quoted || (ours.is_control() && *quoted == ' ');
        let same = password.chars().zip(rest.clone()).take_while(is_same).count();
        if same >= telling {
            shown.push_str("***");
            rest.nth(same - 1);
        } else {
            shown.push(next);
            rest.next();
        }
    }
    shown
}

/// The field of this name in an answer that is a map.
pub(super) fn field(answer: &Value, name: &str) -> Option<String> {
    let text = |value| from_redis_value_ref::<String>(value).ok();
    let mut entries = answer.as_map_iter()?;
    entries.find_map(|(key, value)| text(key).filter(|key| key == name).and_then(|_| text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_shows_a_password() {
        for (text, password, shown) in [
            ("ERR got 'hunter2', 'hunter2'", "hunter2", "ERR got '***', '***'"),
            // Cut, also within a character, and with the end of a line.
            ("ERR got 'hunt", "hunter2", "ERR got '***"),
            ("ERR got 'pässwö\u{fffd}", "pässwörd", "ERR got '***\u{fffd}"),
            ("ERR got 'a b c d'", "a\nb\rc\td", "ERR got '***'"),
            ("ERR got pw", "pw", "ERR got ***"),
            ("ERR hunting", "", "ERR hunting"),
            ("WRONGPASS invalid hub", "hunter2", "WRONGPASS invalid hub"),
            ("hhhunter2hunter2", "hunter2", "hh******"),
        ] {
            assert_eq!(without(text, password), shown, "{text}");
        }
    }
}
