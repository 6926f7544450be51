//! Foreign peers: bare ZeroMQ sockets.

use std::time::Duration;

/// A bare socket, bound to a free port, and its address.
pub(crate) fn bound(context: &zmq::Context, kind: zmq::SocketType) -> (zmq::Socket, String) {
    let socket = context.socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_sndhwm(0).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let address = socket.get_last_endpoint().unwrap().unwrap();
    let address = address.trim_end_matches('\0').to_owned();
    (socket, address)
}

/// Waits until a subscriber has subscribed to `topic` at this XPUB socket, and for the probe that follows.
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

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    /// Prints its seed, or takes that of `TABLECAST_TEST_SEED`.
    pub(crate) fn new(what: &str) -> Random {
        let given = std::env::var("TABLECAST_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or(now.unwrap_or(Duration::ZERO).as_nanos() as u64);
        println!("{what}: TABLECAST_TEST_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.next() as u8).collect()
    }
}
