//! Keys of CURVE, and the files that hold them: certificates as CZMQ and pyzmq write and read them.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind as Io, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Secret, is_curve_key};
use crate::error::{Error, ErrorKind, Result};

use super::calls::{libzmq, zmq_error};

/// A public key: 40 characters of Z85.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn parse(text: &str) -> Option<Key> {
        is_curve_key(text).then(|| Key(text.to_owned()))
    }

    /// The key as libzmq's handler of authentication gets it, in 32 bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Key> {
        zmq::z85_encode(bytes).ok().and_then(|text| Key::parse(&text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pair of keys for CURVE, by which one end of a connection proves who it is.
///
/// The secret key appears in no log, error or debug output.
#[derive(Debug, Clone)]
pub struct KeyPair {
    public: Key,
    secret: Secret,
}

/// The longest file of keys that is read.
const MAX_FILE: u64 = 8 << 20;

impl KeyPair {
    /// Makes a new pair.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this libzmq has no CURVE.
    pub fn generate() -> Result<KeyPair> {
        check_curve("cannot make keys")?;
        let made = zmq::CurveKeyPair::new().map_err(|e| zmq_error(e, "cannot make keys".into()))?;
        let (public, secret) = (Key::of_bytes(&made.public_key), zmq::z85_encode(&made.secret_key).ok());
        let (Some(public), Some(secret)) = (public, secret) else {
            return Err(Error::new(
                ErrorKind::Transport,
                "cannot make keys: libzmq made malformed ones",
            ));
        };
        let secret = Secret::new(secret);
        Ok(KeyPair { public, secret })
    }

    /// Returns the public key: 40 characters of Z85, which others may know.
    pub fn public(&self) -> &str {
        self.public.as_str()
    }

    pub(super) fn key(&self) -> &Key {
        &self.public
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Writes the pair to `file`, readable for this user alone, and its public key to a file of that name with `.pub`
    /// behind it. Both are certificates that CZMQ and pyzmq read too.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is one of the files already; [`ErrorKind::Io`] if one cannot be written.
    /// Then neither is left.
    pub fn save(&self, file: &Path) -> Result<()> {
        let public = PathBuf::from(format!("{}.pub", file.display()));
        let certificate = format!("curve\n    public-key = \"{}\"\n", self.public);
        let pair = format!("{certificate}    secret-key = \"{}\"\n", self.secret.expose());
        write(
            file,
            0o600,
            &format!("# Secret key for CURVE: show it to no other user.\n{pair}"),
        )?;
        let written = write(&public, 0o644, &format!("# Public key for CURVE.\n{certificate}"));
        if written.is_err() {
            // The pair was never used.
            let _ = fs::remove_file(file);
        }
        written
    }

    /// Reads the pair of `file`, which no other user may be able to read; errors name the option.
    pub(super) fn read(option: &str, file: &Path) -> Result<KeyPair> {
        let wrong = |what: &str| Error::new(ErrorKind::Config, format!("option {option}: {} {what}", file.display()));
        // Looked at once it is open: a path may name another file in the next moment.
        let unread = |e| wrong("cannot be read").with_source(e);
        let open = fs::File::open(file).map_err(unread)?;
        let about = open.metadata().map_err(unread)?;
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!("is open to other users (mode {mode:o}): set its mode to 600");
            return Err(wrong(&what));
        }
        let text = read(open).map_err(unread)?;
        let public = text
            .lines()
            .find_map(|line| field(line, "public-key"))
            .and_then(Key::parse);
        let secret = text.lines().find_map(|line| field(line, "secret-key"));
        match (public, secret.filter(|secret| is_curve_key(secret))) {
            (Some(public), Some(secret)) => Ok(KeyPair {
                public,
                secret: Secret::new(secret),
            }),
            _ => Err(wrong("does not hold a pair of keys, as `tablecast keygen` writes it")),
        }
    }
}

/// The public keys of a file: certificates, or one key a line; `#` begins a comment. Fails with the first line that is
/// neither.
pub(super) fn public_keys(file: &Path) -> io::Result<Vec<Key>> {
    listed(&read(fs::File::open(file)?)?).map_err(|line| {
        let context = format!("{}, line {line}: not a public key", file.display());
        io::Error::new(Io::InvalidData, context)
    })
}

/// The public keys of a text; or the number of the first line that is wrong.
pub(super) fn listed(text: &str) -> Result<Vec<Key>, usize> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        match Key::parse(line).or_else(|| field(line, "public-key").and_then(Key::parse)) {
            Some(key) => keys.push(key),
            None if is_beside(line) => {}
            None => return Err(number),
        }
    }
    Ok(keys)
}

/// True for the lines of a certificate that are not public keys, and for comments.
fn is_beside(line: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_other = |(name, _): (&str, &str)| is_name(name.trim()) && name.trim() != "public-key";
    line.is_empty()
        || line.starts_with('#')
        || ["curve", "metadata"].contains(&line)
        || (line.contains(" = ") && line.split_once('=').is_some_and(is_other))
}

/// The value of a line `name = "value"`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.trim().strip_prefix(name)?.trim_start().strip_prefix('=')?.trim();
    Some(value.trim_matches('"'))
}

fn read(file: fs::File) -> io::Result<String> {
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match u64::try_from(length) {
        Ok(..=MAX_FILE) => Ok(text),
        _ => Err(io::Error::new(Io::FileTooLarge, format!("more than {MAX_FILE} bytes"))),
    }
}

fn write(file: &Path, mode: u32, text: &str) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut open = opened.map_err(|e| match e.kind() {
        Io::AlreadyExists => Error::new(
            ErrorKind::AlreadyExists,
            format!("{} exists already: keys are not overwritten", file.display()),
        ),
        _ => Error::new(ErrorKind::Io, format!("cannot write {}", file.display())).with_source(e),
    })?;
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
    written.map_err(|e| {
        // What is left would look like a pair.
        let _ = fs::remove_file(file);
        Error::new(ErrorKind::Io, format!("cannot write {}", file.display())).with_source(e)
    })
}

/// Fails if this libzmq has no CURVE; `what` was asked for.
pub(super) fn check_curve(what: &str) -> Result<()> {
    if zmq::has("curve") == Some(true) {
        return Ok(());
    }
    let context = format!(
        "{what}: this libzmq ({}) was built without CURVE; link the system's libzmq, as the page `operating` of the documentation says",
        libzmq()
    );
    Err(Error::new(ErrorKind::Unsupported, context))
}
