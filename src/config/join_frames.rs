//! Joining of updates that are sent close together.

use crate::words::words;

/// Policy for updates of one topic that are sent close together: one frame with an array of maps, or one frame each.
/// Dragonflow, and programs that read frames themselves, may understand only one map in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum JoinFrames {
    /// ZeroMQ joins while every subscriber is known to understand it, which tablecast's show by their subscriptions. A
    /// writer that sends through a publisher service joins too, and the service decides. On Redis the server counts the
    /// subscribers of each topic, in the same step that publishes; in a cluster, or if it has replicas, it does not know
    /// them all, and nothing is joined. The default.
    #[default]
    Auto,
    /// Never: for writers beside a publisher service other than tablecast's, and if a proxy stands between publishers
    /// and subscribers of both kinds.
    Never,
    /// Always: every subscriber is one of tablecast's.
    Always,
}

words!(JoinFrames of "join_frames": Auto "auto", Never "never", Always "always");
