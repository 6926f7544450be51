//! The clients that are let in: their public keys in a file or a folder, which is read again when it changes.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::stamp::Stamp;

use super::key::{Key, public_keys};

#[derive(Debug)]
pub(super) struct Clients {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: HashSet<Key>,
    /// The files as they were when the keys were read.
    seen: Vec<File>,
    /// They were read long enough after they were written for another writing to show.
    is_settled: bool,
    /// The files as they were when a failure was reported.
    failed: Option<Vec<File>>,
    looked_at: Instant,
    /// When the looks for clients that are not on the list have had no more than their share of the time.
    paid: Instant,
}

/// A file of the list.
type File = (PathBuf, Stamp);

/// The least time between two looks at the files, but for a client that is not on the list.
const LOOK: Duration = Duration::from_millis(100);

/// Beyond one look each [`LOOK`], the looks for clients that are not on the list take this part of the time at most,
/// and a time in advance: a client that knows the server's key can ask without limit.
const SHARE: u32 = 10;
const ADVANCE: Duration = Duration::from_secs(1);

/// The most files of a folder, and keys, that are read.
const MAX_FILES: usize = 1 << 16;

impl Clients {
    /// Reads the keys of a file, or of the files of a folder; errors name the option.
    pub(super) fn read(option: &str, path: &Path) -> Result<Clients> {
        let wrong = |e| Error::new(ErrorKind::Config, format!("option {option}: {}", path.display())).with_source(e);
        let (began, looked_at) = (SystemTime::now(), Instant::now());
        let seen = stamps(path).map_err(wrong)?;
        let keys = keys(&seen).map_err(wrong)?;
        Ok(Clients {
            path: path.to_owned(),
            state: Mutex::new(State {
                keys,
                is_settled: is_settled(&seen, began),
                seen,
                failed: None,
                looked_at,
                paid: looked_at,
            }),
        })
    }

    /// True if this key is on the list, or was a moment ago. A list that cannot be read stays as it was.
    pub(super) fn contains(&self, key: &Key) -> bool {
        let mut state = self.state.lock();
        if state.looked_at.elapsed() >= LOOK {
            self.look(&mut state);
        }
        state.keys.contains(key)
    }

    /// As [`Clients::contains`], but knows a key that was just added: a peer that was refused may never try again.
    pub(super) fn admits(&self, key: &Key) -> bool {
        if self.contains(key) {
            return true;
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.paid > now + ADVANCE {
            return false;
        }
        self.look(&mut state);
        state.paid = state.paid.max(now) + SHARE * now.elapsed();
        state.keys.contains(key)
    }

    fn look(&self, state: &mut State) {
        let began = SystemTime::now();
        state.looked_at = Instant::now();
        let files = stamps(&self.path);
        let seen = files.as_ref().map_or_else(|_| Vec::new(), Vec::clone);
        if seen == state.seen && state.is_settled {
            return;
        }
        match files.and_then(|files| keys(&files)) {
            Ok(keys) => {
                state.is_settled = is_settled(&seen, began);
                (state.keys, state.seen, state.failed) = (keys, seen, None);
            }
            // Read again at the next look, since a file may just have been removed.
            Err(e) if state.failed.as_ref() != Some(&seen) => {
                let path = self.path.display();
                log::warn!("the list of clients {path} has changed, and the one read before stays in use: {e}");
                state.failed = Some(seen);
            }
            Err(_) => {}
        }
    }
}

/// True if the last change of each file was a while before this time.
fn is_settled(files: &[File], at: SystemTime) -> bool {
    files.iter().all(|(_, file)| file.is_settled(at))
}

/// True for a hidden file, and for one that an editor or a package leaves beside one that has changed.
fn is_left_over(name: &[u8]) -> bool {
    let ends = ["~", ".bak", ".old", ".orig", ".tmp", ".rpmsave", ".rpmnew", ".rpmorig"];
    let parts = [".dpkg-", ".ucf-"].map(str::as_bytes);
    name.starts_with(b".")
        || name.starts_with(b"#")
        || ends.iter().any(|end| name.ends_with(end.as_bytes()))
        || parts.iter().any(|part| name.windows(part.len()).any(|at| at == *part))
}

/// The files of the list; what was left over, and folders in the folder, are not among them.
fn stamps(path: &Path) -> io::Result<Vec<File>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![(path.to_owned(), Stamp::of(path)?)]);
    }
    let mut stamps = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_left_over(entry.file_name().as_encoded_bytes()) {
            continue;
        }
        let file = entry.path();
        match fs::metadata(&file) {
            Ok(about) if about.is_file() => stamps.push((file, Stamp::from(&about))),
            Ok(_) => {}
            // Removed meanwhile, or a link to nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        if stamps.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    stamps.sort();
    Ok(stamps)
}

fn keys(files: &[File]) -> io::Result<HashSet<Key>> {
    let mut keys = HashSet::new();
    for (file, _) in files {
        let more = public_keys(file);
        keys.extend(more.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;

    const KEYS: [&str; 2] = [
        "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        "#Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI",
    ];

    #[test]
    fn a_list_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clients");
        let write = |text: &str| {
            fs::write(file.with_extension("new"), text).unwrap();
            fs::rename(file.with_extension("new"), &file).unwrap();
            thread::pause(LOOK);
        };
        let certificate = format!("metadata\n    name = \"b\"\ncurve\n    public-key = \"{}\"\n", KEYS[1]);
        fs::write(&file, "# none\n").unwrap();
        let clients = Clients::read("option", &file).unwrap();
        let listed = || KEYS.map(|key| clients.contains(&Key::parse(key).unwrap()));
        assert_eq!(listed(), [false, false]);
        write(&format!("{}\n{certificate}", KEYS[0]));
        assert_eq!(listed(), [true, true]);
        write(&certificate);
        assert_eq!(listed(), [false, true]);
        // One that cannot be read stays as it was, until it can.
        write("nonsense\n");
        assert_eq!(listed(), [false, true]);
        fs::remove_file(&file).unwrap();
        thread::pause(LOOK);
        assert_eq!(listed(), [false, true]);
        write(KEYS[0]);
        assert_eq!(listed(), [true, false]);
    }

    #[test]
    fn a_key_that_was_just_added_is_admitted() {
        let folder = tempfile::tempdir().unwrap();
        for (number, key) in KEYS.into_iter().enumerate() {
            let clients = Clients::read("option", folder.path()).unwrap();
            let key = Key::parse(key).unwrap();
            assert!(!clients.admits(&key));
            fs::write(folder.path().join(number.to_string()), key.as_str()).unwrap();
            assert!(clients.admits(&key));
        }
    }

    /// Without a change of its size, and within one tick of the clock of its file system.
    #[test]
    fn a_list_that_is_written_twice_at_once_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clients");
        for _ in 0..50 {
            fs::write(&file, KEYS[0]).unwrap();
            let clients = Clients::read("option", &file).unwrap();
            fs::write(&file, KEYS[1]).unwrap();
            assert!(clients.admits(&Key::parse(KEYS[1]).unwrap()));
            assert!(!clients.contains(&Key::parse(KEYS[0]).unwrap()));
        }
    }

    #[test]
    fn strangers_do_not_make_it_read_the_list_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..2000 {
            fs::write(folder.path().join(number.to_string()), KEYS[0]).unwrap();
        }
        let clients = Clients::read("option", folder.path()).unwrap();
        let (began, stranger) = (Instant::now(), Key::parse(KEYS[1]).unwrap());
        let mut looks = 0;
        // Each look takes a few milliseconds, and thousands would be asked for.
        for _ in 0..20_000 {
            let before = clients.state.lock().looked_at;
            assert!(!clients.admits(&stranger));
            looks += u32::from(clients.state.lock().looked_at != before);
        }
        assert!(looks < 10_000, "{looks} in {:?}", began.elapsed());
    }

    #[test]
    fn a_folder_is_the_sum_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let clients = Clients::read("option", folder.path()).unwrap();
        let listed = || KEYS.map(|key| clients.contains(&Key::parse(key).unwrap()));
        for (number, name) in ["a", "b"].iter().enumerate() {
            fs::write(folder.path().join(name), KEYS[number]).unwrap();
        }
        for name in [".hidden", "a~", "a.bak", "#a#", "a.dpkg-old", "a.rpmsave"] {
            fs::write(folder.path().join(name), "nonsense").unwrap();
        }
        fs::create_dir(folder.path().join("folder")).unwrap();
        thread::pause(LOOK);
        assert_eq!(listed(), [true, true]);
        fs::remove_file(folder.path().join("a")).unwrap();
        thread::pause(LOOK);
        assert_eq!(listed(), [false, true]);
    }
}
