//! The one error type of the crate.

mod report;

use std::error::Error as StdError;
use std::fmt;

pub use report::ErrorHook;
#[cfg(feature = "metrics")]
pub(crate) use report::{ErrorCounts, REPORTED};
pub(crate) use report::{contain, report, report_as};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of failure that an [`Error`] reports, for programs that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option is unknown, malformed, or contradicts another; the text names it and its value.
    Config,
    /// An argument breaks a documented rule, for example an empty topic.
    InvalidInput,
    /// A received message, or a stored value, does not have its declared format.
    Malformed,
    /// A message is larger than the configured limit.
    TooLarge,
    /// The deadline passed first. A call that sends or writes one thing has done nothing; one that waits for an effect,
    /// such as an acknowledgement, has not seen it.
    Timeout,
    /// The object was stopped, or the other side of an in-process channel is gone.
    Stopped,
    /// The driver, transport, or feature is not in this build, or the store does not offer the call.
    Unsupported,
    /// Another socket holds the address, of this process or of another one.
    AddressInUse,
    /// There is no row of this key. Never returned for an outage.
    NotFound,
    /// There is a row of this key already.
    AlreadyExists,
    /// The row is not the one that the write was meant for: another writer has changed it since.
    Conflict,
    /// The store cannot be reached, or does not work as it should: nothing is known of the row, nothing was written. Of
    /// several writes ([`Store::write_each`](crate::Store::write_each),
    /// [`Store::delete_rows`](crate::Store::delete_rows)) some may have been made.
    Unavailable,
    /// There is no room left, for example on the disk; nothing was written.
    Full,
    /// The transport failed: refused, unreachable, out of resources.
    Transport,
    /// The operating system failed: files, threads, memory.
    Io,
    /// A permission is missing or a login is wrong: at a server, or on this host, for example for a port or a socket.
    Denied,
    /// The request was sent, but no answer came: it may have taken effect, or may still do so.
    Unconfirmed,
    /// The program's own code, for example a callback, panicked while the library called it.
    Panicked,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Config => "configuration",
            ErrorKind::InvalidInput => "invalid input",
            ErrorKind::Malformed => "malformed",
            ErrorKind::TooLarge => "too large",
            ErrorKind::Timeout => "timed out",
            ErrorKind::Stopped => "stopped",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::AddressInUse => "address in use",
            ErrorKind::NotFound => "not found",
            ErrorKind::AlreadyExists => "already exists",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Full => "no room",
            ErrorKind::Transport => "transport",
            ErrorKind::Io => "system",
            ErrorKind::Denied => "denied",
            ErrorKind::Unconfirmed => "unconfirmed",
            ErrorKind::Panicked => "panic",
        })
    }
}

/// An error with its [`ErrorKind`], a text for people, and its cause, if there is one.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: String,
    data: Data,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an error says besides its text.
#[derive(Default)]
struct Data {
    row: Option<(String, String)>,
    version: Option<u64>,
    lost: Option<u64>,
}

impl Error {
    /// Makes an error of `kind`; `context` says what was being done and with which value. Drivers use this.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            context: context.into(),
            data: Data::default(),
            source: None,
        }))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Puts before the text what was being done when this happened. The kind stays, and so do the row and the numbers.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Error {
        let (kind, data) = (self.0.kind, std::mem::take(&mut self.0.data));
        let mut error = Error::new(kind, context).with_source(self);
        error.0.data = data;
        error
    }

    /// Names the row that this is about, unless it is named already. Stores use this.
    #[must_use]
    pub fn with_row(mut self, table: &str, key: &str) -> Error {
        self.0.data.row.get_or_insert_with(|| (table.into(), key.into()));
        self
    }

    /// Gives the version of the row's last write, with which a write has conflicted. Stores use this.
    #[must_use]
    pub fn with_version(mut self, version: u64) -> Error {
        self.0.data.version = Some(version);
        self
    }

    /// Gives the number of a publisher's lost updates.
    pub(crate) fn with_lost(mut self, lost: u64) -> Error {
        self.0.data.lost = Some(lost);
        self
    }

    /// The same text as an error of another kind.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// The context and the causes, without the kind, which an inner error of this library does not repeat.
    fn fmt_context(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ": {}", self.0.context)?;
        match &self.0.source {
            None => Ok(()),
            Some(source) => match source.downcast_ref::<Error>() {
                Some(ours) => ours.fmt_context(f),
                None => write!(f, ": {source}"),
            },
        }
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The table and the key of the row that the error is about. Set for every failed read or write of one row, and for
    /// a stored value that does not decode as its table's row type.
    pub fn row(&self) -> Option<(&str, &str)> {
        let row = self.0.data.row.as_ref();
        row.map(|(table, key)| (&**table, &**key))
    }

    /// The version of the row's last write, if this is a [`Conflict`](ErrorKind::Conflict) with it and the store has
    /// named the version.
    pub fn version(&self) -> Option<u64> {
        self.0.data.version
    }

    /// How many updates a publisher has accepted in bursts and could not send so far, if this error, which goes to the
    /// hook, is about them; see [`PublisherStats::lost`](crate::publisher::PublisherStats::lost).
    pub fn lost(&self) -> Option<u64> {
        self.0.data.lost
    }

    /// True if the same call may succeed later without any change, after an outage or a timeout; the failed call did
    /// nothing, unless it was one of several writes (see [`ErrorKind::Unavailable`]). False for
    /// [`ErrorKind::Unconfirmed`], where that is not known.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Transport
        )
    }

    /// True if another writer was first: the row is there, is gone, or has another version.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Conflict
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)?;
        self.fmt_context(f)
    }
}

/// As the text for people: this is what a program prints whose `main` returns the error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(feature = "metrics")]
impl ErrorKind {
    /// All kinds, in the order of their definition.
    const ALL: [ErrorKind; 18] = [
        ErrorKind::Config,
        ErrorKind::InvalidInput,
        ErrorKind::Malformed,
        ErrorKind::TooLarge,
        ErrorKind::Timeout,
        ErrorKind::Stopped,
        ErrorKind::Unsupported,
        ErrorKind::AddressInUse,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Conflict,
        ErrorKind::Unavailable,
        ErrorKind::Full,
        ErrorKind::Transport,
        ErrorKind::Io,
        ErrorKind::Denied,
        ErrorKind::Unconfirmed,
        ErrorKind::Panicked,
    ];
}
