//! Arguments that several commands have.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use tablecast::config::expanded_path;
use tablecast::{Config, Result, Topic};

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
            config.topics = topics.collect::<Result<_>>()?;
        }
        if !self.publisher.is_empty() {
            config.publishers.clone_from(&self.publisher);
        }
        config.validate()
    }
}

/// A path, expanded as in options: a shell leaves `--file=~/x` and quoted paths as they are.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|given: OsString| match given.to_str() {
        Some(text) => expanded_path(text),
        None => Ok(given.into()),
    })
}

/// A number of seconds, for example `0.5`.
pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    seconds
        .and_then(|seconds| seconds.ok())
        .ok_or_else(|| "expected a number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_fractions() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "-1", "inf", "nan", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
