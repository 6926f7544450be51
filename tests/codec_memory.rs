//! The memory that a payload costs a receiver, as the system counts it: alone in its process, since all memory is
//! counted.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use common::within;
use tablecast::Topic;
use tablecast::codec::{Decoder, MAX_UPDATES, Message};

const MIB: usize = 1 << 20;

/// Half of what a subscriber accepts by default.
const LARGE: usize = 8 * MIB;

/// A field of `/proc/self/status`, in bytes.
fn memory(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit())
        .parse::<usize>()
        .unwrap()
        << 10
}

/// The highest additional memory of the process during decoding, and whether the payload was accepted.
fn cost(payload: &[u8]) -> (usize, bool) {
    let mut out = Vec::new();
    // Resets the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let decoded = Decoder::new().decode(&Topic::ALL, payload, &mut out);
    let peak = memory("VmHWM:");
    assert!(
        decoded.is_ok() || out.capacity() < 100,
        "room for {} is kept",
        out.capacity()
    );
    (peak.saturating_sub(before), decoded.is_ok())
}

/// `head`, `body` as often as it fits, and `tail`; in JSON with commas between.
fn filled(head: &[u8], body: &[u8], separator: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut payload = head.to_vec();
    payload.extend_from_slice(body);
    while payload.len() < LARGE {
        payload.extend_from_slice(separator);
        payload.extend_from_slice(body);
    }
    payload.extend_from_slice(tail);
    payload
}

const ROW: &[u8] = b"\x84\xa5table\xa1t\xa3key\xa1k\xa6action\xa1s\xa5value";

/// One test at a time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn a_payload_costs_a_small_multiple_of_its_length() {
    within(Duration::from_secs(100), || {
        let _turn = TURN.lock();
        let many = |body: &[u8]| filled(b"\xdd\x00\x20\x00\x00", body, b"", b"");
        let value = |body: &[u8]| filled(&[ROW, b"\xdd\x7f\xff\xff\xff"].concat(), body, b"", b"");
        let tiny = br#"{"table":"t","key":"k","action":"s"}"#;
        let control = br#"{"table":null,"action":"s"}"#;
        let cases = [
            ("tiny maps", many(b"\x83\xa5table\xa1t\xa3key\xa1k\xa6action\xa1s")),
            ("tiny control messages", many(b"\x82\xa5table\xc0\xa6action\xa1s")),
            ("empty maps", many(b"\x80")),
            ("tiny objects", filled(b"[", tiny, b",", b"]")),
            ("tiny control objects", filled(b"[", control, b",", b"]")),
            ("nulls in a value", value(b"\xc0")),
            ("empty arrays in a value", value(b"\x90")),
            ("nested arrays in a value", value(&[&[0x91; 30][..], b"\xc0"].concat())),
            ("empty maps with empty names in a value", value(b"\x81\xa0\x80")),
            ("floats in a value", value(b"\xca\x00\x80\x00\x01")),
            (
                "control characters in a value",
                value(&[b"\xdb\x00\x01\x00\x00", &[1; 65_536][..]].concat()),
            ),
            (
                "arrays in JSON",
                filled(
                    br#"{"table":"t","key":"k","action":"s","value":["#,
                    b"[[[]]]",
                    b",",
                    b"]}",
                ),
            ),
            (
                "escapes",
                filled(
                    br#"{"table":"t","key":"k","action":"s","value":""#,
                    br"\n",
                    b"",
                    br#""}"#,
                ),
            ),
            (
                "an escaped id",
                filled(
                    br#"{"table":null,"action":"hello","publisher":""#,
                    br"\n",
                    b"",
                    br#""}"#,
                ),
            ),
        ];
        for (what, payload) in &cases {
            let (cost, taken) = cost(payload);
            println!(
                "{what}: {:.1} MiB for {:.1}, {}",
                cost as f64 / MIB as f64,
                payload.len() as f64 / MIB as f64,
                if taken { "taken" } else { "refused" }
            );
            // Text is put together in one buffer and handed on in another.
            assert!(cost < 7 * payload.len(), "{what}: {cost}");
            if what.starts_with("tiny") || what.starts_with("empty maps") && !what.contains("value") {
                assert!(!taken && cost < LARGE, "{what}: {cost}");
            }
        }
    });
}

#[test]
fn messages_that_are_kept_have_short_ids() {
    within(Duration::from_secs(100), || {
        let _turn = TURN.lock();
        let hello = |id: usize| {
            let head =
                r#"{"table":null,"key":null,"action":"hello","value":"{\"every\":1000}","epoch":1,"publisher":""#;
            [head.as_bytes(), &vec![b'i'; id], b"\"}"].concat()
        };
        let mut decoder = Decoder::new();
        let mut kept: Vec<Message> = Vec::new();
        let long = hello(4 * MIB);
        for _ in 0..100 {
            decoder.decode(&Topic::ALL, &long, &mut kept).unwrap_err();
        }
        let longest = hello(255);
        decoder.decode(&Topic::ALL, &longest, &mut kept).unwrap();
        assert_eq!(kept.len(), 1);
        let size = size_of::<Message>();
        println!(
            "{MAX_UPDATES} updates of one payload take {} KiB",
            (MAX_UPDATES * size) >> 10
        );
        assert!(size <= 256, "{size}");
    });
}
