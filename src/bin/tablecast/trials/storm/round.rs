//! One storm: listeners as processes, nodes in this one, and the outcome.

use std::time::{Duration, Instant};

use tablecast::listener::Latency;
use tablecast::{Action, DbUpdate, Node, Notifier, Result};

use super::listener::{ListenerArgs, Order, Report};
use crate::seat;
use crate::trials::stage::progress::Progress;
use crate::trials::stage::{self, Choice, Driver, Process, Setup, Stage, Who, config_of, wire};

/// The participants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) nodes: usize,
    /// The number of updates of each node.
    pub(super) ports: usize,
    pub(super) listeners: usize,
    /// The workers of each listener's dispatcher.
    pub(super) workers: usize,
    /// Microseconds of computing for an update.
    pub(super) work: u64,
}

impl Round {
    pub(super) fn updates(&self) -> usize {
        self.nodes * self.ports
    }
}

/// The result of a storm.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) round: Round,
    /// From the start of the first node until every node knows and hears all listeners.
    pub(super) online: Duration,
    /// From the first update to the last acknowledgement.
    pub(super) took: Duration,
    /// From an update to its acknowledgement.
    pub(super) latency: Latency,
    pub(super) retried: u64,
    /// The number of updates that each listener has processed.
    pub(super) handled: Vec<usize>,
    /// The number of processors that each listener has kept busy.
    pub(super) cores: Vec<f64>,
    /// The numbers of updates not processed, and processed again.
    pub(super) lost: usize,
    pub(super) again: usize,
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.again == 0
    }
}

/// The interval of looks at the progress.
const TICK: Duration = Duration::from_millis(20);

impl Round {
    /// Starts all nodes at once; gives up when nothing was acknowledged for `timeout`.
    ///
    /// # Errors
    /// If a process cannot be started or ends too early, and `Timeout` if the nodes do not come online.
    pub(super) fn play(
        self,
        stage: &Stage,
        setup: &Setup,
        timeout: Duration,
        progress: &mut Progress,
    ) -> Result<Outcome> {
        let deadline = Instant::now() + stage::START;
        let (redis, to_redis) = stage.start_redis(setup, deadline)?;
        let servers = Vec::from_iter(redis);
        let driver: &[Choice] = match setup.driver {
            Driver::Redis => &[("pub_sub_driver", "redis".into())],
            Driver::Zmq => &[("publisher_port", "0".into()), ("discover", "true".into())],
        };
        let direct = [("pub_sub_use_multiproc", "false".into())];
        let options = [&setup.common, &to_redis, driver, &direct, &stage.store(setup)].concat();
        let mut listeners = self.start_listeners(stage, &options)?;
        let before: Vec<u64> = hear_all(stage, listeners.len(), deadline, |report| match report {
            Report::Ready { cpu } => Ok(cpu),
            report => Err(report),
        })?;

        let start = Instant::now();
        let nodes = Nodes::start(&self, stage, setup.driver, &options)?;
        let online = start.elapsed();
        let start = Instant::now();
        nodes.notify(self.ports)?;
        nodes.wait(stage, timeout, progress)?;
        let took = start.elapsed();

        let told = ask_all(stage, &mut listeners, &Order::Tell, |report| match report {
            Report::Processed { keys, cpu } => Ok((keys, cpu)),
            report => Err(report),
        })?;
        let (latency, retried) = nodes.counted();
        settle(stage, &mut listeners, timeout)?;
        drop(nodes);
        stage::end(listeners)?;
        stage::end(servers)?;
        let handled = told.iter().map(|(keys, _)| keys.len()).collect();
        let used = told.iter().zip(before).map(|((_, after), before)| after - before);
        let cores = used.map(|micros| micros as f64 / 1e6 / took.as_secs_f64()).collect();
        let (lost, again) = compare(self.updates(), told.iter().flat_map(|(keys, _)| keys));
        Ok(Outcome {
            round: self,
            online,
            took,
            latency,
            retried,
            handled,
            cores,
            lost,
            again,
        })
    }

    fn start_listeners(&self, stage: &Stage, options: &[Choice]) -> Result<Vec<Process>> {
        let start = |number| {
            let options = [options, &[("dispatcher_workers", self.workers.to_string())]].concat();
            stage.start(Who::Listener(number), &ListenerArgs::command_line(self.work), &options)
        };
        (0..self.listeners).map(start).collect()
    }
}

/// Waits until no copy of an update is under way; gives up after `timeout`.
fn settle(stage: &Stage, listeners: &mut [Process], timeout: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < timeout {
        let unsettled: Vec<u64> = ask_all(stage, listeners, &Order::Count, |report| match report {
            Report::Unsettled(count) => Ok(count),
            report => Err(report),
        })?;
        if unsettled.iter().all(|count| *count == 0) {
            break;
        }
        stage.rest(TICK)?;
    }
    Ok(())
}

/// Asks all listeners, and returns their reports in order.
fn ask_all<T>(
    stage: &Stage,
    listeners: &mut [Process],
    order: &Order,
    read: impl Fn(Report) -> std::result::Result<T, Report>,
) -> Result<Vec<T>> {
    listeners.iter_mut().try_for_each(|listener| listener.order(order))?;
    hear_all(stage, listeners.len(), Instant::now() + stage::START, read)
}

/// Waits for one report of each listener; returns them in order.
fn hear_all<T>(
    stage: &Stage,
    count: usize,
    deadline: Instant,
    read: impl Fn(Report) -> std::result::Result<T, Report>,
) -> Result<Vec<T>> {
    let mut heard: Vec<Option<T>> = (0..count).map(|_| None).collect();
    while heard.iter().any(Option::is_none) {
        let Some((who, line)) = stage.hear(deadline)? else {
            return Err(stage::late("a listener does not answer"));
        };
        let report = read(wire::read(&line)?).map_err(|report| stage::unexpected(who, &report))?;
        match who {
            Who::Listener(number) => heard[number] = Some(report),
            who => return Err(stage::unexpected(who, &line)),
        }
    }
    Ok(heard.into_iter().flatten().collect())
}

/// The numbers of `updates` missing from `processed`, and of repeated ones.
fn compare<'a>(updates: usize, processed: impl Iterator<Item = &'a u32>) -> (usize, usize) {
    let mut times = vec![0_usize; updates];
    let mut again = 0;
    for key in processed {
        match times.get_mut(*key as usize) {
            Some(0) => times[*key as usize] = 1,
            // Includes keys that were never sent.
            _ => again += 1,
        }
    }
    (times.iter().filter(|times| **times == 0).count(), again)
}

/// The nodes: each is a notifier with its own topic; they share a publisher and a subscriber.
struct Nodes {
    // Dropped first, since they use the node.
    notifiers: Vec<Notifier>,
    _node: Node,
}

impl Nodes {
    /// Starts the nodes; returns when each knows and hears all listeners.
    fn start(round: &Round, stage: &Stage, driver: Driver, options: &[Choice]) -> Result<Nodes> {
        let node = seat::open(config_of(options)?)?;
        let (subscriber, publisher) = (node.subscriber()?, node.publisher()?);
        let deadline = Instant::now() + stage::START;
        let left = || deadline.saturating_duration_since(Instant::now());
        if driver == Driver::Zmq {
            // The nodes' own publisher is one of them.
            while subscriber.status().addresses.len() <= round.listeners {
                if left().is_zero() {
                    return Err(stage::late("not every listener's publisher is found"));
                }
                stage.rest(TICK)?;
            }
            publisher.wait_subscribers(round.listeners + 1, left())?;
        }
        let notifiers: Vec<_> = (0..round.nodes).map(|_| node.notifier()).collect::<Result<_>>()?;
        for notifier in &notifiers {
            notifier.wait_listeners(round.listeners, left())?;
        }
        subscriber.wait_live(left())?;
        Ok(Nodes { notifiers, _node: node })
    }

    /// Sends the status of all ports of every node at once.
    fn notify(&self, ports: usize) -> Result<()> {
        for port in 0..ports {
            for (node, notifier) in self.notifiers.iter().enumerate() {
                let key = (node * ports + port).to_string();
                notifier.notify(DbUpdate::new("lport", key, Action::Set).value(r#"{"status":"up"}"#))?;
            }
        }
        Ok(())
    }

    fn wait(&self, stage: &Stage, timeout: Duration, progress: &mut Progress) -> Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let stats = self.notifiers.iter().map(Notifier::stats);
            let (acknowledged, pending) =
                stats.fold((0, 0), |sum, stats| (sum.0 + stats.acknowledged, sum.1 + stats.pending));
            progress.at(acknowledged);
            if acknowledged != last {
                (last, moved) = (acknowledged, Instant::now());
            }
            if pending == 0 || moved.elapsed() > timeout {
                return Ok(());
            }
            stage.rest(TICK)?;
        }
    }

    fn counted(&self) -> (Latency, u64) {
        let mut latency = Latency::default();
        self.notifiers
            .iter()
            .for_each(|notifier| latency.merge(&notifier.latency()));
        let retried = self.notifiers.iter().map(|notifier| notifier.stats().retried).sum();
        (latency, retried)
    }
}
