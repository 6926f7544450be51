//! What a program that both publishes and subscribes needs, for status updates.

use std::sync::Arc;

use tablecast::registry::{Discovery, Registration};
use tablecast::{
    Config, Dispatcher, DispatcherOptions, Drivers, Error, ErrorKind, Publisher, Result, Store, Stores, Subscriber,
};

use crate::output;

/// How a command takes part in the network.
#[derive(Debug, clap::Args)]
pub(crate) struct SeatArgs {
    /// Hear the publisher at this address; may be repeated [default: the option publishers, and with discover all that
    /// are registered].
    #[arg(long, value_name = "URI")]
    publisher: Vec<String>,
    /// Bind the port instead of sending through the publisher service of this host.
    #[arg(long)]
    no_multiproc: bool,
}

/// Takes part in the network, until it is dropped.
pub(crate) struct Seat {
    _discovery: Option<Discovery>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) publisher: Arc<Publisher>,
    /// Gone after the publisher: who follows it has its goodbye by then.
    _registration: Option<Registration>,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) dispatcher: Dispatcher,
}

impl Seat {
    /// Takes it, as the options and the arguments say, and tells a port that nobody chose.
    pub(crate) fn take(mut config: Config, args: &SeatArgs) -> Result<Seat> {
        config.pub_sub_use_multiproc &= !args.no_multiproc;
        if !args.publisher.is_empty() {
            config.publishers.clone_from(&args.publisher);
        }
        let seat = Seat::open(&mut config)?;
        if let Some(address) = seat.publisher.address()
            && config.publisher_port == 0
        {
            output::say(&format!("publishing at {address}"));
        }
        Ok(seat)
    }

    /// Takes it, as the options say; hears nothing yet but what is for itself.
    pub(crate) fn open(config: &mut Config) -> Result<Seat> {
        config.topics.clear();
        config.validate()?;
        let (drivers, stores) = (Drivers::new(), Stores::new());
        if config.nb_db_class == "memory" {
            let context = "store memory: listeners and nodes meet in a store that they share; choose sqlite or redis";
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        let store = stores.open(config)?;
        let publisher = Arc::new(Publisher::open(config, &drivers)?);
        let dispatcher = Dispatcher::new(DispatcherOptions::from(&*config))?;
        let subscriber = Arc::new(Subscriber::open(config, &drivers, dispatcher.queue())?);
        subscriber.daemonize()?;
        Ok(Seat {
            _discovery: Discovery::open(config, &stores, &subscriber, None)?,
            store,
            _registration: Registration::of_publisher(config, &stores, publisher.address(), None)?,
            publisher,
            subscriber,
            dispatcher,
        })
    }
}
