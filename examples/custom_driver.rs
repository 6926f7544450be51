//! A driver of the program's own: updates as UDP datagrams to an address at which the subscriber listens.
//!
//! A driver only moves frames. Threads, topics, decoding, counting and stopping are the library's, so that all of it
//! works with any driver. This one is registered under the alias `udp`.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tablecast::transport::{Driver, Inbound, Outbound, Received, Wake};
use tablecast::{Action, Config, DbUpdate, Drivers, Error, ErrorKind, Node, Result, Topic};

#[derive(Debug)]
struct Udp {
    listen: String,
}

fn failed(e: io::Error) -> Error {
    Error::new(ErrorKind::Transport, "udp").with_source(e)
}

fn parse(address: &str) -> Result<SocketAddr> {
    let parsed = address.strip_prefix("udp://").and_then(|address| address.parse().ok());
    parsed.ok_or_else(|| {
        let context = format!("address {address:?}: expected udp://ip:port");
        Error::new(ErrorKind::InvalidInput, context)
    })
}

impl Driver for Udp {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
        socket.connect(parse(&self.listen)?).map_err(failed)?;
        Ok(Box::new(UdpOutbound(socket)))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let socket = UdpSocket::bind(parse(&self.listen)?).map_err(failed)?;
        let waker = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
        waker.connect(socket.local_addr().map_err(failed)?).map_err(failed)?;
        let inbound = UdpInbound {
            socket,
            waker: waker.local_addr().map_err(failed)?,
            buffer: vec![0; 65_536],
            address: String::new(),
            probe: None,
            notes: VecDeque::new(),
        };
        Ok((Box::new(inbound), Arc::new(UdpWake(waker))))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        parse(address).map(drop)
    }
}

struct UdpOutbound(UdpSocket);

impl Outbound for UdpOutbound {
    fn send(&mut self, topic: &[u8], payload: &[u8], _timeout: Duration) -> Result<()> {
        // The length of the topic, the topic, the payload.
        let length = u16::try_from(topic.len()).map_err(|_| Error::new(ErrorKind::TooLarge, "the topic"))?;
        let datagram = [&length.to_be_bytes()[..], topic, payload].concat();
        self.0.send(&datagram).map(drop).map_err(failed)
    }
}

struct UdpInbound {
    socket: UdpSocket,
    waker: SocketAddr,
    buffer: Vec<u8>,
    address: String,
    probe: Option<Topic>,
    notes: VecDeque<Note>,
}

enum Note {
    Connected,
    Answer(Topic),
}

impl Inbound for UdpInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        // The socket is already bound: every sender is received from now on.
        self.address = address.to_owned();
        self.notes.push_back(Note::Connected);
        Ok(())
    }

    fn disconnect(&mut self, _address: &str) -> Result<()> {
        Ok(())
    }

    fn subscribe(&mut self, _topic: &Topic) -> Result<()> {
        // Every frame is received; the subscriber compares topics itself.
        Ok(())
    }

    fn unsubscribe(&mut self, _topic: &Topic) -> Result<()> {
        Ok(())
    }

    fn probe(&mut self, _address: &str, probe: &Topic) -> Result<()> {
        self.notes.push_back(Note::Answer(probe.clone()));
        Ok(())
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        match self.notes.pop_front() {
            Some(Note::Connected) => return Ok(Received::Connected { address: &self.address }),
            Some(Note::Answer(probe)) => {
                return Ok(Received::Answer {
                    address: &self.address,
                    probe: self.probe.insert(probe).as_str().as_bytes(),
                    hello: &[],
                });
            }
            None => {}
        }
        // To the socket a timeout of zero would mean no timeout.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_micros(1)));
        self.socket.set_read_timeout(timeout).map_err(failed)?;
        let (length, from) = match self.socket.recv_from(&mut self.buffer) {
            Ok(received) => received,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Received::Idle);
            }
            Err(e) => return Err(failed(e)),
        };
        if from == self.waker {
            return Ok(Received::Woken);
        }
        let datagram = &self.buffer[..length];
        let frame = datagram
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        Ok(match frame {
            Some((topic, payload)) => Received::Frame {
                address: &self.address,
                topic,
                payload,
            },
            None => Received::Malformed,
        })
    }
}

struct UdpWake(UdpSocket);

impl Wake for UdpWake {
    fn wake(&self) {
        let _ = self.0.send(&[]);
    }
}

fn main() -> Result<()> {
    let mut drivers = Drivers::new();
    let free = UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .map_err(failed)?;
    let listen = format!("udp://{free}");
    let address = listen.clone();
    drivers.register("udp", move |_: &Config| Ok(Arc::new(Udp { listen: listen.clone() })))?;

    let mut config = Config::default();
    config.pub_sub_driver = "udp".into();
    config.pub_sub_use_multiproc = false;
    config.publishers = vec![address];

    let node = Node::builder(&config).drivers(drivers).open()?;
    let (updates, received) = crossbeam_channel::unbounded::<DbUpdate>();
    let _guard = node.dispatcher()?.on_update(updates);
    node.subscriber()?.wait_live(Duration::from_secs(1))?;

    node.publisher()?
        .send_event(&DbUpdate::new("lport", "port-1", Action::Create).value("{}"))?;
    let update = received
        .recv_timeout(Duration::from_secs(1))
        .expect("the update arrives");
    println!("{update}");
    Ok(())
}
