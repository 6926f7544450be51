//! The options of a driver, and its keys.

use std::ops::Deref;
use std::sync::Arc;

use crate::error::Result;

use super::curve::Curve;
use super::options::ZmqOptions;

/// The options, with the keys that they name.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    options: ZmqOptions,
    pub(super) curve: Arc<Curve>,
}

impl Settings {
    pub(super) fn new(options: ZmqOptions) -> Result<Settings> {
        let curve = Arc::new(Curve::of(&options)?);
        Ok(Settings { options, curve })
    }
}

impl Deref for Settings {
    type Target = ZmqOptions;

    fn deref(&self) -> &ZmqOptions {
        &self.options
    }
}
