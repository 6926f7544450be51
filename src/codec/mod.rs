//! The wire format of payloads: JSON, MessagePack, and JSON in a MessagePack string.
//!
//! A payload is one map, or an array of maps (a batch, in order), as JSON or as MessagePack; or a MessagePack string that
//! holds that as JSON. A sender chooses with [`Codec`]; a receiver accepts all of these at any time.
//!
//! | field | type | |
//! |---|---|---|
//! | `table`, `key`, `action`, `value`, `topic` | text or null | always sent; `value` and `topic` may be missing on receipt |
//! | `priority`, `timestamp` | integer | when missing: 5, the time of receipt |
//! | `publisher`, `epoch`, `seq` | text, integer, integer | [`Origin`](crate::Origin), if all three are there; `seq` is never 0 |
//! | `idle` | integer | milliseconds since the number before `seq` was sent; when missing: 0 |
//! | `version`, `after` | integer | optional: the row's version, and the one before it on its table and topic |
//!
//! Unknown fields are skipped, null stands for a missing field, and if a field comes twice the last one counts. `topic`
//! is for people who read the traffic; the frame's topic is the one that counts. A null `table` makes the map a control
//! message; with a table, a null `key` is the empty key. In MessagePack, `bin` is taken as text if it is UTF-8. A
//! `value` that is not text is taken as its JSON text: in JSON verbatim, from MessagePack as a compact document. Values
//! nest up to 32 levels deep.
//!
//! A payload has at most [`MAX_UPDATES`] maps, a publisher's id at most [`MAX_ID_BYTES`] and an action at most
//! [`MAX_ACTION_BYTES`] bytes; a payload that exceeds a limit is malformed.

mod decode;
mod encode;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hello;
mod joined;
mod json;
mod msgpack;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::update::{DbUpdate, Name};

#[doc(hidden)]
pub use decode::Decoder;
#[doc(hidden)]
pub use encode::{Batch, Encoder};
pub(crate) use hello::{GOODBYE, HELLO, Hello, MAX_PERIOD, MAX_TOPICS, MIN_HELLO, TOLD};
pub(crate) use joined::{Joined, MAX_JOINED, MOST_JOINED, is_joined, is_too_large, parts};

/// Maximum of updates in one payload.
pub const MAX_UPDATES: usize = 16_384;

/// Maximum length of a publisher's id, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// Maximum length of an action's word, in bytes.
pub const MAX_ACTION_BYTES: usize = 255;

/// Maximum depth of arrays and maps in a value or in a skipped field.
const MAX_DEPTH: usize = 32;

const TOO_DEEP: &str = "nested too deep";
const NOT_UTF8: &str = "not UTF-8";
const TRUNCATED: &str = "truncated";

/// The format in which a sender writes; the option `codec`. Default: MessagePack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `json`: readable everywhere.
    Json,
    /// `msgpack`: smaller and faster, and understood by Dragonflow processes.
    #[default]
    MessagePack,
    /// `dragonflow-1`: JSON in a MessagePack string, for Dragonflow processes of up to mid-2016. Updates are never joined,
    /// and a write and its update are never one step.
    Dragonflow1,
}

impl Codec {
    /// Returns the option's word: `json`, `msgpack` or `dragonflow-1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Json => "json",
            Codec::MessagePack => "msgpack",
            Codec::Dragonflow1 => "dragonflow-1",
        }
    }

    /// The format of the maps.
    fn of_maps(self) -> Codec {
        match self {
            Codec::Dragonflow1 => Codec::Json,
            other => other,
        }
    }

    /// True if a payload can be made from parts, as bytes: updates joined, a version filled in.
    pub(crate) fn is_plain(self) -> bool {
        self != Codec::Dragonflow1
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Codec {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Config`] for any other word.
    fn from_str(word: &str) -> Result<Codec> {
        match word {
            "json" => Ok(Codec::Json),
            "msgpack" => Ok(Codec::MessagePack),
            "dragonflow-1" => Ok(Codec::Dragonflow1),
            _ => Err(Error::new(
                ErrorKind::Config,
                format!("codec {word:?}: expected json, msgpack or dragonflow-1"),
            )),
        }
    }
}

/// One map of a payload.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A changed row.
    Update(DbUpdate),
    /// A message between publisher and subscriber.
    Control(Control),
}

/// A message without a table: the library's own hello and goodbye, and messages of other senders, for example
/// Dragonflow's `sync`.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its subject, in one word.
    pub action: Name,
    /// The content that belongs to the action.
    pub value: Option<String>,
    /// The sender's id.
    pub publisher: Option<Name>,
    /// Identifies the run of the sender.
    pub epoch: Option<u64>,
}
