//! The arguments of `write.lua`, and the scripts' replies.

use std::borrow::Cow;

use ::redis::{Value, from_redis_value};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Announcement, Write, WriteOp, Written};
use crate::update::Topic;

/// The arguments of `write.lua`. A delete is remembered for `remembered` writes.
pub(super) fn arguments<'a>(
    write: &'a Write<'_>,
    remembered: &'a str,
    announcement: Option<&'a Announcement<'_>>,
) -> [Cow<'a, [u8]>; 9] {
    let (what, value) = match write.op {
        WriteOp::Create(value) => ("create", value),
        WriteOp::Set(value) => ("set", value),
        WriteOp::Delete => ("delete", ""),
    };
    let topic = match (write.op, write.topic) {
        (_, Some(topic)) => Cow::Borrowed(topic.as_str().as_bytes()),
        (WriteOp::Create(_), None) => Cow::Owned(Topic::ALL.as_str().into()),
        (WriteOp::Set(_) | WriteOp::Delete, None) => Cow::default(),
    };
    let version = write.if_version.map_or(String::new(), |version| version.to_string());
    let flags = match (write.unless_equal, write.returning) {
        (false, false) => "",
        (true, false) => "e",
        (false, true) => "r",
        (true, true) => "er",
    };
    let (head, tail) = announcement.map_or((&[][..], &[][..]), |it| (it.head, it.tail));
    let [what, key, value, flags] = [what, write.key, value, flags].map(|text| Cow::Borrowed(text.as_bytes()));
    let version = Cow::Owned(version.into_bytes());
    [
        what,
        key,
        value,
        topic,
        version,
        flags,
        Cow::Borrowed(head),
        Cow::Borrowed(tail),
        Cow::Borrowed(remembered.as_bytes()),
    ]
}

/// The outcome of a write that has found neither the row nor the table, of which it does not see all parts.
const NO_TABLE: u64 = 9;

pub(super) fn is_without_table(answer: &Value) -> bool {
    matches!(answer, Value::Array(answer) if *answer == [Value::Int(NO_TABLE as i64)])
}

/// Reads a reply of `write.lua`: the versions alone, if the caller knows the rest; or the outcome's number (4: it was
/// made before), then the versions, the topic, and the value before.
pub(super) fn read_answer(answer: Value, write: &Write<'_>) -> Result<Written> {
    if let Value::BulkString(versions) = answer {
        let (version, after) = read_versions(&versions)?;
        return Ok(Written {
            version,
            after,
            topic: write.topic.cloned().unwrap_or(Topic::ALL),
            changed: true,
            before: None,
        });
    }
    let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
    let outcome = unsigned(answer.next())?;
    match outcome {
        0 | 4 | 5 => {}
        1 => return Err(write.already_exists()),
        2 | NO_TABLE => return Err(write.not_found()),
        3 => {
            let version = unsigned(answer.next()).ok();
            return Err(version.map_or_else(|| write.conflict(), |version| write.conflict_with(version)));
        }
        8 => return Err(refused(&text(answer.next())?)),
        _ => return Err(undecided(outcome, write.table)),
    }
    if outcome == 4 && write.returning && !matches!(write.op, WriteOp::Create(_)) {
        let context = "the write was made, but the answer with the earlier value was lost";
        return Err(Error::new(ErrorKind::Unconfirmed, context));
    }
    let Some(Value::BulkString(versions)) = answer.next() else {
        return Err(nonsense());
    };
    let (version, after) = read_versions(&versions)?;
    let topic = text(answer.next())?;
    // The reply does not repeat a named topic.
    let topic = match (&*topic, write.topic) {
        ("", Some(named)) => named.clone(),
        ("", None) => Topic::ALL,
        _ => Topic::new(topic).map_err(|_| nonsense())?,
    };
    Ok(Written {
        version,
        after,
        topic,
        changed: outcome != 5,
        before: match answer.next() {
            None | Some(Value::Nil) => None,
            before => Some(text(before)?),
        },
    })
}

/// The versions of a write and of the topic's write before it; a row that was not changed has only the first.
fn read_versions(bytes: &[u8]) -> Result<(u64, Option<u64>)> {
    let (version, rest) = bytes.split_first_chunk().ok_or_else(nonsense)?;
    let after = match rest {
        [] => None,
        _ => Some(u64::from_be_bytes(rest.try_into().map_err(|_| nonsense())?)),
    };
    Ok((u64::from_be_bytes(*version), after))
}

pub(super) fn unsigned(value: Option<Value>) -> Result<u64> {
    match value {
        Some(Value::Int(number)) => u64::try_from(number).map_err(|_| nonsense()),
        _ => Err(nonsense()),
    }
}

pub(super) fn text(value: Option<Value>) -> Result<String> {
    from_redis_value(value.unwrap_or_default()).map_err(|_| nonsense())
}

/// The error for a script that did not do its work.
pub(super) fn undecided(outcome: u64, table: &str) -> Error {
    match outcome {
        6 => {
            let context = format!("table {table:?}: the write may have been made: its outcome is no longer known");
            Error::new(ErrorKind::Unconfirmed, context)
        }
        7 => evicted(table),
        _ => nonsense(),
    }
}

/// The error for a write among others that the server has refused entirely.
pub(super) fn refused(why: &str) -> Error {
    let kind = match why {
        _ if why.contains("OOM ") => ErrorKind::Full,
        _ if why.contains("WRONGTYPE ") => ErrorKind::Malformed,
        _ if why.contains("NOPERM") || why.contains("The user executing the script") => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, why)
}

/// The error for a table with a missing part.
pub(super) fn evicted(table: &str) -> Error {
    let context = format!(
        "table {table:?}: a part of it is missing, probably evicted by the server; set its maxmemory-policy to noeviction, and delete the table"
    );
    Error::new(ErrorKind::Malformed, context)
}

/// The error for a reply that the scripts do not return.
pub(super) fn nonsense() -> Error {
    Error::new(ErrorKind::Malformed, "unexpected reply from Redis")
}
