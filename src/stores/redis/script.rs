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

fn script(file: &str) -> (String, redis::Script) {
    let text = format!("local REMEMBERED = {DELETES_REMEMBERED}\n{file}");
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
