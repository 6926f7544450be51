//! The faults, a test each.

/// The tests of scenarios, one for each store.
macro_rules! on_every_store {
    ($($scenario:ident),* $(,)?) => {$(
        mod $scenario {
            use crate::stage::Backend;

            #[test]
            fn sqlite() {
                super::$scenario(Backend::Sqlite);
            }

            #[cfg(feature = "redis")]
            #[test]
            fn redis() {
                super::$scenario(Backend::Redis);
            }

            #[cfg(feature = "redis")]
            #[test]
            fn cluster() {
                super::$scenario(Backend::Cluster);
            }
        }
    )*};
}

mod callbacks;
mod fleet;
mod flood;
mod killed;
mod lost;
mod names;
mod network;
mod odd;
mod registry;
mod replicas;
#[cfg(feature = "redis")]
mod status;
mod stopped;

use serde_json::Value;

use crate::proxy::Message;

/// The fields of the update, or of the first one of a batch; null if there is none.
fn fields(message: &Message) -> Value {
    let payload = message.frames.get(1).map_or(&[][..], |payload| payload);
    match rmp_serde::from_slice(payload).unwrap_or_default() {
        Value::Array(mut batch) if !batch.is_empty() => batch.swap_remove(0),
        fields => fields,
    }
}

/// True for an update, false for a message between publisher and subscriber.
fn is_update(message: &Message) -> bool {
    fields(message)["table"].is_string()
}
