//! The choice of the listener for the next status update: all equally often, in random order.

use std::hash::{BuildHasher, RandomState};

use crate::update::Name;

/// Names to choose from. They are dealt like cards: in each round every name comes once, in an unpredictable order. So
/// all choices are equally likely, and many choices are spread more evenly than by lots.
#[derive(Debug, Default)]
pub(super) struct Choice {
    all: Vec<Name>,
    /// The names still to come in this round.
    round: Vec<Name>,
    random: RandomState,
    drawn: u64,
}

impl Choice {
    /// Sets the names. New ones come in this round already.
    pub(super) fn set(&mut self, all: Vec<Name>) {
        self.round.retain(|name| all.contains(name));
        let new = all.iter().filter(|name| !self.all.contains(name));
        self.round.extend(new.cloned());
        self.all = all;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns a name for which `may` is true, if there is one.
    pub(super) fn draw(&mut self, may: impl Fn(&Name) -> bool) -> Option<Name> {
        if self.round.is_empty() {
            self.round.clone_from(&self.all);
        }
        let left = self.round.iter().filter(|name| may(name)).count();
        if left > 0 {
            let nth = self.below(left);
            let at = (0..self.round.len()).filter(|at| may(&self.round[*at])).nth(nth)?;
            return Some(self.round.swap_remove(at));
        }
        // None is left in this round, so one comes out of turn.
        let all = self.all.iter().filter(|name| may(name)).count();
        let nth = self.below(all.max(1));
        self.all.iter().filter(|name| may(name)).nth(nth).cloned()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.drawn += 1;
        (self.random.hash_one(self.drawn) % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn names(count: usize) -> Vec<Name> {
        (0..count).map(|number| format!("listener-{number}").into()).collect()
    }

    #[test]
    fn each_comes_as_often_as_any_other() {
        let mut choice = Choice::default();
        choice.set(names(4));
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            *counts.entry(choice.draw(|_| true).unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [5000; 4]);
    }

    #[test]
    fn the_order_is_random() {
        // The first choices of many choosers are spread, and the second ones do not follow from them.
        let mut pairs = BTreeMap::new();
        for _ in 0..6000 {
            let mut choice = Choice::default();
            choice.set(names(3));
            let first = choice.draw(|_| true).unwrap();
            let second = choice.draw(|_| true).unwrap();
            *pairs.entry((first, second)).or_insert(0) += 1;
        }
        assert_eq!(pairs.len(), 6);
        // 1000 are expected; ten times the standard deviation is 290.
        assert!(pairs.values().all(|count| (710..1290).contains(count)), "{pairs:?}");
    }

    #[test]
    fn who_goes_is_not_chosen_and_who_comes_is() {
        let mut choice = Choice::default();
        assert_eq!(choice.draw(|_| true), None);
        choice.set(names(4));
        choice.draw(|_| true);
        choice.set(names(2));
        for _ in 0..100 {
            assert!(names(2).contains(&choice.draw(|_| true).unwrap()));
        }
        choice.set(names(3));
        let round: Vec<_> = (0..3).map(|_| choice.draw(|_| true).unwrap()).collect();
        assert!(round.contains(&names(3)[2]), "{round:?}");
    }

    #[test]
    fn a_condition_holds_also_out_of_turn() {
        let mut choice = Choice::default();
        choice.set(names(3));
        let second = names(3)[1].clone();
        for _ in 0..10 {
            assert_eq!(choice.draw(|name| *name == second), Some(second.clone()));
        }
        assert_eq!(choice.draw(|_| false), None);
    }
}
