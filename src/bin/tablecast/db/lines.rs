//! Writes from a file, one for each line.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use tablecast::store::Write;
use tablecast::{Action, Config, Database, DbUpdate, Error, ErrorKind, Node, Result, Topic};

use super::{named_row, say};
use crate::input::Input;
use crate::{output, signal};

/// Makes the writes of the file, and prints the result of each. `grace` is the longest time of one.
pub(super) fn write(config: &Config, file: &Path, grace: Duration) -> Result<()> {
    let signal = signal::channel(grace)?;
    let (updates, reader) = read(Input::lines(file, config.max_message_bytes)?)?;
    let node = Node::open(config)?;
    let database = node.database()?;
    let (mut failed, mut last) = (0_u64, None);
    loop {
        let update = select! {
            recv(updates) -> update => update,
            recv(signal) -> _ => return Err(Error::new(ErrorKind::Stopped, "a signal came before the last line")),
        };
        // The end of the file.
        let Ok(update) = update else { break };
        if let Some(failure) = make(&database, &update?)? {
            failed += 1;
            last = Some(failure);
        }
    }
    let ended = |_| Error::new(ErrorKind::Panicked, "the reading thread ended unexpectedly");
    reader.join().map_err(ended)?;
    last.map_or(Ok(()), |last| {
        let context = format!("{failed} writes failed; the last one");
        Err(Error::new(last.kind(), context).with_source(last))
    })
}

/// The lines, and the thread that reads them. It is joined only at the end, since it may wait for stdin when a signal comes.
fn read(input: Input) -> Result<(Receiver<Result<DbUpdate>>, JoinHandle<()>)> {
    let (sender, updates) = bounded(1);
    let pass = move || {
        let ended = |_| Error::new(ErrorKind::Stopped, "the command ended");
        let take = |update| sender.send(Ok(checked(update)?)).map_err(ended);
        if let Err(e) = input.each(|| false, take) {
            let _ = sender.send(Err(e));
        }
    };
    let thread = thread::Builder::new().name("lines".into()).spawn(pass);
    let thread = thread.map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;
    Ok((updates, thread))
}

/// The update, if it is a write.
fn checked(update: DbUpdate) -> Result<DbUpdate> {
    let wrong = match (&update.action, &update.value) {
        (Action::Other(_), _) => format!("action {:?}: not create, set or delete", update.action.as_str()),
        (Action::Create | Action::Set, None) => "no value".into(),
        _ => return Ok(update),
    };
    Err(Error::new(ErrorKind::InvalidInput, wrong))
}

/// Makes a write, and prints its result. Returns its failure.
fn make(database: &Database, update: &DbUpdate) -> Result<Option<Error>> {
    let (table, key) = (&*update.table, &*update.key);
    let value = update.value.as_deref().unwrap_or_default();
    let mut write = match update.action {
        Action::Create => Write::create(table, key, value),
        Action::Delete => Write::delete(table, key),
        _ => Write::set(table, key, value).unless_equal(),
    };
    write.topic = Some(&update.topic).filter(|topic| **topic != Topic::ALL);
    match database.write(&write, update.priority) {
        Ok(written) => say(&write, &written).map(|()| None),
        Err(e) => {
            let e = named_row(table, key, e);
            output::result(&format!("failed: {e}").replace('\n', " "))?;
            Ok(Some(e))
        }
    }
}
