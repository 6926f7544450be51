//! The sessions by which scripts recognize repeated writes; `recall.lua` describes them.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::update::now_micros;

/// The sessions of a store, under a random id: one for each write under way, reused afterwards.
pub(super) struct Sessions {
    id: u64,
    /// The free sessions, and the number of all.
    free: Mutex<(Vec<u32>, u32)>,
    numbers: AtomicU64,
}

/// The session of one write; free again when dropped.
pub(super) struct Session<'a> {
    sessions: &'a Sessions,
    which: u32,
    number: u64,
}

impl Sessions {
    /// Takes the free session that was used last. Late repetitions of its earlier write are refused from now on.
    pub(super) fn take(&self) -> Session<'_> {
        let mut free = self.free.lock();
        let which = free.0.pop().unwrap_or_else(|| {
            free.1 += 1;
            free.1
        });
        drop(free);
        Session {
            sessions: self,
            which,
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            id: RandomState::new().hash_one(now_micros()),
            free: Mutex::default(),
            numbers: AtomicU64::new(1),
        }
    }
}

impl Session<'_> {
    /// Its field in `about`.
    pub(super) fn field(&self) -> [u8; 13] {
        let mut field = [b'@'; 13];
        let bytes = self.sessions.id.to_be_bytes().into_iter();
        let bytes = bytes.chain(self.which.to_be_bytes());
        field.iter_mut().skip(1).zip(bytes).for_each(|(to, from)| *to = from);
        field
    }

    /// The number of the write, higher than all before it in this session.
    pub(super) fn number(&self) -> String {
        self.number.to_string()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.sessions.free.lock().0.push(self.which);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_write_at_a_time() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.take(), sessions.take());
        assert_ne!(one.field(), other.field());
        let (field, number) = (other.field(), other.number);
        drop(one);
        drop(other);
        let next = sessions.take();
        assert!(next.field() == field && next.number > number);
        assert_ne!(Sessions::default().take().field(), next.field());
    }
}
