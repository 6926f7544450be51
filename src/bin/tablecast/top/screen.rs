//! A terminal whose keys come one by one, and on which a table is drawn over and over.

use std::io::{self, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tablecast::{Error, ErrorKind, Result};

use crate::output;

/// The terminal; it is put back as it was when this is dropped.
pub(crate) struct Screen {
    before: Option<Termios>,
    keys: Receiver<u8>,
}

impl Screen {
    /// Takes the terminal. Keys come only if stdin is a terminal too.
    pub(crate) fn take() -> Result<Screen> {
        let before = tcgetattr(io::stdin()).ok();
        let (sender, keys) = bounded(16);
        let screen = Screen { before, keys };
        if let Some(before) = &screen.before {
            let mut raw = before.clone();
            // Signals stay.
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            raw.special_codes[SpecialCodeIndex::VMIN] = 1;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            let failed = |e| Error::new(ErrorKind::Io, "cannot read keys from the terminal").with_source(e);
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|e| failed(io::Error::from(e)))?;
            // Not joined: it waits for a key.
            let read = move || {
                let mut key = [0];
                while matches!(io::stdin().read(&mut key), Ok(1)) && sender.send(key[0]).is_ok() {}
            };
            thread::Builder::new().name("keys".into()).spawn(read).map_err(failed)?;
        }
        // Another screen, without a cursor.
        write("\u{1b}[?1049h\u{1b}[?25l")?;
        Ok(screen)
    }

    pub(crate) fn keys(&self) -> Receiver<u8> {
        match self.before {
            Some(_) => self.keys.clone(),
            None => crossbeam_channel::never(),
        }
    }

    /// The number of lines.
    pub(crate) fn height(&self) -> usize {
        let size = tcgetwinsize(io::stdout());
        size.map_or(24, |size| usize::from(size.ws_row).max(3))
    }

    /// Draws these lines in the place of what is there.
    pub(crate) fn draw(&self, lines: &[String]) -> Result<()> {
        let lines = lines.join("\u{1b}[K\r\n");
        write(&format!("\u{1b}[H{lines}\u{1b}[K\u{1b}[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\u{1b}[?25h\u{1b}[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> Result<()> {
    output::stdout().write_all(text.as_bytes()).map_err(output::failed)
}
