//! Policy for topics after a lost connection.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Policy for a subscriber's topics when the connection to a live address is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Resubscribe {
    /// Topics stay registered, and are subscribed again when the connection is back. The default.
    #[default]
    Automatic,
    /// All topics are unregistered, at every address. [`SyncReason::Cleared`](crate::SyncReason::Cleared) names them
    /// once an address is live; the program then registers them again.
    Manual,
}

impl Resubscribe {
    /// Returns the option's word: `automatic` or `manual`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Resubscribe::Automatic => "automatic",
            Resubscribe::Manual => "manual",
        }
    }
}

impl fmt::Display for Resubscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Resubscribe {
    type Err = Error;

    fn from_str(word: &str) -> Result<Resubscribe> {
        let mut all = [Resubscribe::Automatic, Resubscribe::Manual].into_iter();
        all.find(|policy| policy.as_str() == word).ok_or_else(|| {
            let context = format!("resubscribe {word:?}: expected automatic or manual");
            Error::new(ErrorKind::Config, context)
        })
    }
}
