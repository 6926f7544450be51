//! The store in Redis: a server or a cluster, for all processes that reach it.
//!
//! All of a table is in one slot, and so on one node of a cluster; different tables are on different nodes. A write is one
//! script, which also publishes if it is asked to, so that nobody ever sees half of it. A write whose answer got lost is
//! made again, and notices if it was made already. After a failover the database may be where it was a moment ago:
//! Redis confirms a write before its replicas have it.
//!
//! What it asks of a server, for its access lists: `EVAL`, `EVALSHA`, the commands of the scripts (`HGET`, `HMGET`, `HSET`,
//! `HSETNX`, `HDEL`, `HINCRBY`, `ZADD`, `ZREM`, `ZRANGEBYLEX`, `ZRANGEBYSCORE`, `UNLINK`, `PUBLISH`), and with a cluster
//! `CLUSTER SLOTS` and `ASKING`. Its keys begin with `tablecast{`.

mod row;
mod script;

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::redis::{Cmd, Value, cmd, from_redis_value};

use crate::error::{Error, ErrorKind, Result};
use crate::redis::{Client, RedisOptions, Request, Servers};
use crate::store::{
    Announcement, Announcer, Change, Item, PAGE_BYTES, Page, Row, Store, StoreOptions, Write, Written, not_found,
};
use crate::update::{Name, Topic, now_micros};

use script::Script;

/// The store in Redis; its alias is `redis`. Clones share their connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    address: String,
    client: Client,
    options: StoreOptions,
    /// Nobody else's tokens have this.
    id: u64,
    tokens: AtomicU32,
}

/// What of a table is stored, each under a key of its own.
const ROWS: &str = "rows";
const ABOUT: &str = "about";
const DELETES: &str = "deletes";
const KEYS: &str = "keys";
const TOPICS: &str = "topics";
const ORDER: &str = "order";
const PARTS: [&str; 6] = [ROWS, ABOUT, DELETES, KEYS, TOPICS, ORDER];

/// How many writes make one step at most: while it lasts, the server does nothing else.
const TOGETHER: usize = 256;

/// No page has more rows, whatever the options say.
const MAX_BATCH: usize = 1_000_000;

/// The key under which this part of a table is stored.
fn key_of(table: &str, part: &str) -> Vec<u8> {
    // With its length before it no table's name can look like another one's with more behind it, and the part in
    // braces, which decides about the slot, is never empty.
    format!("tablecast{{{}:{table}}}/{part}", table.len()).into_bytes()
}

impl RedisStore {
    /// A store at this address, for example `redis://127.0.0.1:6379`, or with some nodes of a cluster. Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// As [`RedisPubSub::new`](crate::drivers::redis::RedisPubSub::new).
    pub fn new(address: &str, options: StoreOptions, redis: &RedisOptions) -> Result<RedisStore> {
        Ok(RedisStore(Arc::new(Inner {
            address: address.to_owned(),
            client: Client::new(Servers::parse(address)?, redis)?,
            options,
            id: RandomState::new().hash_one(now_micros()),
            tokens: AtomicU32::new(0),
        })))
    }
}

impl Inner {
    /// What tells a write from all others, for when it is made again.
    fn token(&self) -> [u8; 12] {
        let mut token = [0; 12];
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let bytes = self.id.to_be_bytes().into_iter().chain(number.to_be_bytes());
        token.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        token
    }

    fn call(&self, key: &[u8], command: &Cmd, writes: bool) -> Result<Value> {
        let request = Request {
            key,
            command,
            script: None,
            writes,
        };
        self.client.call(&request, self.options.timeout)
    }

    fn run(&self, script: &Script, (table, parts): (&str, &[&str]), args: &[&[u8]], writes: bool) -> Result<Value> {
        let keys: Vec<_> = parts.iter().map(|part| key_of(table, part)).collect();
        let mut command = cmd("EVALSHA");
        command.arg(script.name()).arg(keys.len()).arg(&keys).arg(args);
        let request = Request {
            key: keys.first().map(Vec::as_slice).unwrap_or_default(),
            command: &command,
            script: Some(script.text()),
            writes,
        };
        self.client.call(&request, self.options.timeout)
    }

    fn write(&self, write: &Write<'_>, announcement: Option<&Announcement<'_>>) -> Result<Written> {
        let (what, value) = what_and_value(write);
        let parts = match write.change {
            Change::Set(_) => &PARTS[..3],
            Change::Create(_) | Change::Delete => &PARTS[..],
        };
        let args = self.arguments(what, value, write);
        let mut args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        if let Some(Announcement { head, tail, .. }) = announcement {
            args.extend([head, tail]);
        }
        read_answer(self.run(&script::WRITE, (write.table, parts), &args, true)?, write)
    }

    /// What `write.lua` needs to know of a write.
    fn arguments<'a>(&self, what: &'a str, value: &'a str, write: &Write<'a>) -> [Cow<'a, [u8]>; 7] {
        let topic = match (write.change, write.topic) {
            (_, Some(topic)) => Cow::Borrowed(topic.as_str().as_bytes()),
            (Change::Create(_), None) => Cow::Owned(Topic::ALL.as_str().into()),
            (Change::Set(_) | Change::Delete, None) => Cow::default(),
        };
        let version = write.version.map_or(String::new(), |version| version.to_string());
        let flags = match (write.unless_equal, write.returning) {
            (false, false) => "",
            (true, false) => "e",
            (false, true) => "r",
            (true, true) => "er",
        };
        let [what, key, value, flags] = [what, write.key, value, flags].map(|text| Cow::Borrowed(text.as_bytes()));
        let token = Cow::Owned(self.token().to_vec());
        [what, key, value, topic, Cow::Owned(version.into_bytes()), flags, token]
    }

    /// Makes writes of one table in one step.
    fn write_together(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let Some(Write { table, .. }) = writes.first() else {
            return Ok(Vec::new());
        };
        let args: Vec<_> = writes
            .iter()
            .flat_map(|write| {
                let (what, value) = what_and_value(write);
                self.arguments(what, value, write)
            })
            .collect();
        let args: Vec<&[u8]> = args.iter().map(AsRef::as_ref).collect();
        let answers = self.run(&script::WRITE_EACH, (table, &PARTS), &args, true)?;
        let answers = answers.into_sequence().map_err(|_| nonsense())?;
        if answers.len() != writes.len() {
            return Err(nonsense());
        }
        let read = |(answer, write)| match read_answer(answer, write) {
            Err(e) if e.kind() == ErrorKind::Malformed => Err(e),
            result => Ok(result),
        };
        answers.into_iter().zip(writes).map(read).collect()
    }

    /// A page of an index, of which `item` reads one key after the other, with what follows it.
    fn page<T: Item>(
        &self,
        (table, topic, after): (&str, Option<&Topic>, Option<&str>),
        with_rows: bool,
        item: impl Fn(Name, &mut dyn Iterator<Item = Value>) -> Result<T>,
    ) -> Result<Page<T>> {
        let (index, prefix) = match topic {
            None => (KEYS, Vec::new()),
            Some(topic) => {
                let name = topic.as_str().as_bytes();
                // A topic is limited to far less than what fits.
                let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
                (TOPICS, [&length, name].concat())
            }
        };
        let from = match after {
            Some(after) => [b"(", &*prefix, after.as_bytes()].concat(),
            None => [b"[", &*prefix].concat(),
        };
        // Behind every key, since those are UTF-8.
        let to = [b"(", &*prefix, b"\xff"].concat();
        let numbers =
            [self.options.batch_amount.clamp(1, MAX_BATCH), PAGE_BYTES, prefix.len()].map(|number| number.to_string());
        let [limit, room, prefix] = numbers.each_ref().map(String::as_bytes);
        let with_rows = if with_rows { b"1" } else { b"0" };
        let args = [&*from, &*to, limit, room, prefix, with_rows];
        let answer = self.run(&script::PAGE, (table, &[index, ROWS]), &args, false)?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let is_last = answer.next() == Some(Value::Int(0));
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
        let row = match self.0.call(rows, cmd("HGET").arg(rows).arg(key), false)? {
            Value::Nil => return Err(not_found()),
            Value::BulkString(packed) => row::unpack(table, key.into(), packed)?,
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
        for of_table in writes.chunk_by(|one, next| one.table == next.table) {
            for together in of_table.chunks(TOGETHER) {
                results.extend(self.0.write_together(together)?);
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
        let answer = self
            .0
            .run(&script::CREATE_TABLE, (table, &[ABOUT]), &[&self.0.token()], true)?;
        Ok(answer == Value::Int(1))
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        let answer = self
            .0
            .run(&script::DELETE_TABLE, (table, &PARTS), &[&self.0.token()], true)?;
        Ok(answer == Value::Int(1))
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let about = &*key_of(table, ABOUT);
        // Made twice it loses a number.
        let number = self
            .0
            .call(about, cmd("HINCRBY").arg(about).arg("unique").arg(1), false)?;
        unsigned(Some(number))
    }

    fn table_version(&self, table: &str) -> Result<Option<u64>> {
        let about = &*key_of(table, ABOUT);
        match self.0.call(about, cmd("HGET").arg(about).arg("version"), false)? {
            Value::Nil => Ok(Some(0)),
            version => text(Some(version))?.parse().map(Some).map_err(|_| nonsense()),
        }
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

/// What to do, as `write.lua` calls it, and the value.
fn what_and_value<'a>(write: &Write<'a>) -> (&'static str, &'a str) {
    match write.change {
        Change::Create(value) => ("create", value),
        Change::Set(value) => ("set", value),
        Change::Delete => ("delete", ""),
    }
}

/// What `write.lua` returned: the version, if nothing else is new; or a number that says what became of it, then the
/// version, the topic, and the value before.
fn read_answer(answer: Value, write: &Write<'_>) -> Result<Written> {
    if let Value::Int(_) = answer {
        return Ok(Written {
            version: unsigned(Some(answer))?,
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
        2 => return Err(write.not_found()),
        3 => return Err(write.conflict()),
        _ => return Err(nonsense()),
    }
    if outcome == 4 && write.returning && !matches!(write.change, Change::Create(_)) {
        let context = "the write was made, but the answer with the value before it was lost";
        return Err(Error::new(ErrorKind::Unconfirmed, context));
    }
    Ok(Written {
        version: unsigned(answer.next())?,
        topic: Topic::new(text(answer.next())?).map_err(|_| nonsense())?,
        changed: outcome != 5,
        before: match answer.next() {
            None | Some(Value::Nil) => None,
            before => Some(text(before)?),
        },
    })
}

fn unsigned(value: Option<Value>) -> Result<u64> {
    match value {
        Some(Value::Int(number)) => u64::try_from(number).map_err(|_| nonsense()),
        _ => Err(nonsense()),
    }
}

fn text(value: Option<Value>) -> Result<String> {
    from_redis_value(value.unwrap_or_default()).map_err(|_| nonsense())
}

/// The error for an answer of another form than the scripts return.
fn nonsense() -> Error {
    Error::new(ErrorKind::Malformed, "Redis has answered something else than was asked")
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", &self.0.client)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}
