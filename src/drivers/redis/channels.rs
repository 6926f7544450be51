//! The two channels of a topic. This library's subscribers have both, and other clients the first alone, so that joined
//! updates can go to those who understand them.

use crate::update::Topic;

/// The channel of a topic for messages of one map each has the topic's name; that for joined updates has this before the
/// name. So it belongs to no pattern for topics, and an access list can name it for each topic.
const JOINED: &[u8] = Topic::JOINED.as_bytes();

/// The channel for joined updates of this topic; control topics have none.
pub(super) fn for_joined(topic: &[u8]) -> Option<Vec<u8>> {
    (!Topic::is_own(topic)).then(|| [JOINED, topic].concat())
}

/// The topic of a channel of either kind.
pub(super) fn topic_of(channel: &[u8]) -> &[u8] {
    channel.strip_prefix(JOINED).unwrap_or(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_channels_belong_to_their_topic() {
        for topic in ["D", "tenant1", "\u{10FFFF}"] {
            let joined = for_joined(topic.as_bytes()).unwrap();
            assert_ne!(joined, topic.as_bytes());
            assert_eq!([topic_of(topic.as_bytes()), topic_of(&joined)], [topic.as_bytes(); 2]);
            let name = String::from_utf8(joined).unwrap();
            assert!(Topic::new(name).is_err(), "it is reserved");
        }
        let hello = Topic::hello();
        assert_eq!(for_joined(hello.as_str().as_bytes()), None);
    }
}
