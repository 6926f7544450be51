//! Foreign clients: only one that is on the list, and knows the server's key, is let in.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::LIMIT;
use crate::common::{free_port, within};
use crate::party::{Party, assert_outside, await_line, bare, payloads, receive, send, send_until_got};

#[test]
fn outsiders_hear_nothing_of_a_publisher() {
    within(LIMIT, || {
        let party = Party::new();
        let (listed, outsiders) = party.guests();
        let mut outbound = tablecast::transport::Driver::outbound(&party.driver()).unwrap();
        let address = outbound.address().unwrap();
        let mut listed = listed.start("sub", &address);
        let mut outsiders = outsiders.map(|guest| guest.start("sub", &address));
        for outsider in &mut outsiders {
            await_line(outsider, "out", || ());
        }
        await_line(&mut listed, "in", || ());
        send_until_got(&mut *outbound, "D", 20, &mut listed);
        // Nor do their subscriptions reach the publisher.
        assert_eq!(outbound.subscribers(), Some(1));
        outsiders
            .into_iter()
            .for_each(|outsider| assert_outside(outsider, None));
    });
}

#[test]
fn outsiders_are_not_heard_by_a_bound_subscriber() {
    within(LIMIT, || {
        let party = Party::new();
        let (listed, outsiders) = party.guests();
        let address = format!("@tcp://127.0.0.1:{}", free_port());
        let mut inbound = receive(&party.driver(), &address);
        let mut outsiders = outsiders.map(|guest| guest.start("pub", &address));
        let _listed = listed.start("pub", &address);
        for outsider in &mut outsiders {
            await_line(outsider, "out", || ());
        }
        let heard = payloads(&mut *inbound, |all| all.len() >= 50);
        assert!(heard.iter().all(|name| name == "listed"), "{heard:?}");
        outsiders
            .into_iter()
            .for_each(|outsider| assert_outside(outsider, None));
    });
}

#[test]
fn old_protocols_without_keys_are_refused() {
    within(LIMIT, || {
        let party = Party::new();
        let mut outbound = tablecast::transport::Driver::outbound(&party.driver()).unwrap();
        let address = outbound.address().unwrap();
        // ZMTP 1 and 2: a greeting, and a subscription to everything.
        let greetings: [&[u8]; 2] = [
            &[1, 0, 2, 0, 1],
            &[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1, 2, 0, 0, 0, 1, 1],
        ];
        for greeting in greetings {
            let mut stream = TcpStream::connect(bare(&address).trim_start_matches("tcp://")).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            stream.write_all(greeting).unwrap();
            let (mut heard, mut bytes) = (Vec::new(), [0; 1024]);
            loop {
                send(&mut *outbound, "D");
                match stream.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => heard.extend_from_slice(&bytes[..count]),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
            assert!(!heard.windows(5).any(|window| window == b"value"), "{heard:?}");
            assert_eq!(outbound.subscribers(), Some(0));
        }
    });
}
