//! Mode and group of a Unix socket, which never stands at its path without them.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Group;

use crate::config::MAX_SOCKET_PATH;
use crate::error::{Error, ErrorKind, Result};

use super::options::ZmqOptions;

/// What a socket gets in place of the mode that the umask leaves, and of the group of the process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    mode: Option<u32>,
    /// As it was given, and its number.
    group: Option<(String, u32)>,
}

impl Access {
    /// As the options say.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a group that this host does not know.
    pub(super) fn of(options: &ZmqOptions) -> Result<Access> {
        let group = match &options.socket_group {
            Some(group) => Some((group.clone(), number(group)?)),
            None => None,
        };
        Ok(Access {
            mode: options.socket_mode,
            group,
        })
    }

    /// Has `bind` make the socket of this path. If it gets a mode or a group, it is made in a folder of this user alone
    /// and then moved.
    pub(super) fn make(&self, socket: &Path, bind: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if *self == Access::default() {
            return bind(socket);
        }
        let folder = Folder::beside(socket)?;
        // libzmq keeps whatever it has bound: that the group may be given is known before.
        self.give_group(&folder.path)?;
        let made = folder.socket();
        bind(&made)?;
        self.give_group(&made)?;
        let moved = match self.mode {
            Some(mode) => fs::set_permissions(&made, Permissions::from_mode(mode)),
            None => Ok(()),
        };
        moved.and_then(|()| fs::rename(&made, socket)).map_err(|e| {
            let context = format!("cannot give the socket {} its mode and place", socket.display());
            Error::new(ErrorKind::Io, context).with_source(e)
        })
    }

    fn give_group(&self, path: &Path) -> Result<()> {
        let Some((group, number)) = &self.group else {
            return Ok(());
        };
        chown(path, None, Some(*number)).map_err(|e| {
            let (kind, context) = match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    let what = "this process may not give the socket to it; run it as root or as a member of the group";
                    (ErrorKind::Denied, what)
                }
                _ => (ErrorKind::Io, "the socket cannot be given to it"),
            };
            wrong(kind, group, context).with_source(e)
        })
    }
}

/// The number of a group.
fn number(group: &str) -> Result<u32> {
    // The highest would leave the group as it is.
    if let Some(number) = group.parse().ok().filter(|number| *number != u32::MAX) {
        return Ok(number);
    }
    match Group::from_name(group) {
        Ok(Some(known)) => Ok(known.gid.as_raw()),
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => {
            Err(wrong(ErrorKind::Config, group, "this host has no group of this name"))
        }
        Err(e) => Err(wrong(ErrorKind::Io, group, "cannot look it up").with_source(e)),
    }
}

fn wrong(kind: ErrorKind, group: &str, what: &str) -> Error {
    Error::new(
        kind,
        format!("option publisher_multiproc_socket_group {group:?}: {what}"),
    )
}

/// A folder of this user alone, in which a socket is made. It goes when this is dropped.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A folder beside this socket, whose lock this process holds: what is there already is left over.
    fn beside(socket: &Path) -> Result<Folder> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".new");
        let folder = Folder { path: path.into() };
        if folder.socket().as_os_str().len() > MAX_SOCKET_PATH {
            let (socket, excess) = (socket.display(), ".new/s".len());
            let context = format!(
                "{socket}: a socket with a mode or a group needs a path of at most {} bytes",
                MAX_SOCKET_PATH - excess
            );
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        folder.remove();
        DirBuilder::new().mode(0o700).create(&folder.path).map_err(|e| {
            let context = format!("cannot make the folder {}", folder.path.display());
            Error::new(ErrorKind::Io, context).with_source(e)
        })?;
        Ok(folder)
    }

    fn socket(&self) -> PathBuf {
        self.path.join("s")
    }

    fn remove(&self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.path);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn with(mode: Option<u32>, group: Option<&str>) -> Result<Access> {
        Access::of(&ZmqOptions {
            socket_mode: mode,
            socket_group: group.map(Into::into),
            ..ZmqOptions::default()
        })
    }

    #[test]
    fn no_other_user_sees_a_socket_before_it_has_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        // As a killed process leaves it, and what it served.
        fs::create_dir(folder.path().join("socket.new")).unwrap();
        fs::write(folder.path().join("socket.new/s"), "").unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        let own = fs::metadata(folder.path()).unwrap().gid();
        for mode in [0o600, 0o660, 0o777, 0] {
            let access = with(Some(mode), Some(&own.to_string())).unwrap();
            let bind = |path: &Path| {
                let private = fs::metadata(path.parent().unwrap()).unwrap();
                assert_eq!(private.mode() & 0o777, 0o700);
                assert!(path.starts_with(folder.path().join("socket.new")));
                drop(UnixListener::bind(path).unwrap());
                Ok(())
            };
            access.make(&socket, bind).unwrap();
            let made = fs::metadata(&socket).unwrap();
            assert_eq!((made.mode() & 0o777, made.gid()), (mode, own));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_socket_without_a_mode_or_group_is_made_at_its_path() {
        let socket = Path::new("/nowhere/socket");
        let mut made = None;
        let bind = |path: &Path| {
            made = Some(path.to_owned());
            Ok(())
        };
        with(None, None).unwrap().make(socket, bind).unwrap();
        assert_eq!(made.as_deref(), Some(socket));
    }

    #[test]
    fn an_error_names_the_group_or_the_path() {
        let unknown = with(None, Some("no such group")).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Config);
        for word in ["publisher_multiproc_socket_group", "no such group"] {
            assert!(unknown.to_string().contains(word), "{unknown}");
        }
        let folder = tempfile::tempdir().unwrap();
        let long = folder
            .path()
            .join("x".repeat(MAX_SOCKET_PATH - folder.path().as_os_str().len() - 6));
        let access = with(Some(0o600), None).unwrap();
        let error = access.make(&long, |_| panic!("its path is too long")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("101 bytes"), "{error}");
    }
}
