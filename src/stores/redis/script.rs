//! The Lua scripts, each of which is one atomic step.

use std::sync::LazyLock;

/// Notes of a topic's writes are kept for at least this many writes of the table.
const LOGGED: usize = 10_000;

/// The most sessions that a table keeps; `recall.lua` describes them.
const SESSIONS: usize = 1000;

/// A script, and the hash by which a server that has seen it knows it.
pub(super) struct Script(LazyLock<(String, redis::Script)>);

impl Script {
    pub(super) fn text(&self) -> &str {
        &self.0.0
    }

    pub(super) fn name(&self) -> &str {
        self.0.1.get_hash()
    }
}

fn script(files: &[&str]) -> (String, redis::Script) {
    let text = format!("local LOGGED, SESSIONS = {LOGGED}, {SESSIONS}\n") + &files.concat();
    let named = redis::Script::new(&text);
    (text, named)
}

macro_rules! scripts {
    ($($name:ident: $($file:literal)+)+) => {$(
        pub(super) static $name: Script = Script(LazyLock::new(|| script(&[$(include_str!($file)),+])));
    )+};
}

/// As `WRITE`, for many writes.
pub(super) static WRITE_EACH: Script = Script(LazyLock::new(|| {
    let one = concat!(
        include_str!("recall.lua"),
        include_str!("write.lua"),
        include_str!("steps.lua"),
        include_str!("create_delete.lua")
    );
    script(&[
        "local function write(KEYS, ARGV)
",
        one,
        "end
",
        include_str!("write_each.lua"),
    ])
}));

scripts! {
    WRITE: "recall.lua" "write.lua" "steps.lua" "create_delete.lua"
    CREATE_TABLE: "recall.lua" "steps.lua" "create_table.lua"
    DELETE_TABLE: "recall.lua" "steps.lua" "delete_table.lua"
    IS_WHOLE: "is_whole.lua"
    PAGE: "page.lua"
    CHANGES: "run_id.lua" "changes.lua"
    TOPIC_VERSIONS: "run_id.lua" "topic_versions.lua"
}
