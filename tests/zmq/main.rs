//! The ZeroMQ drivers alone, against bare sockets, strangers, and networks that fail.
#![cfg(feature = "zmq")]

mod bursts;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod cut;
mod descriptors;
mod ends;
mod names;
#[path = "../common/network.rs"]
mod net;
#[path = "../common/process.rs"]
mod process;
mod quota;
mod receiver;
mod reconnect;
#[path = "../common/reexec.rs"]
mod reexec;
#[path = "../common/rig.rs"]
mod rig;
mod signals;
mod zmtp;

use std::time::Duration;

use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};

use common::eventually;
use rig::LONG;

const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn options() -> ZmqOptions {
    ZmqOptions {
        reconnect_interval: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(200),
        max_frame_bytes: 100_000,
        ..ZmqOptions::default()
    }
}

fn pub_sub(publish: &str) -> ZmqDriver {
    ZmqDriver::new(publish, options()).unwrap()
}

fn multiproc(socket: &str) -> ZmqMultiproc {
    ZmqMultiproc::new(socket, options()).unwrap()
}

/// A bare socket that is bound or connected to this address.
fn bare(context: &zmq::Context, kind: zmq::SocketType, binds: bool, address: &str) -> zmq::Socket {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.set_reconnect_ivl(20).unwrap();
    socket.set_ipv6(address.contains('[')).unwrap();
    match binds {
        // The port, or the path, is free only a moment after its last owner.
        true => eventually(LONG, || socket.bind(address).is_ok()),
        false => socket.connect(address).unwrap(),
    }
    socket
}

/// Sends this on topic `D` if there is a receiver.
fn send(socket: &zmq::Socket, payload: &[u8]) {
    if socket.send(&b"D"[..], zmq::DONTWAIT | zmq::SNDMORE).is_ok() {
        // The connection may have ended in between.
        let _ = socket.send(payload, zmq::DONTWAIT);
    }
}
