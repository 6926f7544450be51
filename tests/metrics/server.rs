//! The server: its addresses, and clients that are slow or many.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tablecast::{Config, ErrorKind, Metrics, Node};

use crate::common::{Stopwatch, within};
use crate::scrape::{request, scrape};
use crate::{LIMIT, LONG};

fn metrics(name: &str) -> Metrics {
    Metrics::new(&Node::open(&Config::in_memory(name)).unwrap())
}

#[test]
fn slow_clients_hold_up_no_scrape() {
    within(LIMIT, || {
        let server = metrics("metrics-slow").serve("127.0.0.1:0").unwrap();
        let mut silent: Vec<TcpStream> = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(server.address()).unwrap());
        }
        let mut slow = TcpStream::connect(server.address()).unwrap();
        for byte in b"GET /met" {
            slow.write_all(&[*byte]).unwrap();
            let start = Instant::now();
            scrape(server.address());
            // The clients' own limit of time is longer.
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
        // The slow one is served too.
        slow.write_all(b"rics HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        slow.set_read_timeout(Some(LONG)).unwrap();
        std::io::Read::read_to_string(&mut slow, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

        let start = Stopwatch::start();
        let address = server.address();
        drop(server);
        start.assert_within(Duration::from_secs(1), "drop");
        assert!(TcpStream::connect(address).is_err());
    });
}

#[test]
fn requests_are_bounded() {
    within(LIMIT, || {
        let server = metrics("metrics-bounded").serve("0").unwrap();
        let status = |line: &str| request(server.address(), line).0;
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");
        assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(
            status("PUT /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(status("SSH-2.0-x\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    });
}

#[test]
fn a_wrong_address_is_a_typed_error() {
    within(LIMIT, || {
        let metrics = metrics("metrics-address");
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let fails = |address: &str| metrics.serve(address).unwrap_err();
        for address in ["", "x", "localhost", "localhost:", ":99999", "::1:80", "-1"] {
            let error = fails(address);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{address:?}: {error}");
            assert!(error.to_string().contains(&format!("{address:?}")), "{error}");
        }
        let error = fails(&taken.to_string());
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        assert_eq!(fails("no.host.invalid:80").kind(), ErrorKind::Io);
        for loopback in ["0", ":0"] {
            let server = metrics.serve(loopback).unwrap();
            assert!(server.address().ip().is_loopback() && server.address().port() != 0);
            assert_eq!(server.url(), format!("http://{}/metrics", server.address()));
        }
    });
}
