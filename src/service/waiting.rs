//! Frames of one topic that have come in one behind the other, joined to one.

use crate::codec::{Codec, Decoder, Joined, MAX_JOINED, MOST_JOINED, Message};
use crate::update::Topic;

/// The joined frames.
#[derive(Default)]
pub(super) struct Waiting {
    open: Option<(Topic, Codec, Joined)>,
    decoder: Decoder,
    decoded: Vec<Message>,
}

/// A larger frame goes out alone.
const LARGE: usize = MAX_JOINED / 8;

impl Waiting {
    /// Joins a frame to those that wait. Returns false if it has to go out behind them.
    ///
    /// A receiver that refuses one map of a frame refuses all, and the maps are of different processes: only a map that
    /// a receiver takes is joined. Without a number it goes out alone, since nothing shows that it comes a second time.
    pub(super) fn join(&mut self, topic: &[u8], payload: &[u8]) -> bool {
        let codec = match payload.first() {
            Some(b'{') => Codec::Json,
            Some(0x80..=0x8f | 0xde) => Codec::MessagePack,
            _ => return false,
        };
        if payload.len() > LARGE || Topic::is_own(topic) {
            return false;
        }
        if self.open.is_none() {
            let topic = std::str::from_utf8(topic).ok().map(Topic::new);
            self.open = topic
                .and_then(Result::ok)
                .map(|topic| (topic, codec, Joined::new(codec)));
        }
        let Some((open, of, joined)) = &mut self.open else {
            return false;
        };
        let has_room = joined.count() < MOST_JOINED && joined.len() + payload.len() < MAX_JOINED;
        let fits = open.as_str().as_bytes() == topic && *of == codec && has_room;
        self.decoded.clear();
        if !fits
            || self.decoder.decode(open, payload, &mut self.decoded).is_err()
            || !matches!(&self.decoded[..], [Message::Update(update)] if update.origin.is_some())
        {
            return false;
        }
        joined.push(|bytes| bytes.extend_from_slice(payload));
        true
    }

    /// Takes out the joined frames, with their topic.
    pub(super) fn take(&mut self) -> Option<(Topic, Joined)> {
        let (topic, _, joined) = self.open.take()?;
        (joined.count() > 0).then_some((topic, joined))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parts;

    #[test]
    fn only_maps_of_one_topic_and_format_are_joined() {
        let mut waiting = Waiting::default();
        let map = |key: &str| {
            format!(r#"{{"table":"t","key":"{key}","action":"set","value":"v","publisher":"p","epoch":1,"seq":1}}"#)
        };
        let binary =
            b"\x87\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set\xa5value\xa1v\xa9publisher\xa1p\xa5epoch\x01\xa3seq\x01";
        assert!(waiting.take().is_none());
        assert!(waiting.join(b"D", map("a").as_bytes()) && waiting.join(b"D", map("b").as_bytes()));
        let array = format!("[{}]", map("c"));
        let hello = Topic::hello();
        for (topic, payload) in [
            (&b"other"[..], map("c").as_bytes()),
            (b"D", binary),
            (b"D", array.as_bytes()),
            (b"D", b"{wrong"),
            (b"D", br#"{"table":"t","key":"k","action":"set","value":"no number"}"#),
            (b"D", b"{}"),
            (b"D", b""),
            (b"\xff", map("c").as_bytes()),
            (hello.as_str().as_bytes(), map("c").as_bytes()),
            (b"D", map(&"k".repeat(LARGE)).as_bytes()),
        ] {
            assert!(!waiting.join(topic, payload));
        }
        let (topic, joined) = waiting.take().unwrap();
        assert_eq!((topic.as_str(), joined.count()), ("D", 2));
        assert_eq!(
            parts(joined.payload()).unwrap(),
            [map("a").as_bytes(), map("b").as_bytes()]
        );
        assert!(waiting.take().is_none());
        assert!(waiting.join(b"D", binary) && waiting.join(b"D", binary));
        for _ in 2..MOST_JOINED {
            assert!(waiting.join(b"D", binary));
        }
        assert!(!waiting.join(b"D", binary));
    }

    #[test]
    fn joined_frames_are_not_too_large() {
        let mut waiting = Waiting::default();
        let map = format!(
            r#"{{"table":"t","key":"k","action":"set","value":"{}","publisher":"p","epoch":1,"seq":1}}"#,
            "v".repeat(4000)
        );
        while waiting.join(b"D", map.as_bytes()) {}
        let (_, joined) = waiting.take().unwrap();
        assert!(joined.count() > 10 && joined.payload().len() <= MAX_JOINED);
    }
}
