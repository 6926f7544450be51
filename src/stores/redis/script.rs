//! The scripts that make what has to be one step one step.

use std::sync::LazyLock;

use sha1_smol::Sha1;

/// A script, and the name under which a server that has seen it knows it.
pub(super) struct Script {
    pub(super) text: &'static str,
    name: LazyLock<String>,
}

impl Script {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

macro_rules! scripts {
    ($($name:ident: $file:literal)+) => {$(
        pub(super) static $name: Script = Script {
            text: include_str!($file),
            name: LazyLock::new(|| Sha1::from(include_str!($file)).digest().to_string()),
        };
    )+};
}

scripts! {
    WRITE: "write.lua"
    PAGE: "page.lua"
    CREATE_TABLE: "create_table.lua"
    DELETE_TABLE: "delete_table.lua"
}
