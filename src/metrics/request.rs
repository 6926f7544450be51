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
    if !matches!(method, "GET" | "HEAD") {
        let body = "only GET and HEAD are served\n";
        return Some(response(
            "405 Method Not Allowed",
            "text/plain",
            "Allow: GET, HEAD\r\n",
            body,
        ));
    }
    let mut response = match path(target) {
        "/metrics" => response("200 OK", CONTENT_TYPE, "", &metrics()),
        "/" => {
            let body = "<!DOCTYPE html><title>tablecast</title><a href=\"/metrics\">metrics</a>\n";
            response("200 OK", "text/html; charset=utf-8", "", body)
        }
        _ => text("404 Not Found", "only /metrics is served\n"),
    };
    if method == "HEAD" {
        let head = response.windows(4).position(|end| end == b"\r\n\r\n");
        response.truncate(head.map_or(response.len(), |head| head + 4));
    }
    Some(response)
}

/// The path of a target, which proxies name as a whole URL.
fn path(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    }
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
        let is_head = request.starts_with("HEAD");
        let response = answer(request.as_bytes(), || "the metrics".into())?;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let length = if is_head { "the metrics".len() } else { body.len() };
        assert!(head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
        let status = head.strip_prefix("HTTP/1.1 ").unwrap().lines().next().unwrap();
        assert_eq!(
            body == "the metrics",
            status == "200 OK" && request.contains("/metrics") && !is_head
        );
        Some(status.to_owned())
    }

    #[test]
    fn only_requests_for_the_metrics_are_answered() {
        let status = |line: &str| status(&format!("{line}\r\nHost: x\r\n\r\n")).unwrap();
        assert_eq!(status("GET /metrics HTTP/1.1"), "200 OK");
        assert_eq!(status("GET /metrics?x=1 HTTP/1.0"), "200 OK");
        assert_eq!(status("HEAD /metrics HTTP/1.1"), "200 OK");
        assert_eq!(status("GET http://host:1/metrics?x HTTP/1.1"), "200 OK");
        assert_eq!(status("GET http://host:1 HTTP/1.1"), "200 OK");
        assert_eq!(status("GET http://host:1/other HTTP/1.1"), "404 Not Found");
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
