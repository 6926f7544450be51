//! Questions about a server's health on a connection beside that of the subscriptions, which takes none in RESP2.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ::redis::Value;
use rustix::event::PollFd;

use crate::clock::after;
use crate::error::Result;
use crate::redis::{Conn, Health, Incoming};

/// A connection for questions.
pub(super) struct Side {
    conn: Conn,
    /// When the question was asked whose answer is missing.
    asked: Option<Instant>,
}

impl Side {
    pub(super) fn new(conn: Conn) -> Side {
        Side { conn, asked: None }
    }

    /// Asks, unless the last answer is missing.
    ///
    /// # Errors
    /// If the connection is lost, or the last answer has been missing for `timeout`.
    pub(super) fn ask(&mut self, now: Instant, timeout: Duration) -> Result<()> {
        match self.asked {
            None => {
                self.conn.push(&Health::question(self.conn.in_cluster, self.conn.resp));
                self.asked = Some(now);
            }
            // The server was silent; this process did not merely pause.
            Some(asked) if after(asked, timeout) <= now && !self.conn.fill()? => {
                return Err(self.conn.silent(timeout));
            }
            Some(_) => {}
        }
        self.conn.send_some().map(drop)
    }

    /// The answer, if it has come, without waiting.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) fn answer(&mut self) -> Result<Option<Value>> {
        while self.asked.is_some() {
            self.conn.send_some()?;
            match self.conn.next(usize::MAX)? {
                Some(Incoming::Value(answer)) => {
                    self.asked = None;
                    return Ok(Some(answer));
                }
                Some(_) => {}
                None if self.conn.fill()? => {}
                None => break,
            }
        }
        Ok(None)
    }

    /// The event to wait for, while an answer is missing.
    pub(super) fn news(&self) -> Option<PollFd<'_>> {
        self.asked?;
        Some(PollFd::from_borrowed_fd(self.conn.as_fd(), self.conn.news()))
    }
}
