//! The owners of keys.

use std::collections::HashMap;

use super::cluster::Range;
use super::node::Node;

/// The number of slots of a cluster.
const SLOTS: u16 = 16_384;

/// The known owners of slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    ranges: Vec<Range>,
    /// Later changes, as reported by servers.
    moved: HashMap<u16, Node>,
    /// The server for all slots without a known owner: the only one, or one that knows the owner.
    other: Option<Node>,
}

impl Slots {
    pub(crate) fn new(mut ranges: Vec<Range>, other: Node) -> Slots {
        ranges.sort_by_key(|range| range.slots);
        Slots {
            ranges,
            moved: HashMap::new(),
            other: Some(other),
        }
    }

    /// The owner of this slot.
    pub(crate) fn node(&self, slot: u16) -> Option<&Node> {
        let index = self.ranges.partition_point(|range| range.slots.1 < slot);
        let range = self.ranges.get(index).filter(|range| range.slots.0 <= slot);
        let known = range.and_then(|range| range.nodes.first());
        self.moved.get(&slot).or(known).or(self.other.as_ref())
    }

    /// Notes that another server now has this slot.
    pub(crate) fn moved(&mut self, slot: u16, node: Node) {
        self.moved.insert(slot, node);
    }

    /// The first slot of each range with its master, in order; none for a single server. `None` if the ranges leave out
    /// slots.
    pub(crate) fn owners(&self) -> Option<Vec<(u16, Node)>> {
        let mut owners = Vec::new();
        let mut next = 0;
        for range in &self.ranges {
            let owner = range.nodes.first().filter(|_| range.slots.0 == next)?;
            owners.push((range.slots.0, owner.clone()));
            next = range.slots.1.checked_add(1)?;
        }
        (owners.is_empty() || next == SLOTS).then_some(owners)
    }

    /// True if these are the slots of a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        !(self.ranges.is_empty() && self.moved.is_empty())
    }

    /// All servers with slots and their replicas, as the cluster names them.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Node> {
        let known = self.ranges.iter().flat_map(|range| &range.nodes);
        known.chain(self.moved.values())
    }

    /// As [`Slots::named`], with the server that has named them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.named().chain(&self.other)
    }
}

/// The slot of a key: that of the part between its first `{` and the next `}`, unless that is empty.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let start = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key.get(start..)?.iter().position(|byte| *byte == b'}')?;
        key.get(start..start + length).filter(|tag| !tag.is_empty())
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// A key of this slot that no table has.
pub(crate) fn key_in(wanted: u16) -> Vec<u8> {
    let mut keys = (0..u32::MAX).map(|number| format!("tablecast{{{number}}}").into_bytes());
    keys.find(|key| slot(key) == wanted).unwrap_or_default()
}

/// The checksum CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` says.
    #[test]
    fn slots_are_those_of_redis() {
        for (key, expected) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("x{foo}{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn each_slot_has_a_key() {
        for wanted in [0, 1, 5460, 5461, 8192, SLOTS - 1] {
            assert_eq!(slot(&key_in(wanted)), wanted);
        }
    }

    #[test]
    fn who_has_a_slot() {
        let node = |port| Node { host: "h".into(), port };
        let range = |slots, port| Range {
            slots,
            nodes: vec![node(port), node(port + 10)],
        };
        let mut slots = Slots::new(vec![range((100, 199), 2), range((0, 99), 1)], node(9));
        for (slot, port) in [(0, 1), (99, 1), (100, 2), (199, 2), (200, 9), (16_383, 9)] {
            assert_eq!(slots.node(slot), Some(&node(port)), "{slot}");
        }
        slots.moved(50, node(7));
        assert_eq!((slots.node(50), slots.node(51)), (Some(&node(7)), Some(&node(1))));
        assert_eq!(Slots::default().node(0), None);
        assert_eq!(slots.nodes().count(), 6);
    }

    #[test]
    fn owners_have_all_slots() {
        let node = |port| Node { host: "h".into(), port };
        let range = |slots, nodes: &[u16]| Range {
            slots,
            nodes: nodes.iter().map(|port| node(*port)).collect(),
        };
        let owners = |ranges| Slots::new(ranges, node(9)).owners();
        let (low, high) = (range((0, 99), &[1, 11]), range((100, SLOTS - 1), &[2, 12]));
        let both = owners(vec![high.clone(), low.clone()]);
        assert_eq!(both, Some(vec![(0, node(1)), (100, node(2))]));
        assert_eq!(owners(Vec::new()), Some(Vec::new()));
        assert_eq!(owners(vec![low.clone()]), None);
        assert_eq!(owners(vec![high.clone()]), None);
        assert_eq!(owners(vec![low, range((101, SLOTS - 1), &[2])]), None);
        assert_eq!(owners(vec![range((0, 99), &[]), high]), None);
    }
}
