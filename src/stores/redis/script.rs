//! The scripts that make what has to be one step one step.

use std::sync::LazyLock;

use crate::store::DELETES_REMEMBERED;

/// A script, and the name under which a server that has seen it knows it.
pub(super) struct Script(LazyLock<(String, redis::Script)>);

impl Script {
    pub(super) fn text(&self) -> &str {
        &self.0.0
    }

    pub(super) fn name(&self) -> &str {
        self.0.1.get_hash()
    }
}

/// Once a table has them, its keys never go: while a slot is being moved, a cluster runs no script that names a key which
/// is not there. No name has this byte, and in an index it stands behind all.
const KEEP: &str = r"
local function keep(rows, deletes, keys, topics, order)
    redis.call('HSET', rows, '\255', '')
    redis.call('HSET', deletes, '\255', '')
    redis.call('ZADD', keys, 0, '\255')
    redis.call('ZADD', topics, 0, '\255')
    redis.call('ZADD', order, 'inf', '\255')
end";

fn script(file: &str) -> (String, redis::Script) {
    let text = format!("local REMEMBERED = {DELETES_REMEMBERED}\n{KEEP}\n{file}");
    let named = redis::Script::new(&text);
    (text, named)
}

macro_rules! scripts {
    ($($name:ident: $file:literal)+) => {$(
        pub(super) static $name: Script = Script(LazyLock::new(|| script(include_str!($file))));
    )+};
}

/// Makes each of many writes as `write.lua` makes one.
pub(super) static WRITE_EACH: Script = Script(LazyLock::new(|| {
    let (one, each) = (include_str!("write.lua"), include_str!("write_each.lua"));
    script(&format!("local function write(KEYS, ARGV)\n{one}\nend\n{each}"))
}));

scripts! {
    WRITE: "write.lua"
    PAGE: "page.lua"
    CREATE_TABLE: "create_table.lua"
    DELETE_TABLE: "delete_table.lua"
}
