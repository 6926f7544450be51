//! A target of the fuzzer: requests for the metrics.

use super::request::answer;

/// A longer request adds nothing but time.
const LONG: usize = 512;

/// A request is answered as soon as it is whole, and the same whatever follows.
pub(crate) fn request(received: &[u8]) {
    let received = received.get(..LONG).unwrap_or(received);
    let metrics = || String::from("metrics");
    let Some(whole) = answer(received, metrics) else {
        return;
    };
    let first = (0..received.len()).find_map(|end| answer(received.get(..end)?, metrics));
    assert!(first.is_none_or(|first| first == whole));
    let text = String::from_utf8(whole).expect("an answer is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
}
