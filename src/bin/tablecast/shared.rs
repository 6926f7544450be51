//! Drivers and stores that other processes reach too: without them a command would be alone.

use tablecast::{Config, Error, ErrorKind, Result};

/// Fails if the driver of subscribers stays within this process.
pub(crate) fn network(config: &Config) -> Result<()> {
    check("pub_sub_driver", &config.pub_sub_driver, "zmq or redis")
}

/// Fails if the driver to the publisher service does.
pub(crate) fn multiproc(config: &Config) -> Result<()> {
    let alias = &config.pub_sub_multiproc_driver;
    check("pub_sub_multiproc_driver", alias, "zmq-multiproc")
}

/// Fails if the publisher's driver does.
pub(crate) fn publisher(config: &Config) -> Result<()> {
    match config.pub_sub_use_multiproc {
        true => multiproc(config),
        false => network(config),
    }
}

/// Fails if the store does.
pub(crate) fn store(config: &Config) -> Result<()> {
    check("nb_db_class", &config.nb_db_class, "sqlite or redis")
}

fn check(option: &str, alias: &str, others: &str) -> Result<()> {
    if alias != "memory" {
        return Ok(());
    }
    let context = format!("option {option}: memory is not shared between processes; choose {others}");
    Err(Error::new(ErrorKind::Config, context))
}
