//! The scripts that make what has to be one step one step.

use std::sync::LazyLock;

/// A script, and the name under which a server that has seen it knows it.
pub(super) struct Script {
    pub(super) text: &'static str,
    named: LazyLock<redis::Script>,
}

impl Script {
    pub(super) fn name(&self) -> &str {
        self.named.get_hash()
    }
}

macro_rules! scripts {
    ($($name:ident: $file:literal)+) => {$(
        pub(super) static $name: Script = Script {
            text: include_str!($file),
            named: LazyLock::new(|| redis::Script::new(include_str!($file))),
        };
    )+};
}

scripts! {
    WRITE: "write.lua"
    PAGE: "page.lua"
    CREATE_TABLE: "create_table.lua"
    DELETE_TABLE: "delete_table.lua"
}
