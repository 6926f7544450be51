//! Drivers and stores that other processes reach too: without them a command would be alone.

use tablecast::{Config, Error, ErrorKind, Result};

/// Fails if a driver stays within this process.
pub(crate) fn driver(config: &Config) -> Result<()> {
    check("pub_sub_driver", &config.pub_sub_driver, "zmq or redis")?;
    check(
        "pub_sub_multiproc_driver",
        &config.pub_sub_multiproc_driver,
        "zmq-multiproc",
    )
}

/// Fails if the store stays within this process.
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
