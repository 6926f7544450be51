//! Listings: rows are merged while updates arrive; a held row that is on no page is gone.

use std::time::Instant;

use super::Core;
use super::reads::is_of_unknown_history;
use super::topic::{Base, OfTopic, Want, reading};
use crate::clock;
use crate::replica::row::{NewRow, Step};
use crate::store::TableVersion;
use crate::update::{Name, Topic};

impl<T> Core<T> {
    /// Takes in the topic's version before the listing, if the store has versions, and the keys held at that time.
    pub(in crate::replica) fn begin_listing(
        &mut self,
        id: u64,
        topic: &Topic,
        base: Option<Base>,
        held: impl IntoIterator<Item = Name>,
        now: Instant,
    ) {
        let Some(of_topic) = reading(&mut self.topics, id, topic) else {
            return;
        };
        let Some(running) = &mut of_topic.running else { return };
        of_topic.may_have_rows = true;
        let heard = running.heard;
        // Without versions from the store: the listing includes everything heard of before.
        let unknown = Base::of_table(TableVersion {
            version: heard.of_table,
            ..TableVersion::default()
        });
        let mut is_behind = false;
        if let Some(listing) = &mut running.listing {
            listing.suspects.extend(held);
            listing.base = Some(base.unwrap_or(unknown));
            // A store without versions may have gone back at any time.
            let is_doubted = |position: &TableVersion| base.is_none_or(|base| is_of_unknown_history(*position, base));
            let is_doubted = of_topic.standing.position.as_ref().is_some_and(is_doubted);
            listing.doubted = listing.doubted.filter(|_| is_doubted);
            is_behind = listing.base.is_some_and(|base| base.version.version < listing.missed);
        }
        if is_behind {
            of_topic.want(clock::after(now, self.patience), Want::CatchUp);
        }
        if let Some(base) = base {
            self.shows_less(base, heard, now);
        }
    }

    /// Takes in a row of a listing.
    pub(in crate::replica) fn take_listed(&mut self, id: u64, topic: &Topic, new: &NewRow<T>) -> Option<Step<T>> {
        let is_doubted = self.doubts(new.key());
        let of_topic = reading(&mut self.topics, id, topic)?;
        self.counts.listed += 1;
        if let Some(listing) = of_topic.listing() {
            let was_held = !listing.suspects.is_empty() && listing.suspects.remove(new.key());
            if let Some(doubted) = listing.doubted.filter(|doubted| new.version() <= *doubted) {
                // What was written since the listing began is newer than what is doubted.
                listing.contradicts |= match self.rows.stamp(new.key()) {
                    Some(held) => held.0 <= doubted && held != (new.version(), new.sum),
                    None => !was_held,
                };
            }
        }
        of_topic.standing.had(new.version());
        self.heard = self.heard.max(new.version());
        let step = match of_topic.standing.covers(new.version()) {
            true => None,
            false if is_doubted => self.rows.correct(new),
            false => self.rows.put(new),
        };
        // The store had not yet what is held, though it had its version: that is of another history.
        if step.is_none()
            && let Some(held) = self.rows.newest(new.key()).filter(|held| new.version() < *held)
            && let Some(listing) = reading(&mut self.topics, id, topic).and_then(OfTopic::listing)
        {
            listing.contradicts |= listing.base.is_some_and(|base| held <= base.last());
        }
        step
    }

    /// Ends the pages. Returns the held keys that were on no page, for [`Core::sweep`], which [`Core::end_sweep`]
    /// follows.
    pub(in crate::replica) fn end_listing(&mut self, id: u64, topic: &Topic) -> Vec<Name> {
        let Some(of_topic) = reading(&mut self.topics, id, topic) else {
            return Vec::new();
        };
        let Some(listing) = of_topic.listing() else {
            return Vec::new();
        };
        listing.suspects.iter().cloned().collect()
    }

    /// Removes a row that was on no page of the listing, unless it was written since.
    pub(in crate::replica) fn sweep(&mut self, id: u64, topic: &Topic, key: &Name) -> Option<Step<T>> {
        let of_topic = reading(&mut self.topics, id, topic)?;
        let listing = of_topic.running.as_ref()?.listing.as_ref()?;
        let last = listing.base?.last();
        let held = self.rows.get(key).filter(|held| held.topic() == topic)?;
        if of_topic.distrusts {
            return self.rows.take_out(key);
        }
        (held.version() <= last)
            .then(|| self.rows.gone(key, held.version()))
            .flatten()
    }

    /// Ends a listing: the position becomes the topic's version before the first page. It moves only now: until they
    /// are removed, the rows that are gone are missing deletes.
    pub(in crate::replica) fn end_sweep(&mut self, id: u64, topic: &Topic, now: Instant) {
        let Some(of_topic) = reading(&mut self.topics, id, topic) else {
            return;
        };
        let Some(running) = of_topic.running.take() else { return };
        if running.listing.as_ref().is_some_and(|listing| listing.contradicts) {
            return self.went_back(now);
        }
        of_topic.list_after = Some(clock::after(now, now.saturating_duration_since(running.asked)));
        if let Some(base) = running.listing.and_then(|listing| listing.base) {
            let version = base.version;
            let standing = &mut of_topic.standing;
            let before = standing.position.unwrap_or_default();
            standing.position = Some(TableVersion {
                incarnation: version.incarnation,
                ..before
            });
            standing.had(version.version);
            standing.advance(base.last(), now, self.patience);
            standing.prove(running.asked, version.version);
            of_topic.ahead.forget_to(base.last());
        }
        if let Some((asked, version)) = of_topic.missed_check.take() {
            of_topic.standing.owe(version, now);
            of_topic.standing.prove(asked, version);
        }
        if std::mem::take(&mut of_topic.distrusts) {
            self.distrusts = self.topics.values().any(|of_topic| of_topic.distrusts);
            // Updates that came meanwhile were not applied.
            self.demand(now);
        }
        self.store_answers();
        self.forget_passed();
    }
}
