//! The gathered updates of a burst, which are accepted and numbered and go out together. Pure: the time is an argument.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::codec::{Codec, Joined, MAX_JOINED, MOST_JOINED};
use crate::update::{DbUpdate, Topic};

use super::numbers::Slot;

/// A burst begins after this many sends in a row, each soon after the end of the one before. 10,000 sends a second are
/// no burst.
const QUICK: u32 = 8;
const SOON: Duration = Duration::from_micros(20);

/// How long an update may wait for others, at least and at most.
pub(super) const AGE: Duration = Duration::from_micros(250);
const OLDEST: Duration = Duration::from_millis(5);

/// About the time that a subscriber adds to the sending of a frame. While one is sent to all, others gather.
const PER_SUBSCRIBER: Duration = Duration::from_micros(5);

/// How long an update may wait for others with this many subscribers.
pub(super) fn patience(subscribers: usize) -> Duration {
    let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
    PER_SUBSCRIBER.saturating_mul(subscribers).clamp(AGE, OLDEST)
}

/// An update larger than the limit divided by this goes out alone.
const LARGE: usize = 8;

/// Maximum size of the number, the timestamp and the other fields at the end of a map.
const NUMBERS: usize = 96;

/// Maximum of large emptied frames kept for reuse. Small ones, of at most this capacity in bytes, are as many as can
/// be open: a frame on each of many topics.
const SPARES: usize = 16;
const SMALL: usize = 4 << 10;

/// The open frames, one for each topic.
#[derive(Debug)]
pub(super) struct Burst {
    codec: Codec,
    /// Maximum total size of the frames.
    limit: usize,
    /// Number of sends that have followed one another quickly.
    quick: u32,
    ended: Option<Instant>,
    /// In the order in which they were opened.
    frames: VecDeque<Frame>,
    /// Number of frames ever opened.
    begun: u64,
    /// When the oldest open frame was opened.
    since: Option<Instant>,
    updates: usize,
    bytes: usize,
    spares: Vec<Joined>,
    /// The rows in frames behind the first, by [`Burst::row`], each with the number of its last frame.
    rows: HashMap<u64, u64>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) topic: Topic,
    pub(super) updates: Joined,
}

impl Burst {
    pub(super) fn new(codec: Codec, max_message_bytes: usize) -> Burst {
        Burst {
            codec,
            limit: MAX_JOINED.min(max_message_bytes),
            quick: 0,
            ended: None,
            frames: VecDeque::new(),
            begun: 0,
            since: None,
            updates: 0,
            bytes: 0,
            spares: Vec::new(),
            rows: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Called before a send. Returns true if it belongs to a burst.
    pub(super) fn follows(&mut self, now: Instant) -> bool {
        let is_soon = self
            .ended
            .is_some_and(|ended| now.saturating_duration_since(ended) <= SOON);
        self.quick = if is_soon { self.quick.saturating_add(1) } else { 0 };
        self.quick >= QUICK
    }

    /// Called after an update was sent or gathered.
    pub(super) fn ended(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// Ends the burst, since sending has failed.
    pub(super) fn end(&mut self) {
        self.quick = 0;
    }

    /// True if an update of this size may wait for others.
    pub(super) fn is_small(&self, length: usize) -> bool {
        length + NUMBERS <= self.limit / LARGE
    }

    /// True if the open frames are to be sent before this many more bytes are gathered, of updates that may wait this
    /// long.
    pub(super) fn is_due(&self, length: usize, patience: Duration, now: Instant) -> bool {
        let Some(since) = self.since else { return false };
        let is_full = self.updates >= MOST_JOINED || self.bytes + length + NUMBERS > self.limit;
        is_full || now.saturating_duration_since(since) >= patience
    }

    /// True if an update of this row, put into the frame that its topic had last, would go out before an earlier one of
    /// the row on another topic.
    pub(super) fn overtakes(&self, frame: u64, update: &DbUpdate) -> bool {
        let is_open = frame > self.sent();
        is_open && !self.rows.is_empty() && self.rows.get(&self.row(update)).is_some_and(|of| *of > frame)
    }

    fn row(&self, update: &DbUpdate) -> u64 {
        self.hasher.hash_one((&update.table, &update.key))
    }

    /// The number of frames that are no longer open.
    fn sent(&self) -> u64 {
        self.begun - self.frames.len() as u64
    }

    /// True if updates can be joined as bytes.
    pub(super) fn joins(&self) -> bool {
        self.codec.is_plain()
    }

    /// Since when an update waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds the next update of a topic, which `write` appends. Returns true if no frame was open before.
    pub(super) fn push(
        &mut self,
        (topic, update): (&Topic, &DbUpdate),
        slot: &mut Slot<'_>,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let sent = self.sent();
        let mut index = slot
            .frame()
            .checked_sub(sent + 1)
            .map_or(usize::MAX, |index| index as usize);
        if index >= self.frames.len() {
            index = self.frames.len();
            self.begun += 1;
            *slot.frame() = self.begun;
            let updates = self.spares.pop().unwrap_or_else(|| Joined::new(self.codec));
            let topic = topic.clone();
            self.frames.push_back(Frame { topic, updates });
        }
        if let Some(Frame { updates, .. }) = self.frames.get_mut(index) {
            let before = updates.len();
            updates.push(write);
            self.bytes += updates.len() - before;
            self.updates += 1;
        }
        if index > 0 {
            self.rows.insert(self.row(update), sent + 1 + index as u64);
        }
        let is_first = self.since.is_none();
        self.since.get_or_insert(now);
        is_first
    }

    /// The frame to send next.
    pub(super) fn first(&self) -> Option<&Frame> {
        self.frames.front()
    }

    /// Removes the first frame, which was sent or given up. Returns its number of updates.
    pub(super) fn remove_first(&mut self) -> usize {
        let Some(Frame { mut updates, .. }) = self.frames.pop_front() else {
            return 0;
        };
        let count = updates.count();
        if self.frames.is_empty() {
            (self.since, self.updates, self.bytes) = (None, 0, 0);
            self.rows.clear();
        }
        if self.spares.len() < SPARES || self.spares.len() < MOST_JOINED && updates.capacity() <= SMALL {
            updates.clear();
            self.spares.push(updates);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parts;
    use crate::publisher::numbers::Numbers;
    use crate::update::Action;

    const MICROSECOND: Duration = Duration::from_micros(1);

    struct Rig {
        burst: Burst,
        numbers: Numbers,
        now: Instant,
    }

    impl Rig {
        fn new() -> Rig {
            Rig {
                burst: Burst::new(Codec::Json, 1 << 20),
                numbers: Numbers::default(),
                now: Instant::now(),
            }
        }

        fn push(&mut self, topic: &str) -> bool {
            self.push_row(topic, "k")
        }

        fn push_row(&mut self, topic: &str, key: &str) -> bool {
            let update = DbUpdate::new("t", key, Action::Set);
            let topic = Topic::new(topic).unwrap();
            let mut slot = self.numbers.slot(&topic, self.now);
            let text = format!("{{\"seq\":{}}}", slot.seq);
            let is_first = self.burst.push((&topic, &update), &mut slot, self.now, |bytes| {
                bytes.extend(text.as_bytes());
            });
            slot.take(1, self.now);
            is_first
        }

        fn send_first(&mut self) -> (String, Vec<String>) {
            let Frame { topic, updates } = self.burst.first().unwrap();
            let payload = updates.payload();
            let maps = parts(payload).unwrap_or_else(|| vec![payload]);
            let maps = maps.iter().map(|map| String::from_utf8(map.to_vec()).unwrap());
            let sent = (topic.as_str().to_owned(), maps.collect());
            self.burst.remove_first();
            sent
        }
    }

    /// Neither 10,000 sends a second nor the first quick sends after a pause are a burst.
    #[test]
    fn a_burst_is_what_follows_quickly_for_a_while() {
        let mut rig = Rig::new();
        for pause in [100, 21] {
            for _ in 0..100 {
                rig.now += pause * MICROSECOND;
                assert!(!rig.burst.follows(rig.now));
                rig.burst.ended(rig.now);
            }
        }
        for number in 1..100 {
            rig.now += 20 * MICROSECOND;
            assert_eq!(rig.burst.follows(rig.now), number >= QUICK);
            // Only the pause between sends counts, not how long a send takes.
            rig.now += 1000 * MICROSECOND;
            rig.burst.ended(rig.now);
        }
        rig.burst.end();
        assert!(!rig.burst.follows(rig.now));
    }

    #[test]
    fn each_topic_has_a_frame_in_the_order_of_their_beginnings() {
        let mut rig = Rig::new();
        let first = ["b", "a", "b", "c", "a"].map(|topic| rig.push(topic));
        assert_eq!(first, [true, false, false, false, false]);
        let maps = |numbers: &[u32]| numbers.iter().map(|seq| format!("{{\"seq\":{seq}}}")).collect();
        assert_eq!(rig.send_first(), ("b".into(), maps(&[1, 2])));
        // A topic whose frame is gone gets another.
        rig.push("b");
        rig.push("c");
        assert_eq!(rig.send_first(), ("a".into(), maps(&[1, 2])));
        assert_eq!(rig.send_first(), ("c".into(), maps(&[1, 2])));
        assert_eq!(rig.send_first(), ("b".into(), maps(&[3])));
        assert!(rig.burst.first().is_none() && rig.burst.since().is_none());
        assert!(rig.push("a"));
    }

    /// A row moves to another topic whose frame is already open.
    #[test]
    fn a_row_is_not_overtaken_by_its_own_update_on_another_topic() {
        let mut rig = Rig::new();
        let overtakes = |rig: &mut Rig, topic: &str, key: &str| {
            let frame = rig.numbers.frame(&Topic::new(topic).unwrap());
            rig.burst.overtakes(frame, &DbUpdate::new("t", key, Action::Set))
        };
        rig.push_row("b", "other");
        assert!(!overtakes(&mut rig, "a", "row"));
        rig.push_row("a", "row");
        assert!(overtakes(&mut rig, "b", "row"));
        for (topic, key) in [("b", "another"), ("a", "row"), ("c", "row")] {
            assert!(!overtakes(&mut rig, topic, key));
        }
        rig.send_first();
        assert!(!overtakes(&mut rig, "b", "row"), "it would have another frame");
    }

    #[test]
    fn it_is_due_when_it_is_full_or_old() {
        let mut rig = Rig::new();
        assert!(!rig.burst.is_due(MAX_JOINED, AGE, rig.now));
        for number in 0..MOST_JOINED {
            assert!(!rig.burst.is_due(100, AGE, rig.now), "{number}");
            rig.push(["a", "b"][number % 2]);
        }
        assert!(rig.burst.is_due(100, AGE, rig.now));
        rig.send_first();
        rig.send_first();
        rig.push("a");
        assert!(!rig.burst.is_due(MAX_JOINED / 2, AGE, rig.now) && rig.burst.is_due(MAX_JOINED, AGE, rig.now));
        assert!(!rig.burst.is_due(100, AGE, rig.now + AGE - MICROSECOND) && rig.burst.is_due(100, AGE, rig.now + AGE));
        assert_eq!(
            [1, 1000, 1_000_000].map(patience),
            [AGE, Duration::from_millis(5), OLDEST]
        );
        assert!(!rig.burst.is_due(100, patience(1000), rig.now + AGE));
        assert!(rig.burst.is_small(1000) && !rig.burst.is_small(10_000));
    }
}
