//! Signals do not end a wait early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, setuid};
use tablecast::transport::{Driver, Received};

use crate::common::{eventually, pass, within};
use crate::rig::LONG;
use crate::{LIMIT, SECOND, bare, multiproc, pub_sub};

/// Calls `setuid`, which interrupts every thread of the process by a signal, until it is dropped.
struct Storm(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Storm {
    fn begin() -> Storm {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let rage = move || {
            while !is_over.load(Ordering::Relaxed) {
                setuid(Uid::current()).unwrap();
                pass(Duration::from_millis(2));
            }
        };
        Storm(over, Some(std::thread::Builder::new().spawn(rage).unwrap()))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn every_wait_is_waited_again() {
    within(LIMIT, || {
        let _storm = Storm::begin();
        let (mut inbound, wake) = pub_sub("tcp://127.0.0.1:0").inbound().unwrap();
        let start = Instant::now();
        assert!(matches!(inbound.recv(Some(SECOND)).unwrap(), Received::Idle));
        assert!(start.elapsed() >= SECOND, "{:?}", start.elapsed());
        // For ever means for ever.
        let waker = std::thread::Builder::new().spawn(move || {
            pass(SECOND);
            wake.wake();
        });
        assert!(matches!(inbound.recv(None).unwrap(), Received::Woken));
        waker.unwrap().join().unwrap();
        let mut publisher = pub_sub("tcp://127.0.0.1:0").outbound().unwrap();
        let (mut waiter, _wake) = publisher.waiter().unwrap().unwrap();
        eventually(LONG, || {
            publisher.probes().unwrap();
            let start = Instant::now();
            waiter.wait(Some(SECOND)).unwrap();
            start.elapsed() >= SECOND
        });
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("ipc://{}/socket", folder.path().display());
        let mut writer = multiproc(&socket).outbound().unwrap();
        let start = Instant::now();
        assert!(writer.send(b"D", b"x", SECOND).is_err());
        assert!(start.elapsed() >= SECOND, "{:?}", start.elapsed());
        let context = zmq::Context::new();
        let service = bare(&context, zmq::PULL, true, &socket);
        for _ in 0..1000 {
            writer.send(b"D", b"x", LONG).unwrap();
        }
        service.set_rcvtimeo(10_000).unwrap();
        for _ in 0..1000 {
            eventually(LONG, || service.recv_multipart(0).is_ok());
        }
    });
}
