//! The fields of one update or control message, and the messages of a payload, whatever its format.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::limits::{MAX_ACTION_BYTES, MAX_ID_BYTES};
use super::message::Control;
use crate::update::{Action, DbUpdate, Name, Origin, Topic, now_micros};

/// Buffers kept between payloads.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Buffer for text with escapes.
    pub(super) text: Vec<u8>,
    pub(super) spares: Spares,
}

/// Spare buffers; freeing memory that another thread has allocated is expensive.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// Texts whose memory is reused for values.
    pub(super) texts: Vec<String>,
    /// The last names read: most updates that come together have the same.
    publisher: Option<Name>,
    table: Option<Name>,
}

impl Spares {
    #[inline]
    pub(super) fn owned(&mut self, text: &str) -> String {
        let mut owned = self.texts.pop().unwrap_or_default();
        owned.clear();
        owned.push_str(text);
        owned
    }

    /// The name of a table; `None` if it is not UTF-8.
    #[inline]
    pub(super) fn table(&mut self, name: &[u8]) -> Option<Name> {
        match &self.table {
            Some(last) if last.as_bytes() == name => Some(last.clone()),
            _ => Some(same(&mut self.table, std::str::from_utf8(name).ok()?)),
        }
    }
}

/// A fault: the field and what is wrong with it.
#[derive(Debug)]
pub(super) struct Fault(pub(super) &'static str, pub(super) &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// Faults of both formats.
pub(super) const TOO_DEEP: &str = "nested too deep";
pub(super) const NOT_UTF8: &str = "not UTF-8";
pub(super) const TRUNCATED: &str = "truncated";

/// The content of a field in one of the formats, about to be read. `None` is null.
pub(super) trait Content<'a> {
    fn text(self) -> Result<Option<Cow<'a, str>>, &'static str>;
    fn integer<T: FromStr + TryFrom<u64> + TryFrom<i64>>(self) -> Result<Option<T>, &'static str>;
    /// Text, or the JSON text of any other value.
    fn value(self) -> Result<Option<Cow<'a, str>>, &'static str>;
    fn skip(self) -> Result<(), &'static str>;
}

macro_rules! fields {
    ($($field:ident $name:literal),*) => {
        /// A field of a map.
        #[derive(Clone, Copy, PartialEq)]
        pub(super) enum Field {
            $($field,)*
            Unknown,
        }

        impl Field {
            /// All named fields, in the order in which an encoder writes them.
            pub(super) const NAMED: &[(Field, &[u8])] = &[$((Field::$field, $name)),*];

            #[inline]
            pub(super) fn named(name: &[u8]) -> Field {
                match name {
                    $($name => Field::$field,)*
                    _ => Field::Unknown,
                }
            }

            /// Offers all named fields to a reader, in that order.
            #[inline(always)]
            pub(super) fn offer(reader: &mut impl InOrder) -> Result<(), Fault> {
                $(reader.expect(Field::$field, $name)?;)*
                Ok(())
            }
        }
    };
}

/// A reader of a map whose fields come in an encoder's order, most likely, so that their names need not be looked up.
pub(super) trait InOrder {
    /// Reads this field if it comes next.
    fn expect<const N: usize>(&mut self, field: Field, name: &[u8; N]) -> Result<(), Fault>;
}

fields!(
    Table b"table", Key b"key", Action b"action", Value b"value", Topic b"topic", Priority b"priority",
    Publisher b"publisher", Epoch b"epoch", Version b"version", After b"after", Timestamp b"timestamp", Seq b"seq", Idle b"idle"
);

impl Field {
    fn as_str(self) -> &'static str {
        let named = Field::NAMED.iter().find(|(field, _)| *field == self);
        let name = named.and_then(|(_, name)| std::str::from_utf8(name).ok());
        name.unwrap_or("unknown field")
    }
}

/// The fields of one map read so far.
#[derive(Default)]
pub(super) struct Fields<'a> {
    /// Outer option: is the field there; inner option: is it null.
    table: Option<Option<Cow<'a, str>>>,
    key: Option<Option<Cow<'a, str>>>,
    action: Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
    priority: Option<i32>,
    timestamp: Option<i64>,
    publisher: Option<Cow<'a, str>>,
    epoch: Option<u64>,
    seq: Option<u64>,
    idle: Option<u64>,
    version: Option<u64>,
    after: Option<u64>,
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn read(&mut self, field: Field, content: impl Content<'a>) -> Result<(), Fault> {
        let read = match field {
            Field::Table => content.text().map(|text| self.table = Some(text)),
            Field::Key => content.text().map(|text| self.key = Some(text)),
            Field::Action => short(content.text(), MAX_ACTION_BYTES).map(|text| self.action = text),
            Field::Value => content.value().map(|text| self.value = text),
            Field::Topic => content.text().map(drop),
            Field::Priority => content.integer().map(|number| self.priority = number),
            Field::Timestamp => content.integer().map(|number| self.timestamp = number),
            Field::Publisher => short(content.text(), MAX_ID_BYTES).map(|text| self.publisher = text),
            Field::Epoch => content.integer().map(|number| self.epoch = number),
            Field::Version => content.integer().map(|number| self.version = number),
            Field::After => content.integer().map(|number| self.after = number),
            Field::Seq => content.integer().map(|number| self.seq = number),
            Field::Idle => content.integer().map(|number| self.idle = number),
            Field::Unknown => content.skip(),
        };
        read.map_err(|what| Fault(field.as_str(), what))
    }
}

/// Refuses a text that is too long to be kept.
#[inline]
fn short<'a>(
    text: Result<Option<Cow<'a, str>>, &'static str>,
    limit: usize,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    match text {
        Ok(Some(text)) if text.len() > limit => Err("too long"),
        text => text,
    }
}

/// Reuses the last name if it is equal.
#[inline]
fn same(last: &mut Option<Name>, name: &str) -> Name {
    match last {
        Some(last) if **last == *name => last.clone(),
        _ => last.insert(name.into()).clone(),
    }
}

/// Where the messages of payloads go.
pub(super) trait Collect {
    fn count(&self) -> usize;
    fn update(&mut self, update: DbUpdate);
    fn control(&mut self, control: Control);
    /// Makes room for this many updates.
    fn reserve(&mut self, updates: usize);
}

/// Collects the maps of one payload.
pub(super) struct Sink<'s, C> {
    topic: &'s Topic,
    /// The time of receipt, once it was needed.
    received: Option<i64>,
    /// The latest time of receipt so far; it never goes back, though the clock may.
    latest: &'s mut i64,
    /// Number of messages at which the payload is refused.
    full: usize,
    out: &'s mut C,
}

impl<'s, C: Collect> Sink<'s, C> {
    /// Appends to `out` until it has `full` messages.
    pub(super) fn new(topic: &'s Topic, latest: &'s mut i64, full: usize, out: &'s mut C) -> Sink<'s, C> {
        Sink {
            topic,
            received: None,
            latest,
            full,
            out,
        }
    }

    pub(super) fn topic(&self) -> &'s Topic {
        self.topic
    }

    /// True if one more message is too many.
    pub(super) fn is_full(&self) -> bool {
        self.out.count() >= self.full
    }

    /// Makes room for the maps of an array of this length, as far as the rest of the payload can have so many.
    pub(super) fn reserve(&mut self, length: usize, rest: usize) {
        /// No shorter map has the fields of an encoder.
        const SHORTEST: usize = 64;
        self.out
            .reserve(length.min(rest / SHORTEST).min(self.full - self.out.count()));
    }

    #[inline]
    pub(super) fn add(&mut self, update: DbUpdate) {
        self.out.update(update);
    }

    #[cold]
    fn time_of_receipt(&mut self) -> i64 {
        *self.received.get_or_insert_with(|| {
            *self.latest = now_micros().max(*self.latest);
            *self.latest
        })
    }

    pub(super) fn push(&mut self, fields: Fields<'_>, spares: &mut Spares) -> Result<(), Fault> {
        if self.is_full() {
            return Err(Fault("payload", "too many updates"));
        }
        let missing = |place| Fault(place, "missing");
        let table = fields.table.ok_or(missing("table"))?;
        let action = fields.action.ok_or(missing("action"))?;
        if fields.seq == Some(0) {
            return Err(Fault("seq", "counts from 1"));
        }
        let value = fields.value.map(|value| match value {
            Cow::Borrowed(value) => spares.owned(value),
            Cow::Owned(value) => value,
        });
        let publisher = fields
            .publisher
            .map(|publisher| same(&mut spares.publisher, &publisher));
        let Some(table) = table else {
            self.out.control(Control {
                action: (&*action).into(),
                value,
                publisher,
                epoch: fields.epoch,
            });
            return Ok(());
        };
        let key = fields.key.ok_or(missing("key"))?;
        let origin = match (publisher, fields.epoch, fields.seq) {
            (Some(publisher), Some(epoch), Some(seq)) => Some(Origin {
                publisher,
                epoch,
                seq,
                idle: Duration::from_millis(fields.idle.unwrap_or(0)),
            }),
            _ => None,
        };
        let timestamp = match fields.timestamp {
            Some(timestamp) => timestamp,
            None => self.time_of_receipt(),
        };
        self.add(DbUpdate {
            table: same(&mut spares.table, &table),
            key: key.as_deref().unwrap_or_default().into(),
            action: Action::from(&*action),
            value,
            topic: self.topic.clone(),
            priority: fields.priority.unwrap_or(DbUpdate::DEFAULT_PRIORITY),
            timestamp,
            version: fields.version,
            after: fields.after,
            origin,
        });
        Ok(())
    }
}
