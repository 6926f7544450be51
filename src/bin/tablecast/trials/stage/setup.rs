//! The base of a run: a driver, and possibly a store and a Redis server, started here or already running.

use std::path::PathBuf;

use tablecast::config::Source;
use tablecast::{Config, Error, ErrorKind, Result};

use super::redis;

/// The flags of the command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags<'a> {
    /// `--driver`
    pub(crate) driver: Option<&'a str>,
    /// `--store`
    pub(crate) store: Option<&'a str>,
}

/// The base of a run.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) driver: Driver,
    pub(crate) store: Option<Store>,
    /// The Redis server, if the driver or the store needs one.
    pub(crate) redis: Option<Redis>,
    /// The prefix of topics and tables, which keeps them apart from other users'.
    pub(crate) namespace: String,
    /// Options for every child.
    pub(crate) common: Vec<Choice>,
}

/// An option with its value.
pub(crate) type Choice = (&'static str, String);

/// The transport of the updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Zmq,
    Redis,
}

/// The store of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Redis,
}

#[derive(Debug)]
pub(crate) enum Redis {
    /// To be started, with this program.
    Own(PathBuf),
    /// A running server, with the options that lead to it.
    Running(Vec<Choice>),
}

impl Setup {
    /// # Errors
    /// [`ErrorKind::Config`] if the flags are invalid or contradict each other.
    pub(crate) fn new(config: &Config, flags: Flags<'_>, redis: Option<&str>) -> Result<Setup> {
        let driver = match flags.driver {
            None | Some("zmq") => Driver::Zmq,
            Some("redis") => Driver::Redis,
            Some("memory") => return Err(one_process("driver")),
            Some(other) => return Err(wrong(format!("--driver {other}: expected zmq or redis"))),
        };
        let store = match flags.store {
            None => None,
            Some("sqlite") => Some(Store::Sqlite),
            Some("redis") => Some(Store::Redis),
            Some("memory") => return Err(one_process("store")),
            Some(other) => return Err(wrong(format!("--store {other}: expected sqlite or redis"))),
        };
        let wants_redis = driver == Driver::Redis || store == Some(Store::Redis);
        let redis = match redis {
            _ if wants_redis && !cfg!(feature = "redis") => return Err(wrong("this build lacks Redis".into())),
            None if !wants_redis => None,
            None => Some(Redis::Own(redis::find()?)),
            Some(_) if !wants_redis => {
                return Err(wrong("--redis is for --driver redis and --store redis".into()));
            }
            Some(address) => Some(Redis::Running(running(config, address)?)),
        };
        Ok(Setup {
            driver,
            store,
            namespace: match redis {
                Some(Redis::Running(_)) => format!("tablecast-demo-{:08x}/", random()),
                _ => String::new(),
            },
            redis,
            common: vec![("codec", config.codec.to_string())],
        })
    }

    /// The processes besides writers and subscribers, for people.
    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if self.driver == Driver::Zmq {
            parts.push("a publisher service");
        }
        if let Some(Redis::Own(_)) = self.redis {
            parts.push("a Redis server");
        }
        parts.iter().map(|part| format!("{part}, ")).collect()
    }
}

/// The options that lead to this Redis; those for logins and TLS are this process's.
fn running(config: &Config, address: &str) -> Result<Vec<Choice>> {
    let path = |path: &PathBuf| path.display().to_string();
    let mut options = vec![
        ("remote_db_hosts", address.to_owned()),
        ("redis_tls", config.redis_tls.to_string()),
        ("redis_user", config.redis_user.clone()),
        ("redis_password", config.redis_password.expose().to_owned()),
        ("redis_tls_ca", path(&config.redis_tls_ca)),
        ("redis_tls_cert", path(&config.redis_tls_cert)),
        ("redis_tls_key", path(&config.redis_tls_key)),
    ];
    options.retain(|(_, value)| !value.is_empty());
    config_of(&options).map_err(|e| e.context("--redis"))?;
    Ok(options)
}

/// A configuration with these options and otherwise defaults.
pub(crate) fn config_of(options: &[Choice]) -> Result<Config> {
    let mut config = Config::default();
    for (name, value) in options {
        config.set(name, value, Source::Program)?;
    }
    config.validate()?;
    Ok(config)
}

fn one_process(what: &str) -> Error {
    wrong(format!(
        "--{what} memory stays within one process, and this command starts several"
    ))
}

fn wrong(context: String) -> Error {
    Error::new(ErrorKind::Config, context)
}

fn random() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(driver: Option<&str>, store: Option<&str>, redis: Option<&str>) -> Result<Setup> {
        Setup::new(&Config::default(), Flags { driver, store }, redis)
    }

    #[test]
    fn without_flags_it_is_as_ever() {
        let setup = setup(None, None, None).unwrap();
        assert_eq!((setup.driver, setup.store), (Driver::Zmq, None));
        assert!(setup.redis.is_none() && setup.namespace.is_empty());
        assert_eq!(setup.describe(), "a publisher service, ");
    }

    #[test]
    fn what_cannot_be_followed_says_why() {
        for (driver, store, redis, why) in [
            (Some("memory"), None, None, "one process"),
            (None, Some("memory"), None, "one process"),
            (Some("zmq-multiproc"), None, None, "zmq or redis"),
            (None, Some("etcd"), None, "sqlite or redis"),
            (None, Some("sqlite"), Some("redis://h:1"), "--redis is for"),
        ] {
            let error = setup(driver, store, redis).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "redis")]
    fn a_running_redis_is_not_disturbed() {
        for address in [
            "redis://h:1,g:2/",
            "valkey://me:secret@h:6379",
            "rediss://:secret@h/3",
            "unix:///run/redis.sock",
            "redis-sentinel://me:secret@h1,h2:26379/mymaster",
        ] {
            let running = setup(Some("redis"), None, Some(address)).unwrap();
            assert!(!running.namespace.is_empty());
            let Some(Redis::Running(options)) = running.redis else {
                panic!("{running:?}")
            };
            assert_eq!(config_of(&options).unwrap().redis_address(), address);
        }
    }

    #[test]
    #[cfg(feature = "redis")]
    fn a_wrong_address_shows_no_password() {
        for wrong in [
            "tcp://h:1",
            "redis://",
            "redis://me:secret@h:x",
            "me:secret@h",
            "tcp://me:secret@h",
        ] {
            let error = setup(Some("redis"), None, Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("--redis: option remote_db_hosts"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
