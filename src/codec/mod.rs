//! The wire format of payloads: JSON, MessagePack, and JSON in a MessagePack string.
//!
//! A payload is one map, or an array of maps (a batch, in order), as JSON or as MessagePack; or a MessagePack string
//! that holds that as JSON. A sender chooses with [`Codec`]; a receiver accepts all of these at any time.
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
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hello;
mod joined;
mod json;
mod limits;
mod message;
mod msgpack;
mod pattern;
mod plain;
mod token;

#[doc(hidden)]
pub use decode::Decoder;
#[doc(hidden)]
pub use encode::{Batch, Encoder};
pub use format::Codec;
pub(crate) use hello::{GOODBYE, HELLO, Hello, MAX_PERIOD, MAX_TOPICS, MIN_HELLO, TOLD};
pub(crate) use joined::{Joined, MAX_JOINED, MOST_JOINED, is_joined, is_too_large, parts};
pub use limits::{MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_UPDATES};
#[doc(hidden)]
pub use message::{Control, Message};
