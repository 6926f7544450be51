//! The look of a file, which shows that it was written or replaced.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The properties of a file that change when it is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// The time of its last change.
    seconds: i64,
    nanos: i64,
}

/// The resolution of the time of a file's last change, with room to spare.
const TICK: Duration = Duration::from_millis(50);

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Stamp> {
        fs::metadata(path).map(|about| Stamp::from(&about))
    }

    /// True if the last change was a while before this time: one that follows it then changes the stamp. Otherwise a
    /// file that was read at this time has to be read once more.
    pub(crate) fn is_settled(&self, at: SystemTime) -> bool {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = u64::try_from(self.seconds).unwrap_or_default();
        let nanos = u64::try_from(self.nanos).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_nanos(nanos) + TICK < at
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(about: &fs::Metadata) -> Stamp {
        Stamp {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            seconds: about.ctime(),
            nanos: about.ctime_nsec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(Stamp::of(&path).is_err());
        let before = SystemTime::now();
        fs::write(&path, "one").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        assert!(!stamp.is_settled(before));
        assert!(stamp.is_settled(SystemTime::now() + 2 * TICK));
        fs::write(&path, "longer").unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), stamp);
    }
}
