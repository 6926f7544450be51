//! The options of each part, made from a [`Config`]: parts know only their own. Those of drivers and stores are made
//! further down, for their registries.

use crate::config::Config;
use crate::database::DatabaseOptions;
use crate::dispatcher::DispatcherOptions;
use crate::listener::{ListenerOptions, NotifierOptions};
use crate::monitor::MonitorOptions;
use crate::publisher::PublisherOptions;
use crate::queue::QueueOptions;
use crate::registry::RegistryOptions;
use crate::replica::ReplicaOptions;
use crate::service::ServiceOptions;
use crate::subscriber::SubscriberOptions;

impl From<&Config> for DispatcherOptions {
    fn from(config: &Config) -> DispatcherOptions {
        DispatcherOptions {
            queue: config.into(),
            workers: config.dispatcher_workers,
            hook: None,
        }
    }
}

impl From<&Config> for QueueOptions {
    fn from(config: &Config) -> QueueOptions {
        QueueOptions {
            capacity: config.queue_capacity,
            overflow: config.queue_overflow,
            max_overtake: config.queue_max_overtake_ms,
        }
    }
}

impl From<&Config> for SubscriberOptions {
    fn from(config: &Config) -> SubscriberOptions {
        SubscriberOptions {
            max_message_bytes: config.max_message_bytes,
            max_topic_bytes: config.max_topic_bytes,
            live_timeout: config.live_timeout_ms,
            retry_interval: config.reconnect_interval_ms,
            retry_max: config.reconnect_max_ms,
            hello_interval: config.hello_interval_ms,
            continuity: config.continuity,
            resync_without_hellos: config.resync_without_hellos_ms,
            resubscribe: config.resubscribe,
            hook: None,
        }
    }
}

impl From<&Config> for PublisherOptions {
    fn from(config: &Config) -> PublisherOptions {
        let id = config.publisher_id.as_str();
        PublisherOptions {
            id: (!id.is_empty()).then(|| id.into()),
            codec: config.codec,
            send_timeout: config.send_timeout_ms,
            max_message_bytes: config.max_message_bytes,
            max_topic_bytes: config.max_topic_bytes,
            max_key_bytes: config.max_key_bytes,
            hello_interval: config.hello_interval_ms,
            hook: None,
        }
    }
}

impl From<&Config> for ServiceOptions {
    fn from(config: &Config) -> ServiceOptions {
        ServiceOptions {
            send_timeout: config.send_timeout_ms,
            max_message_bytes: config.max_message_bytes,
            codec: config.codec,
            hello_interval: config.hello_interval_ms,
            hook: None,
        }
    }
}

impl From<&Config> for DatabaseOptions {
    fn from(config: &Config) -> DatabaseOptions {
        DatabaseOptions {
            timeout: config.store_timeout_ms,
        }
    }
}

impl From<&Config> for MonitorOptions {
    /// The first poll waits until the subscribers of an earlier run have had time to connect again.
    fn from(config: &Config) -> MonitorOptions {
        MonitorOptions {
            interval: config.monitor_interval_ms,
            delay: config.reconnect_max_ms.saturating_add(config.hello_interval_ms),
            hook: None,
        }
    }
}

impl From<&Config> for RegistryOptions {
    fn from(config: &Config) -> RegistryOptions {
        RegistryOptions {
            timeout: config.publisher_timeout_ms,
            interval: config.discover_interval_ms,
            hook: None,
        }
    }
}

impl From<&Config> for ReplicaOptions {
    /// With the topics of the options.
    fn from(config: &Config) -> ReplicaOptions {
        ReplicaOptions {
            topics: config.topics.clone(),
            registry: config.into(),
            ..ReplicaOptions::default()
        }
    }
}

impl From<&Config> for ListenerOptions {
    fn from(config: &Config) -> ListenerOptions {
        ListenerOptions {
            timeout: config.listener_timeout_ms,
            interval: config.discover_interval_ms,
            ..ListenerOptions::default()
        }
    }
}

impl From<&Config> for NotifierOptions {
    fn from(config: &Config) -> NotifierOptions {
        NotifierOptions {
            ack_timeout: config.ack_timeout_ms,
            notify_timeout: config.send_timeout_ms,
            timeout: config.listener_timeout_ms,
            interval: config.discover_interval_ms,
            ..NotifierOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "zmq")]
    use crate::drivers::zmq::ZmqOptions;
    #[cfg(feature = "redis")]
    use crate::redis::RedisOptions;
    use crate::store::StoreOptions;

    /// Compares each field, but for those that no option sets. A new field has to be named.
    macro_rules! agree {
        ($options:ident { $($field:ident),+ } $(but $($other:ident),+)?) => {{
            let $options { $($field,)+ $($($other: _,)+)? } = $options::default();
            let of_config = $options::from(&Config::default());
            $(assert_eq!($field, of_config.$field, concat!(stringify!($options), "::", stringify!($field)));)+
        }};
    }

    #[test]
    fn the_defaults_of_the_parts_are_those_of_the_options() {
        agree!(DispatcherOptions { workers } but queue, hook);
        agree!(QueueOptions {
            capacity,
            overflow,
            max_overtake
        });
        agree!(SubscriberOptions {
            max_message_bytes, max_topic_bytes, live_timeout, retry_interval, retry_max, hello_interval, continuity,
            resync_without_hellos, resubscribe
        } but hook);
        agree!(PublisherOptions {
            id, codec, send_timeout, max_message_bytes, max_topic_bytes, max_key_bytes, hello_interval
        } but hook);
        agree!(ServiceOptions { send_timeout, max_message_bytes, codec, hello_interval } but hook);
        agree!(DatabaseOptions { timeout });
        agree!(MonitorOptions { interval } but delay, hook);
        agree!(RegistryOptions { timeout, interval } but hook);
        agree!(ListenerOptions { timeout, interval } but id, retention, hook);
        agree!(NotifierOptions { ack_timeout, notify_timeout, timeout, interval } but id, delivery, window, capacity, hook);
        agree!(StoreOptions {
            batch_amount,
            timeout,
            deletes_remembered
        });
        #[cfg(feature = "zmq")]
        agree!(ZmqOptions {
            send_hwm, receive_hwm, linger, heartbeat_interval, heartbeat_timeout, reconnect_interval, reconnect_max,
            max_frame_bytes, multicast_rate, multicast_recovery, join_frames, curve_secret_key_file,
            curve_allowed_clients, curve_server_key
        } but socket_mode, socket_group);
        #[cfg(feature = "redis")]
        agree!(RedisOptions {
            user, tls, tls_ca, tls_cert, tls_key, heartbeat_interval, heartbeat_timeout, reconnect_interval,
            reconnect_max, max_frame_bytes, join_frames, retries
        } but password);
    }
}
