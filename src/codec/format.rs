//! The choice of a format.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// The format in which a sender writes; the option `codec`. Default: MessagePack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `json`: readable everywhere.
    Json,
    /// `msgpack`: smaller and faster, and understood by Dragonflow processes.
    #[default]
    MessagePack,
    /// `dragonflow-1`: JSON in a MessagePack string, for Dragonflow processes of up to mid-2016. Updates are never
    /// joined, and a write and its update are never one step.
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
    pub(super) fn of_maps(self) -> Codec {
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
