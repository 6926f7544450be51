//! The owner and mode of a file that this process may not use.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Names the owner and mode of the file, or, if they cannot be seen, of the folder that hides it.
pub(crate) fn owner(path: &Path) -> Option<String> {
    let seen = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let (path, it) = seen?;
    let what = match it.file_type() {
        kind if kind.is_dir() => "folder",
        kind if kind.is_socket() => "socket",
        _ => "file",
    };
    Some(format!(
        "the {what} {} belongs to user {} and group {}, with mode {:o}",
        path.display(),
        it.uid(),
        it.gid(),
        it.mode() & 0o777
    ))
}
