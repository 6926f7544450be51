//! Default path of the embedded database.

use std::env;
use std::path::PathBuf;

/// The usual place for data of this user, or, without a home, for data of the machine.
pub(super) fn default_path() -> PathBuf {
    let folder = |variable| {
        let folder = env::var_os(variable).map(PathBuf::from);
        folder.filter(|folder| folder.is_absolute())
    };
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
    let data = data.unwrap_or_else(|| "/var/lib".into());
    data.join("tablecast").join("tablecast.db")
}
