//! The socket between the processes of one host and their publisher service: the forms of its path, mode and group.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::path;

/// The operating system's limit for the path of a socket, in bytes, without the final zero.
pub(crate) const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The path of a socket, expanded; `None` if it cannot be one, or cannot be expanded.
pub(super) fn expanded(text: &str) -> Option<PathBuf> {
    let path = path::expand(text, |name| env::var_os(name)).ok()?;
    is_path(&path).then_some(path)
}

/// True if `path` can be that of a socket. ZeroMQ would take a leading `@` as abstract and a leading `*` as any path.
pub(super) fn is_path(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    matches!(bytes.first(), Some(first) if !b"@*".contains(first))
        && bytes.len() <= MAX_SOCKET_PATH
        && !bytes.contains(&0)
}

pub(super) fn mode(text: &str) -> Option<u32> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
    (mode <= 0o777).then_some(mode)
}

pub(super) fn is_mode(text: &str) -> bool {
    text.is_empty() || mode(text).is_some()
}

/// True if this can be a group's name or number, or is nothing. The highest number means none.
pub(super) fn is_group(text: &str) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number {
        true => text.parse().is_ok_and(|number: u32| number < u32::MAX),
        false => !text.contains(|c: char| c.is_control() || c == ':'),
    }
}

/// The first of the usual places whose path is short enough.
pub(super) fn default_path() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute());
    let places = runtime.map(|folder| folder.join("tablecast"));
    let mut places = places.into_iter().chain([private_folder(env::temp_dir())]);
    let usable = places.find_map(|folder| Some(folder.join("publisher.sock")).filter(|path| is_path(path)));
    usable.unwrap_or_else(|| private_folder("/tmp".into()).join("publisher.sock"))
}

/// This user's folder in one where all users may create folders.
pub(super) fn private_folder(shared: PathBuf) -> PathBuf {
    let user = user_id().map(|id| id.to_string()).or_else(|| env::var("USER").ok());
    shared.join(format!("tablecast-{}", user.as_deref().unwrap_or("user")))
}

/// The id of the user that this process runs as.
pub(super) fn user_id() -> Option<u32> {
    let home = env::var_os("HOME");
    let owner = fs::metadata("/proc/self").or_else(|e| home.map_or(Err(e), fs::metadata));
    owner.ok().map(|metadata| metadata.uid())
}
