//! Targets of the fuzzer: what a server sends, and the addresses of servers.

use ::redis::Value;

use super::address::Servers;
use super::answer::field;
use super::cluster::{self, Range};
use super::health::Health;
use super::input::{Incoming, Input};
use super::node::Node;
use super::outcome;
use super::sentinel;
use super::slots::Slots;
use crate::config::Secret;

/// A larger payload of a message is skipped.
const LIMIT: usize = 1 << 10;

/// The input of a connection: the first byte says how it is cut into pieces, and whether it is of subscriptions in
/// RESP2.
pub(crate) fn replies(data: &[u8]) {
    let Some((step, input)) = data.split_first() else {
        return;
    };
    let arrays = step >= &128;
    let (whole, values) = taken_apart(input, input.len().max(1), arrays);
    let (pieces, _) = taken_apart(input, usize::from(step % 32) + 1, arrays);
    assert_eq!(whole, pieces);
    values.into_iter().for_each(understand);
}

/// The parts of the input, as text, and the values in it. It comes in pieces of `step` bytes.
fn taken_apart(input: &[u8], step: usize, arrays: bool) -> (Vec<String>, Vec<Value>) {
    let (mut taken, mut parts, mut values) = (Input::default(), Vec::new(), Vec::new());
    taken.has_pushes_as_arrays = arrays;
    for piece in input.chunks(step) {
        let mut left = piece;
        while !left.is_empty() {
            let filled = taken.fill(|room| std::io::Read::read(&mut left, room));
            assert!(filled.is_ok_and(|(count, _)| count > 0));
        }
        loop {
            match taken.next(LIMIT) {
                Ok(None) => break,
                Ok(Some(Incoming::Message)) => {
                    let [channel, payload] = taken.message();
                    assert!(payload.len() <= LIMIT);
                    parts.push(format!("{channel:?} {payload:?}"));
                }
                Ok(Some(Incoming::TooLarge)) => parts.push("too large".into()),
                Ok(Some(Incoming::Value(value))) => {
                    parts.push(format!("{value:?}"));
                    values.push(value);
                }
                Err(_) => {
                    parts.push("broken".into());
                    return (parts, values);
                }
            }
        }
    }
    (parts, values)
}

/// The value that these bytes begin with.
pub(crate) fn value(mut bytes: &[u8]) -> Option<Value> {
    let mut input = Input::default();
    input.fill(|room| std::io::Read::read(&mut bytes, room)).ok()?;
    match input.next(LIMIT) {
        Ok(Some(Incoming::Value(value))) => Some(value),
        _ => None,
    }
}

/// Reads a value as the answer to every question.
fn understand(value: Value) {
    let asked = Node {
        host: "fe80::1%lo".into(),
        port: 1,
    };
    let _ = (Health::read(&value), field(&value, "mode"));
    if let Value::ServerError(why) = &value {
        outcome::on_any_refusal(&asked, why);
    }
    assert!(sentinel::read_address(&value, &asked).is_none_or(|node| node.port != 0));
    let ranges = value.into_sequence().unwrap_or_default().into_iter();
    let ranges: Vec<_> = ranges.filter_map(|range| cluster::read(range, &asked)).collect();
    assert!(ranges.iter().flat_map(|range| &range.nodes).all(|node| node.port != 0));
    look_up(ranges, asked);
}

/// Looks for the owner of every slot at the end of a range, and of those beside it.
fn look_up(ranges: Vec<Range>, other: Node) {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.slots);
    let is_ordered = |pair: &[Range]| matches!(pair, [one, next] if one.slots.1 < next.slots.0);
    let is_table = sorted.iter().all(|range| range.slots.0 <= range.slots.1) && sorted.windows(2).all(is_ordered);
    let slots = Slots::new(ranges, other.clone());
    for (first, last) in sorted.iter().map(|range| range.slots) {
        for slot in [first.saturating_sub(1), first, last, last.saturating_add(1)] {
            let owner = slots.node(slot);
            let mut having = sorted
                .iter()
                .filter(|range| (range.slots.0..=range.slots.1).contains(&slot));
            let expected = having.next().and_then(|range| range.nodes.first()).unwrap_or(&other);
            assert!(!is_table || owner == Some(expected), "slot {slot}");
        }
    }
    assert!(slots.nodes().count() > 0);
}

/// An address: what is shown of it means the same, and has no password.
pub(crate) fn address(text: &str) {
    let servers = match Servers::parse(text) {
        Ok(servers) => servers,
        Err(e) => {
            // With nothing but roles before the last @ there is no password; a public key may contain an @.
            let before = text.rsplit_once('@').map_or("", |(before, _)| before);
            let may_show = before.trim_matches(['@', '>']).is_empty() || text.contains("?key=") || text.len() < 12;
            assert!(may_show || !e.to_string().contains(text), "{e}");
            return;
        }
    };
    let shown = servers.to_string();
    let again = Servers::parse(&shown).expect("it was shown");
    let (password, user) = (servers.password.expose().to_owned(), servers.user.clone());
    let public = Servers {
        user: String::new(),
        password: Secret::default(),
        ..servers.clone()
    };
    assert_eq!(again, public, "{shown}");
    let by_chance = format!("{shown} {public:?} {user:?}");
    if password.len() >= 8 && !by_chance.contains(&password) {
        assert!(!format!("{shown} {servers:?}").contains(&password));
    }
    for node in &servers.nodes {
        if let Some(told) = Node::told(&format!("{}:{}", node.host, node.port), node) {
            assert_eq!(told.port, node.port);
        }
    }
}
