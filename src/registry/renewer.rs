//! The thread that writes a member's row, and renews it.

use std::sync::Arc;
use std::time::Instant;

use super::member::Member;
use super::options::{Keep, RegistryOptions};
use super::own_row::{Lease, OwnRow};
use crate::clock;
use crate::error::{Error, ErrorKind, Result, contain, report};
use crate::store::{Changes, Store, StoredChange, Write, Written};
use crate::thread::{Stop, jittered};
use crate::update::Topic;

/// The most tries to write a row that another process writes between two looks at it.
const TRIES: usize = 4;

/// The work of the thread.
pub(super) struct Renewer<F> {
    pub(super) store: Arc<dyn Store>,
    pub(super) table: String,
    pub(super) key: String,
    pub(super) member: Member,
    /// The version of the last write of the row, unless others have written it since.
    pub(super) version: Option<u64>,
    /// The version of the last write of the row.
    pub(super) last: u64,
    /// When the row was first written.
    pub(super) since: Option<Instant>,
    pub(super) keep: Keep,
    pub(super) row: Arc<OwnRow>,
    pub(super) renewal: F,
    pub(super) options: RegistryOptions,
}

impl<F: FnMut(&mut Member)> Renewer<F> {
    pub(super) fn run(mut self, stop: &Stop) {
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
        let mut may_create = self.keep.rejoins() || self.since.is_none();
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
                owner.as_ref().is_some_and(|owner| owner.is_run_of(&self.member)) || self.keep.rejoins() && is_earlier;
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
                Some(before) if !self.keep.rejoins() && !is_ours => self.replace(before, &set)?,
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
        let value = match is_unseen && self.keep == Keep::Followed {
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
                if !self.keep.rejoins() {
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
