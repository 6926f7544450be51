//! Joining of updates that are sent close together.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Policy for updates of one topic that are sent close together: one frame with an array of maps, or one frame each.
/// Dragonflow, and programs that read frames themselves, may understand only one map in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum JoinFrames {
    /// ZeroMQ joins while every subscriber is known to understand it, which tablecast's show by their subscriptions. A
    /// writer that sends through a publisher service joins too, and the service decides. Redis, which does not show its
    /// subscribers, never joins. The default.
    #[default]
    Auto,
    /// Never: for writers beside a publisher service other than tablecast's, and if a proxy stands between publishers
    /// and subscribers of both kinds.
    Never,
    /// Always: every subscriber is one of tablecast's.
    Always,
}

impl JoinFrames {
    /// Returns the option's word: `auto`, `never` or `always`.
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
