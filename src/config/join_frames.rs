//! Joining of updates that are sent close together.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Policy for updates of one topic that are sent close together: one frame with an array of maps, or one frame each.
/// Dragonflow, and programs that read frames themselves, may understand one map in a frame only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum JoinFrames {
    /// ZeroMQ joins while every subscriber is known to understand it: each of tablecast's shows by its subscriptions. A
    /// writer joins too, and leaves it to the publisher service of this host. Redis, which does not show subscribers,
    /// never does. The default.
    #[default]
    Auto,
    /// Never: for writers beside another publisher service than tablecast's, and where a proxy stands between publishers
    /// and subscribers of both kinds.
    Never,
    /// Always: every subscriber is one of tablecast's.
    Always,
}

impl JoinFrames {
    /// The word in the options: `auto`, `never` or `always`.
    pub fn as_str(&self) -> &'static str {
        match self {
            JoinFrames::Auto => "auto",
            JoinFrames::Never => "never",
            JoinFrames::Always => "always",
        }
    }
}

impl fmt::Display for JoinFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JoinFrames {
    type Err = Error;

    fn from_str(word: &str) -> Result<JoinFrames> {
        let mut all = [JoinFrames::Auto, JoinFrames::Never, JoinFrames::Always].into_iter();
        all.find(|policy| policy.as_str() == word).ok_or_else(|| {
            let context = format!("join_frames {word:?}: expected auto, never or always");
            Error::new(ErrorKind::Config, context)
        })
    }
}
