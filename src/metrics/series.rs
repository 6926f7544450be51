//! The one table of all series.

use std::fmt;

/// The kind of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of values by size.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        })
    }
}

/// A series, or, with labels, a family of series.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct Series {
    /// Its name. A histogram has the three series with `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning.
    pub help: &'static str,
}

/// Returns all series, in the order in which they are written.
#[doc(hidden)]
pub fn series() -> &'static [&'static Series] {
    ALL
}

/// Makes a constant of each series, and the table of all.
macro_rules! series {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) static $id: Series = Series {
            name: concat!("tablecast_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        static ALL: &[&Series] = &[$(&$id),+];
    };
}

series! {
    BUILD_INFO: Gauge "build_info" ["version"] "1; the version of the library";
    START_TIME: Gauge "start_time_seconds" [] "when the first metrics of the process were made, in seconds since 1970";
    BACKGROUND_ERRORS: Counter "background_errors_total" ["kind"] "failures in the background, of the whole process";
    FAILED_THREADS: Counter "failed_threads_total" [] "threads that have ended unasked, of the whole process";

    FRAMES_RECEIVED: Counter "frames_received_total" [] "frames received";
    FRAMES_DROPPED: Counter "frames_dropped_total" ["reason"] "frames not valid, or of foreign topics (filtered)";
    HELLOS_RECEIVED: Counter "hellos_received_total" [] "hellos and goodbyes received";
    UPDATES_RECEIVED: Counter "updates_received_total" [] "updates that went into the queue";
    UPDATES_DUPLICATE: Counter "updates_duplicate_total" [] "updates dropped: delivered before, or declared missing";
    UPDATES_UNNUMBERED: Counter "updates_unnumbered_total" [] "updates without numbers, whose losses do not show";
    UPDATES_LOST: Counter "updates_lost_total" [] "numbers of updates found to be missing";
    ID_CLASHES: Counter "publisher_id_clashes_total" [] "times that two publishers were found to use one id";
    SUBSCRIBER_ERRORS: Counter "subscriber_errors_total" [] "failures of the subscriber in the background";
    ADDRESSES: Gauge "subscriber_addresses" ["state"] "listen addresses by state";
    TOPICS: Gauge "subscriber_topics" [] "registered topics";

    QUEUE_UPDATES: Gauge "queue_updates" [] "updates pending in the queue";
    QUEUE_CAPACITY: Gauge "queue_capacity_updates" [] "maximum of pending updates";
    QUEUE_REMOVED: Counter "queue_removed_updates_total" ["reason"] "updates replaced or dropped in the queue";
    UPDATES_DISPATCHED: Counter "updates_dispatched_total" [] "updates taken from the queue";
    UPDATES_UNHANDLED: Counter "updates_unhandled_total" [] "updates without a callback";
    UPDATE_LAG: Histogram "update_lag_seconds" [] "time from send to callback, by the clocks of both hosts";
    CALLBACKS: Counter "callbacks_total" [] "calls of callbacks";
    CALLBACK_FAILURES: Counter "callback_failures_total" ["reason"] "callbacks that failed";
    SYNC_EVENTS: Counter "sync_events_total" ["reason"] "sync events handed out";

    UPDATES_SENT: Counter "updates_sent_total" [] "updates accepted from the program";
    UPDATES_UNSENT: Counter "updates_unsent_total" ["reason"] "updates refused, or accepted and then lost";
    SUBSCRIBERS: Gauge "subscribers" ["part"] "subscribers of the publisher or the service, where the driver knows";
    CONNECTIONS: Gauge "accepted_connections" ["transport"] "open connections to bound addresses, of the whole process";
    REFUSED: Counter "refused_connections_total" ["transport"] "refused for lack of file descriptors, of the whole process";
    REDIS_CONNECTIONS: Gauge "redis_connections" [] "connections to Redis servers and Sentinels, of the whole process";
    HELLOS_SENT: Counter "hellos_sent_total" ["part"] "hellos sent by the publisher or the service";
    SERVICE_RUNNING: Gauge "service_running" [] "1 while the publisher service can forward, otherwise 0";
    SERVICE_FORWARDED: Counter "service_forwarded_frames_total" [] "frames that the service passed on";
    SERVICE_DROPPED: Counter "service_dropped_frames_total" ["reason"] "frames that the service did not pass on";
    SERVICE_ERRORS: Counter "service_errors_total" [] "failures of the service to receive";

    MONITOR_POLLS: Counter "monitor_polls_total" ["table", "result"] "polls of a monitored table";
    MONITOR_ROWS: Counter "monitor_read_rows_total" ["table"] "rows that a monitor read";
    MONITOR_PUBLISHED: Counter "monitor_updates_total" ["table", "action"] "updates that a monitor published";
    MONITOR_WENT_BACK: Counter "monitor_store_went_back_total" ["table"] "times that the store went back";
    MONITOR_FAILURES: Counter "monitor_failures_total" ["table"] "failed polls, and rows that break a limit";

    REPLICA_ROWS: Gauge "replica_rows" [] "rows held";
    REPLICA_MALFORMED: Gauge "replica_malformed_rows" [] "rows held that do not decode";
    REPLICA_SYNCED: Gauge "replica_synced" [] "1 if all rows of all tables have been read, otherwise 0";
    REPLICA_UPDATES: Counter "replica_updates_total" ["result"] "updates by what the replica did with them";
    REPLICA_CHECKS: Counter "replica_checks_total" [] "requests for the last versions of a table's topics";
    REPLICA_RESYNCS: Counter "replica_resyncs_total" ["kind"] "reads begun of a topic: of its changes, or of all its rows";
    REPLICA_RESYNC_ROWS: Counter "replica_resync_rows_total" ["kind"] "rows and deletes read in resyncs";
    REPLICA_READ_BYTES: Counter "replica_read_bytes_total" [] "keys and values read from the store";
    REPLICA_WENT_BACK: Counter "replica_store_went_back_total" [] "times that the store went back";
    REPLICA_FAILURES: Counter "replica_read_failures_total" [] "failed reads of the store";
    REPLICA_DIFFERENCES: Counter "replica_differences_total" [] "differences found by comparisons with the store";
    REPLICA_TOPICS: Gauge "replica_topics" ["state"] "topics held, of each table: proven once they were read";
    REPLICA_STALENESS_MAX: Gauge "replica_staleness_max_seconds" [] "age of the oldest proof that nothing is missing";
    REPLICA_STALENESS_PERCENTILE: Gauge "replica_staleness_percentile_seconds" ["percentile"] "ages of these proofs over topics";
    REPLICA_STALENESS: Gauge "replica_staleness_seconds" ["table", "topic"] "age of the topic's proof";
    REPLICA_POSITION: Gauge "replica_position" ["table", "topic"] "version up to which all is held";

    LISTENER_FAILED: Counter "listener_failed_total" [] "handled status updates whose handler panicked";
    LISTENER_EVENTS: Counter "listener_events_total" ["result"] "status updates, by what came of them";
    LISTENER_CLAIMS: Gauge "listener_claims" [] "status updates not confirmed yet, and claims still to be removed";
    NOTIFIER_NOTIFIED: Counter "notifier_notified_total" [] "status updates passed to a notifier";
    NOTIFIER_SENT: Counter "notifier_sent_total" [] "messages sent with status updates";
    NOTIFIER_RETRIED: Counter "notifier_retried_total" [] "messages that repeated a status update";
    NOTIFIER_ACKNOWLEDGED: Counter "notifier_acknowledged_total" [] "status updates that a listener has processed";
    NOTIFIER_FAILED: Counter "notifier_failed_total" [] "those of them whose handler panicked";
    NOTIFIER_PENDING: Gauge "notifier_pending" [] "status updates that are not yet acknowledged";
    NOTIFIER_TIMES: Histogram "notifier_acknowledgement_seconds" [] "time to the acknowledgement, at most 3 % too long";

    STORE_CALLS: Histogram "store_call_duration_seconds" ["call"] "time of calls of the store";
    STORE_ERRORS: Counter "store_errors_total" ["kind"] "failed calls of the store, including reads of rows that do not exist";
}
