//! The promises, C1 to C5.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::history::{Change, Event, Held, History, Number, Row, Time, Told};
use super::index::{Send, Sends, key};
use super::{Figures, GRACE, Histories, Place, SPARE_KIB, Violation};

/// The updates that came to a program: the line, its time, the update, and its number if it has one.
fn updates(program: &History) -> impl Iterator<Item = (usize, Time, &Change, Option<&Number>)> {
    program
        .lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| match &line.event {
            Event::Update { change, number } => Some((index, line.at, change, number.as_ref())),
            _ => None,
        })
}

/// C1: at one subscriber the updates of one row from one writer arrive in the order in which they were sent.
pub(crate) fn order(histories: &Histories, sends: &Sends<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for program in &histories.programs {
        let mut last: HashMap<(usize, Row), (usize, usize)> = HashMap::new();
        for (index, _, change, number) in updates(program) {
            let Some(send) = number.and_then(|number| sends.find(key(change, number))) else {
                continue;
            };
            let place = last.entry((send.writer, change.row())).or_insert((send.line, index));
            if send.line < place.0 {
                violations.push(Violation::Disorder {
                    first: Place::new(program, place.1),
                    second: Place::new(program, index),
                });
            } else {
                *place = (send.line, index);
            }
        }
    }
    violations
}

/// C2: no number of a topic is delivered twice, and each comes with its own update.
pub(crate) fn unique(histories: &Histories, sends: &Sends<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for program in &histories.programs {
        let mut first = HashMap::new();
        for (index, _, change, number) in updates(program) {
            let Some(number) = number else { continue };
            let came = Place::new(program, index);
            let send = sends.find(key(change, number));
            if send.is_none_or(|send| !is_of(change, send.change)) {
                violations.push(Violation::Foreign {
                    came: came.clone(),
                    sent: send.map(|send| sends.place(send)),
                });
            }
            if let Some(earlier) = first.insert(key(change, number), index) {
                violations.push(Violation::Twice {
                    first: Place::new(program, earlier),
                    second: came,
                });
            }
        }
    }
    violations
}

/// True if an update agrees with this change in every field that it states.
fn is_of(update: &Change, change: &Change) -> bool {
    let version = match update.version {
        0 => change.version,
        version => version,
    };
    *change
        == Change {
            version,
            ..update.clone()
        }
}

/// C3: every update of a live topic is delivered, or was replaced by a newer one of its row, or a sync event that
/// concerns it followed its sending.
pub(crate) fn loss(histories: &Histories, sends: &Sends<'_>) -> Vec<Violation> {
    let judge = |program| judge(program, sends).violations(program, sends);
    histories.programs.iter().flat_map(judge).collect()
}

/// The fate of the updates due to one program.
#[derive(Default)]
struct Judged<'a> {
    lost: Vec<&'a Send<'a>>,
    declared: u64,
    replaced: u64,
    may_replace: u64,
}

fn judge<'a>(program: &History, sends: &'a Sends<'a>) -> Judged<'a> {
    let came: HashSet<_> = updates(program)
        .filter_map(|(_, _, change, number)| Some(key(change, number?)))
        .collect();
    // The newest version of each row that came.
    let mut newest: HashMap<Row, u64> = HashMap::new();
    for (_, _, change, _) in updates(program) {
        let version = newest.entry(change.row()).or_default();
        *version = change.version.max(*version);
    }
    let attention = Attention::of(program);
    let mut judged = Judged::default();
    for line in &program.lines {
        if let Event::Settled { coalesced, .. } = line.event {
            judged.may_replace = coalesced;
        }
    }
    for send in sends.iter() {
        if !attention.is_due(send) || came.contains(&send.key) {
            continue;
        }
        if attention.is_declared(send) {
            judged.declared += 1;
        } else if newest
            .get(&send.change.row())
            .is_some_and(|newest| *newest > send.change.version)
            && judged.may_replace > 0
        {
            judged.replaced += 1;
        } else {
            judged.lost.push(send);
        }
    }
    judged
}

impl Judged<'_> {
    fn violations(self, program: &History, sends: &Sends<'_>) -> Vec<Violation> {
        let lost = self.lost.into_iter().map(|send| Violation::Lost {
            program: program.name.clone(),
            sent: sends.place(send),
        });
        let too_many = (self.replaced > self.may_replace).then(|| Violation::Replaced {
            program: program.name.clone(),
            replaced: self.replaced,
            declared: self.may_replace,
        });
        lost.chain(too_many).collect()
    }
}

/// The topics and sync events of a program, by time.
struct Attention<'a> {
    registered: BTreeMap<&'a str, Vec<(Time, bool)>>,
    /// When all topics became live, and when they ceased to be.
    live: Vec<(Time, bool)>,
    told: Vec<(Time, &'a Told)>,
    ended: Time,
}

impl<'a> Attention<'a> {
    fn of(program: &'a History) -> Attention<'a> {
        let mut attention = Attention {
            registered: BTreeMap::new(),
            live: Vec::new(),
            told: Vec::new(),
            ended: end_of(program),
        };
        for line in &program.lines {
            let at = line.at;
            match &line.event {
                Event::Registered(topic) => attention.registered.entry(topic).or_default().push((at, true)),
                Event::Unregistered(topic) => attention.registered.entry(topic).or_default().push((at, false)),
                Event::Live(live) => attention.live.push((at, *live)),
                Event::Sync(told) => {
                    attention.told.push((at, told));
                    // The state of topics is logged only from time to time; this event is logged at once.
                    if told.reason == "address-lost" {
                        attention.live.push((at, false));
                    }
                }
                _ => {}
            }
        }
        attention
    }

    /// True if the topic was live when this was sent, and stayed registered for long enough to receive it.
    fn is_due(&self, send: &Send<'_>) -> bool {
        let registered = self.registered.get(&*send.change.topic);
        let stayed = registered.is_some_and(|changes| {
            let mut later = changes.iter().filter(|(at, _)| *at > send.at);
            state(changes, send.at) && later.all(|(at, now)| *now || *at > send.at + GRACE)
        });
        send.certain && stayed && state(&self.live, send.at) && send.at < self.ended
    }

    /// True if a sync event that concerns this followed its sending.
    fn is_declared(&self, send: &Send<'_>) -> bool {
        let later = self.told.partition_point(|(at, _)| *at < send.at);
        self.told[later..].iter().any(|(_, told)| concerns(told, send))
    }

    /// True if a callback at this time for an update sent then is right.
    fn may_come(&self, topic: &str, sent: Time, at: Time) -> bool {
        let Some(changes) = self.registered.get(topic) else {
            return false;
        };
        let mut ends = changes.iter().filter(|(since, now)| !now && *since <= at);
        state(changes, at) || ends.any(|(end, _)| sent <= end + GRACE)
    }
}

/// Until when a program received updates.
fn end_of(program: &History) -> Time {
    let mut ended = 0;
    for line in &program.lines {
        match line.event {
            Event::Settled { .. } => return line.at,
            Event::Killed => {}
            // Updates sent just before it was killed may have been on their way.
            _ => ended = line.at - GRACE,
        }
    }
    ended
}

/// The state at this time.
fn state(changes: &[(Time, bool)], at: Time) -> bool {
    let next = changes.partition_point(|(since, _)| *since <= at);
    next > 0 && changes[next - 1].1
}

/// A program reads the whole topic, whatever the sync event says of it.
fn concerns(told: &Told, send: &Send<'_>) -> bool {
    let topics = told.topics.as_ref();
    topics.is_none_or(|topics| topics.contains(&send.change.topic))
}

/// C4: no callback for a topic that was not registered at that time. An update sent before the topic was unregistered,
/// or a moment after, may still have been on its way.
pub(crate) fn filter(histories: &Histories, sends: &Sends<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for program in &histories.programs {
        let attention = Attention::of(program);
        for (index, at, change, number) in updates(program) {
            let send = number.and_then(|number| sends.find(key(change, number)));
            let sent = send.map_or(at, |send| send.at);
            if !attention.may_come(&change.topic, sent, at) {
                let came = Place::new(program, index);
                violations.push(Violation::Unasked { came });
            }
        }
    }
    violations
}

/// C5: threads, file descriptors and memory return to where they were.
pub(crate) fn leaks(histories: &Histories) -> Vec<Violation> {
    let mut violations = Vec::new();
    for program in histories.programs.iter().filter(|program| !was_killed(program)) {
        let mut before = None;
        let mut compared = false;
        for (index, line) in program.lines.iter().enumerate() {
            match (&line.event, before) {
                (Event::Before(held), _) => before = Some(*held),
                (Event::After(held), Some(before)) => {
                    compared = true;
                    let after = Place::new(program, index);
                    violations.extend(leaked(before, *held, &after));
                }
                _ => {}
            }
        }
        if !compared {
            violations.push(missing(program, "C5"));
        }
    }
    violations
}

fn leaked(before: Held, after: Held, place: &Place) -> impl Iterator<Item = Violation> {
    let more = [
        ("threads", after.threads.saturating_sub(before.threads)),
        ("files", after.files.saturating_sub(before.files)),
        ("KiB", after.kib.saturating_sub(before.kib + SPARE_KIB)),
    ];
    let more = more.into_iter().filter(|(_, more)| *more > 0);
    more.map(|(what, more)| Violation::Leak {
        after: place.clone(),
        what,
        more,
    })
}

/// A killed program cannot show what it released, nor how it would have ended.
pub(super) fn was_killed(program: &History) -> bool {
    program.lines.last().is_some_and(|line| line.event == Event::Killed)
}

pub(super) fn missing(program: &History, promise: &'static str) -> Violation {
    let program = program.name.clone();
    Violation::Missing { program, promise }
}

/// The counts of the programs' histories.
pub(super) fn figures(histories: &Histories, sends: &Sends<'_>) -> Figures {
    let mut figures = Figures::default();
    for program in &histories.programs {
        let judged = judge(program, sends);
        figures.delivered += updates(program).count() as u64;
        figures.declared += judged.declared;
        figures.replaced += judged.replaced;
        let syncs = program.lines.iter().filter(|line| matches!(line.event, Event::Sync(_)));
        figures.syncs += syncs.count() as u64;
        let changes = program.lines.iter();
        figures.changes += changes
            .filter(|line| matches!(line.event, Event::RowChange { .. }))
            .count() as u64;
    }
    figures
}
