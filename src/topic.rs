//! Topics: the texts that subscribers filter by.

use std::borrow::Borrow;
use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;

/// The text that a subscriber filters by, for example a tenant's id; also called a channel.
///
/// Two topics are the same only if they are equal to the letter: `D` never matches `Dxyz`.
///
/// ```
/// use tablecast::Topic;
/// assert_eq!(Topic::ALL.as_str(), "D");
/// assert!(Topic::new("tenant1").is_ok());
/// assert!(Topic::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Topic(Name);

impl Topic {
    /// `D`: the topic of rows and updates that name none, and the default of the option `topics` (Dragonflow's
    /// `SEND_ALL_TOPIC`). It does not stand for all topics: a subscriber without it does not receive these updates.
    pub const ALL: Topic = Topic(Name::from_static("D"));

    /// Prefix of the library's own control topics. U+10FFFF is not a character, so no real topic has it.
    pub(crate) const RESERVED: &str = "\u{10FFFF}tablecast/";

    /// Prefix of the names of Redis' channels for joined updates. Another one, since access lists let every user have
    /// the channels of control topics.
    pub(crate) const JOINED: &str = "\u{10FFFF}joined/";

    /// The length that topics of parts of the library may have at least.
    pub(crate) const MAX_OWN: usize = 65_536;

    /// A topic of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the name is empty (on ZeroMQ that means "everything") or begins like the library's
    /// own channels. Its length is limited where it is used, by the option `max_topic_bytes`.
    pub fn new(name: impl Into<Name>) -> Result<Topic> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "a topic must not be empty"));
        }
        if name.starts_with(Topic::RESERVED) || name.starts_with(Topic::JOINED) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "topic {:?}: names that begin with {:?} or {:?} are reserved",
                    &*name,
                    Topic::RESERVED,
                    Topic::JOINED
                ),
            ));
        }
        Ok(Topic(name))
    }

    /// Refuses a topic that is longer than the option `max_topic_bytes`.
    pub(crate) fn check_length(&self, limit: usize) -> Result<()> {
        let length = self.as_str().len();
        if length <= limit {
            return Ok(());
        }
        let context = format!("a topic of {length} bytes; max_topic_bytes is {limit}");
        Err(Error::new(ErrorKind::InvalidInput, context))
    }

    /// As [`Topic::check_length`], for a topic of a part of the library, which the option cannot forbid.
    pub(crate) fn check_own_length(&self, limit: usize) -> Result<()> {
        self.check_length(limit.max(Topic::MAX_OWN))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Topic of publishers' hellos.
    pub(crate) const fn hello() -> Topic {
        Topic(Name::from_static("\u{10FFFF}tablecast/hello"))
    }

    /// A unique topic for [`Inbound::probe`](crate::transport::Inbound::probe).
    pub(crate) fn probe(subscriber: u64, number: u64) -> Topic {
        let name = format!("{}probe/{subscriber:016x}/{number}", Topic::RESERVED);
        Topic(name.into())
    }

    /// True if this is the name of a topic that only the library's own subscribers have.
    pub(crate) fn is_own(name: &[u8]) -> bool {
        name.starts_with(Topic::RESERVED.as_bytes())
    }

    /// True if this is the name of a probe.
    #[cfg(feature = "zmq")]
    pub(crate) fn is_probe(name: &[u8]) -> bool {
        let rest = name.strip_prefix(Topic::RESERVED.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"probe/"))
    }

    /// The probe of this name, if it is one.
    #[cfg(feature = "zmq")]
    pub(crate) fn probe_from(name: &[u8]) -> Option<Topic> {
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| Topic::is_probe(name.as_bytes()));
        name.map(|name| Topic(name.into()))
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl TryFrom<&str> for Topic {
    type Error = Error;
    fn try_from(name: &str) -> Result<Topic> {
        Topic::new(name)
    }
}
