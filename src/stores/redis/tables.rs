//! The tables of a database.

use ::redis::cmd;

use super::answer::unsigned;
use super::{ABOUT, EXISTS, Inner, KEYS, key_of};
use crate::error::Result;
use crate::store::StoredTable;

impl Inner {
    pub(super) fn tables(&self) -> Result<Vec<StoredTable>> {
        let pattern = format!("tablecast{{*}}/{ABOUT}");
        let found = self.client.scan(&pattern, self.options.timeout)?;
        let mut tables = Vec::new();
        for name in found.iter().filter_map(|key| name_in(key)) {
            // That of a deleted table stays.
            if self.is_marked(name, ABOUT, EXISTS)? {
                tables.push(StoredTable {
                    name: name.into(),
                    rows: self.count(name)?,
                });
            }
        }
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tables)
    }

    /// The number of rows; `None` if the part that has it is missing.
    fn count(&self, table: &str) -> Result<Option<u64>> {
        let keys = &*key_of(table, KEYS);
        let members = unsigned(Some(self.call(keys, cmd("ZCARD").arg(keys))?))?;
        // One is the mark.
        Ok(members.checked_sub(1))
    }
}

/// The table whose part `about` has this key.
fn name_in(key: &[u8]) -> Option<&str> {
    let key = str::from_utf8(key).ok()?;
    let (length, rest) = key.strip_prefix("tablecast{")?.split_once(':')?;
    let name = rest.strip_suffix(ABOUT)?.strip_suffix("}/")?;
    (length == name.len().to_string()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_their_keys() {
        for table in ["", "t", "1:t", "a{b}", "}/about", "1:t}/about", "t\0", "日本"] {
            assert_eq!(name_in(&key_of(table, ABOUT)), Some(table));
            assert_eq!(name_in(&key_of(table, KEYS)), None);
        }
        for other in [
            "tablecast{1}/about",
            "tablecast{01:t}/about",
            "tablecast{2:t}/about",
            "tablecast{1:t}/about/about",
            "tablecast{1:t}/unique",
            "xtablecast{1:t}/about",
        ] {
            assert_eq!(name_in(other.as_bytes()), None, "{other}");
        }
        assert_eq!(name_in(b"tablecast{1:\xff}/about"), None);
    }
}
