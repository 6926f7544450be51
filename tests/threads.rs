//! Threads whose driver fails, panics, or returns early go on; a thread that cannot is reported.

mod common;
#[path = "common/rig.rs"]
mod rig;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{eventually, hook, pass, within};
use crossbeam_channel::Receiver;
use rig::{LONG, Rig, send};
use tablecast::drivers::memory::MemoryDriver;
use tablecast::transport::{Driver, Inbound, Outbound, Received, Waiter, WaiterAndWake, Wake};
use tablecast::{Error, ErrorHook, ErrorKind, Publisher, PublisherOptions, Result, Service, ServiceOptions, Topic};

const LIMIT: Duration = Duration::from_secs(30);
const BUS: &str = "memory://bus";
const NETWORK: &str = "memory://network";

/// A driver's behaviour instead of waiting, one after the other.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Fails,
    Panics,
    ReturnsEarly,
    IsGone,
}

/// A driver over the one in memory that fails on request.
#[derive(Debug, Clone)]
struct Faulty {
    driver: MemoryDriver,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Faulty {
    fn new(address: &str) -> Faulty {
        Faulty {
            driver: MemoryDriver::new(address).unwrap(),
            faults: Arc::default(),
        }
    }

    fn fail(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// True when all faults have happened.
    fn has_failed(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    /// True if the wait ends early.
    fn happen(&self) -> Result<bool> {
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None => Ok(false),
            Some(Fault::ReturnsEarly) => Ok(true),
            Some(Fault::Fails) => Err(Error::new(ErrorKind::Transport, "the driver fails")),
            Some(Fault::IsGone) => Err(Error::new(ErrorKind::Stopped, "the driver is gone")),
            Some(Fault::Panics) => panic!("the driver panics"),
        }
    }
}

impl Driver for Faulty {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(FaultyEnd(self.clone(), self.driver.outbound()?)))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = self.driver.inbound()?;
        Ok((Box::new(FaultyEnd(self.clone(), inbound)), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        self.driver.check_address(address)
    }
}

struct FaultyEnd<T>(Faulty, T);

impl Inbound for FaultyEnd<Box<dyn Inbound>> {
    fn connect(&mut self, address: &str) -> Result<()> {
        self.1.connect(address)?;
        // The service takes every topic; this driver has none that means all.
        self.1.subscribe(&Topic::ALL)
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.1.disconnect(address)
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.1.subscribe(topic)
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.1.unsubscribe(topic)
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        self.1.probe(address, probe)
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        match self.0.happen()? {
            true => Ok(Received::Idle),
            false => self.1.recv(timeout),
        }
    }
}

impl Outbound for FaultyEnd<Box<dyn Outbound>> {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        self.1.send(topic, payload, timeout)
    }

    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        let (token, tokens) = crossbeam_channel::bounded(1);
        Ok(Some((
            Box::new(FaultyWaiter(self.0.clone(), tokens)),
            Arc::new(Token(token)),
        )))
    }
}

struct FaultyWaiter(Faulty, Receiver<()>);

impl Waiter for FaultyWaiter {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        if !self.0.happen()? {
            let _ = self.1.recv_timeout(timeout.unwrap_or(LONG));
        }
        Ok(())
    }
}

struct Token(crossbeam_channel::Sender<()>);

impl Wake for Token {
    fn wake(&self) {
        let _ = self.0.try_send(());
    }
}

fn service(bus: &Faulty, network: &MemoryDriver, hook: Option<ErrorHook>) -> Service {
    let options = ServiceOptions {
        hook,
        ..ServiceOptions::default()
    };
    Service::start(bus, BUS, network, options).unwrap()
}

#[test]
fn a_service_goes_on_after_failures_panics_and_early_returns() {
    within(LIMIT, || {
        let (bus, network) = (Faulty::new(BUS), MemoryDriver::new(NETWORK).unwrap());
        let (hook, told) = hook();
        // Before its first wait, and in the middle.
        bus.fail(&[Fault::ReturnsEarly, Fault::Fails]);
        let service = service(&bus, &network, hook);
        let rig = Rig::new(&(Arc::new(network) as Arc<dyn Driver>));
        rig.listen(&["D"], NETWORK);
        let writer = Publisher::new(&bus.driver, PublisherOptions::default()).unwrap();
        for round in 0..3 {
            bus.fail(&[
                Fault::ReturnsEarly,
                Fault::Fails,
                Fault::Panics,
                Fault::Fails,
                Fault::ReturnsEarly,
            ]);
            for number in 0..10 {
                send(&writer, "D", &format!("{round}-{number}"));
            }
            for number in 0..10 {
                assert_eq!(rig.next_key(), format!("{round}-{number}"));
            }
            eventually(LONG, || bus.has_failed());
        }
        assert!(service.is_running());
        assert_eq!(service.stats().errors, 1 + 3 * 3);
        // The first failure of each series.
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.len(), 1 + 3, "{told:?}");
        assert!(told.iter().all(|(kind, _)| *kind == ErrorKind::Transport), "{told:?}");
        service.stop();
        assert!(!service.is_running());
    });
}

#[test]
fn a_service_that_hangs_does_not_respond() {
    within(LIMIT, || {
        let (bus, network) = (Faulty::new(BUS), MemoryDriver::new(NETWORK).unwrap());
        let service = service(&bus, &network, None);
        let responds = || {
            pass(Duration::from_millis(20));
            service.is_responsive()
        };
        eventually(LONG, responds);
        // Its thread waits for this.
        let held = bus.faults.lock().unwrap();
        eventually(LONG, || (0..5).all(|_| !responds()));
        drop(held);
        eventually(LONG, responds);
        service.stop();
        eventually(LONG, || (0..5).all(|_| !responds()));
    });
}

#[test]
fn a_service_whose_driver_is_gone_is_seen_as_failed() {
    within(LIMIT, || {
        let (bus, network) = (Faulty::new(BUS), MemoryDriver::new(NETWORK).unwrap());
        let (hook, told) = hook();
        bus.fail(&[Fault::ReturnsEarly, Fault::IsGone]);
        let service = service(&bus, &network, hook);
        eventually(LONG, || !service.is_running());
        let (kind, text) = told.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Stopped);
        assert_eq!(text, "stopped: thread tc-service has ended unasked: the driver is gone");
        assert!(tablecast::failed_threads() > 0);
        service.stop();
    });
}

#[test]
fn a_publisher_says_hello_whatever_its_keeper_waits_for_fails() {
    within(LIMIT, || {
        let network = Faulty::new(NETWORK);
        let (hook, told) = hook();
        let options = PublisherOptions {
            hello_interval: Duration::from_millis(50),
            hook,
            ..PublisherOptions::default()
        };
        network.fail(&[Fault::Fails, Fault::Panics, Fault::Fails]);
        let publisher = Publisher::new(&network, options).unwrap();
        eventually(LONG, || network.has_failed());
        let before = publisher.stats().hellos;
        eventually(LONG, || publisher.stats().hellos > before + 3);
        // The same while every wait fails, which keeps no processor busy: there is a pause after each.
        network.fail(&[Fault::Fails; 200]);
        let before = publisher.stats().hellos;
        eventually(LONG, || publisher.stats().hellos > before + 3);
        assert!(!network.has_failed(), "it does not pause");
        let told: Vec<_> = told.try_iter().collect();
        assert!(told.len() <= 3 && !told.is_empty(), "{told:?}");
    });
}
