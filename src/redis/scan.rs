//! Listings of keys, over all servers.

use std::collections::BTreeSet;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd, from_redis_value};

use super::client::{Client, Request, give_up};
use super::node::Node;
use super::outcome::Outcome;
use super::slots::key_in;
use super::stream::Limit;
use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// How many keys a server looks at for a part of a listing, which blocks it.
const SCANNED: usize = 1000;

impl Client {
    /// The keys that match a pattern, of all servers, which are asked for a part at a time. `timeout` is the time limit
    /// of each part. Keys that are moved to another server meanwhile may be missing.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) fn scan(&self, pattern: &str, timeout: Duration) -> Result<BTreeSet<Vec<u8>>> {
        let (pool, options) = (&self.0, self.0.options());
        let mut limit = Limit::until(thread::deadline(timeout));
        let mut retries = 0;
        let mut wait = options.reconnect_interval;
        loop {
            let error = match self.scan_once(pattern, timeout, &mut limit) {
                Err(e) if e.is_transient() => e,
                result => return result,
            };
            pool.doubt();
            if retries == options.retries || limit.is_over() {
                return Err(self.failed(give_up(false, limit), error));
            }
            pool.pause(limit, wait);
            retries += 1;
            wait = options.next_wait(wait);
        }
    }

    /// As [`Client::scan`], without repetition; each part that was read renews the limit.
    fn scan_once(&self, pattern: &str, timeout: Duration, limit: &mut Limit<'_>) -> Result<BTreeSet<Vec<u8>>> {
        let moved = || Error::new(ErrorKind::Unavailable, "slots got other masters while keys were listed");
        let owners = self.0.owners(*limit)?;
        let mut found = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for (slot, node) in owners.iter().filter(|(_, node)| asked.insert(node)) {
            // A request with a key finds the server wherever it can be reached; one without any could be another's.
            let key = key_in(*slot);
            let mut exists = cmd("EXISTS");
            let request = Request {
                key: &key,
                command: exists.arg(key.as_slice()),
                script: None,
                again: None,
                writes: false,
            };
            self.call(&request, timeout)?;
            if self.0.node_of(*slot, *limit)?.port != node.port {
                return Err(moved());
            }
            let mut cursor = b"0".to_vec();
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(cursor.as_slice())
                    .arg("MATCH")
                    .arg(pattern)
                    .arg("COUNT")
                    .arg(SCANNED);
                let answer = self.ask(node, &scan, *limit)?;
                let part: Option<(Vec<u8>, Vec<Vec<u8>>)> = from_redis_value(answer).ok();
                let (next, keys) = part.ok_or_else(unexpected)?;
                found.extend(keys);
                *limit = Limit::until(thread::deadline(timeout));
                cursor = next;
                if cursor == b"0" {
                    break;
                }
            }
        }
        // Each server may name the others as it sees them.
        let places =
            |owners: &[(u16, Node)]| -> Vec<_> { owners.iter().map(|(slot, node)| (*slot, node.port)).collect() };
        match places(&self.0.owners(*limit)?) == places(&owners) {
            true => Ok(found),
            false => Err(moved()),
        }
    }

    /// Makes a request at this server, whichever slots it has.
    fn ask(&self, node: &Node, command: &Cmd, limit: Limit<'_>) -> Result<Value> {
        let mut missed = unexpected();
        for place in self.0.places(node, None) {
            match self.attempt_at(&place, (command, None), None, limit) {
                Outcome::Answer(value) => return Ok(value),
                Outcome::NotReached(e) => missed = e,
                Outcome::Elsewhere(_) | Outcome::NoScript => return Err(unexpected()),
                Outcome::Incomplete(e)
                | Outcome::NotYet(e)
                | Outcome::Lost(e)
                | Outcome::Unknown(e)
                | Outcome::Never(e) => return Err(e),
            }
        }
        Err(missed)
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Malformed, "unexpected reply from Redis")
}
