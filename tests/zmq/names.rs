//! Addresses by name: name servers that are silent or late, names with several addresses, names that move.

use std::net::{TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

use tablecast::ErrorKind;
use tablecast::transport::Driver;

use crate::common::{eventually, within};
use crate::cut::checked;
use crate::net::{alone, deaf, ip};
use crate::receiver::{Event, Receiver, frame};
use crate::rig::{LONG, quickly};
use crate::{LIMIT, SECOND, bare, multiproc, pub_sub, send};

/// In a network of its own a test has every port.
const NAMED: &str = "tcp://publisher.test:8866";

/// Time that a busy machine may add to a time limit.
const SLACK: Duration = Duration::from_secs(2);

/// Less than the system waits for a name server, and more than a busy machine adds.
const PROMPT: Duration = Duration::from_secs(3);

fn at(context: &zmq::Context, host: &str) -> zmq::Socket {
    bare(context, zmq::XPUB, true, &format!("tcp://{host}:8866"))
}

fn receiver(addresses: &[&str]) -> Receiver {
    Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), addresses)
}

#[test]
fn a_silent_name_server_hurts_no_other_address() {
    let test = || {
        alone("names::a_silent_name_server_hurts_no_other_address", "", |names| {
            let context = zmq::Context::new();
            let healthy = at(&context, "127.0.0.1");
            let silent: Vec<_> = (0..10).map(|n| format!("tcp://silent{n}.test:8866")).collect();
            let mut addresses: Vec<_> = silent.iter().map(String::as_str).collect();
            addresses.push("tcp://127.0.0.1:8866");
            let mut receiver = quickly(PROMPT, "connecting", || receiver(&addresses));
            receiver.await_while(&frame("begin"), || send(&healthy, b"begin"));
            let mut publisher = pub_sub("tcp://127.0.0.1:7777").outbound().unwrap();
            let start = Instant::now();
            let mut number = 0;
            // For as long as the system waits for the name server, and longer.
            while start.elapsed() < 12 * SECOND {
                number += 1;
                let text = number.to_string();
                quickly(PROMPT, "an update", || {
                    send(&healthy, text.as_bytes());
                    receiver.expect(&frame(&text));
                });
                receiver.next(Duration::from_millis(50));
            }
            assert!(names.asked("silent0.test") > 0);
            quickly(PROMPT, "a send", || publisher.send(b"D", b"x", SECOND).unwrap());
            quickly(PROMPT, "dropping the publisher", || drop(publisher));
            quickly(PROMPT, "disconnecting", || {
                receiver.inbound.disconnect(&silent[0]).unwrap();
            });
            quickly(PROMPT, "dropping the receiver", || drop(receiver));
        });
    };
    within(LIMIT, test);
}

#[test]
fn an_answer_that_comes_late_is_taken() {
    let test = || {
        alone("names::an_answer_that_comes_late_is_taken", "", |names| {
            let context = zmq::Context::new();
            let sender = at(&context, "127.0.0.1");
            let mut receiver = receiver(&[NAMED]);
            assert_eq!(receiver.next(SECOND), None);
            names.tell("publisher.test", &["127.0.0.1"]);
            receiver.expect(&Event::Connected(NAMED.into()));
            receiver.await_while(&frame("1"), || send(&sender, b"1"));
        });
    };
    within(LIMIT, test);
}

/// The first refuses, the second does not answer, the third does not speak ZeroMQ.
#[test]
fn one_address_of_a_name_that_answers_will_do() {
    let hosts = "::1 publisher.test\n127.0.0.1 publisher.test\n127.0.0.2 publisher.test\n127.0.0.3 publisher.test";
    let test = move || {
        alone("names::one_address_of_a_name_that_answers_will_do", hosts, |_| {
            let addresses: Vec<_> = ("publisher.test", 8866).to_socket_addrs().unwrap().collect();
            let [_refuses, deaf_one, mute, good] = addresses[..] else {
                panic!("{addresses:?}");
            };
            let _deaf = deaf(deaf_one);
            let _mute = TcpListener::bind(mute).unwrap();
            let context = zmq::Context::new();
            let sender = at(&context, &good.ip().to_string());
            let mut receiver = receiver(&[NAMED]);
            quickly(8 * SECOND, "connecting", || {
                receiver.expect(&Event::Connected(NAMED.into()));
            });
            receiver.await_while(&frame("1"), || send(&sender, b"1"));
            // A writer has its service's name, and a time limit of its own.
            let service = bare(&context, zmq::PULL, true, &format!("tcp://{}:8867", good.ip()));
            let _deaf_service = deaf((deaf_one.ip(), 8867).into());
            let mut writer = multiproc(">tcp://publisher.test:8867").outbound().unwrap();
            writer.send(b"D", b"x", LONG).unwrap();
            service.set_rcvtimeo(10_000).unwrap();
            assert_eq!(service.recv_multipart(0).unwrap(), [b"D", b"x"]);
        });
    };
    within(LIMIT, test);
}

#[test]
fn a_lost_publisher_is_looked_up_again() {
    let test = || {
        alone("names::a_lost_publisher_is_looked_up_again", "", |names| {
            let context = zmq::Context::new();
            let mut sender = at(&context, "127.0.0.1");
            names.tell("publisher.test", &["127.0.0.1"]);
            let mut receiver = receiver(&[NAMED]);
            receiver.await_while(&frame("1"), || send(&sender, b"1"));
            for (host, address) in [("127.0.0.2", "127.0.0.2"), ("[::1]", "::1")] {
                names.tell("publisher.test", &[address]);
                drop(sender);
                sender = at(&context, host);
                receiver.await_while(&frame(host), || send(&sender, host.as_bytes()));
            }
            let lost = receiver
                .skipped
                .iter()
                .filter(|event| matches!(event, Event::Disconnected(_)));
            assert_eq!(lost.count(), 2);
        });
    };
    within(LIMIT, test);
}

#[test]
fn link_local_addresses_have_their_scope() {
    let test = || {
        alone("names::link_local_addresses_have_their_scope", "", |_| {
            ip("-6 address add fe80::1/64 dev lo");
            for (bound, connected) in [("[fe80::1%lo]", "[fe80::1%1]"), ("[fe80::1%1]", "[fe80::1%lo]")] {
                let bound = format!("tcp://{bound}:8866");
                let mut publisher = pub_sub(&bound);
                eventually(LONG, || publisher.outbound().is_ok());
                publisher = pub_sub(&bound);
                let mut publisher = publisher.outbound().unwrap();
                let mut receiver = receiver(&[&format!("tcp://{connected}:8866")]);
                receiver.await_while(&frame("1"), || {
                    publisher.probes().unwrap();
                    publisher.send(b"D", b"1", SECOND).unwrap();
                });
                // Both ends are known to the system, and so are checked.
                eventually(LONG, || {
                    publisher.probes().unwrap();
                    checked() == (2, 2)
                });
                let received = receiver.inbound.received_bytes(&format!("tcp://{connected}:8866"));
                assert!(received.is_some_and(|bytes| bytes > 0), "{connected}: {received:?}");
            }
            let mut receiver = receiver(&["tcp://127.0.0.1:1"]);
            match receiver.inbound.connect("tcp://[fe80::1%nosuch]:8866") {
                Ok(()) => receiver.await_while(&Event::Answer, || {}),
                Err(e) => assert!(e.to_string().contains("fe80::1%nosuch"), "{e}"),
            }
        });
    };
    within(LIMIT, test);
}

/// The address to bind is known when the publisher has been created; the other ends have their own time.
#[test]
fn what_is_bound_by_name_has_its_time() {
    let test = || {
        alone(
            "names::what_is_bound_by_name_has_its_time",
            "127.0.0.5 here.test",
            |names| {
                let publisher = pub_sub("tcp://here.test:8866").outbound().unwrap();
                assert_eq!(publisher.address().unwrap(), "tcp://127.0.0.5:8866");
                let silent = pub_sub("tcp://silent.test:8866");
                let error = quickly(8 * SECOND, "binding", || silent.outbound().err().unwrap());
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.to_string().contains("silent.test"), "{error}");
                // A subscriber that binds goes on meanwhile.
                let context = zmq::Context::new();
                let sender = at(&context, "127.0.0.1");
                let bound = "@tcp://bound.test:8868";
                let mut receiver = quickly(PROMPT, "binding", || receiver(&[bound, "tcp://127.0.0.1:8866"]));
                receiver.await_while(&frame("1"), || send(&sender, b"1"));
                names.tell("bound.test", &["127.0.0.6"]);
                let other = bare(&context, zmq::XPUB, false, "tcp://127.0.0.6:8868");
                receiver.await_while(&frame("2"), || send(&other, b"2"));
            },
        );
    };
    within(LIMIT, test);
}

#[test]
fn what_sends_by_name_keeps_its_time_limit() {
    let test = || {
        alone("names::what_sends_by_name_keeps_its_time_limit", "", |names| {
            let context = zmq::Context::new();
            let mut writer = multiproc(">tcp://publisher.test:8866").outbound().unwrap();
            for _ in 0..2 {
                let sent = quickly(SECOND + SLACK, "send", || writer.send(b"D", b"x", SECOND));
                let error = sent.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.to_string().contains("publisher.test"), "{error}");
            }
            let mut publisher = quickly(SECOND + SLACK, "connecting", || {
                pub_sub(">tcp://publisher.test:8867").outbound().unwrap()
            });
            quickly(SECOND + SLACK, "send", || publisher.send(b"D", b"x", SECOND).unwrap());
            let service = bare(&context, zmq::PULL, true, "tcp://127.0.0.1:8866");
            let subscriber = bare(&context, zmq::SUB, true, "tcp://127.0.0.1:8867");
            subscriber.set_subscribe(b"D").unwrap();
            names.tell("publisher.test", &["127.0.0.1"]);
            eventually(LONG, || writer.send(b"D", b"x", SECOND).is_ok());
            service.set_rcvtimeo(10_000).unwrap();
            assert_eq!(service.recv_multipart(0).unwrap(), [b"D", b"x"]);
            eventually(LONG, || {
                publisher.probes().unwrap();
                publisher.send(b"D", b"x", SECOND).unwrap();
                subscriber.recv_msg(zmq::DONTWAIT).is_ok()
            });
        });
    };
    within(LIMIT, test);
}
