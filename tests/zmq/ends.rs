//! The end of a publisher.

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::{Action, DbUpdate, Publisher, PublisherOptions};

use crate::common::{eventually, within};
use crate::rig::{LONG, quickly};
use crate::{LIMIT, SECOND};

/// The end waits for a subscriber that is there, and not for one that has gone, whatever that has not taken.
#[test]
fn who_is_there_is_waited_for() {
    within(LIMIT, || {
        let options = ZmqOptions {
            linger: LIMIT,
            ..ZmqOptions::default()
        };
        let driver = ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap();
        let publisher = Publisher::new(&driver, PublisherOptions::default()).unwrap();
        let context = zmq::Context::new();
        let [gone, there] = [(); 2].map(|()| {
            let socket = context.socket(zmq::SUB).unwrap();
            socket.set_linger(0).unwrap();
            socket.set_rcvhwm(1).unwrap();
            socket.set_subscribe(b"D").unwrap();
            socket.connect(&publisher.address().unwrap()).unwrap();
            socket
        });
        publisher.wait_subscribers(2, LONG).unwrap();
        // More than the system buffers.
        let update = DbUpdate::new("t", "k", Action::Set).value("x".repeat(64 << 10));
        for _ in 0..500 {
            publisher.send_event(&update).unwrap();
        }
        drop(gone);
        eventually(LONG, || publisher.stats().subscribers == Some(1));
        let reader = std::thread::Builder::new().spawn(move || {
            for _ in 0..500 {
                assert_eq!(there.recv_multipart(0).unwrap().len(), 2);
            }
        });
        quickly(10 * SECOND, "the end", || drop(publisher));
        // It has lingered for the one that was there.
        reader.unwrap().join().unwrap();
    });
}
