//! Discovery: a subscriber that follows the registered publishers.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::member::Member;
use super::options::RegistryOptions;
use super::roster::Presence;
use super::watch::Watch;
use crate::error::{ErrorHook, Result, report};
use crate::store::Store;
use crate::subscriber::Subscriber;

/// The table of registered publishers.
pub const PUBLISHERS: &str = "publisher";

/// Makes a subscriber follow the registered publishers, from its creation until it is dropped.
///
/// It connects new publishers, disconnects those that are gone, and follows those that move. Addresses that the program
/// itself has registered are left alone. The rows of publishers that are gone are removed.
///
/// A new publisher is connected within the option `discover_interval_ms`, one that stops cleanly is disconnected within
/// it, and one that dies within it plus `publisher_timeout_ms`. If a publisher died, or came and went before it was
/// live, the program gets [`SyncReason::AddressLost`](crate::SyncReason::AddressLost).
#[derive(Debug)]
pub struct Discovery {
    watch: Watch,
}

impl Discovery {
    /// Follows the publishers of these roles, or all if none are given.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a timeout of less than 10 ms, and
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a thread cannot be started. Errors of the store, and of an address, go
    /// to the hook.
    pub fn new(
        store: Arc<dyn Store>,
        subscriber: Arc<Subscriber>,
        roles: &[String],
        options: RegistryOptions,
    ) -> Result<Discovery> {
        let mut follower = Follower {
            subscriber,
            roles: roles.iter().cloned().collect(),
            runs: None,
            followed: BTreeSet::new(),
            refused: BTreeSet::new(),
            hook: options.hook.clone(),
        };
        let watch = Watch::new(store, PUBLISHERS, options, true, move |present| {
            follower.follow(present);
        })?;
        Ok(Discovery { watch })
    }

    /// Tells the thread to stop, and does not wait.
    pub(crate) fn tell(&self) {
        self.watch.tell();
    }

    /// Stops following; connections stay. Waits for at most 300 ms, also if the store does not answer.
    pub fn stop(&self) {
        self.watch.stop();
    }
}

struct Follower {
    subscriber: Arc<Subscriber>,
    roles: BTreeSet<String>,
    /// Members at the last look, by id and run.
    runs: Option<BTreeSet<(String, u64)>>,
    /// The addresses that this registered with the subscriber.
    followed: BTreeSet<String>,
    /// Addresses that the subscriber refused.
    refused: BTreeSet<String>,
    hook: Option<ErrorHook>,
}

impl Follower {
    fn follow(&mut self, present: &[Presence]) {
        let members = present.iter().map(|presence| &presence.member);
        let (left, stay): (Vec<&Member>, Vec<&Member>) = members
            .filter(|member| self.roles.is_empty() || self.roles.contains(&member.role))
            .partition(|member| member.leaving);
        let runs = stay.iter().chain(&left).map(|member| (member.id.clone(), member.epoch));
        let runs_before = self.runs.replace(runs.collect());
        let wanted: BTreeSet<&str> = stay.iter().map(|member| &*member.address).collect();
        self.refused.retain(|address| wanted.contains(address.as_str()));
        // New ones first: a publisher that has moved is heard at one place or the other.
        for address in &wanted {
            self.listen(address);
        }
        // A member first seen as leaving may have published unheard updates: giving up its address reports that. At the
        // first look nothing was missed.
        for member in left {
            let is_new = |runs: &BTreeSet<_>| !runs.contains(&(member.id.clone(), member.epoch));
            if runs_before.as_ref().is_some_and(is_new) {
                self.listen(&member.address);
            }
        }
        self.followed.retain(|address| {
            let stays = wanted.contains(address.as_str());
            if !stays {
                self.subscriber.give_up_listen_address(address);
            }
            stays
        });
    }

    fn listen(&mut self, address: &str) {
        if self.followed.contains(address) || self.refused.contains(address) {
            return;
        }
        match self.subscriber.follow_listen_address(address) {
            Ok(true) => drop(self.followed.insert(address.to_owned())),
            // The program has registered it itself.
            Ok(false) => {}
            Err(e) => {
                report!(&e, self.hook.as_ref());
                self.refused.insert(address.to_owned());
            }
        }
    }
}
