use std::sync::Arc;
use std::time::{Duration, Instant};
use tablecast::drivers::zmq::*;
use tablecast::queue;
use tablecast::*;
fn main() {
    env_logger::init();
    let driver = Arc::new(ZmqPubSub::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
    let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
    let address = publisher.address().unwrap();
    println!("{address} {}", libzmq());
    let (tx, mut rx) = queue::bounded(Default::default());
    let sub = Subscriber::new(driver.clone(), tx, SubscriberOptions::default());
    sub.register_topic(&Topic::ALL).unwrap();
    sub.register_listen_address(&address).unwrap();
    sub.daemonize().unwrap();
    let t = Instant::now();
    println!("{:?} {:?}", sub.wait_live(Duration::from_secs(3)), t.elapsed());
    let t = Instant::now();
    println!("{:?} {:?}", publisher.wait_subscribers(1, Duration::from_secs(1)), t.elapsed());
    publisher.send_event(&DbUpdate::new("lport", "a", Action::Create).value("{}")).unwrap();
    loop {
        let d = rx.channel().recv_timeout(Duration::from_secs(1)).unwrap();
        rx.accept(d);
        if let Some(e) = rx.pop(Instant::now()) { println!("{e:?}"); if matches!(e, Event::Update(_)) { break; } }
    }
    let mp = ZmqMultiproc::new("ipc:///tmp/smoke.sock", ZmqOptions::default()).unwrap();
    let service = Service::start(&mp, "ipc:///tmp/smoke.sock", &*driver, ServiceOptions::default()).unwrap();
    println!("{:?}", Service::start(&mp, "ipc:///tmp/smoke.sock", &*driver, ServiceOptions::default()).err());
    sub.register_listen_address(&service.address().unwrap()).unwrap();
    let t = Instant::now();
    println!("{:?} {:?}", sub.wait_live(Duration::from_secs(3)), t.elapsed());
    let w = Publisher::new(&mp, PublisherOptions::default()).unwrap();
    w.send_event(&DbUpdate::new("lport", "b", Action::Set).value("{}")).unwrap();
    loop {
        while let Some(e) = rx.pop(Instant::now()) { println!("{e:?}");}
        let Ok(d) = rx.channel().recv_timeout(Duration::from_secs(1)) else {break};
        rx.accept(d);
    }
    let t = Instant::now(); sub.stop(); println!("sub stop {:?} {:?}", t.elapsed(), sub.stats());
    let t = Instant::now(); drop(service); println!("service stop {:?}", t.elapsed());
    let t = Instant::now(); drop(publisher); println!("pub stop {:?}", t.elapsed());
    let t = Instant::now(); drop(w); println!("writer stop {:?}", t.elapsed());
    let t = Instant::now(); drop(sub); drop(driver); println!("rest {:?}", t.elapsed());
}
