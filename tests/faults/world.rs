//! The surroundings of servers and nodes: a store, and the carrier between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tablecast::{Config, DispatcherHandle, ListenerOptions, NotifierOptions, Publisher, Store, Stores, Subscriber};

use super::stage::SEND_TIMEOUT;
use super::store;

/// The carrier of status updates and their answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Between {
    /// Every process binds a port of its own, and is found through the store.
    Ports,
    /// The publisher service: its socket, and the address that it publishes at.
    Service(PathBuf, String),
    /// A Redis server, `host:port`.
    Redis(String),
}

/// The surroundings of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) between: Between,
    /// A file, or the address of a Redis server.
    pub(crate) store: String,
    pub(crate) hello_interval: Duration,
    /// The time after which a listener that does not renew its row is gone.
    pub(crate) timeout: Duration,
    pub(crate) ack_timeout: Duration,
}

/// How often all processes look at the registry.
const LOOK: Duration = Duration::from_millis(100);

impl World {
    /// Time limit of a call to the store.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout / 3
    }

    /// The options of subscriber and publisher.
    fn config(&self) -> Config {
        let mut config = self.store_config();
        config.topics = Vec::new();
        config.hello_interval_ms = self.hello_interval;
        config.send_timeout_ms = SEND_TIMEOUT;
        config.listener_timeout_ms = self.timeout;
        config.ack_timeout_ms = self.ack_timeout;
        config.publisher_port = 0;
        config.pub_sub_use_multiproc = false;
        match &self.between {
            Between::Ports => config.discover = true,
            Between::Service(socket, address) => {
                config.pub_sub_use_multiproc = true;
                config.publisher_multiproc_socket.clone_from(socket);
                config.publishers = vec![address.clone()];
            }
            Between::Redis(host) => {
                config.pub_sub_driver = "redis".into();
                config.remote_db_hosts = vec![host.clone()];
            }
        }
        config
    }

    fn store_config(&self) -> Config {
        let mut config = store::config(&self.store, self.patience());
        config.discover_interval_ms = LOOK;
        config
    }

    pub(crate) fn open_store(&self) -> Arc<dyn Store> {
        Stores::new().open(&self.store_config()).unwrap()
    }

    pub(crate) fn listener(&self) -> ListenerOptions {
        (&self.config()).into()
    }

    pub(crate) fn notifier(&self) -> NotifierOptions {
        (&self.config()).into()
    }
}

/// The parts that every process has.
pub(crate) struct Parts {
    pub(crate) dispatcher: DispatcherHandle,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) publisher: Arc<Publisher>,
    _node: tablecast::Node,
}

impl Parts {
    pub(crate) fn open(world: &World) -> Parts {
        let node = tablecast::Node::open(&world.config()).unwrap();
        Parts {
            dispatcher: node.dispatcher().unwrap(),
            subscriber: node.subscriber().unwrap(),
            publisher: node.publisher().unwrap(),
            _node: node,
        }
    }
}
