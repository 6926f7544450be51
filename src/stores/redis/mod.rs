//! The store in Redis: a server or a cluster, for all processes that reach it.
//!
//! All of a table is in one slot, and so on one node of a cluster; different tables are on different nodes. A write is one
//! script, which also publishes if it is asked to, so that nobody ever sees half of it: what the server refuses in the
//! middle, for example to publish on this channel, is taken back. A write whose answer got lost is asked for again, and
//! made once, however many others came in between; what cannot be found out is [`ErrorKind::Unconfirmed`]. After a
//! failover the database may be where it was a moment ago: Redis confirms a write before its replicas have it.
//!
//! The server must keep what it is given: `maxmemory-policy noeviction`, which is Redis' default, or one of the
//! `volatile-` policies. One that is full refuses to create and set ([`ErrorKind::Full`]), and still deletes. One that
//! evicts keys (`allkeys-lru` and others of that name) destroys tables: a table of which a part is gone is
//! [`ErrorKind::Malformed`] to those who read or write it, and can only be deleted.
//!
//! What it asks of a server, for its access lists: `EVAL`, `EVALSHA`, the commands of the scripts (`EXISTS`, `HDEL`,
//! `HEXISTS`, `HGET`, `HGETALL`, `HINCRBY`, `HLEN`, `HMGET`, `HSET`, `PUBLISH`, `TIME`, `UNLINK`, `ZADD`,
//! `ZRANGEBYLEX`, `ZRANGEBYSCORE`, `ZREM`, `ZSCORE`), and with a cluster `CLUSTER SLOTS` and `ASKING`. Its keys begin
//! with `tablecast{`.

mod row;
mod script;
mod session;

use std::fmt;
use std::sync::Arc;

use ::redis::{Cmd, Value, cmd, from_redis_value};

use crate::error::{Error, ErrorKind, Result};
use crate::redis::{Client, RedisOptions, Request, Servers};
use crate::store::{
    Announcement, Announcer, Change, Item, PAGE_BYTES, Page, Row, Store, StoreOptions, Write, Written, not_found,
};
use crate::update::{Name, Topic};

use script::Script;
use session::Sessions;

/// The store in Redis; its alias is `redis`. Clones share their connections.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    address: String,
    client: Client,
    options: StoreOptions,
    sessions: Sessions,
}

/// What of a table is stored, each under a key of its own.
const ROWS: &str = "rows";
const ABOUT: &str = "about";
const DELETES: &str = "deletes";
const KEYS: &str = "keys";
const TOPICS: &str = "topics";
const ORDER: &str = "order";
const ALL: [&str; 6] = [ROWS, ABOUT, DELETES, KEYS, TOPICS, ORDER];

/// Each of the keys has this member or field while the table exists; it is no key of a row.
const MARK: &[u8] = b"\xff";
const EXISTS: &[u8] = b"exists";

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

    /// Runs a script that may be run twice.
    fn run(&self, script: &Script, (table, parts): (&str, &[&str]), args: &[&[u8]]) -> Result<Value> {
        let keys: Vec<_> = parts.iter().map(|part| key_of(table, part)).collect();
        let request = Request {
            key: keys.first().map(Vec::as_slice).unwrap_or_default(),
            command: &command(script, &keys, args),
            script: Some(script.text()),
            again: None,
            writes: false,
        };
        self.client.call(&request, self.options.timeout)
    }

    /// Runs a script that begins with `recall.lua`, and so knows whether it has run already.
    fn run_once(&self, script: &Script, (table, parts): (&str, &[&str]), args: &[&[u8]]) -> Result<Value> {
        let session = self.sessions.take();
        let (field, number) = (session.field(), session.number());
        let keys: Vec<_> = parts.iter().map(|part| key_of(table, part)).collect();
        let begun = |within: &str| {
            let mut command = command(script, &keys, &[&field, number.as_bytes(), within.as_bytes()]);
            command.arg(args);
            command
        };
        // Nothing is asked for after the timeout, and so it was asked for first no longer ago than that.
        let again = || begun(&self.options.timeout.as_millis().to_string());
        let request = Request {
            key: keys.first().map(Vec::as_slice).unwrap_or_default(),
            command: &begun(""),
            script: Some(script.text()),
            again: Some(&again),
            writes: true,
        };
        self.client.call(&request, self.options.timeout)
    }

    fn write(&self, write: &Write<'_>, announcement: Option<&Announcement<'_>>) -> Result<Written> {
        let (what, value, parts) = match write.change {
            Change::Create(value) => ("create", value, &ALL[..]),
            Change::Set(value) => ("set", value, &ALL[..2]),
            Change::Delete => ("delete", "", &ALL[..]),
        };
        let all_topics = Topic::ALL;
        let default = matches!(write.change, Change::Create(_)).then_some(&all_topics);
        let topic = write.topic.or(default).map_or("", Topic::as_str);
        let version = write.version.map_or(String::new(), |version| version.to_string());
        let flags: &[u8] = match (write.unless_equal, write.returning) {
            (false, false) => b"",
            (true, false) => b"e",
            (false, true) => b"r",
            (true, true) => b"er",
        };
        let [what, key, value, topic, version] = [what, write.key, value, topic, &version].map(str::as_bytes);
        let (head, tail) = announcement.map_or((&[][..], &[][..]), |it| (it.head, it.tail));
        let args = [what, key, value, topic, version, flags, head, tail];
        let answer = self.run_once(&script::WRITE, (write.table, parts), &args)?;
        read_answer(answer, write)
    }

    /// Creates or deletes a table.
    fn change_table(&self, script: &Script, table: &str) -> Result<bool> {
        match self.run_once(script, (table, &ALL), &[])? {
            Value::Int(done) => Ok(done == 1),
            answer => {
                let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
                match unsigned(answer.next())? {
                    4 => Ok(true),
                    outcome => Err(undecided(outcome, table)),
                }
            }
        }
    }

    /// Fails if there is such a table, of which a part is gone.
    fn check_whole(&self, table: &str) -> Result<()> {
        if self.is_marked(table, ABOUT, EXISTS)? && self.run(&script::IS_WHOLE, (table, &ALL), &[])? != Value::Int(1) {
            return Err(evicted(table));
        }
        Ok(())
    }

    /// Whether this part of a table has this field.
    fn is_marked(&self, table: &str, part: &str, field: &[u8]) -> Result<bool> {
        let key = &*key_of(table, part);
        Ok(self.call(key, cmd("HEXISTS").arg(key).arg(field))? == Value::Int(1))
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
        let answer = self.run(&script::PAGE, (table, &[index, ROWS, ABOUT]), &args)?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let is_last = match answer.next() {
            Some(Value::Int(0)) => true,
            Some(Value::Int(2)) => return Err(evicted(table)),
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
        let answer = self.0.call(rows, cmd("HMGET").arg(rows).arg(key).arg(MARK))?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let row = match (answer.next(), answer.next()) {
            (Some(Value::BulkString(packed)), _) => row::unpack(table, key.into(), packed)?,
            (Some(Value::Nil), Some(Value::Nil)) => {
                return Err(self.0.check_whole(table).err().unwrap_or_else(not_found));
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

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        // Made twice it loses a number.
        let answer = self.0.run(&script::UNIQUE, (table, &[ABOUT]), &[])?;
        let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
        let number = unsigned(answer.next())?;
        // Where the rows are and what is stored about them is not, the numbers begin anew.
        if answer.next() != Some(Value::Int(1)) && self.0.is_marked(table, ROWS, MARK)? {
            return Err(evicted(table));
        }
        Ok(number)
    }

    fn table_version(&self, table: &str) -> Result<Option<u64>> {
        let about = &*key_of(table, ABOUT);
        match self.0.call(about, cmd("HGET").arg(about).arg("version"))? {
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

fn command(script: &Script, keys: &[Vec<u8>], args: &[&[u8]]) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(script.name()).arg(keys.len()).arg(keys).arg(args);
    command
}

/// What `write.lua` returned: the version, if nothing else is new; or a number that says what became of it (4: it was
/// made before), then the version, the topic, and the value before.
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
        _ => return Err(undecided(outcome, write.table)),
    }
    if outcome == 4 && write.returning && !matches!(write.change, Change::Create(_)) {
        let context = "the write was made, but the answer with the value before it was lost";
        return Err(Error::new(ErrorKind::Unconfirmed, context));
    }
    let version = unsigned(answer.next())?;
    let topic = text(answer.next())?;
    // A topic that was named is not repeated.
    let topic = match (&*topic, write.topic) {
        ("", Some(named)) => named.clone(),
        ("", None) => Topic::ALL,
        _ => Topic::new(topic).map_err(|_| nonsense())?,
    };
    Ok(Written {
        version,
        topic,
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

/// The error for what a script says that has not done what it was asked for.
fn undecided(outcome: u64, table: &str) -> Error {
    match outcome {
        6 => {
            let context = format!("table {table:?}: the write may have been made: what is known of it is gone");
            Error::new(ErrorKind::Unconfirmed, context)
        }
        7 => evicted(table),
        _ => nonsense(),
    }
}

/// The error for a table of which a part is gone.
fn evicted(table: &str) -> Error {
    let context = format!(
        "table {table:?}: a part of it is missing, which the server must have evicted; set its maxmemory-policy to noeviction, and delete the table"
    );
    Error::new(ErrorKind::Malformed, context)
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
