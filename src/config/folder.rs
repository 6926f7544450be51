//! The socket of the publisher service in the file system: its folder, mode and group.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::options::Config;
#[cfg(feature = "zmq")]
use super::socket::mode;
use super::socket::{private_folder, user_id};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// The option `publisher_multiproc_socket_mode`, if it is not empty.
    #[cfg(feature = "zmq")]
    pub(crate) fn socket_mode(&self) -> Option<u32> {
        mode(&self.publisher_multiproc_socket_mode)
    }

    /// The option `publisher_multiproc_socket_group`, if it is not empty.
    #[cfg(feature = "zmq")]
    pub(crate) fn socket_group(&self) -> Option<String> {
        Some(self.publisher_multiproc_socket_group.clone()).filter(|group| !group.is_empty())
    }

    /// Checks that the folder of `publisher_multiproc_socket` exists and is writable, as the publisher service needs
    /// it. With `create`, makes it if it is missing, for this user alone.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if a permission is missing, otherwise [`ErrorKind::Io`], with the folder and what is wrong
    /// with it.
    pub fn check_socket_folder(&self, create: bool) -> Result<()> {
        let socket = &self.publisher_multiproc_socket;
        let folder = match socket.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let fail = |what: &str| {
            let context = format!(
                "option publisher_multiproc_socket {}: the folder {} {what}",
                socket.display(),
                folder.display()
            );
            Error::new(ErrorKind::Io, context)
        };
        let fail_by = |what: &str, e: io::Error| match e.kind() {
            io::ErrorKind::PermissionDenied => fail(what).of_kind(ErrorKind::Denied).with_source(e),
            _ => fail(what).with_source(e),
        };
        if create {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| fail_by("cannot be made", e))?;
        }
        let metadata = match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) => return Err(fail("is not a folder")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(fail("does not exist")),
            Err(e) => return Err(fail_by("cannot be examined", e)),
        };
        // In a folder where all users may create folders, another user may have made this one to intercept the
        // messages.
        let shared = [env::temp_dir(), "/tmp".into()];
        if shared.map(private_folder).iter().any(|private| private == folder)
            && user_id().is_some_and(|id| id != metadata.uid())
        {
            return Err(fail("belongs to another user"));
        }
        try_write(folder).map_err(|e| fail_by("is not writable", e))
    }
}

/// The mode bits of a folder do not suffice: there are access lists and read-only file systems.
fn try_write(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".tablecast-{}", std::process::id()));
    match OpenOptions::new().write(true).create_new(true).open(&file) {
        Ok(_) => fs::remove_file(&file),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}
