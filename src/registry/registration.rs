//! The thread that keeps a member's row.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::member::{Load, Member};
use super::options::RegistryOptions;
use crate::clock;
use crate::error::{Error, ErrorKind, Result, contain, report};
use crate::store::{Changes, Store, StoredChange, Write, Written};
use crate::thread::{Background, Stop, deadline, jittered};
use crate::update::Topic;

/// Keeps a member registered on its own thread, from its creation until it is dropped, which removes the row.
pub struct Registration {
    member: Member,
    row: Arc<OwnRow>,
    timeout: Duration,
    thread: Background,
}

/// The member's own row, as the handle and the thread share it.
struct OwnRow {
    lease: Mutex<Lease>,
    load: Mutex<Load>,
    changed: Condvar,
}

/// The state of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// The row was not written yet.
    Wanted,
    /// The start of the last write that is known to have succeeded.
    Held(Instant),
    /// Another process has removed or replaced the row.
    Lost,
}

impl OwnRow {
    fn set(&self, lease: Lease) {
        *self.lease.lock() = lease;
        self.changed.notify_all();
    }
}

impl Lease {
    fn is_held(self, timeout: Duration) -> bool {
        match self {
            Lease::Held(since) => clock::now().saturating_duration_since(since) < timeout,
            Lease::Wanted | Lease::Lost => false,
        }
    }
}

/// The most tries to write a row that another process writes between two looks at it.
const TRIES: usize = 4;

impl Registration {
    /// Registers a member in this table. A row already under its id is taken to be of an earlier run. If its owner is
    /// alive, that notices, reports it, and continues under its id and epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a timeout of less than 10 ms, and [`ErrorKind::Io`] if a thread cannot be started.
    /// Errors of the store go to the hook, and the call is repeated.
    pub fn new(store: Arc<dyn Store>, table: &str, member: Member, options: RegistryOptions) -> Result<Registration> {
        Registration::with_renewal(store, table, member, options, true, |_| ())
    }

    /// As [`Registration::new`]; `renewal` may change the row before each write.
    ///
    /// Without `rejoins` the run ends with its row: if others have declared it dead and removed the row, it is not
    /// registered again, and [`Registration::is_lost`]; a row that the store has lost is written again. A registered
    /// earlier run of its id stays registered under another key, as leaving, until it stops or does not renew its row.
    pub(crate) fn with_renewal(
        store: Arc<dyn Store>,
        table: &str,
        member: Member,
        options: RegistryOptions,
        rejoins: bool,
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
            rejoins,
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

/// The thread that writes the row, and renews it.
struct Renewer<F> {
    store: Arc<dyn Store>,
    table: String,
    key: String,
    member: Member,
    /// The version of the last write of the row, unless others have written it since.
    version: Option<u64>,
    /// The version of the last write of the row.
    last: u64,
    /// When the row was first written.
    since: Option<Instant>,
    /// True if a row that others have removed is written again.
    rejoins: bool,
    row: Arc<OwnRow>,
    renewal: F,
    options: RegistryOptions,
}

impl<F: FnMut(&mut Member)> Renewer<F> {
    fn run(mut self, stop: &Stop) {
        let renewal = self.options.timeout / 3;
        loop {
            let name = format!("the registration of {:?} in table {:?}", self.key, self.table);
            // By a clock that goes on while the host sleeps, as other hosts do.
            let start = clock::now();
            let renewed = contain(|| name.clone(), || self.renew()).flatten();
            let wait = match renewed {
                Ok(true) => {
                    self.row.set(Lease::Held(start));
                    jittered(renewal)
                }
                Ok(false) => {
                    self.row.set(Lease::Lost);
                    return;
                }
                Err(e) => {
                    let error = e.context(name);
                    report!(&error, self.options.hook.as_ref());
                    jittered(renewal / 4)
                }
            };
            if stop.within(wait) {
                return self.leave();
            }
        }
    }

    /// Writes the row; returns false if it is lost.
    fn renew(&mut self) -> Result<bool> {
        self.member.load = *self.row.load.lock();
        (self.renewal)(&mut self.member);
        let value = self.member.to_value()?;
        if let Some(version) = self.version {
            let set = Write::set(&self.table, &self.key, &value).if_version(version);
            match self.store.write(&set) {
                Ok(written) => return Ok(self.joined(written.version)),
                // Removed as gone, or written by another process, or by an own unconfirmed try.
                Err(e) if e.is_overtaken() => self.version = None,
                Err(e) => return Err(e),
            }
        }
        self.join(&value)
    }

    fn join(&mut self, value: &str) -> Result<bool> {
        let kept = key_of_run(&self.member.id, self.member.epoch);
        let mut may_create = self.rejoins || self.since.is_none();
        let mut is_behind = false;
        for _ in 0..TRIES {
            if may_create {
                match self.store.create(&self.table, &self.key, value, &Topic::ALL) {
                    Ok(version) => return Ok(self.joined(version)),
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(e),
                }
            }
            let row = match self.store.get(&self.table, &self.key, None) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    if may_create {
                        continue;
                    } else if self.key != kept {
                        // A run that took the id, and has stopped, has kept the row.
                        self.key.clone_from(&kept);
                    } else if self.is_lost_by_store(&kept)? {
                        self.key.clone_from(&self.member.id);
                        may_create = true;
                    } else {
                        return Ok(false);
                    }
                    continue;
                }
                row => row?,
            };
            let owner = Member::from_row(&row).ok();
            let is_earlier = owner.as_ref().is_some_and(|owner| owner.epoch < self.member.epoch);
            let is_ours =
                owner.as_ref().is_some_and(|owner| owner.is_run_of(&self.member)) || self.rejoins && is_earlier;
            // If the store went back, the row of an earlier run is there again. If that is alive, it notices.
            let is_back = is_earlier && may_create;
            if self.since.is_some() && !is_ours && !is_back {
                // It may also be of a later run whose clock is behind.
                is_behind |= is_earlier;
                if !is_earlier {
                    self.report_clash();
                }
                self.key.clone_from(&kept);
                continue;
            }
            if std::mem::take(&mut is_behind) && is_ours {
                self.report_clash();
            }
            let set = Write::set(&self.table, &self.key, value).if_version(row.version);
            let written = match owner {
                Some(before) if !self.rejoins && !is_ours => self.replace(before, &set)?,
                _ => self.store.write(&set),
            };
            match written {
                Ok(written) => return Ok(self.joined(written.version)),
                Err(e) if e.is_overtaken() => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "other processes keep writing the same row",
        ))
    }

    fn report_clash(&self) {
        let id = &self.member.id;
        let context = format!("another member is registered as {id:?}: give each member its own id");
        if !self.member.leaving {
            report!(&Error::new(ErrorKind::Conflict, context), self.options.hook.as_ref());
        }
    }

    /// True if the store has lost this run's row: before the end of the lease no observer removes it, and as far as the
    /// store remembers, nobody else has deleted it either.
    fn is_lost_by_store(&self, kept: &str) -> Result<bool> {
        if !self.row.lease.lock().is_held(self.options.timeout) {
            return Ok(false);
        }
        let Some(now) = self.store.table_version(&self.table)? else {
            return Ok(true);
        };
        let of_this_run = |key: &str| key == self.member.id || key == kept;
        let is_its_delete = |change: &StoredChange| change.value.is_none() && of_this_run(&change.key);
        let mut since = now.at(self.last);
        while let Changes::Page(page) = self.store.changes(&self.table, &Topic::ALL, since)? {
            if page.changes.iter().any(is_its_delete) {
                return Ok(false);
            }
            if !page.more {
                break;
            }
            since = page.version;
        }
        Ok(true)
    }

    /// Replaces another run, which may still be working: that keeps a row under another key until it stops or does not
    /// renew it.
    fn replace(&self, mut before: Member, set: &Write<'_>) -> Result<Result<Written>> {
        before.leaving = true;
        let (key, value) = (key_of_run(&before.id, before.epoch), before.to_value()?);
        let keep = Write::create(&self.table, &key, &value);
        let results = self.store.write_each(&[keep, *set])?;
        let nothing = || Error::new(ErrorKind::Malformed, "the store returned fewer results than writes");
        results.into_iter().nth(1).ok_or_else(nothing)
    }

    fn joined(&mut self, version: u64) -> bool {
        (self.version, self.last) = (Some(version), version);
        self.since.get_or_insert_with(Instant::now);
        true
    }

    fn leave(mut self) {
        let Some(version) = self.version.or_else(|| self.written_unconfirmed()) else {
            return;
        };
        let is_unseen = self
            .since
            .is_some_and(|since| since.elapsed() < self.options.look() * 2);
        let value = match is_unseen && self.rejoins {
            true => {
                self.member.leaving = true;
                self.member.to_value().ok()
            }
            false => None,
        };
        let write = match &value {
            // Later observers must learn of this publisher.
            Some(value) => Write::set(&self.table, &self.key, value),
            None => Write::delete(&self.table, &self.key),
        };
        let mut left = self.store.write(&write.if_version(version));
        if left.as_ref().is_err_and(|e| e.kind() == ErrorKind::Conflict)
            && let Some(version) = self.written_unconfirmed()
        {
            left = self.store.write(&write.if_version(version));
        }
        match left {
            Ok(_) => {}
            // Another run has the row by now, and may have kept this one's under another key.
            Err(e) if e.is_overtaken() => {
                if !self.rejoins {
                    self.leave_kept();
                }
            }
            Err(e) => report!(&e, self.options.hook.as_ref()),
        }
    }

    /// The version of the row, if it is this run's: a renewal that was not confirmed has written it.
    fn written_unconfirmed(&self) -> Option<u64> {
        let row = self.store.get(&self.table, &self.key, None).ok()?;
        let owner = Member::from_row(&row).ok()?;
        owner.is_run_of(&self.member).then_some(row.version)
    }

    fn leave_kept(&self) {
        let key = key_of_run(&self.member.id, self.member.epoch);
        let deleted = self.store.get(&self.table, &key, None).and_then(|row| {
            let delete = Write::delete(&self.table, &key).if_version(row.version);
            self.store.write(&delete)
        });
        match deleted {
            Err(e) if !e.is_overtaken() => report!(&e, self.options.hook.as_ref()),
            _ => {}
        }
    }
}

/// The key for a run whose id another run has taken.
fn key_of_run(id: &str, epoch: u64) -> String {
    format!("{id} {epoch}")
}
