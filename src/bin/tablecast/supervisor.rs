//! The service manager that has started this process, for example systemd: it hears of readiness, life and the end.
//!
//! The protocol is that of `sd_notify`: datagrams to the socket that the variable `NOTIFY_SOCKET` names.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, tick};
use tablecast::failed_threads;

/// The supervisor, if there is one. It is notified of the end when this is dropped.
pub(crate) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The last message was not sent, and that is logged.
    is_lost: Cell<bool>,
    /// Time without a sign of life after which it ends this process.
    watchdog: Option<Duration>,
}

/// Number of signs of life in that time: one that comes late ends no process.
const SIGNS: u32 = 4;

/// Time limit of a message; systemd reads at once.
const PATIENCE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// The supervisor that the environment names. A failure is logged.
    pub(crate) fn find() -> Supervisor {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let opened = open(&name);
            let failed = |e| {
                log::warn!(
                    "cannot reach the service manager at NOTIFY_SOCKET={}: {e}",
                    name.display()
                );
            };
            opened.map_err(failed).ok()
        });
        Supervisor {
            watchdog: watchdog().filter(|_| socket.is_some()),
            socket,
            is_lost: Cell::new(false),
        }
    }

    /// The command does what it is there for.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// When [`Supervisor::alive`] is to be called.
    pub(crate) fn ticks(&self) -> Receiver<Instant> {
        let interval = self.watchdog.map(|time| time / SIGNS);
        interval.map_or_else(never, |time| tick(time.max(Duration::from_millis(1))))
    }

    /// The command still works; a thread that has ended unasked contradicts that.
    pub(crate) fn alive(&self) {
        if failed_threads() == 0 {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        // Not over a connection: a manager that begins anew binds the address anew.
        let sent = socket.send_to_addr(message.as_bytes(), address);
        let was_lost = self.is_lost.replace(sent.is_err());
        if let (Err(e), false) = (sent, was_lost) {
            log::warn!("cannot reach the service manager with {message}: {e}");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.send("STOPPING=1");
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = address(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// The address of this name: a path, or after `@` the name of an abstract socket.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    match name.as_bytes().first() {
        Some(b'/') => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "expected an absolute path, or @ and a name",
        )),
    }
}

/// The time after which the supervisor misses a sign of life of this process, if it expects any.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let time = Duration::from_micros(number("WATCHDOG_USEC").filter(|_| is_ours)?);
    Some(time).filter(|time| !time.is_zero())
}
