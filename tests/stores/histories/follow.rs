//! Writers side by side, while readers follow the changes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tablecast::store::{ChangePage, Changes, TableVersion, TopicVersions, Write, WriteOp};
use tablecast::{ErrorKind, Topic};

use super::{Handle, KEYS, TOPICS, for_a_while, open};
use crate::Setup;
use crate::random::Random;
use crate::suite::topic;

/// A write that was made: topic, key, value, and the version before it.
type Made = BTreeMap<u64, (Topic, &'static str, Option<String>, u64)>;

const WRITERS: usize = 4;

pub(crate) fn readers_miss_no_change(setup: Setup) {
    let mut random = Random::new("readers_miss_no_change");
    for_a_while(&mut random, |random, number| {
        play(&setup, random, &format!("{number}"));
    });
}

fn play(setup: &Setup, random: &mut Random, table: &str) {
    let topics: Vec<_> = TOPICS[..1 + random.below(3)].iter().map(|name| topic(name)).collect();
    let keys = &KEYS[..1 + random.below(KEYS.len())];
    let made = Mutex::new(Made::new());
    // Deletes of the table, and writers that are not done.
    let (drops, left) = (AtomicUsize::new(0), AtomicUsize::new(WRITERS));
    let drops_at_all = random.below(3) == 0;
    let writers: Vec<_> = (0..WRITERS).map(|_| (open(setup, random), random.next())).collect();
    let readers: Vec<_> = topics.iter().map(|of| (of, open(setup, random))).collect();
    let states = open(setup, random);
    std::thread::scope(|scope| {
        for (handle, seed) in writers {
            let (made, drops, left, topics) = (&made, &drops, &left, &topics);
            scope.spawn(move || {
                let mut random = Random::from_seed(seed);
                for number in 0..60 {
                    let value = format!("{seed} {number}");
                    if drops_at_all && random.below(30) == 0 {
                        let existed = handle.store.delete_table(table).unwrap();
                        drops.fetch_add(usize::from(existed), Ordering::SeqCst);
                        continue;
                    }
                    write(&handle, table, keys, topics, &value, &mut random, made);
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut followers = Vec::new();
        for (of, handle) in &readers {
            let left = &left;
            followers.push(scope.spawn(move || follow(handle, table, of, left)));
        }
        let (left, topics) = (&left, &topics);
        let states = scope.spawn(move || {
            let mut seen = Vec::new();
            while left.load(Ordering::SeqCst) > 0 {
                seen.push(states.store.topic_versions(table, topics).unwrap().unwrap());
            }
            seen.push(states.store.topic_versions(table, topics).unwrap().unwrap());
            seen
        });
        let followed: Vec<_> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        let states = states.join().unwrap();
        let (made, drops) = (made.lock().unwrap(), drops.load(Ordering::SeqCst));
        check(&made, drops, topics, &states, &followed);
        for ((of, handle), followed) in readers.iter().zip(&followed) {
            let stored: BTreeMap<_, _> = handle
                .store
                .entries(table, Some(of))
                .map(|row| row.unwrap())
                .map(|row| (row.key.to_string(), (row.version, row.value)))
                .collect();
            assert_eq!(followed.rows, stored);
        }
    });
}

fn write(
    handle: &Handle,
    table: &str,
    keys: &'static [&'static str],
    topics: &[Topic],
    value: &str,
    random: &mut Random,
    made: &Mutex<Made>,
) {
    let mut writes = Vec::new();
    for _ in 0..1 + random.below(3) {
        let key = keys[random.below(keys.len())];
        let of = &topics[random.below(topics.len())];
        let mut write = match random.below(5) {
            0 | 1 => Write::create(table, key, value).topic(of),
            2 | 3 => Write::set(table, key, value),
            _ => Write::delete(table, key),
        };
        if random.below(3) == 0 {
            write = write.topic(of);
        }
        if random.below(6) == 0 {
            write = write.if_version(handle.store.get(table, key, None).map_or(1, |row| row.version));
        }
        writes.push((key, write));
    }
    let results: Vec<_> = match random.below(2) {
        0 => {
            let writes: Vec<_> = writes.iter().map(|(_, write)| *write).collect();
            handle.store.write_each(&writes).unwrap()
        }
        _ => {
            writes.truncate(1);
            vec![handle.write(&writes[0].1)]
        }
    };
    let mut made = made.lock().unwrap();
    for ((key, write), result) in writes.into_iter().zip(results) {
        match result {
            Ok(written) => {
                let value = (!matches!(write.op, WriteOp::Delete)).then(|| value.to_owned());
                let entry = (written.topic, key, value, written.after.unwrap());
                assert!(
                    made.insert(written.version, entry).is_none(),
                    "version {} twice",
                    written.version
                );
            }
            Err(e) => assert!(
                matches!(
                    e.kind(),
                    ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Conflict
                ),
                "{e}"
            ),
        }
    }
}

struct Followed {
    rows: BTreeMap<String, (u64, String)>,
    pages: Vec<(u64, ChangePage)>,
}

fn follow(handle: &Handle, table: &str, of: &Topic, left: &AtomicUsize) -> Followed {
    let mut followed = Followed {
        rows: BTreeMap::new(),
        pages: Vec::new(),
    };
    let mut since = TableVersion::default();
    loop {
        let is_over = left.load(Ordering::SeqCst) == 0;
        match handle.store.changes(table, of, since).unwrap() {
            Changes::Page(page) => {
                assert!(page.version.version >= since.version && !page.version.went_back_since(&since));
                for change in &page.changes {
                    let key = change.key.to_string();
                    match &change.value {
                        Some(value) => _ = followed.rows.insert(key, (change.version, value.clone())),
                        None => _ = followed.rows.remove(&key),
                    }
                }
                let is_last = is_over && !page.more;
                followed.pages.push((since.version, page.clone()));
                since = page.version;
                if is_last {
                    return followed;
                }
            }
            Changes::Unknown => {
                since = handle.store.table_version(table).unwrap().unwrap();
                followed.rows.clear();
                for row in handle.store.entries(table, Some(of)) {
                    let row = row.unwrap();
                    followed.rows.insert(row.key.to_string(), (row.version, row.value));
                }
            }
        }
    }
}

fn check(made: &Made, drops: usize, topics: &[Topic], states: &[TopicVersions], followed: &[Followed]) {
    // The versions that are missing are those of the table's deletes.
    let last = states.last().unwrap().table.version;
    let dropped: Vec<_> = (1..=last).filter(|version| !made.contains_key(version)).collect();
    assert_eq!(dropped.len(), drops, "{dropped:?}");
    let before = |of: &Topic, at: u64| {
        let written = made
            .range(..=at)
            .rev()
            .find(|(_, made)| made.0 == *of)
            .map_or(0, |(version, _)| *version);
        let dropped = dropped.iter().rev().find(|dropped| **dropped <= at);
        written.max(*dropped.unwrap_or(&0))
    };
    for (version, (of, _, _, after)) in made {
        assert_eq!(*after, before(of, version - 1), "{version} of {of:?}");
    }
    assert!(
        states
            .windows(2)
            .all(|pair| !pair[1].table.went_back_since(&pair[0].table))
    );
    for state in states {
        let expected = topics.iter().map(|of| before(of, state.table.version));
        assert!(state.versions.iter().copied().eq(expected), "{state:?}");
    }
    for (of, followed) in topics.iter().zip(followed) {
        for (since, page) in &followed.pages {
            for change in &page.changes {
                let (topic, key, value, _) = &made[&change.version];
                assert!(
                    topic == of && *key == &*change.key && *value == change.value,
                    "{change:?}"
                );
            }
            let upto = page.version.version;
            for (version, (topic, key, ..)) in made
                .range(since + 1..=upto.max(since + 1))
                .filter(|(version, _)| **version <= upto)
            {
                let told = page
                    .changes
                    .iter()
                    .any(|change| *change.key == **key && change.version >= *version);
                let again = made
                    .range(upto + 1..)
                    .any(|(_, made)| made.0 == *topic && made.1 == *key);
                assert!(
                    topic != of || told || again,
                    "{version} {key:?} in {since}..{upto}: {page:?}"
                );
            }
        }
    }
}
