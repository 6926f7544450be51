//! The handle to a registered member.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::member::{Load, Member};
use super::options::{Keep, RegistryOptions};
use super::own_row::{Lease, OwnRow};
use super::renewer::Renewer;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::thread::{Background, deadline};

/// Keeps a member registered on its own thread, from its creation until it is dropped, which removes the row.
pub struct Registration {
    member: Member,
    row: Arc<OwnRow>,
    timeout: Duration,
    thread: Background,
}

impl Registration {
    /// Registers a member in this table. A row already under its id is taken to be of an earlier run. If its owner is
    /// alive, that notices, reports it, and continues under its id and epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a timeout of less than 10 ms, and [`ErrorKind::Io`] if a thread cannot be started.
    /// Errors of the store go to the hook, and the call is repeated.
    pub fn new(store: Arc<dyn Store>, table: &str, member: Member, options: RegistryOptions) -> Result<Registration> {
        Registration::with_renewal(store, table, member, options, Keep::Followed, |_| ())
    }

    /// As [`Registration::new`], kept in this way; `renewal` may change the row before each write.
    pub(crate) fn with_renewal(
        store: Arc<dyn Store>,
        table: &str,
        member: Member,
        options: RegistryOptions,
        keep: Keep,
        renewal: impl FnMut(&mut Member) + Send + 'static,
    ) -> Result<Registration> {
        options.check()?;
        let row = Arc::new(OwnRow {
            lease: Mutex::new(Lease::Wanted),
            load: Mutex::default(),
            changed: Condvar::new(),
        });
        let timeout = options.timeout;
        let renewer = Renewer {
            store,
            table: table.to_owned(),
            key: member.id.clone(),
            member: member.clone(),
            version: None,
            last: 0,
            since: None,
            keep,
            row: Arc::clone(&row),
            renewal,
            options,
        };
        let hook = renewer.options.hook.clone();
        let what = format!("the registration of {:?}", member.id);
        let thread = Background::spawn("tc-registration", what, hook, move |stop| renewer.run(&stop))?;
        Ok(Registration {
            member,
            row,
            timeout,
            thread,
        })
    }

    /// The registered member.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Sets the load that the next renewals write.
    pub fn set_load(&self, load: Load) {
        *self.row.load.lock() = load;
    }

    /// True if no observer can have declared this run dead yet: the last successful renewal began less than the timeout
    /// ago.
    pub(crate) fn is_held(&self) -> bool {
        self.row.lease.lock().is_held(self.timeout)
    }

    /// Tells the thread to stop, and does not wait.
    pub(crate) fn tell(&self) {
        self.thread.tell();
    }

    /// Waits until the row is written. Every subscriber that follows publishers receives the updates published after
    /// that, or gets a sync event, even if the process is killed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not by then.
    pub fn wait_registered(&self, timeout: Duration) -> Result<()> {
        if self.wait_held(deadline(timeout)) {
            return Ok(());
        }
        let context = format!("{:?} is not registered within {timeout:?}", self.member.id);
        Err(Error::new(ErrorKind::Timeout, context))
    }

    /// Waits until the row is written; returns false if it is not by `deadline`, or is lost.
    pub(crate) fn wait_held(&self, deadline: Instant) -> bool {
        let mut lease = self.row.lease.lock();
        while !lease.is_held(self.timeout) && *lease != Lease::Lost {
            if self.row.changed.wait_until(&mut lease, deadline).timed_out() {
                break;
            }
        }
        lease.is_held(self.timeout)
    }

    /// True if others have declared this run dead, and it was not registered again.
    pub(crate) fn is_lost(&self) -> bool {
        *self.row.lease.lock() == Lease::Lost
    }

    /// Renews the row now.
    pub(crate) fn renew(&self) {
        self.thread.wake();
    }

    /// Removes the row. Waits for at most 300 ms, also if the store does not answer.
    pub fn stop(&self) {
        self.thread.stop();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}
