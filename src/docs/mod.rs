//! Pages about tablecast as a whole, one module a page.

/// Makes a module of each page. The links between pages are defined before the text, where rustdoc takes them from;
/// the files define them a second time, as files. Pictures stand at the end of the page: rustdoc loads no files.
macro_rules! pages {
    ($($page:ident: $summary:literal, $reference:expr;)+) => {$(
        #[doc = $summary]
        ///
        /// [guarantees]: crate::docs::guarantees
        /// [replicas]: crate::docs::replicas
        /// [status updates]: crate::docs::status_updates
        /// [discovery]: crate::docs::discovery
        /// [monitors]: crate::docs::monitors
        /// [command line]: crate::docs::command_line
        /// [options]: crate::docs::options
        /// [operating]: crate::docs::operating
        /// [metrics]: crate::docs::metrics
        /// [security]: crate::docs::security
        /// [wire format]: crate::docs::wire_format
        /// [Dragonflow]: crate::docs::dragonflow
        /// [writing a driver]: crate::docs::writing_a_driver
        /// [writing a store]: crate::docs::writing_a_store
        /// [testing]: crate::docs::testing_your_program
        /// [benchmarks]: crate::docs::benchmarks
        /// [picture of two processes]: #plot-end_to_end
        /// [picture of redis]: #plot-redis
        /// [picture of monitors]: #plot-monitor
        /// [picture of the codec]: #plot-codec
        /// [picture of the queue]: #plot-queue
        /// [picture of metrics]: #plot-metrics
        /// [picture of the deployment]: #plot-deployment
        /// [picture of top]: #plot-top
        ///
        #[doc = include_str!(concat!(stringify!($page), ".md"))]
        ///
        #[doc = $reference]
        pub mod $page {}
    )+};
}

pages! {
    guarantees: "Promises about losses, order, load and stopping, and their limits.",
        "In the reference: [`SyncReason`](crate::SyncReason), [`Subscriber::wait_live`](crate::Subscriber::wait_live), \
        [`Subscriber::status`](crate::Subscriber::status), [`ErrorKind`](crate::ErrorKind).";
    replicas: "Copies of tables that catch up by themselves.",
        "In the reference: [`Replica`](crate::Replica), [`ReplicaOptions`](crate::ReplicaOptions), \
        [`RowChange`](crate::replica::RowChange), [`Database::barrier`](crate::Database::barrier).";
    status_updates: "Status updates of nodes, each processed by one of many servers.",
        "In the reference: [`Listener`](crate::Listener), [`Notifier`](crate::Notifier), [`Delivery`](crate::Delivery).";
    discovery: "Publishers that register in the store, and subscribers that follow them.",
        "In the reference: [`Registration`](crate::registry::Registration), [`Discovery`](crate::registry::Discovery).";
    monitors: "Tables that other programs write without publishing.",
        "In the reference: [`Monitor`](crate::Monitor), [`Store::table_version`](crate::Store::table_version).";
    command_line: "The tool `tablecast`.", include_str!("plots/top.svg");
    options: "Every option, with its default, unit and meaning.", "In the reference: [`Config`](crate::Config).";
    operating: "Limits, files, signals, logs, and libzmq.", include_str!("plots/deployment.svg");
    metrics: "What Prometheus can ask of a node.",
        concat!("In the reference, with its feature: the module `metrics`.\n\n", include_str!("plots/metrics.svg"));
    security: "Encrypted and authenticated connections, and their limits.",
        "In the reference: [`KeyPair`](crate::drivers::zmq::KeyPair), \
        [`ZmqOptions`](crate::drivers::zmq::ZmqOptions).";
    wire_format: "Messages as they are on the network.", "In the reference: [`codec`](crate::codec).";
    dragonflow: "Networks that Dragonflow's processes share.", "";
    writing_a_driver: "A transport of the program's own.",
        "In the reference: [`transport`](crate::transport), [`Drivers`](crate::Drivers).";
    writing_a_store: "A database of the program's own.",
        "In the reference: [`store`](crate::store), [`Stores`](crate::Stores).";
    testing_your_program: "Unit tests without servers, with faults on command.",
        "In the reference: [`Config::in_memory`](crate::Config::in_memory), and with its feature the module `testing`.";
    benchmarks: "Speed, and the commands that measure it.",
        concat!(
            include_str!("plots/end_to_end.svg"), "\n", include_str!("plots/redis.svg"), "\n",
            include_str!("plots/monitor.svg"), "\n", include_str!("plots/codec.svg"), "\n",
            include_str!("plots/queue.svg"), "\n", include_str!("plots/metrics.svg")
        );
}

/// The programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
