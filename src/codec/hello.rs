//! Hellos: the value of the control messages `hello` and `goodbye`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A publisher's regular report about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Maximum of milliseconds until the next hello; a publisher that is silent for several times as long is gone.
    pub(crate) every: u64,
    /// Recently used topics: the name, the last number, and the milliseconds since that number was sent.
    #[serde(default, deserialize_with = "few")]
    pub(crate) topics: Vec<(String, u64, u64)>,
    /// The number of this round of hellos, from 1; missing if the hello is not part of a round, as in an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) round: Option<u64>,
    /// Milliseconds from the publisher's start to the round, or to the answer; missing while the publisher has unread
    /// subscriptions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) at: u64,
    /// Number of the publisher's subscribers, if it knows it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) crowd: u32,
    /// Number of this message in its round, from 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) part: u32,
    /// More messages of the round follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) more: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Number of rounds in which a topic is named after its last use: a subscriber that misses fewer in a row has its last
/// number.
pub(crate) const TOLD: u64 = 5;

/// Maximum of topics in one hello message.
pub(crate) const MAX_TOPICS: usize = 256;

/// Action of a publisher's report about itself.
pub(crate) const HELLO: &str = "hello";

/// Action of a publisher's last message.
pub(crate) const GOODBYE: &str = "goodbye";

/// A hello of at most this many bytes is always sent and accepted, whatever `max_message_bytes` is.
pub(crate) const MIN_HELLO: usize = 1 << 10;

/// A hello with a longer period is malformed.
pub(crate) const MAX_PERIOD: Duration = Duration::from_secs(24 * 3600);

impl Hello {
    /// A hello that names no topic.
    pub(crate) fn of(every: Duration) -> Hello {
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        Hello {
            every,
            ..Hello::default()
        }
    }

    /// The hello as text.
    pub(crate) fn to_text(&self) -> String {
        // Numbers and texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a hello. Keeps no more topics than a hello may name.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the text is not a hello.
    pub(crate) fn parse(text: Option<&str>) -> Result<Hello> {
        let hello: Hello = serde_json::from_str(text.unwrap_or_default())
            .map_err(|e| Error::new(ErrorKind::Malformed, "a hello").with_source(e))?;
        if hello.every == 0 || hello.period() > MAX_PERIOD {
            let (every, most) = (hello.every, MAX_PERIOD.as_millis());
            let context = format!("a hello with a period of {every} ms: expected 1 to {most}");
            return Err(Error::new(ErrorKind::Malformed, context));
        }
        Ok(hello)
    }

    /// The longest time until the next hello.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_millis(self.every)
    }
}

/// Reads topics, up to the maximum of a hello.
fn few<'de, D: Deserializer<'de>>(topics: D) -> Result<Vec<(String, u64, u64)>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<(String, u64, u64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_TOPICS} topics")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut topics = Vec::new();
            while let Some(topic) = seq.next_element()? {
                if topics.len() == MAX_TOPICS {
                    return Err(A::Error::invalid_length(MAX_TOPICS + 1, &self));
                }
                topics.push(topic);
            }
            Ok(topics)
        }
    }

    topics.deserialize_seq(Few)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_bounded() {
        let hello = |topics: usize| Hello {
            every: 1000,
            topics: (0..topics).map(|topic| (topic.to_string(), 1, 1)).collect(),
            ..Hello::default()
        };
        let full = hello(MAX_TOPICS);
        assert_eq!(Hello::parse(Some(&full.to_text())).unwrap(), full);
        let parse = |text: &str| Hello::parse(Some(text)).unwrap_err().kind();
        assert_eq!(parse(&hello(MAX_TOPICS + 1).to_text()), ErrorKind::Malformed);
        assert_eq!(parse(r#"{"every":0}"#), ErrorKind::Malformed);
        assert_eq!(
            parse(&Hello::of(MAX_PERIOD + Duration::from_millis(1)).to_text()),
            ErrorKind::Malformed
        );
        assert!(Hello::parse(Some(&Hello::of(MAX_PERIOD).to_text())).is_ok());
        assert_eq!(Hello::parse(None).unwrap_err().kind(), ErrorKind::Malformed);
    }
}
