//! Keys, from the bytes that a terminal sends for them.

/// A key with a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Text(char),
    Enter,
    Erase,
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Takes byte after byte. Sequences without a meaning here are skipped as a whole.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// The bytes of an unfinished character.
    text: Vec<u8>,
    /// The parameters of a sequence.
    parameters: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After an escape, which is the key if nothing follows at once.
    Escape,
    /// After `ESC [`.
    Control,
    /// After `ESC O`.
    Shift,
    /// In an answer of the terminal, up to BEL or an escape.
    Answer,
    /// In a sequence with so many bytes left.
    Skip(usize),
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// No key has more.
const MAX_PARAMETERS: usize = 16;

impl Decoder {
    /// True if more bytes are expected at once.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.state != State::Text || !self.text.is_empty()
    }

    /// To be called if they do not come.
    pub(crate) fn pause(&mut self) -> Option<Key> {
        let is_alone = self.state == State::Escape;
        *self = Decoder::default();
        is_alone.then_some(Key::Escape)
    }

    /// Takes a byte; returns the key that it ends.
    pub(crate) fn take(&mut self, byte: u8) -> Option<Key> {
        if byte == ESC {
            *self = Decoder::default();
            self.state = State::Escape;
            return None;
        }
        let is_bare = self.parameters.is_empty();
        self.state = match (self.state, byte) {
            (State::Text, _) => return self.text(byte),
            (State::Escape, b'[') => State::Control,
            (State::Escape, b'O') => State::Shift,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Answer,
            // Alt and a character.
            (State::Escape, _) => left(length(byte) - 1),
            // A function key of the Linux console; a button of an old mouse.
            (State::Control, b'[') if is_bare => State::Skip(1),
            (State::Control, b'M') if is_bare => State::Skip(3),
            (State::Control | State::Shift, b' '..=b'?') => {
                if self.parameters.len() < MAX_PARAMETERS {
                    self.parameters.push(byte);
                }
                return None;
            }
            (State::Control | State::Shift, _) => {
                let parameters = std::mem::take(&mut self.parameters);
                self.state = State::Text;
                return meaning(&parameters, byte);
            }
            (State::Answer, BEL) => State::Text,
            (State::Answer, _) => State::Answer,
            (State::Skip(count), _) => left(count - 1),
        };
        None
    }

    fn text(&mut self, byte: u8) -> Option<Key> {
        self.text.push(byte);
        let c = match str::from_utf8(&self.text) {
            Ok(text) => text.chars().next(),
            Err(e) if e.error_len().is_none() => return None,
            Err(_) => None,
        };
        self.text.clear();
        match c? {
            '\r' | '\n' => Some(Key::Enter),
            '\u{8}' | '\u{7f}' => Some(Key::Erase),
            c => (!c.is_control()).then_some(Key::Text(c)),
        }
    }
}

/// The state with so many bytes left.
fn left(count: usize) -> State {
    match count {
        0 => State::Text,
        count => State::Skip(count),
    }
}

/// The number of bytes of the character that begins with this one.
fn length(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// The key of a sequence. Keys held down with it are parameters too, after the number of the key.
fn meaning(parameters: &[u8], last: u8) -> Option<Key> {
    let number = parameters.split(|byte| *byte == b';').next().unwrap_or_default();
    Some(match (last, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        // Of the block of digits.
        (b'M', b"") => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<Key> = bytes.iter().filter_map(|byte| decoder.take(*byte)).collect();
        keys.extend(decoder.is_unfinished().then(|| decoder.pause()).flatten());
        assert!(!decoder.is_unfinished());
        keys
    }

    #[test]
    fn keys_that_move_have_several_sequences() {
        let all: [(Key, &[&str]); 6] = [
            (Key::Up, &["\u{1b}[A", "\u{1b}OA", "\u{1b}[1;5A", "\u{1b}\u{1b}[A"]),
            (Key::Down, &["\u{1b}[B", "\u{1b}OB"]),
            (Key::Home, &["\u{1b}[H", "\u{1b}OH", "\u{1b}[1~", "\u{1b}[7~"]),
            (Key::End, &["\u{1b}[F", "\u{1b}OF", "\u{1b}[4~", "\u{1b}[8~"]),
            (Key::PageUp, &["\u{1b}[5~", "\u{1b}[5;3~"]),
            (Key::PageDown, &["\u{1b}[6~"]),
        ];
        for (key, sequences) in all {
            for sequence in sequences {
                assert_eq!(keys(sequence.as_bytes()), [key], "{sequence:?}");
            }
        }
    }

    #[test]
    fn other_sequences_are_skipped_as_a_whole() {
        let skipped = [
            "\u{1b}[C",
            "\u{1b}OP",
            "\u{1b}[15~",
            "\u{1b}[3;2~",
            "\u{1b}[[A",
            "\u{1b}[<0;12;7M",
            "\u{1b}[M kq",
            "\u{1b}[?62;4c",
            "\u{1b}]11;rgb:0000/0000/0000\u{7}",
            "\u{1b}]11;rgb:0000/0000/0000\u{1b}\\",
            "\u{1b}Pq\u{1b}\\",
            "\u{1b}q",
            "\u{1b}ü",
        ];
        for sequence in skipped {
            let text = format!("{sequence}x");
            assert_eq!(keys(text.as_bytes()), [Key::Text('x')], "{sequence:?}");
        }
        // Nor are they taken for an escape that stands alone if they are incomplete.
        assert_eq!(keys(b"\x1b["), []);
    }

    #[test]
    fn escape_alone_and_text_are_keys() {
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b"), [Key::Escape]);
        assert_eq!(keys("端\r".as_bytes()), [Key::Text('端'), Key::Enter]);
        assert_eq!(keys(b"a\x7f\x08\x01\xff"), [Key::Text('a'), Key::Erase, Key::Erase]);
    }
}
