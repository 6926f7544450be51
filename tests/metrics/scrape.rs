//! The text of a scrape, read strictly, and a client for the server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use tablecast::metrics::{Kind, Series, series};

use crate::LONG;

/// The samples by name and labels, as they are written.
#[derive(Debug)]
pub(crate) struct Scrape {
    samples: BTreeMap<String, f64>,
    pub(crate) families: BTreeSet<String>,
}

impl Scrape {
    /// Reads a text: each line has to be right, and what it says has to be as the table of series says.
    pub(crate) fn read(text: &str) -> Scrape {
        assert!(text.ends_with('\n'), "{text}");
        let mut scrape = Scrape {
            samples: BTreeMap::new(),
            families: BTreeSet::new(),
        };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line
                .strip_prefix("# HELP ")
                .unwrap_or_else(|| panic!("no HELP: {line:?}"));
            let (name, help) = help.split_once(' ').unwrap();
            let known = series().iter().find(|series| series.name == name);
            let known = known.unwrap_or_else(|| panic!("not in the table: {name}"));
            assert_eq!(known.help, help);
            assert_eq!(lines.next(), Some(&*format!("# TYPE {name} {}", known.kind)));
            assert_eq!(known.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(scrape.families.insert(name.to_owned()), "twice: {name}");
            let mut buckets: Vec<(String, f64)> = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
                check_sample(known, sample, value, &mut buckets);
                let is_new = scrape.samples.insert(sample.to_owned(), value).is_none();
                assert!(is_new, "twice: {sample}");
            }
        }
        scrape
    }

    /// The value of a sample, named as it is written.
    #[track_caller]
    pub(crate) fn value(&self, sample: &str) -> f64 {
        let value = self.samples.get(sample);
        *value.unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples))
    }

    /// True if there is a sample of this name that has this label and value.
    pub(crate) fn has(&self, name: &str, label: &str) -> bool {
        let mut samples = self
            .samples
            .keys()
            .filter_map(|sample| sample.strip_suffix('}')?.split_once('{'));
        samples.any(|(of, labels)| of == name && labels.split(',').any(|one| one == label))
    }

    /// The samples whose names begin so.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.samples.keys().filter(|sample| sample.starts_with(name)).count()
    }
}

/// Checks the name, the labels and the value of a sample; `buckets` are those of the histogram so far.
fn check_sample(series: &Series, sample: &str, value: f64, buckets: &mut Vec<(String, f64)>) {
    let (name, labels) = match sample.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (sample, ""),
    };
    let mut labels = read_labels(labels);
    match series.kind {
        Kind::Histogram => {
            let part = name.strip_prefix(series.name).unwrap();
            if part == "_bucket" {
                let (label, _) = labels.pop().unwrap();
                assert_eq!(label, "le", "{sample}");
                let of = format!("{labels:?}");
                let before = buckets.last().filter(|(bucket, _)| *bucket == of);
                assert!(
                    before.is_none_or(|(_, before)| *before <= value),
                    "not cumulative: {sample}"
                );
                buckets.push((of, value));
            } else if part == "_count" {
                assert_eq!(buckets.last().map(|(_, count)| *count), Some(value), "{sample}");
            } else {
                assert_eq!(part, "_sum", "{sample}");
            }
        }
        _ => assert_eq!(name, series.name),
    }
    assert!(series.kind == Kind::Gauge || value >= 0.0, "{sample} {value}");
    let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, series.labels, "{sample}");
}

/// Labels in the form `name="value",name="value"`.
fn read_labels(mut text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name:?}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c => {
                        assert!(matches!(c, '\\' | '"'), "{text}");
                        value.push(c);
                    }
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        text = &rest[end..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

/// The status line and the body of the answer to a request.
pub(crate) fn request(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let (status, headers) = head.split_once("\r\n").unwrap();
    assert!(
        headers.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    (status.to_owned(), body.to_owned())
}

/// What is served at this address.
pub(crate) fn scrape(address: SocketAddr) -> Scrape {
    let (status, body) = request(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    Scrape::read(&body)
}
