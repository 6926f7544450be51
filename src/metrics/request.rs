//! Requests over HTTP and their answers, without a socket.

use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The longest head of a request.
const MAX: usize = 8 << 10;

/// The answer to what has come so far; `None` if more has to come. `metrics` is called for a request for them.
pub(super) fn answer(received: &[u8], metrics: impl FnOnce() -> String) -> Option<Vec<u8>> {
    let is_end = |at: &usize| received[*at..].starts_with(b"\n\r\n") || received[*at..].starts_with(b"\n\n");
    if (0..received.len()).find(is_end).is_none() {
        let is_too_long = received.len() >= MAX;
        return is_too_long.then(|| text("431 Request Header Fields Too Large", "the request is too long\n"));
    }
    let line = received.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let &[method, target, version] = words.as_slice() else {
        return Some(text("400 Bad Request", "this is no HTTP request\n"));
    };
    if !version.starts_with("HTTP/1.") {
        return Some(text("505 HTTP Version Not Supported", "only HTTP/1.1 is served\n"));
    }
    if method != "GET" {
        let body = "only GET is served\n";
        return Some(response("405 Method Not Allowed", "text/plain", "Allow: GET\r\n", body));
    }
    Some(match target.split('?').next() {
        Some("/metrics") => response("200 OK", CONTENT_TYPE, "", &metrics()),
        Some("/") => {
            let body = "<!DOCTYPE html><title>tablecast</title><a href=\"/metrics\">metrics</a>\n";
            response("200 OK", "text/html; charset=utf-8", "", body)
        }
        _ => text("404 Not Found", "only /metrics is served\n"),
    })
}

fn text(status: &str, body: &str) -> Vec<u8> {
    response(status, "text/plain", "", body)
}

fn response(status: &str, content: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {length}\r\n");
    format!("{head}{more}Connection: close\r\n\r\n{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> Option<String> {
        let response = answer(request.as_bytes(), || "the metrics".into())?;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let status = head.strip_prefix("HTTP/1.1 ").unwrap().lines().next().unwrap();
        assert_eq!(
            body == "the metrics",
            status == "200 OK" && request.contains("/metrics")
        );
        Some(status.to_owned())
    }

    #[test]
    fn only_get_of_the_metrics_is_answered() {
        let status = |line: &str| status(&format!("{line}\r\nHost: x\r\n\r\n")).unwrap();
        assert_eq!(status("GET /metrics HTTP/1.1"), "200 OK");
        assert_eq!(status("GET /metrics?x=1 HTTP/1.0"), "200 OK");
        assert_eq!(status("GET / HTTP/1.1"), "200 OK");
        assert_eq!(status("GET /metricsx HTTP/1.1"), "404 Not Found");
        assert_eq!(status("POST /metrics HTTP/1.1"), "405 Method Not Allowed");
        assert_eq!(status("GET /metrics HTTP/2"), "505 HTTP Version Not Supported");
        for garbage in ["", "GET", "GET  /metrics HTTP/1.1", "\u{1b}\u{0}"] {
            assert_eq!(status(garbage), "400 Bad Request", "{garbage:?}");
        }
    }

    #[test]
    fn a_request_is_answered_once_it_is_whole_or_too_long() {
        let whole = "GET /metrics HTTP/1.1\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(status(&whole[..end]), None, "{end}");
        }
        assert_eq!(status("GET /metrics HTTP/1.1\n\n").as_deref(), Some("200 OK"));
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX));
        assert_eq!(status(&long).as_deref(), Some("431 Request Header Fields Too Large"));
    }
}
