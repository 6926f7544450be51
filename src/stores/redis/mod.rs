//! The store in Redis: a server or a cluster, for all processes that reach it.
//!
//! A table is in one slot, and so on one node of a cluster; different tables are on different nodes. A write is one
//! script, which also publishes on request, so a half-done write is never visible: if the server refuses a part of it,
//! for example to publish on this channel, the rest is undone. If the answer to a write is lost, the write is repeated,
//! and made only once, however many others came in between; if its outcome is no longer known, the error is
//! [`ErrorKind::Unconfirmed`]. A published write is only looked for: if it was not made, it is `Unconfirmed` as well,
//! since a server that was lost may have published its number. A failover may set the database back by a moment: Redis
//! confirms a write before its replicas have it.
//!
//! With an address `redis-sentinel://` the store is at the master that Sentinels name. Once a process has heard of a
//! failover, nothing is sent to the old master, and a write that only the old one has confirmed counts as unanswered.
//! If two of several single servers say that they are the master, nothing is written, and the error names both.
//!
//! The server must be Redis 5 or newer, or Valkey. It must not evict keys: it needs `maxmemory-policy noeviction`,
//! Redis' default, or one of the `volatile-` policies. A full server refuses creates and sets ([`ErrorKind::Full`]),
//! but still deletes. A policy that evicts keys (`allkeys-lru` and the like) destroys tables: reading or writing a
//! table with a missing part returns [`ErrorKind::Malformed`], and the table can only be deleted; its unique numbers
//! may begin again.
//!
//! Access lists must allow `EVAL`, `EVALSHA`, the commands of the scripts (`EXISTS`, `HDEL`, `HEXISTS`, `HGET`,
//! `HGETALL`, `HLEN`, `HMGET`, `HSET`, `PUBLISH`, `TIME`, `UNLINK`, `ZADD`, `ZRANGEBYLEX`, `ZRANGEBYSCORE`, `ZREM`,
//! `ZSCORE`), `INCR`, and with a cluster `CLUSTER SLOTS` and `ASKING`. Without `INFO` everything works, but replicas do
//! not see that another server answers ([`TableVersion::source`]). All keys begin with `tablecast{`.
//!
//! To list the tables, the keys of all masters are looked through with `SCAN`, a thousand at a time, and rows counted
//! with `ZCARD`; other calls need neither. A table may be missing in the list while a cluster moves its slot.
//!
//! While a cluster moves a slot, a table in it is out of reach ([`ErrorKind::Unavailable`]) as long as its six keys are
//! not all at one node. A table that was deleted has one key left, its last version: it is out of reach from the
//! beginning of the move until that key has moved.
//!
//! [`ErrorKind::Full`]: crate::ErrorKind::Full
//! [`ErrorKind::Malformed`]: crate::ErrorKind::Malformed
//! [`ErrorKind::Unavailable`]: crate::ErrorKind::Unavailable
//! [`ErrorKind::Unconfirmed`]: crate::ErrorKind::Unconfirmed

mod answer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod history;
mod row;
mod script;
mod session;
mod tables;
mod writing;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Cmd, Value, cmd};

use crate::error::Result;
use crate::redis::{Client, RedisOptions, Request, Servers};
use crate::store::{
    Announcement, Announcer, Changes, DELETES_REMEMBERED, Item, PAGE_BYTES, Page, Row, Store, StoreOptions,
    StoredTable, TableVersion, TopicVersions, Write, Written, not_found,
};
use crate::thread;
use crate::update::{Name, Topic};

use answer::{evicted, nonsense, text, unsigned};
use script::Script;
use session::Sessions;
use writing::together;

/// The store in Redis; its alias is `redis`. Clones share their connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    address: String,
    client: Client,
    options: StoreOptions,
    /// The number of writes for which a delete is remembered, in digits.
    remembered: String,
    sessions: Sessions,
}

/// The counter of a table's unique numbers, under a key that no script names.
const UNIQUE: &str = "unique";

/// The parts of a table, each under its own key; the scripts name them in this order.
const ROWS: &str = "rows";
const ABOUT: &str = "about";
const DELETES: &str = "deletes";
const KEYS: &str = "keys";
const TOPICS: &str = "topics";
const ORDER: &str = "order";
const PARTS: [&str; 6] = [ROWS, ABOUT, DELETES, KEYS, TOPICS, ORDER];

/// Each key but `about` has this member or field while the table exists; it is no key of a row.
const MARK: &[u8] = b"\xff";
const EXISTS: &[u8] = b"exists";

/// The most rows of a page, whatever the options say.
const MAX_BATCH: usize = 1_000_000;

/// Versions are Lua's numbers.
const MAX_REMEMBERED: u64 = 1 << 53;

/// The key under which this part of a table is stored.
fn key_of(table: &str, part: &str) -> Vec<u8> {
    // The length before it keeps apart names that begin alike, and the part in braces, which decides about the slot, is
    // never empty.
    format!("tablecast{{{}:{table}}}/{part}", table.len()).into_bytes()
}

/// The prefix of this topic's members: its length, so that no prefix begins with another, and the topic.
fn prefix_of(topic: &Topic) -> Vec<u8> {
    let name = topic.as_str().as_bytes();
    // Topics are limited to far less than that.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, name].concat()
}

impl RedisStore {
    /// A store at this address, for example `redis://127.0.0.1:6379`, at some nodes of a cluster, or at the master that
    /// Sentinels name, `redis-sentinel://127.0.0.1:26379/mymaster`. It connects later.
    ///
    /// # Errors
    /// As [`RedisDriver::new`](crate::drivers::redis::RedisDriver::new).
    pub fn new(address: &str, options: StoreOptions, redis: &RedisOptions) -> Result<RedisStore> {
        Ok(RedisStore(Arc::new(Inner {
            address: address.to_owned(),
            client: Client::new(Servers::parse(address)?, redis)?,
            remembered: options
                .deletes_remembered
                .clamp(DELETES_REMEMBERED, MAX_REMEMBERED)
                .to_string(),
            options,
            sessions: Sessions::default(),
        })))
    }
}

impl Inner {
    fn call(&self, key: &[u8], command: &Cmd) -> Result<Value> {
        let request = Request {
            key,
            command,
            script: None,
            again: None,
            writes: false,
        };
        self.client.call(&request, self.options.timeout)
    }

    /// Runs a script that may run twice.
    fn run(&self, script: &Script, table: (&str, &[&str]), args: &[&[u8]]) -> Result<Value> {
        self.run_within(self.options.timeout, script, table, args)
    }

    fn run_within(
        &self,
        timeout: Duration,
        script: &Script,
        (table, parts): (&str, &[&str]),
        args: &[&[u8]],
    ) -> Result<Value> {
        let keys: Vec<_> = parts.iter().map(|part| key_of(table, part)).collect();
        let mut command = command(script, &keys);
        let request = Request {
            key: keys.first().map(Vec::as_slice).unwrap_or_default(),
            command: command.arg(args),
            script: Some(script.text()),
            again: None,
            writes: false,
        };
        self.client.call(&request, timeout)
    }

    /// Fails if a part of the table is missing, but not all of them. `deadline` is that of the whole call.
    fn check_whole(&self, table: &str, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.run_within(left, &script::IS_WHOLE, (table, &PARTS), &[])? {
            Value::Int(1) => Ok(()),
            _ => Err(evicted(table)),
        }
    }

    /// True if this part of a table has this field.
    fn is_marked(&self, table: &str, part: &str, field: &[u8]) -> Result<bool> {
        let key = &*key_of(table, part);
        Ok(self.call(key, cmd("HEXISTS").arg(key).arg(field))? == Value::Int(1))
    }

    /// A page of an index; `item` reads each key with the values that follow it.
    fn page<T: Item>(
        &self,
        (table, topic, after): (&str, Option<&Topic>, Option<&str>),
        with_rows: bool,
        item: impl Fn(Name, &mut dyn Iterator<Item = Value>) -> Result<T>,
    ) -> Result<Page<T>> {
        let (index, prefix) = match topic {
            None => (KEYS, Vec::new()),
            Some(topic) => (TOPICS, prefix_of(topic)),
        };
        let from = match after {
            Some(after) => [b"(", &*prefix, after.as_bytes()].concat(),
            None => [b"[", &*prefix].concat(),
        };
        // This is behind every key, since keys are UTF-8.
        let to = [b"(", &*prefix, b"\xff"].concat();
        let numbers =
            [self.options.batch_amount.clamp(1, MAX_BATCH), PAGE_BYTES, prefix.len()].map(|number| number.to_string());
        let [limit, room, prefix] = numbers.each_ref().map(String::as_bytes);
        let with_rows = if with_rows { b"1" } else { b"0" };
        let args = [&*from, &*to, limit, room, prefix, with_rows];
        let deadline = thread::deadline(self.options.timeout);
        let answer = self.run(&script::PAGE, (table, &[index, ROWS, ABOUT]), &args)?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let is_last = match answer.next() {
            Some(Value::Int(0)) => true,
            Some(Value::Int(2)) => return Err(evicted(table)),
            Some(Value::Int(3)) => return self.check_whole(table, deadline).map(|()| Page::default()),
            _ => false,
        };
        let mut page = Page::default();
        while let Some(key) = answer.next() {
            page.items.push(item(text(Some(key))?.into(), &mut answer)?);
        }
        let last = page.items.last().filter(|_| !is_last);
        page.next = last.map(|item| item.key().clone());
        Ok(page)
    }
}

impl Store for RedisStore {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        let rows = &*key_of(table, ROWS);
        let not_found = || not_found(table, key, topic);
        let deadline = thread::deadline(self.0.options.timeout);
        let answer = self.0.call(rows, cmd("HMGET").arg(rows).arg(key).arg(MARK))?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let row = match (answer.next(), answer.next()) {
            (Some(Value::BulkString(packed)), _) => row::unpack(table, key.into(), packed)?,
            (Some(Value::Nil), Some(Value::Nil)) => {
                let whole = self.0.check_whole(table, deadline);
                return Err(whole.err().unwrap_or_else(not_found));
            }
            (Some(Value::Nil), Some(_)) => return Err(not_found()),
            _ => return Err(nonsense()),
        };
        let is_it = topic.is_none_or(|topic| *topic == row.topic);
        is_it.then_some(row).ok_or_else(not_found)
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        self.0.write(write, None)
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let mut results = Vec::with_capacity(writes.len());
        for mut of_table in writes.chunk_by(|one, next| one.table == next.table) {
            while !of_table.is_empty() {
                let (together, rest) = of_table.split_at(together(of_table));
                results.extend(self.0.write_together(together)?);
                of_table = rest;
            }
        }
        Ok(results)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        self.0
            .page((table, topic, after), true, |key, values| match values.next() {
                Some(Value::BulkString(packed)) => row::unpack(table, key, packed),
                _ => Err(nonsense()),
            })
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        self.0.page((table, topic, after), false, |key, _| Ok(key))
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        self.0.change_table(&script::CREATE_TABLE, table)
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        self.0.change_table(&script::DELETE_TABLE, table)
    }

    fn tables(&self) -> Result<Vec<StoredTable>> {
        self.0.tables()
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let unique = &*key_of(table, UNIQUE);
        // A repeated call only skips a number.
        unsigned(Some(self.0.call(unique, cmd("INCR").arg(unique))?))
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.0.table_version(table).map(Some)
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        self.0.topic_versions(table, topics).map(Some)
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        self.0.changes(table, topic, since)
    }

    fn announcer(&self, address: &str) -> Option<&dyn Announcer> {
        (address == self.0.address || self.0.client.is_at(address)).then_some(self)
    }
}

impl Announcer for RedisStore {
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written> {
        self.0.write(write, Some(announcement))
    }
}

fn command(script: &Script, keys: &[Vec<u8>]) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(script.name()).arg(keys.len()).arg(keys);
    command
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", &self.0.client)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}
