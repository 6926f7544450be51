//! The choice of a format.

use crate::words::words;

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

words!(Codec of "codec": Json "json", MessagePack "msgpack", Dragonflow1 "dragonflow-1");
