//! The thread that keeps a member's row.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::{Member, PUBLISHERS, RegistryOptions};
use crate::config::Config;
use crate::error::{Error, ErrorHook, ErrorKind, Result, contain, report};
use crate::publisher::{host_name, new_epoch};
use crate::store::{Store, Write};
use crate::stores::Stores;
use crate::thread::{Background, Stop};
use crate::update::Topic;

/// Keeps a member registered, from the moment it is made, on a thread of its own; dropping it removes the row.
pub struct Registration {
    member: Member,
    thread: Background,
}

/// Somebody else may write the row between two looks at it; that does not go on for ever.
const TRIES: usize = 4;

impl Registration {
    /// Registers the publisher that is bound at this address, as the options say: with `discover`, and under
    /// `publisher_id`, or, if that is empty, the host's name and the address.
    ///
    /// # Errors
    /// As [`Stores::open`] and [`Registration::new`].
    pub fn of_publisher(
        config: &Config,
        stores: &Stores,
        address: Option<String>,
        hook: Option<ErrorHook>,
    ) -> Result<Option<Registration>> {
        let Some(address) = address.filter(|_| config.discover) else {
            return Ok(None);
        };
        let address = advertised(config, &address);
        let id = match config.publisher_id.as_str() {
            "" => format!("{} {address}", host_name()),
            id => id.to_owned(),
        };
        let member = Member {
            id,
            epoch: new_epoch(),
            address,
            role: config.publisher_role.clone(),
        };
        let options = RegistryOptions { hook, ..config.into() };
        Registration::new(stores.open(config)?, PUBLISHERS, member, options).map(Some)
    }

    /// Registers a member in this table. Of a row that is there under its id it is assumed that an earlier run has left
    /// it. If its owner is alive, that one notices, reports it, and goes on under its id and its epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if there can be no thread. What is wrong with the store goes to the hook, and is tried again.
    pub fn new(store: Arc<dyn Store>, table: &str, member: Member, options: RegistryOptions) -> Result<Registration> {
        let what = format!("the registration of {:?} in table {table:?}", member.id);
        let worker = Worker {
            store,
            table: table.to_owned(),
            key: member.id.clone(),
            value: member.to_value()?,
            member: member.clone(),
            version: None,
            was_there: false,
            options,
        };
        let thread = Background::spawn("tablecast-registration", what, move |stop| worker.run(&stop))?;
        Ok(Registration { member, thread })
    }

    /// Who is registered.
    pub fn member(&self) -> &Member {
        &self.member
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

struct Worker {
    store: Arc<dyn Store>,
    table: String,
    key: String,
    value: String,
    member: Member,
    /// Of the row as it was written last.
    version: Option<u64>,
    /// The row was there once.
    was_there: bool,
    options: RegistryOptions,
}

impl Worker {
    fn run(mut self, stop: &Stop) {
        let renewal = self.options.timeout / 3;
        loop {
            let name = format!("the registration of {:?} in table {:?}", self.key, self.table);
            let renewed = contain(|| name.clone(), || self.renew()).flatten();
            let wait = match renewed {
                Ok(()) => jittered(renewal),
                Err(e) => {
                    let error = Error::new(e.kind(), name).with_source(e);
                    report(&error, self.options.hook.as_ref());
                    jittered(renewal / 4)
                }
            };
            if stop.within(wait) {
                return self.leave();
            }
        }
    }

    fn renew(&mut self) -> Result<()> {
        if let Some(version) = self.version {
            let set = Write::set(&self.table, &self.key, &self.value).version(version);
            match self.store.write(&set) {
                Ok(written) => {
                    self.version = Some(written.version);
                    return Ok(());
                }
                // Taken for gone, or written by somebody else, or by a try of ours that was not confirmed.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => self.version = None,
                Err(e) => return Err(e),
            }
        }
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        for _ in 0..TRIES {
            match self.store.create(&self.table, &self.key, &self.value, &Topic::ALL) {
                Ok(version) => return self.joined(version),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            let row = match self.store.get(&self.table, &self.key, None) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                row => row?,
            };
            let owner = Member::from_row(&row).ok();
            let is_ours = owner.is_some_and(|owner| owner.is_run_of(&self.member));
            if self.was_there && !is_ours {
                let context = format!(
                    "another one is registered as {:?}: give each an id of its own",
                    self.key
                );
                report(&Error::new(ErrorKind::Conflict, context), self.options.hook.as_ref());
                self.key = format!("{} {}", self.member.id, self.member.epoch);
                continue;
            }
            let set = Write::set(&self.table, &self.key, &self.value).version(row.version);
            match self.store.write(&set) {
                Ok(written) => return self.joined(written.version),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "others write the same row all the time",
        ))
    }

    fn joined(&mut self, version: u64) -> Result<()> {
        self.version = Some(version);
        self.was_there = true;
        Ok(())
    }

    fn leave(self) {
        let Some(version) = self.version else { return };
        match self
            .store
            .write(&Write::delete(&self.table, &self.key).version(version))
        {
            Ok(_) => {}
            // It is somebody else's by now.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(e) => report(&e, self.options.hook.as_ref()),
        }
    }
}

/// What others are told to connect to, of a publisher that is bound at this address.
fn advertised(config: &Config, bound: &str) -> String {
    let Some((host, port)) = bound.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
        return bound.to_owned();
    };
    let host = match (config.publisher_advertise.as_str(), host) {
        ("", "0.0.0.0" | "[::]" | "*") => host_name(),
        ("", host) => host.to_owned(),
        (host, _) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (host, _) => host.to_owned(),
    };
    format!("tcp://{host}:{port}")
}

/// Up to a fifth less, so that those who started together do not write together.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    time.mul_f64(1.0 - 0.2 * f64::from(random) / f64::from(u32::MAX))
}
