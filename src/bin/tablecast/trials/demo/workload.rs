//! The writers' updates: the history of an example network, or generated ones.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::value::RawValue;
use tablecast::{Action, DbUpdate, Error, ErrorKind, Result, Topic};

/// The history of a network with a few tenants, one update per line, in order.
const NETWORK: &str = include_str!("../../../../../examples/network.jsonl");

/// The topics of the example and of generated updates, besides [`Topic::ALL`].
const TENANTS: [&str; 3] = ["tenant-acme", "tenant-globex", "tenant-initech"];

/// The updates of all writers together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Workload {
    /// The example network.
    Network,
    /// This many generated updates.
    Generated(u64),
}

impl Workload {
    pub(super) fn new(updates: Option<u64>) -> Workload {
        updates.map_or(Workload::Network, Workload::Generated)
    }

    /// The number of updates.
    pub(super) fn len(self) -> u64 {
        match self {
            Workload::Network => NETWORK.lines().count() as u64,
            Workload::Generated(updates) => updates,
        }
    }

    /// All topics in use.
    pub(super) fn topics() -> Vec<String> {
        let all = Topic::ALL.to_string();
        [all].into_iter().chain(TENANTS.map(str::to_owned)).collect()
    }

    /// All tables in use.
    pub(super) fn tables(self) -> Result<Vec<String>> {
        let tables: BTreeSet<_> = match self {
            Workload::Network => NETWORK
                .lines()
                .map(|line| Ok(parse(line)?.table.to_string()))
                .collect::<Result<_>>()?,
            Workload::Generated(_) => TABLES.iter().map(|table| (*table).to_owned()).collect(),
        };
        Ok(tables.into_iter().collect())
    }

    /// The updates of writer `number` (from 0) of `writers`. A row belongs to one writer, so that the order of its
    /// updates is known. Each update is made, with the time as its timestamp, when the iterator reaches it.
    pub(super) fn share(self, number: u64, writers: u64) -> Box<dyn Iterator<Item = Result<DbUpdate>>> {
        match self {
            Workload::Network => Box::new(
                NETWORK
                    .lines()
                    .map(parse)
                    .filter(move |update| update.as_ref().map_or(true, |update| owner(update, writers) == number)),
            ),
            Workload::Generated(updates) => {
                let share = updates / writers + u64::from(number < updates % writers);
                Box::new((0..share).map(move |index| Ok(generate(number, index))))
            }
        }
    }
}

fn owner(update: &DbUpdate, writers: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&update.table, &update.key).hash(&mut hasher);
    hasher.finish() % writers
}

fn parse(line: &str) -> Result<DbUpdate> {
    #[derive(Deserialize)]
    struct Line<'a> {
        table: &'a str,
        key: &'a str,
        action: &'a str,
        #[serde(borrow)]
        value: Option<&'a RawValue>,
        topic: &'a str,
        priority: Option<i32>,
    }
    let line: Line<'_> = serde_json::from_str(line)
        .map_err(|e| Error::new(ErrorKind::Malformed, format!("not an update: {line}")).with_source(e))?;
    let mut update = DbUpdate::new(line.table, line.key, line.action.into()).topic(Topic::new(line.topic)?);
    update.value = line.value.map(|value| value.get().to_owned());
    update.priority = line.priority.unwrap_or(DbUpdate::DEFAULT_PRIORITY);
    Ok(update)
}

/// The number of rows that a writer changes.
const ROWS: u64 = 1_000;

/// The tables of the rows in turn.
const TABLES: [&str; 4] = ["lport", "lport", "floatingip", "secgroup"];

/// The priorities of successive updates of a row, which must not change their order.
const BURST: [i32; 4] = [5, 9, 1, 5];

/// The number of bursts from a row's create to its delete.
const LIFE: u64 = 4;

/// Update `index` of this writer.
fn generate(writer: u64, index: u64) -> DbUpdate {
    let (burst, step) = (index / BURST.len() as u64, index % BURST.len() as u64);
    let (round, row) = (burst / ROWS, burst % ROWS);
    let action = match (round % LIFE, step) {
        (0, 0) => Action::Create,
        (round, step) if round == LIFE - 1 && step == BURST.len() as u64 - 1 => Action::Delete,
        _ => Action::Set,
    };
    let table = TABLES[row as usize % TABLES.len()];
    let topic = match row % 16 {
        0 => Topic::ALL,
        _ => Topic::new(TENANTS[row as usize % TENANTS.len()]).unwrap_or(Topic::ALL),
    };
    let key = format!("{table}-{writer:02}-{row:04}");
    let value = (action != Action::Delete).then(|| row_text(&key, row, index));
    let mut update = DbUpdate::new(table, key, action).topic(topic);
    update.value = value;
    update.priority = BURST[step as usize];
    update
}

/// A row of about 240 bytes.
fn row_text(key: &str, row: u64, version: u64) -> String {
    format!(
        r#"{{"id":"{key}","name":"vm-{row}","lswitch":"8ea995cd-7489-49b0-b025-f1e11e177c0b","macs":["fa:16:3e:00:{:02x}:{:02x}"],"ips":["10.100.{}.{}"],"secgroups":["c963cfe0-afae-4a3b"],"chassis":"compute-{:02}","enabled":true,"status":"ACTIVE","version":{version}}}"#,
        row >> 8,
        row & 255,
        row >> 8,
        row & 255,
        row % 32,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Checks that the updates are a possible history of rows that keep their topic, and returns their topics.
    fn check_history(updates: impl Iterator<Item = DbUpdate>) -> BTreeSet<String> {
        let mut rows = HashMap::new();
        let mut topics = BTreeSet::new();
        for update in updates {
            let row = (update.table.clone(), update.key.clone());
            assert_eq!(update.action == Action::Delete, update.value.is_none(), "{update}");
            match update.action {
                Action::Create => assert!(rows.insert(row, update.topic.clone()).is_none(), "{update}"),
                Action::Set => assert_eq!(rows.get(&row), Some(&update.topic), "{update}"),
                Action::Delete => assert_eq!(rows.remove(&row), Some(update.topic.clone()), "{update}"),
                _ => panic!("{update}"),
            }
            topics.insert(update.topic.to_string());
        }
        topics
    }

    #[test]
    fn network_is_coherent() {
        let topics = check_history(Workload::Network.share(0, 1).map(Result::unwrap));
        assert_eq!(topics, Workload::topics().into_iter().collect());
        let mut versions = HashMap::new();
        for update in Workload::Network.share(0, 1).map(Result::unwrap) {
            let Some(text) = update.value else { continue };
            let row: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(row["id"], *update.key);
            let version = versions.entry((update.table, update.key)).or_insert(0);
            *version += 1;
            assert_eq!(row["version"], *version, "{text}");
        }
        assert!(NETWORK.len() < 200_000);
    }

    #[test]
    fn generated_rows_are_coherent() {
        let updates = Workload::Generated(50_000).share(1, 3).map(Result::unwrap);
        let topics = check_history(updates.inspect(|update| {
            let bytes = update.value.as_ref().map_or(240, String::len);
            assert!((225..260).contains(&bytes), "{bytes}");
        }));
        assert_eq!(topics, Workload::topics().into_iter().collect());
    }

    #[test]
    fn writers_share_everything_once() {
        for workload in [Workload::Network, Workload::Generated(1_001)] {
            let shares = (0..4).map(|number| workload.share(number, 4).map(Result::unwrap).collect());
            let shares: Vec<Vec<DbUpdate>> = shares.collect();
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>() as u64, workload.len());
            let rows = shares.iter().map(|share| {
                let rows = share.iter().map(|update| (update.table.clone(), update.key.clone()));
                rows.collect::<BTreeSet<_>>()
            });
            let rows: Vec<_> = rows.collect();
            for (n, one) in rows.iter().enumerate() {
                assert!(!one.is_empty());
                assert!(rows[n + 1..].iter().all(|other| one.is_disjoint(other)));
            }
        }
    }
}
