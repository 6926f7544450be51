//! Arguments that several commands have.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::{OsStringValueParser, TypedValueParser};
use crossbeam_channel::{Receiver, after, never};
use tablecast::config::expanded_path;
use tablecast::{Config, Error, ErrorKind, Result, Topic};

/// The publishers and topics to listen to.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Listen to this topic; may be repeated [default: the option topics].
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Listen to the publisher at this address; may be repeated [default: the option publishers].
    #[arg(long, value_name = "URI")]
    publisher: Vec<String>,
}

impl Listen {
    /// Puts what was given in the place of the options.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<()> {
        if !self.topic.is_empty() {
            let topics = self.topic.iter().map(|topic| Topic::new(topic.as_str()));
            let given = topics.collect::<Result<_>>().and_then(|topics| {
                config.topics = topics;
                config.validate()
            });
            given.map_err(|e| e.context("--topic"))?;
        }
        listen_to(&self.publisher, config)
    }
}

/// Puts the publishers that `--publisher` names, if any, in the place of the option.
pub(crate) fn listen_to(publishers: &[String], config: &mut Config) -> Result<()> {
    if publishers.is_empty() {
        return Ok(());
    }
    config.publishers = publishers.to_vec();
    config.validate().map_err(|e| e.context("--publisher"))
}

/// The end of a command that prints updates as they come.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Until {
    /// End after this many printed updates.
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<u64>,
    /// End after this many seconds; with --count this is a failure.
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
}

impl Until {
    /// Receives a message when the time has passed.
    pub(crate) fn deadline(self) -> Receiver<Instant> {
        self.timeout.map_or_else(never, after)
    }

    pub(crate) fn is_enough(self, printed: u64) -> bool {
        self.count == Some(printed)
    }

    pub(crate) fn interrupted(self, printed: u64) -> Result<()> {
        self.end(ErrorKind::Stopped, "a signal came", printed)
    }

    pub(crate) fn timed_out(self, printed: u64) -> Result<()> {
        self.end(ErrorKind::Timeout, "--timeout passed", printed)
    }

    /// The end before the count, if there is one.
    fn end(self, kind: ErrorKind, why: &str, printed: u64) -> Result<()> {
        match self.count {
            None => Ok(()),
            Some(count) => Err(Error::new(kind, format!("{why} after {printed} of {count} updates"))),
        }
    }
}

/// A path, expanded as in options: a shell leaves `--file=~/x` and quoted paths as they are.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|given: OsString| match given.to_str() {
        Some(text) => expanded_path(text),
        None => Ok(given.into()),
    })
}

/// The most seconds of a wait: thirty years.
const MOST: f64 = 1e9;

/// A number of seconds, for example `0.5`.
pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    seconds_from(0.0, text)
}

/// As [`seconds`], at least this many.
pub(crate) fn seconds_from(least: f64, text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (least..=MOST).contains(seconds));
    let seconds = seconds.map(Duration::from_secs_f64);
    seconds.ok_or_else(|| format!("expected seconds from {least} to {MOST}, for example 0.5"))
}

/// A number of things, at least one.
pub(crate) fn count(text: &str) -> std::result::Result<u64, String> {
    number::<u64, 1, { u64::MAX }>(text)
}

/// A whole number in this range.
pub(crate) fn number<T: TryFrom<u64>, const LEAST: u64, const MOST: u64>(text: &str) -> std::result::Result<T, String> {
    let number = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    let number = number.and_then(|number: u64| number.try_into().ok());
    number.ok_or_else(|| match MOST {
        u64::MAX => format!("expected a whole number from {LEAST}"),
        _ => format!("expected a whole number from {LEAST} to {MOST}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_fractions() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("1e9"), Ok(Duration::from_secs(1_000_000_000)));
        for bad in ["", "x", "-1", "inf", "nan", "1e300"] {
            let expected = "expected seconds from 0 to 1000000000, for example 0.5";
            assert_eq!(seconds(bad).unwrap_err(), expected, "{bad}");
        }
        assert!(seconds_from(0.1, "0").is_err() && seconds_from(0.1, "0.1").is_ok());
    }
}
