//! The topic of a row that a write does not name, as a guess that saves a read.

use crate::update::Topic;

/// A guess from the rows that were read to learn their topics: if the last two had the same, the next one has it, too.
#[derive(Debug)]
pub(super) struct Guess {
    last: Option<Topic>,
    is_steady: bool,
}

impl Guess {
    pub(super) const fn new() -> Guess {
        Guess {
            last: None,
            is_steady: false,
        }
    }

    pub(super) fn topic(&self) -> Option<Topic> {
        self.last.clone().filter(|_| self.is_steady)
    }

    /// Takes note of a row's topic.
    pub(super) fn learn(&mut self, topic: &Topic) {
        self.is_steady = self.last.as_ref() == Some(topic);
        if !self.is_steady {
            self.last = Some(topic.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_in_a_row_make_a_guess() {
        let (one, other) = (Topic::ALL, Topic::new("other").unwrap());
        let mut guess = Guess::new();
        assert_eq!(guess.topic(), None);
        guess.learn(&one);
        assert_eq!(guess.topic(), None);
        guess.learn(&one);
        assert_eq!(guess.topic(), Some(one.clone()));
        guess.learn(&other);
        assert_eq!(guess.topic(), None);
        guess.learn(&one);
        assert_eq!(guess.topic(), None);
    }
}
