//! ZeroMQ's protocol by hand, for behaviour that libzmq does not have.

use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One end of a connection after the greetings.
pub(crate) struct Zmtp(pub(crate) TcpStream);

/// The greeting of ZMTP 3.0 with the mechanism NULL, and of ZMTP 2.0 as a publisher with an empty identity.
const GREETING: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL";
const GREETING_2: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x01\0\0";

impl Zmtp {
    /// Greets as a socket of this type does, for example `XPUB`.
    pub(crate) fn greet(mut stream: TcpStream, kind: &str) -> Result<Zmtp> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut greeting = GREETING.to_vec();
        greeting.resize(64, 0);
        stream.write_all(&greeting)?;
        stream.read_exact(&mut [0; 64])?;
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend((kind.len() as u32).to_be_bytes());
        ready.extend(kind.bytes());
        let mut zmtp = Zmtp(stream);
        zmtp.frame(4, &ready)?;
        zmtp.read()?;
        Ok(zmtp)
    }

    /// Greets as a publisher that speaks ZMTP 2.0.
    pub(crate) fn greet_2(mut stream: TcpStream) -> Result<Zmtp> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(GREETING_2)?;
        // Signature, version and type, then an identity.
        stream.read_exact(&mut [0; 12])?;
        let mut zmtp = Zmtp(stream);
        zmtp.read()?;
        Ok(zmtp)
    }

    /// Sends one frame: flags 0 end a message.
    pub(crate) fn frame(&mut self, flags: u8, body: &[u8]) -> Result<()> {
        let mut frame = vec![flags, u8::try_from(body.len()).unwrap()];
        frame.extend(body);
        self.0.write_all(&frame)
    }

    /// Sends a message of two frames.
    pub(crate) fn send(&mut self, topic: &[u8], payload: &[u8]) -> Result<()> {
        self.frame(1, topic)?;
        self.frame(0, payload)
    }

    /// The next frame.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut body = vec![0; head[1].into()];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    /// Waits for a subscription to a topic that begins like this, and returns the topic.
    pub(crate) fn subscription(&mut self, begin: &[u8]) -> Result<Vec<u8>> {
        loop {
            let frame = self.read()?;
            if let Some(topic) = frame.strip_prefix(&[1])
                && topic.starts_with(begin)
            {
                return Ok(topic.to_vec());
            }
        }
    }
}
