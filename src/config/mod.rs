//! Options: defaults, then a TOML file, then `TABLECAST_*` environment variables, then flags.
//!
//! ```
//! use tablecast::config::{Config, Source};
//!
//! let mut config = Config::from_toml("publisher_bind_address = '*'", "example.toml")?;
//! config.apply_env([("TABLECAST_PUBLISHER_PORT", "9000")])?;
//! config.set("linger_ms", "100", Source::Flag)?;
//! assert_eq!(config.publish_address()?, "tcp://*:9000");
//!
//! let error = config.set("publisher_prot", "9000", Source::Flag).unwrap_err();
//! assert_eq!(error.to_string(), "configuration: unknown flag --publisher-prot; did you mean --publisher-port?");
//! # Ok::<(), tablecast::Error>(())
//! ```

mod address;
mod database;
mod fault;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod join_frames;
mod network;
mod options;
mod path;
mod redis;
mod resubscribe;
mod secret;
mod socket;
mod source;
mod template;

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub use address::Transport;
#[cfg(feature = "zmq")]
pub(crate) use address::is_curve_key;
#[cfg(feature = "redis")]
pub(crate) use address::is_host_port;
#[cfg(any(feature = "redis", feature = "zmq"))]
pub(crate) use address::shown as shown_address;
pub(crate) use address::{join_key, split_key};
pub use join_frames::JoinFrames;
pub use options::{Config, OptionDoc};
#[cfg(feature = "redis")]
pub(crate) use redis::RedisAddress;
pub use resubscribe::Resubscribe;
pub use secret::Secret;
#[cfg(feature = "zmq")]
pub(crate) use socket::MAX_SOCKET_PATH;
pub use source::Source;

use crate::error::{Error, ErrorKind, Result};
use fault::{contradiction, is_hidden, outside_section, unknown, unknown_section, wrong, wrong_type};
use options::OPTIONS;
use source::{ENVIRONMENT_PREFIX, SECTION};

/// Prefix of the variables of the project's own tests, which are not options.
const TEST_PREFIX: &str = "TABLECAST_TEST_";

impl Config {
    /// Returns options for use within one process: drivers and store in memory, for tests. Nodes with the same
    /// `network` receive each other's updates; the whole process shares one store.
    pub fn in_memory(network: &str) -> Config {
        Config {
            pub_sub_driver: "memory".into(),
            pub_sub_use_multiproc: false,
            publisher_transport: Transport::Inproc,
            publisher_bind_address: network.into(),
            nb_db_class: "memory".into(),
            ..Config::default()
        }
    }

    /// Reads the options from the TOML file, if given, and the environment, and validates them. If the file has a
    /// `[tablecast]` section, the options are read from it alone, and the other sections and keys belong to the program;
    /// a key of an option outside it is an error.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read; [`ErrorKind::Config`] if an option is unknown, a value is wrong,
    /// or options contradict each other. The text names the option, the value, its source, and what was expected.
    pub fn load(file: Option<&Path>) -> Result<Config> {
        Config::default().loaded(file, [])
    }

    /// As [`Config::load`], but starts from the current values of `self`, and applies `flags` last: pairs of an
    /// option's name and its value.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn loaded<'a>(
        mut self,
        file: Option<&Path>,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Config> {
        if let Some(file) = file {
            self.apply_file(file)?;
        }
        self.apply_env(std::env::vars_os())?;
        for (name, value) in flags {
            self.set(name, value, Source::Flag)?;
        }
        self.validate()?;
        Ok(self)
    }

    /// Returns the value of the option `name`, as it would be written in the environment, with passwords hidden. `None`
    /// if there is no such option.
    pub fn get(&self, name: &str) -> Option<String> {
        let option = find(name)?;
        let value = (option.get)(self);
        Some(match option.secret && !value.is_empty() {
            true => "***".into(),
            false => address::without_password(&value),
        })
    }

    /// Returns the defaults, changed by a TOML text; errors call the text `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as [`Config::load`]; contradictions are left to [`Config::validate`].
    pub fn from_toml(text: &str, name: &str) -> Result<Config> {
        let mut config = Config::default();
        config.apply_toml(text, name)?;
        Ok(config)
    }

    /// Applies the options of a TOML file, as [`Config::load`] does, and returns the names of those that it sets.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] and [`ErrorKind::Config`] as [`Config::load`]; contradictions are left to
    /// [`Config::validate`].
    pub fn apply_file(&mut self, file: &Path) -> Result<Vec<&'static str>> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|e| {
            let context = format!("cannot read the options from file {name}");
            Error::new(ErrorKind::Io, context).with_source(e)
        })?;
        self.apply_toml(&text, &name)
    }

    fn apply_toml(&mut self, text: &str, name: &str) -> Result<Vec<&'static str>> {
        self.apply_table(&toml_options(text, name)?, Source::File(name))
    }

    fn apply_table(&mut self, table: &toml::Table, source: Source<'_>) -> Result<Vec<&'static str>> {
        let mut names = Vec::new();
        for (key, value) in table {
            let option = find(key).ok_or_else(|| match (value.is_table(), source) {
                (true, Source::File(name)) => {
                    let sections = table.iter().filter(|(_, value)| value.is_table());
                    unknown_section(key, sections.map(|(section, _)| section.as_str()), name)
                }
                _ => unknown(key, source),
            })?;
            let text = toml_text(option, value).ok_or_else(|| wrong_type(option, &value.to_string(), source))?;
            self.set(key, &text, source)?;
            names.push(option.name);
        }
        Ok(names)
    }

    /// Applies the variables whose names begin with `TABLECAST_`; commas separate the items of a list. A variable that
    /// names no option may belong to another program: it is skipped with a warning in the log.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as [`Config::load`], also for a variable that is not UTF-8.
    pub fn apply_env<K: Into<OsString>, V: Into<OsString>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        for (variable, value) in variables {
            let (variable, value) = (variable.into(), value.into());
            let variable = variable.to_string_lossy();
            if !variable.starts_with(ENVIRONMENT_PREFIX) || variable.starts_with(TEST_PREFIX) {
                continue;
            }
            let Some(option) = OPTIONS.iter().find(|option| option.variable() == variable) else {
                log::warn!("{}", unknown(&variable, Source::Environment));
                continue;
            };
            let text = value
                .to_str()
                .ok_or_else(|| wrong(option, &format!("{value:?}"), Source::Environment))?;
            self.set(option.name, text, Source::Environment)?;
        }
        Ok(())
    }

    /// Sets the option with this name from text; commas separate the items of a list.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such option or the value is wrong; the option then keeps its value.
    pub fn set(&mut self, name: &str, value: &str, source: Source<'_>) -> Result<()> {
        let option = find(name).ok_or_else(|| unknown(&source.spell(name), source))?;
        // The wrong part may be one of a password.
        let hidden = Some(value).filter(|value| is_hidden(option, value));
        (option.set)(self, value).map_err(|part| wrong(option, hidden.unwrap_or(&part), source))
    }

    /// Checks every value, also those that the program has assigned, and that no options contradict each other.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with the option, its value, and what was expected.
    pub fn validate(&self) -> Result<()> {
        for option in OPTIONS {
            (option.check)(self).map_err(|value| wrong(option, &value, Source::Program))?;
        }
        self.publish_address()?;
        self.check_redis()?;
        let (interval, timeout) = (self.heartbeat_interval_ms, self.heartbeat_timeout_ms);
        if timeout <= interval {
            return contradiction(
                "heartbeat_timeout_ms",
                timeout,
                "more than heartbeat_interval_ms",
                interval,
            );
        }
        if self.redis_tls_cert.as_os_str().is_empty() != self.redis_tls_key.as_os_str().is_empty() {
            let (cert, key) = (&self.redis_tls_cert, &self.redis_tls_key);
            return contradiction("redis_tls_cert", cert, "to be set together with redis_tls_key", key);
        }
        if self.curve_secret_key_file.as_os_str().is_empty() && !self.curve_allowed_clients.as_os_str().is_empty() {
            let (clients, pair) = (&self.curve_allowed_clients, &self.curve_secret_key_file);
            let expected = "to be set together with curve_secret_key_file";
            return contradiction("curve_allowed_clients", clients, expected, pair);
        }
        let (interval, max) = (self.reconnect_interval_ms, self.reconnect_max_ms);
        if max < interval {
            return contradiction("reconnect_max_ms", max, "at least reconnect_interval_ms", interval);
        }
        let long = self
            .topics
            .iter()
            .find(|topic| topic.as_str().len() > self.max_topic_bytes);
        match long {
            Some(topic) => contradiction("topics", topic, "at most max_topic_bytes", self.max_topic_bytes),
            None => Ok(()),
        }
    }

    /// Returns all options, in the order of the documentation.
    #[doc(hidden)]
    pub fn options() -> &'static [OptionDoc] {
        OPTIONS
    }

    /// Returns all options as the Markdown table of the page of options.
    #[doc(hidden)]
    pub fn options_table() -> String {
        let mut table = "| option | default | unit | accepts | meaning |\n|---|---|---|---|---|\n".to_owned();
        for option in OPTIONS {
            let OptionDoc {
                name,
                unit,
                accepts,
                doc,
                ..
            } = option;
            let default = match option.default {
                "" => "(empty)",
                default => &format!("`{default}`"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(table, "| `{name}` | {default} | {unit} | {accepts} | {doc} |");
        }
        table
    }
}

/// Options within a program's own configuration, in any format of serde: those that are not given have their defaults.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Options {
///     threads: usize,
///     #[serde(default)]
///     tablecast: tablecast::Config,
/// }
///
/// let text = r#"{"threads": 4, "tablecast": {"publisher_port": 9000, "topics": ["tenant1"]}}"#;
/// let options: Options = serde_json::from_str(text).unwrap();
/// assert_eq!((options.threads, options.tablecast.publisher_port), (4, 9000));
/// ```
///
/// As with [`Config::from_toml`], contradictions are left to [`Config::validate`].
impl<'de> serde::Deserialize<'de> for Config {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Config, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        let mut config = Config::default();
        let applied = config.apply_table(&table, Source::Program);
        applied.map_err(serde::de::Error::custom)?;
        Ok(config)
    }
}

/// Expands a path as the options do: a leading `~/`, and `$NAME` and `${NAME}`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if it is a URL, or cannot be expanded, for example since a variable is not set.
#[doc(hidden)]
pub fn expanded_path(text: &str) -> Result<PathBuf> {
    let expanded = path::expand(text, |name| std::env::var_os(name));
    expanded.map_err(|reason| Error::new(ErrorKind::InvalidInput, format!("path {text:?}: {reason}")))
}

/// The part of a TOML text that has the options; other sections are the program's own.
fn toml_options(text: &str, name: &str) -> Result<toml::Table> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut table: toml::Table = toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let context = format!("file {name}, line {line}: not TOML: {}", e.message());
        Error::new(ErrorKind::Config, context)
    })?;
    match table.remove(SECTION) {
        Some(toml::Value::Table(section)) => {
            let outside = table
                .iter()
                .find(|(key, value)| find(key).is_some() && !value.is_table());
            outside.map_or(Ok(section), |(key, _)| Err(outside_section(key, name)))
        }
        Some(other) => {
            table.insert(SECTION.into(), other);
            Ok(table)
        }
        None => Ok(table),
    }
}

/// The value as it would be written in the environment; `None` if it has the wrong type.
fn toml_text(option: &OptionDoc, value: &toml::Value) -> Option<String> {
    if value.type_str() != option.toml_type {
        return None;
    }
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Array(items) => {
            let items = items.iter().map(|item| item.as_str().filter(|item| is_item(item)));
            items.collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        number_or_flag => Some(number_or_flag.to_string()),
    }
}

/// True if this can be an item of a list in a file; an address may be of several hosts.
fn is_item(item: &str) -> bool {
    !item.is_empty() && (!item.contains(',') || item.contains("://"))
}

fn find(name: &str) -> Option<&'static OptionDoc> {
    OPTIONS.iter().find(|option| option.name == name)
}
