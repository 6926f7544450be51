//! What a hello says: the value of the control messages `hello` and `goodbye`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What a publisher tells of itself from time to time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// How many milliseconds pass until the next hello at the most; who is silent for several times as long is gone.
    pub(crate) every: u64,
    /// Of each topic that was used lately: its name, the last number, and how many milliseconds ago that was sent.
    #[serde(default)]
    pub(crate) topics: Vec<(String, u64, u64)>,
}

/// A publisher tells its subscribers of itself.
pub(crate) const HELLO: &str = "hello";

/// A publisher's last word.
pub(crate) const GOODBYE: &str = "goodbye";

/// A longer period cannot be told from none.
pub(crate) const MAX_PERIOD: Duration = Duration::from_secs(24 * 3600);

impl Hello {
    /// A hello that tells of no topic.
    pub(crate) fn of(every: Duration) -> Hello {
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        Hello {
            every,
            topics: Vec::new(),
        }
    }

    /// The hello as text.
    pub(crate) fn to_text(&self) -> String {
        // Numbers and texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if it is none.
    pub(crate) fn parse(text: Option<&str>) -> Result<Hello> {
        let hello: Hello = serde_json::from_str(text.unwrap_or_default())
            .map_err(|e| Error::new(ErrorKind::Malformed, "a hello").with_source(e))?;
        if hello.every == 0 || hello.period() > MAX_PERIOD {
            return Err(Error::new(ErrorKind::Malformed, "a hello with a senseless period"));
        }
        Ok(hello)
    }

    /// The time until the next hello at the most.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_millis(self.every)
    }
}
