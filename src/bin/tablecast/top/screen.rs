//! A terminal whose keys come one by one, and on which a table is drawn over and over.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tablecast::{Error, ErrorKind, Result};

use super::keys::{Decoder, Key};
use crate::input::Stdin;
use crate::{output, signal};

/// Another screen, without a cursor, where long lines are cut off; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

/// A sequence of a key comes without longer pauses.
const PAUSE: Duration = Duration::from_millis(100);

/// The terminal; it is put back as it was when this is dropped.
pub(crate) struct Screen {
    before: Option<Termios>,
    keys: Receiver<Key>,
}

impl Screen {
    /// Takes the terminal. Keys come only if stdin is a terminal too.
    pub(crate) fn take() -> Result<Screen> {
        let before = tcgetattr(io::stdin()).ok();
        let (sender, keys) = bounded(16);
        let keys = if before.is_some() { keys } else { never() };
        let screen = Screen { before, keys };
        screen.enter()?;
        if screen.before.is_some() {
            // Not joined: it waits for a key.
            let thread = thread::Builder::new().name("keys".into()).spawn(move || read(&sender));
            thread.map_err(failed)?;
        }
        Ok(screen)
    }

    /// Sets the terminal up; also again, after another program had it.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(before) = &self.before {
            let mut raw = before.clone();
            // Signals stay.
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            raw.special_codes[SpecialCodeIndex::VMIN] = 1;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            let set = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
            set.map_err(|e| failed(e.into()))?;
        }
        write(ENTER)
    }

    fn leave(&self) {
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }

    /// Gives the terminal back, stops this process, and takes the terminal again once it continues.
    pub(crate) fn suspend(&self) -> Result<()> {
        self.leave();
        signal::stop()?;
        self.enter()
    }

    pub(crate) fn keys(&self) -> &Receiver<Key> {
        &self.keys
    }

    /// Draws these lines in the place of what is there.
    pub(crate) fn draw(&self, lines: &[String]) -> Result<()> {
        // Each is erased before it is written, the last one with all below it: behind a full one the cursor stands on its
        // last column.
        let (last, others) = lines
            .split_last()
            .map_or(("", &[][..]), |(last, others)| (last, others));
        let others: String = others.iter().map(|line| format!("\u{1b}[K{line}\r\n")).collect();
        write(&format!("\u{1b}[H{others}\u{1b}[J{last}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Reads keys until the end of stdin.
fn read(keys: &Sender<Key>) {
    let mut decoder = Decoder::default();
    let mut bytes = [0; 64];
    loop {
        if decoder.is_unfinished() && !has_more() {
            if decoder.pause().is_some_and(|key| keys.send(key).is_err()) {
                return;
            }
            continue;
        }
        let Ok(count @ 1..) = Stdin.read(&mut bytes) else {
            return;
        };
        for key in bytes[..count].iter().filter_map(|byte| decoder.take(*byte)) {
            if keys.send(key).is_err() {
                return;
            }
        }
    }
}

/// True if stdin has more within the pause.
fn has_more() -> bool {
    let pause = Timespec::try_from(PAUSE).ok();
    loop {
        let stdin = io::stdin();
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], pause.as_ref()) {
            Err(Errno::INTR) => {}
            found => return found != Ok(0),
        }
    }
}

fn failed(e: io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot read keys from the terminal").with_source(e)
}

fn write(text: &str) -> Result<()> {
    output::stdout().write_all(text.as_bytes()).map_err(output::failed)
}
