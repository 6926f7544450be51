//! A map with cheap copies: a copy shares everything that neither has changed since.
//!
//! It is a trie of hashes with four branches a level, whose leaves hold up to [`LEAF`] rows. A change copies the path
//! to its leaf only where a copy of the map still uses it; without copies it is made in place.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

/// A leaf with more rows is split, unless no bits of the hash are left.
const LEAF: usize = 32;
/// The bits of the hash that a level takes.
const BITS: u32 = 2;
const WIDTH: usize = 1 << BITS;
/// The rows by which a leaf grows, few, so that little space is unused.
const GROWTH: usize = 2;

/// An item of a [`Map`].
pub(super) trait Keyed {
    /// The item's key.
    fn key(&self) -> &str;
}

/// Items by key, each with a small note.
#[derive(Debug)]
pub(super) struct Map<R> {
    root: Node<R>,
    len: usize,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
enum Node<R> {
    Leaf(Arc<Vec<Slot<R>>>),
    Branch(Arc<[Node<R>; WIDTH]>),
}

#[derive(Debug)]
struct Slot<R> {
    hash: u32,
    note: u32,
    item: Arc<R>,
}

impl<R> Clone for Node<R> {
    fn clone(&self) -> Node<R> {
        match self {
            Node::Leaf(slots) => Node::Leaf(Arc::clone(slots)),
            Node::Branch(nodes) => Node::Branch(Arc::clone(nodes)),
        }
    }
}

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Slot<R> {
        Slot {
            hash: self.hash,
            note: self.note,
            item: Arc::clone(&self.item),
        }
    }
}

impl<R> Clone for Map<R> {
    fn clone(&self) -> Map<R> {
        Map {
            root: self.root.clone(),
            len: self.len,
            hasher: self.hasher.clone(),
        }
    }
}

impl<R> Default for Map<R> {
    fn default() -> Map<R> {
        Map {
            root: Node::empty(),
            len: 0,
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<R> Node<R> {
    fn empty() -> Node<R> {
        Node::Leaf(Arc::new(Vec::new()))
    }
}

impl<R: Keyed> Map<R> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<R>> {
        self.slot(key).map(|slot| &slot.item)
    }

    /// The note of the item with this key.
    pub(super) fn note(&self, key: &str) -> Option<u32> {
        self.slot(key).map(|slot| slot.note)
    }

    fn slot(&self, key: &str) -> Option<&Slot<R>> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hash(key);
        let mut node = &self.root;
        let mut rest = hash;
        while let Node::Branch(nodes) = node {
            node = &nodes[branch(rest)];
            rest >>= BITS;
        }
        let Node::Leaf(slots) = node else { return None };
        slots.iter().find(|slot| slot.is_of(hash, key))
    }

    /// Brings everything that looking up these keys touches into the processor's caches. The look-ups go side by side,
    /// so that they wait for memory together instead of one after another.
    pub(super) fn warm<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        let start = |key| {
            let hash = self.hash(key);
            (&self.root, hash, hash)
        };
        let mut paths: Vec<_> = keys.map(start).collect();
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            for (node, rest, _) in &mut paths {
                if let Node::Branch(nodes) = node {
                    *node = &nodes[branch(*rest)];
                    *rest >>= BITS;
                    goes_on = true;
                }
            }
        }
        let leaves = paths.iter().filter_map(|(node, _, hash)| match node {
            Node::Leaf(slots) => Some((&***slots, *hash)),
            Node::Branch(_) => None,
        });
        let first = |(slots, _): (&[Slot<R>], u32)| slots.first().map_or(0, |slot| slot.note as usize);
        let found = |(slots, hash): (&[Slot<R>], u32)| {
            let slot = slots.iter().find(|slot| slot.hash == hash);
            slot.map_or(0, |slot| slot.item.key().len())
        };
        black_box(leaves.clone().map(first).fold(0, usize::wrapping_add));
        black_box(leaves.map(found).fold(0, usize::wrapping_add));
    }

    /// Inserts an item; returns the earlier one with the same key, and its note.
    pub(super) fn insert(&mut self, item: Arc<R>, note: u32) -> Option<(Arc<R>, u32)> {
        self.insert_over(item, note, |_| true).unwrap_or_default()
    }

    /// As [`Map::insert`], if there is no item with this key or it `gives_way`; otherwise returns the new one as an
    /// error.
    pub(super) fn insert_over(
        &mut self,
        item: Arc<R>,
        note: u32,
        gives_way: impl Fn(&R) -> bool,
    ) -> Result<Option<(Arc<R>, u32)>, Arc<R>> {
        let hash = self.hash(item.key());
        let before = insert(&mut self.root, 0, Slot { hash, note, item }, gives_way)?;
        self.len += usize::from(before.is_none());
        Ok(before)
    }

    /// Removes an item; returns it and its note.
    pub(super) fn remove(&mut self, key: &str) -> Option<(Arc<R>, u32)> {
        // Without this look, a missing key would cause copies of shared nodes.
        self.get(key)?;
        let hash = self.hash(key);
        let mut node = &mut self.root;
        let mut rest = hash;
        while let Node::Branch(nodes) = node {
            node = &mut Arc::make_mut(nodes)[branch(rest)];
            rest >>= BITS;
        }
        let Node::Leaf(slots) = node else { return None };
        let slots = Arc::make_mut(slots);
        let place = slots.iter().position(|slot| slot.is_of(hash, key))?;
        self.len -= 1;
        let removed = slots.swap_remove(place);
        slots.shrink_to(slots.len().next_multiple_of(GROWTH));
        Some((removed.item, removed.note))
    }

    /// All items, in no order.
    pub(super) fn iter(&self) -> Iter<R> {
        Iter {
            path: vec![(self.root.clone(), 0)],
        }
    }

    fn hash(&self, key: &str) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}

impl<R: Keyed> Slot<R> {
    fn is_of(&self, hash: u32, key: &str) -> bool {
        self.hash == hash && self.item.key() == key
    }
}

fn branch(rest: u32) -> usize {
    rest as usize % WIDTH
}

fn insert<R: Keyed>(
    mut node: &mut Node<R>,
    mut taken: u32,
    slot: Slot<R>,
    gives_way: impl Fn(&R) -> bool,
) -> Result<Option<(Arc<R>, u32)>, Arc<R>> {
    loop {
        match node {
            Node::Branch(nodes) => {
                let rest = slot.hash.checked_shr(taken).unwrap_or(0);
                node = &mut Arc::make_mut(nodes)[branch(rest)];
                taken += BITS;
            }
            Node::Leaf(slots) if slots.len() >= LEAF && taken < u32::BITS && !has(slots, &slot) => {
                *node = split(std::mem::take(slots), taken);
            }
            Node::Leaf(slots) => {
                let slots = Arc::make_mut(slots);
                if let Some(same) = slots.iter_mut().find(|it| it.is_of(slot.hash, slot.item.key())) {
                    return match gives_way(&same.item) {
                        true => {
                            let before = std::mem::replace(same, slot);
                            Ok(Some((before.item, before.note)))
                        }
                        false => Err(slot.item),
                    };
                }
                if slots.len() == slots.capacity() {
                    slots.reserve_exact(GROWTH);
                }
                slots.push(slot);
                return Ok(None);
            }
        }
    }
}

fn has<R: Keyed>(slots: &[Slot<R>], slot: &Slot<R>) -> bool {
    slots.iter().any(|it| it.is_of(slot.hash, slot.item.key()))
}

fn split<R>(slots: Arc<Vec<Slot<R>>>, taken: u32) -> Node<R> {
    let place = |slot: &Slot<R>| branch(slot.hash.checked_shr(taken).unwrap_or(0));
    let mut counts = [0_usize; WIDTH];
    slots.iter().for_each(|slot| counts[place(slot)] += 1);
    let mut leaves = counts.map(|count| Vec::with_capacity(count.next_multiple_of(GROWTH)));
    // Cloning touches every item, so they are moved if no copy shares them.
    let slots = Arc::try_unwrap(slots).unwrap_or_else(|shared| Vec::clone(&shared));
    for slot in slots {
        leaves[place(&slot)].push(slot);
    }
    Node::Branch(Arc::new(leaves.map(|leaf| Node::Leaf(Arc::new(leaf)))))
}

/// All items of a [`Map`] at the time of the call.
#[derive(Debug)]
pub(super) struct Iter<R> {
    /// The unfinished nodes, with the next position in each.
    path: Vec<(Node<R>, usize)>,
}

impl<R> Iterator for Iter<R> {
    type Item = Arc<R>;

    fn next(&mut self) -> Option<Arc<R>> {
        loop {
            let (node, next) = self.path.last_mut()?;
            let at = *next;
            *next += 1;
            match node {
                Node::Leaf(slots) => match slots.get(at) {
                    Some(slot) => return Some(Arc::clone(&slot.item)),
                    None => drop(self.path.pop()),
                },
                Node::Branch(nodes) => match nodes.get(at).cloned() {
                    Some(child) => self.path.push((child, 0)),
                    None => drop(self.path.pop()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl Keyed for (String, u64) {
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn content(map: &Map<(String, u64)>) -> HashMap<String, u64> {
        let items: Vec<_> = map.iter().map(|item| (*item).clone()).collect();
        let count = items.len();
        let content: HashMap<_, _> = items.into_iter().collect();
        assert_eq!((content.len(), map.len()), (count, count), "each once");
        content
    }

    /// Compares random changes with a map of the standard library; copies stay as they were.
    #[test]
    fn it_is_a_map_and_its_copies_stay() {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut map = Map::default();
        let mut model = HashMap::new();
        let mut copies = Vec::new();
        for step in 0..60_000u64 {
            let key = chance.u32(0..9_000).to_string();
            if chance.u8(0..10) < 7 {
                let before = map.insert(Arc::new((key.clone(), step)), step as u32);
                let before = before.map(|(item, note)| (item.1, note));
                assert_eq!(before, model.insert(key.clone(), step).map(|step| (step, step as u32)));
                assert_eq!(map.note(&key), Some(step as u32));
            } else {
                let removed = map.remove(&key).map(|(item, note)| (item.1, note));
                assert_eq!(removed, model.remove(&key).map(|step| (step, step as u32)));
            }
            map.warm([key.as_str(), "none"].into_iter());
            assert_eq!(map.get(&key).map(|item| item.1), model.get(&key).copied());
            if step % 10_000 == 0 {
                copies.push((map.clone(), model.clone()));
            }
        }
        copies.push((map, model));
        for (copy, model) in &copies {
            assert_eq!(content(copy), *model);
        }
    }

    /// A leaf takes more than [`LEAF`] rows if all bits of their hashes are equal.
    #[test]
    fn rows_of_one_hash_share_a_leaf() {
        let slot = |number: u64| Slot {
            hash: 0x1234_5678,
            note: 0,
            item: Arc::new((number.to_string(), number)),
        };
        let mut root = Node::empty();
        for number in 0..100 {
            assert!(insert(&mut root, 0, slot(number), |_| true).unwrap().is_none());
        }
        assert!(insert(&mut root, 0, slot(7), |_| true).unwrap().is_some());
        assert!(insert(&mut root, 0, slot(7), |_| false).is_err());
        assert_eq!(Iter { path: vec![(root, 0)] }.count(), 100);
    }
}
