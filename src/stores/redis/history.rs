//! The versions of tables and topics, and the changes of rows.

use ::redis::Value;

use super::answer::{evicted, nonsense, text};
use super::{ABOUT, DELETES, Inner, MAX_BATCH, ROWS, prefix_of, row, script};
use crate::error::Result;
use crate::store::{ChangePage, Changes, PAGE_BYTES, StoredChange, TableVersion, TopicVersions};
use crate::update::Topic;

impl Inner {
    pub(super) fn table_version(&self, table: &str) -> Result<TableVersion> {
        self.topic_versions(table, &[]).map(|versions| versions.table)
    }

    pub(super) fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<TopicVersions> {
        let fields: Vec<_> = topics
            .iter()
            .map(|topic| [b"\xff", &*prefix_of(topic)].concat())
            .collect();
        let fields: Vec<_> = fields.iter().map(Vec::as_slice).collect();
        let answer = self.run(&script::TOPIC_VERSIONS, (table, &[ROWS, ABOUT]), &fields)?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        if let [Value::Int(2)] = answer.as_slice() {
            return Err(evicted(table));
        }
        let now = read_version(&mut answer)?;
        // The table's delete was a write on every topic.
        let deleted = answer.next().map_or(Ok(None), decimal)?.unwrap_or(0);
        let versions = answer.map(|version| match version {
            Value::Nil => Ok(deleted),
            version => version_of(Some(version)),
        });
        let versions: Vec<_> = versions.collect::<Result<_>>()?;
        if versions.len() != topics.len() {
            return Err(nonsense());
        }
        Ok(TopicVersions { table: now, versions })
    }

    pub(super) fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        let limit = self.options.batch_amount.clamp(1, MAX_BATCH).to_string();
        let room = PAGE_BYTES.to_string();
        let args = [
            &*prefix_of(topic),
            &since.version.to_be_bytes(),
            limit.as_bytes(),
            room.as_bytes(),
        ];
        let answer = self.run(&script::CHANGES, (table, &[ROWS, ABOUT, DELETES]), &args)?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let more = match answer.next() {
            Some(Value::Int(0)) => false,
            Some(Value::Int(1)) => true,
            Some(Value::Int(2)) => return Err(evicted(table)),
            Some(Value::Int(3)) => return Ok(Changes::Unknown),
            _ => return Err(nonsense()),
        };
        let now = read_version(&mut answer)?;
        if now.went_back_since(&since) {
            return Ok(Changes::Unknown);
        }
        let complete = answer.next();
        let mut page = ChangePage {
            version: if more { now.at(version_of(complete)?) } else { now },
            more,
            ..ChangePage::default()
        };
        while let Some(key) = answer.next() {
            let Some(Value::BulkString(stored)) = answer.next() else {
                return Err(nonsense());
            };
            let key = text(Some(key))?.into();
            page.changes.push(match <[u8; 8]>::try_from(&*stored) {
                Ok(version) => StoredChange {
                    key,
                    version: u64::from_be_bytes(version),
                    value: None,
                },
                Err(_) => row::unpack(table, key, stored)?.into(),
            });
        }
        Ok(Changes::Page(page))
    }
}

/// Reads the version of a table, the writes with which it began and that was the last, and the server's run.
fn read_version(answer: &mut impl Iterator<Item = Value>) -> Result<TableVersion> {
    let version = answer.next().unwrap_or_default();
    let (first, last, run) = (answer.next(), answer.next(), answer.next());
    let Some(version) = decimal(version)? else {
        return Ok(TableVersion::default());
    };
    // The session and number of a write, as one number. The first one is compared between processes of all versions.
    let bytes = |write| match write {
        Some(Value::BulkString(write)) => write,
        _ => Vec::new(),
    };
    let first = bytes(first).into_iter().map(u64::from);
    let last = bytes(last).into_iter().map(u64::from);
    Ok(TableVersion {
        incarnation: first.fold(0, |number: u64, byte| number.rotate_left(8) ^ byte),
        version,
        // FNV-1, from 0, which means unknown.
        tip: last.fold(0, |number: u64, byte| number.wrapping_mul(0x0100_0000_01b3) ^ byte),
        source: number_of(&text(run)?),
    })
}

/// The version in these eight bytes.
fn version_of(bytes: Option<Value>) -> Result<u64> {
    let Some(Value::BulkString(bytes)) = bytes else {
        return Err(nonsense());
    };
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| nonsense())?))
}

/// The number of a server's run, which is 40 random hexadecimal digits; 0 if it is unknown.
fn number_of(run: &str) -> u64 {
    let begin = run.get(..16).unwrap_or_default();
    u64::from_str_radix(begin, 16).unwrap_or(0)
}

fn decimal(value: Value) -> Result<Option<u64>> {
    match value {
        Value::Nil => Ok(None),
        value => text(Some(value))?.parse().map(Some).map_err(|_| nonsense()),
    }
}
