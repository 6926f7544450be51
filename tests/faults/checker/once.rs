//! C9: an acknowledged status update is never processed again, and no older state of a row after a newer one.

use std::collections::HashMap;
use std::fmt;

use super::super::history::{Event, History, Status, Time};
use super::{Place, Violation};

/// Counts of a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) notified: u64,
    pub(crate) acknowledged: u64,
    /// Calls of handlers.
    pub(crate) processed: u64,
    /// Calls with an update that a handler had been called with before: all of them, those after it was acknowledged,
    /// and those after a newer state of the row.
    pub(crate) repeated: u64,
    pub(crate) again: u64,
    pub(crate) older: u64,
}

/// A time, and the line with it.
type Moment = (Time, Place);

/// All violations of the promise.
pub(crate) fn once(servers: &[History], nodes: &[History]) -> (Vec<Violation>, Tally) {
    let notified = first(nodes, |event| match event {
        Event::Notified(status) => Some(status),
        _ => None,
    });
    let acknowledged = first(nodes, |event| match event {
        Event::Acknowledged(status) => Some(status),
        _ => None,
    });
    let handled = first(servers, |event| match event {
        Event::Handled(status) => Some(status),
        _ => None,
    });
    let begun = moments(servers, |event| match event {
        Event::Begun(status) => Some(status),
        _ => None,
    });
    let mut tally = Tally {
        notified: notified.len() as u64,
        acknowledged: acknowledged.len() as u64,
        processed: begun.len() as u64,
        ..Tally::default()
    };
    let mut violations = Vec::new();
    let mut calls: HashMap<&Status, u64> = HashMap::new();
    let mut newest: HashMap<&str, (u64, &Place)> = HashMap::new();
    for (status, (at, place)) in &begun {
        let calls = calls.entry(status).or_default();
        tally.repeated += u64::from(*calls > 0);
        *calls += 1;
        if let Some((_, acknowledged)) = acknowledged.get(status).filter(|(known, _)| known < at) {
            tally.again += 1;
            violations.push(Violation::Again {
                acknowledged: acknowledged.clone(),
                begun: place.clone(),
            });
        }
        let (state, newer) = newest.entry(&status.row).or_insert((status.state, place));
        if *state > status.state {
            tally.older += 1;
            violations.push(Violation::Older {
                newer: newer.clone(),
                begun: place.clone(),
            });
        } else {
            (*state, *newer) = (status.state, place);
        }
    }
    for (status, (_, place)) in &notified {
        match acknowledged.get(status) {
            None => violations.push(Violation::Unacknowledged {
                notified: place.clone(),
            }),
            Some((known, place)) if handled.get(status).is_none_or(|(at, _)| at > known) => {
                violations.push(Violation::Unprocessed {
                    acknowledged: place.clone(),
                });
            }
            Some(_) => {}
        }
    }
    (violations, tally)
}

/// The first such event of each status.
fn first(histories: &[History], which: impl Fn(&Event) -> Option<&Status>) -> HashMap<&Status, Moment> {
    let mut first = HashMap::new();
    for (status, moment) in moments(histories, which) {
        first.entry(status).or_insert(moment);
    }
    first
}

/// Such events, in order of time.
fn moments(histories: &[History], which: impl Fn(&Event) -> Option<&Status>) -> Vec<(&Status, Moment)> {
    let mut moments = Vec::new();
    for history in histories {
        let lines = history.lines.iter().enumerate();
        moments.extend(lines.filter_map(|(index, line)| {
            let status = which(&line.event)?;
            Some((status, (line.at, Place::new(history, index))))
        }));
    }
    // Two processes may log something in the same microsecond.
    moments.sort_by_key(|(status, (at, _))| (*at, status.state));
    moments
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            notified,
            acknowledged,
            processed,
            repeated,
            again,
            older,
        } = self;
        write!(
            f,
            "notified {notified}, acknowledged {acknowledged}, processed {processed}, of them repeated {repeated}, \
             after an acknowledgement {again}, after a newer state {older}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::history::Line;
    use super::*;

    fn status(state: u64) -> Status {
        Status { row: "r".into(), state }
    }

    fn history(name: &str, lines: &[(Time, Event)]) -> History {
        let lines = lines.iter().cloned().map(|(at, event)| Line { at, event });
        History {
            name: name.into(),
            lines: lines.collect(),
        }
    }

    fn place(name: &str, line: usize) -> Place {
        Place {
            history: name.into(),
            line,
        }
    }

    /// Two states of a row, in order.
    fn node() -> History {
        let told = [
            (10, Event::Notified(status(1))),
            (11, Event::Notified(status(2))),
            (30, Event::Acknowledged(status(1))),
            (60, Event::Acknowledged(status(2))),
        ];
        history("node-n", &told)
    }

    fn server(name: &str, calls: &[(Time, u64)]) -> History {
        let lines = calls.iter().flat_map(|(at, state)| {
            [
                (*at, Event::Begun(status(*state))),
                (at + 5, Event::Handled(status(*state))),
            ]
        });
        history(name, &lines.collect::<Vec<_>>())
    }

    fn check(servers: &[History]) -> Vec<Violation> {
        once(servers, &[node()]).0
    }

    #[test]
    fn nothing_is_wrong_with_what_is_right() {
        let servers = [server("server-a", &[(20, 1)]), server("server-b", &[(40, 2)])];
        let (violations, tally) = once(&servers, &[node()]);
        assert_eq!(violations, []);
        let expected = Tally {
            notified: 2,
            acknowledged: 2,
            processed: 2,
            ..Tally::default()
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn what_was_not_acknowledged_may_be_repeated() {
        let servers = [server("server-a", &[(20, 1)]), server("server-b", &[(21, 1), (40, 2)])];
        let (violations, tally) = once(&servers, &[node()]);
        assert_eq!(violations, []);
        assert_eq!((tally.processed, tally.repeated), (3, 1));
    }

    #[test]
    fn what_was_acknowledged_is_not_repeated() {
        let servers = [server("server-a", &[(20, 1)]), server("server-b", &[(31, 1), (40, 2)])];
        let (violations, tally) = once(&servers, &[node()]);
        let expected = Violation::Again {
            acknowledged: place("node-n", 3),
            begun: place("server-b", 1),
        };
        assert_eq!(violations, [expected]);
        assert_eq!((tally.repeated, tally.again, tally.older), (1, 1, 0));
    }

    #[test]
    fn no_older_state_comes_after_a_newer_one() {
        // At any server, and even if it was never acknowledged.
        let servers = [server("server-a", &[(20, 2)]), server("server-b", &[(21, 1), (22, 2)])];
        let (violations, tally) = once(&servers, &[node()]);
        let expected = Violation::Older {
            newer: place("server-a", 1),
            begun: place("server-b", 1),
        };
        assert_eq!(violations, [expected]);
        assert_eq!((tally.repeated, tally.again, tally.older), (1, 0, 1));
        // Another row may.
        let mut other = server("server-b", &[(41, 1)]);
        for line in &mut other.lines {
            let status = Status {
                row: "s".into(),
                state: 1,
            };
            line.event = Event::Begun(status);
        }
        assert_eq!(check(&[server("server-a", &[(20, 1), (40, 2)]), other]), []);
    }

    #[test]
    fn the_end_of_the_handler_comes_before_the_acknowledgement() {
        let first_at = |at| check(&[server("server-a", &[(at, 1), (40, 2)])]);
        let expected = vec![Violation::Unprocessed {
            acknowledged: place("node-n", 3),
        }];
        assert_eq!(first_at(25), []);
        assert_eq!(first_at(26), expected);
        assert_eq!(check(&[server("server-a", &[(40, 2)])]), expected);
    }

    #[test]
    fn everything_is_acknowledged_in_the_end() {
        let mut node = node();
        node.lines.pop();
        let servers = [server("server-a", &[(20, 1), (40, 2)])];
        let expected = Violation::Unacknowledged {
            notified: place("node-n", 2),
        };
        assert_eq!(once(&servers, &[node]).0, [expected]);
    }
}
