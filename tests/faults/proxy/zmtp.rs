//! ZMTP 3 as far as a proxy must know it: the beginning and end of messages.

/// The greeting before the first frame.
const GREETING: usize = 64;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A part of the greeting, or a command; passed on unchanged.
    Plain(Vec<u8>),
    Message(Message),
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// As it is on the wire.
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Vec<u8>>,
}

/// Splits a stream.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    greeted: usize,
    buffer: Vec<u8>,
    /// The frames of an incomplete message.
    begun: Vec<Vec<u8>>,
    begun_bytes: Vec<u8>,
}

impl Splitter {
    /// The pieces that are complete with these bytes.
    pub(crate) fn split(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.greeted < GREETING {
            let (greeting, rest) = bytes.split_at(bytes.len().min(GREETING - self.greeted));
            self.greeted += greeting.len();
            pieces.push(Piece::Plain(greeting.to_vec()));
            bytes = rest;
        }
        self.buffer.extend(bytes);
        let mut at = 0;
        while let Some((flags, head, length)) = frame(&self.buffer[at..]) {
            let whole = &self.buffer[at..at + head + length];
            at += whole.len();
            if flags & COMMAND != 0 {
                pieces.push(Piece::Plain(whole.to_vec()));
                continue;
            }
            self.begun.push(whole[head..].to_vec());
            self.begun_bytes.extend(whole);
            if flags & MORE == 0 {
                pieces.push(Piece::Message(Message {
                    bytes: std::mem::take(&mut self.begun_bytes),
                    frames: std::mem::take(&mut self.begun),
                }));
            }
        }
        self.buffer.drain(..at);
        pieces
    }
}

/// The flags, and the lengths of head and body, of the frame that these bytes begin with, if it is whole.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let flags = *bytes.first()?;
    let (head, length) = match flags & LONG {
        0 => (2, usize::from(*bytes.get(1)?)),
        _ => {
            let length = bytes.get(1..9)?;
            (9, u64::from_be_bytes(length.try_into().unwrap()) as usize)
        }
    };
    (bytes.len() >= head + length).then_some((flags, head, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_taken_apart_wherever_it_is_cut() {
        let mut stream = vec![b'g'; GREETING];
        let command = b"\x04\x05\x04PING";
        let long = [&b"\x02\0\0\0\0\0\0\x01\x2c"[..], &[b'x'; 300]].concat();
        let two = [&b"\x01\x01D\0\x02{}"[..], &long].concat();
        stream.extend(command);
        stream.extend(&two);
        let message = |bytes: &[u8], frames: &[&[u8]]| {
            Piece::Message(Message {
                bytes: bytes.to_vec(),
                frames: frames.iter().map(|frame| frame.to_vec()).collect(),
            })
        };
        for step in [1, 2, 7, 63, 64, 65, 1000] {
            let mut splitter = Splitter::default();
            let pieces: Vec<_> = stream.chunks(step).flat_map(|chunk| splitter.split(chunk)).collect();
            let mut greeting = Vec::new();
            let mut rest = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Plain(bytes) if greeting.len() < GREETING => greeting.extend(bytes),
                    piece => rest.push(piece),
                }
            }
            assert_eq!(greeting, vec![b'g'; GREETING]);
            let expected = [
                Piece::Plain(command.to_vec()),
                message(b"\x01\x01D\0\x02{}", &[b"D", b"{}"]),
                message(&long, &[&[b'x'; 300]]),
            ];
            assert_eq!(rest, expected, "in steps of {step}");
        }
    }
}
