//! The updates that the writers sent, by number.

use std::collections::HashMap;

use super::super::history::{Change, Event, History, Number, Time};
use super::Place;

/// A number of a topic: topic, publisher, epoch, number.
pub(super) type Key<'a> = (&'a str, &'a str, u64, u64);

pub(super) fn key<'a>(change: &'a Change, number: &'a Number) -> Key<'a> {
    (&change.topic, &number.publisher, number.epoch, number.seq)
}

/// An update that the library accepted.
#[derive(Debug)]
pub(crate) struct Send<'a> {
    pub(super) writer: usize,
    /// The index of the store's write in the writer's history.
    pub(super) line: usize,
    pub(super) change: &'a Change,
    pub(super) key: Key<'a>,
    /// When the call began; the store had the row by then.
    pub(super) at: Time,
    /// False if the writer was killed before it could log the outcome.
    pub(super) certain: bool,
}

/// All sends of all writers.
#[derive(Debug, Default)]
pub(crate) struct Sends<'a> {
    writers: &'a [History],
    all: Vec<Send<'a>>,
    by_key: HashMap<Key<'a>, usize>,
    /// The longest call, refused ones included, in microseconds.
    pub(super) longest_call: Time,
}

/// One run of a writer.
#[derive(Default)]
struct Run<'a> {
    publisher: &'a str,
    epoch: u64,
    /// The last number of each topic.
    numbers: HashMap<&'a str, u64>,
    /// The store's write without a logged outcome: its line and its time.
    stored: Option<(usize, Time, &'a Change)>,
}

impl<'a> Run<'a> {
    fn of(publisher: &'a str, epoch: u64) -> Run<'a> {
        Run {
            publisher,
            epoch,
            ..Run::default()
        }
    }
}

impl<'a> Sends<'a> {
    pub(crate) fn of(writers: &'a [History]) -> Sends<'a> {
        let mut sends = Sends {
            writers,
            ..Sends::default()
        };
        for (writer, history) in writers.iter().enumerate() {
            sends.add(writer, history);
        }
        sends
    }

    fn add(&mut self, writer: usize, history: &'a History) {
        let mut run = Run::default();
        for (index, line) in history.lines.iter().enumerate() {
            match &line.event {
                Event::Opened { publisher, epoch } => {
                    self.end(writer, run);
                    run = Run::of(publisher, *epoch);
                }
                Event::Stored(change) => run.stored = Some((index, line.at, change)),
                Event::Refused { took, .. } => {
                    run.stored = None;
                    self.longest_call = self.longest_call.max(*took);
                }
                Event::Sent { seq, took } => {
                    self.longest_call = self.longest_call.max(*took);
                    let (index, _, change) = run.stored.take().unwrap();
                    run.numbers.insert(&change.topic, *seq);
                    let key = (&*change.topic, run.publisher, run.epoch, *seq);
                    self.push(writer, index, change, key, line.at - took, true);
                }
                _ => {}
            }
        }
        self.end(writer, run);
    }

    /// The last stored change, if it has no outcome, may have been sent under the next number.
    fn end(&mut self, writer: usize, run: Run<'a>) {
        if let Some((index, at, change)) = run.stored {
            let seq = run.numbers.get(&*change.topic).unwrap_or(&0) + 1;
            let key = (&*change.topic, run.publisher, run.epoch, seq);
            self.push(writer, index, change, key, at, false);
        }
    }

    fn push(&mut self, writer: usize, line: usize, change: &'a Change, key: Key<'a>, at: Time, certain: bool) {
        self.by_key.insert(key, self.all.len());
        self.all.push(Send {
            writer,
            line,
            change,
            key,
            at,
            certain,
        });
    }

    /// Number of updates that were certainly sent.
    pub(super) fn len(&self) -> usize {
        self.all.iter().filter(|send| send.certain).count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Send<'a>> {
        self.all.iter()
    }

    /// The update sent on this topic under this number.
    pub(super) fn find<'b>(&self, key: Key<'b>) -> Option<&Send<'b>>
    where
        'a: 'b,
    {
        let sends: &Sends<'b> = self;
        sends.by_key.get(&key).and_then(|index| sends.all.get(*index))
    }

    pub(super) fn place(&self, send: &Send<'_>) -> Place {
        Place::new(&self.writers[send.writer], send.line)
    }
}
