//! Foreign peers: bare ZeroMQ sockets.
#![allow(dead_code, reason = "every test target uses a part of it")]

/// A bare socket, bound to a free port, and its address.
pub(crate) fn bound(context: &zmq::Context, kind: zmq::SocketType) -> (zmq::Socket, String) {
    bound_with(context, kind, 0)
}

/// As [`bound`], for at most this many messages that wait for a peer.
pub(crate) fn bound_with(context: &zmq::Context, kind: zmq::SocketType, hwm: i32) -> (zmq::Socket, String) {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_sndhwm(hwm).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let address = socket.get_last_endpoint().unwrap().unwrap();
    let address = address.trim_end_matches('\0').to_owned();
    (socket, address)
}

/// Waits until a subscriber has subscribed to `topic` at this XPUB socket, and then for its probe.
pub(crate) fn await_subscription(xpub: &zmq::Socket, topic: &str) {
    let mut seen = (false, false);
    while seen != (true, true) {
        assert!(
            xpub.poll(zmq::POLLIN, 10_000).unwrap() > 0,
            "nobody subscribed to {topic}"
        );
        let message = xpub.recv_bytes(0).unwrap();
        seen.0 |= message[1..] == *topic.as_bytes();
        seen.1 |= message.starts_with(b"\x01\xf4\x8f\xbf\xbftablecast/probe/");
    }
}
