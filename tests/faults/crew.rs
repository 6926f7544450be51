//! Servers and nodes under a storm of status updates, from the scenario's side.

use std::path::PathBuf;
use std::time::Duration;

use super::actor::{Actor, Part};
use super::cast::Service;
use super::checker::{Tally, once};
use super::common::{free_port, pass};
use super::history::{Event, History, Tail};
use super::node::{self, NODE, NodeSpec};
use super::proxy::{Proxy, Way};
use super::server::{self, SERVER, ServerSpec};
use super::stage::{Stage, listed, wait_for};
use super::world::{Between, World};

/// A server's process.
pub(crate) struct Server {
    actor: Actor,
    spec: ServerSpec,
    /// The proxy before its store, if that is reached over a network.
    proxy: Option<Proxy>,
}

impl Server {
    /// Cuts it off from its store in these directions.
    pub(crate) fn cut(&mut self, ways: &[Way]) {
        match &self.proxy {
            Some(proxy) => proxy.cut(ways),
            None => self.actor.ask::<()>(&server::Order::Cut(true)),
        }
    }

    pub(crate) fn mend(&mut self) {
        match &self.proxy {
            Some(proxy) => proxy.mend(),
            None => self.actor.ask::<()>(&server::Order::Cut(false)),
        }
    }

    /// Replaces its listener by another one with the same id while its handler is running.
    pub(crate) fn replace(&mut self) {
        self.actor.ask::<()>(&server::Order::Replace);
    }

    pub(crate) fn kill(mut self) -> ServerSpec {
        self.actor.process().kill();
        self.spec
    }

    /// Ends it cleanly.
    pub(crate) fn end(self) -> ServerSpec {
        self.actor.end();
        self.spec
    }

    /// Stops the process inside its handler, but not while it writes the file of rows, which would block all other
    /// writers. Between the listener's last check of its registration and its handler, no listener could know that it
    /// was stopped.
    pub(crate) fn suspend(&mut self, limit: Duration) {
        let (mut tail, mut is_begun) = (Tail::of(&self.spec.log), false);
        let mut pause = Duration::from_millis(5);
        wait_for(limit, "it is never inside its handler", || {
            self.actor.process().signal("STOP");
            tail.read(|line| is_begun = matches!(line.event, Event::Begun(_)));
            let is_inside = is_begun && is_free(&self.spec.world.store);
            if !is_inside {
                self.resume();
                // On a busy machine the process takes a while to get anywhere.
                pass(pause);
                pause += pause / 2;
            }
            is_inside
        });
    }

    pub(crate) fn resume(&mut self) {
        self.actor.process().signal("CONT");
    }
}

/// True if this store can be written.
fn is_free(store: &str) -> bool {
    if store.starts_with("redis://") {
        return true;
    }
    let file = rusqlite::Connection::open(store).unwrap();
    file.busy_timeout(Duration::from_millis(100)).unwrap();
    file.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
}

/// Three servers, and the nodes that send them updates.
pub(crate) struct Crew<'a> {
    stage: &'a mut Stage,
    world: World,
    pub(crate) servers: Vec<Server>,
    nodes: Vec<Actor>,
    /// Minimum number of updates.
    updates: u64,
    /// Number of servers ever started.
    started: usize,
    _service: Option<Service>,
}

/// The carrier of status updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Ports,
    Service,
    Redis,
}

impl<'a> Crew<'a> {
    /// Begins a storm through this carrier. The store is a file, or a Redis server, `host:port`, which is also the
    /// carrier if that is Redis.
    pub(crate) fn begin(stage: &'a mut Stage, carrier: Carrier, redis: &str, is_file: bool) -> Crew<'a> {
        let service = (carrier == Carrier::Service).then(|| stage.service(free_port(), &[]));
        let between = match &service {
            _ if carrier == Carrier::Redis => Between::Redis(redis.into()),
            None => Between::Ports,
            Some(service) => Between::Service(stage.folder().join("publisher.sock"), service.address.clone()),
        };
        let world = World {
            between,
            store: match is_file {
                true => stage.file("status.db"),
                false => format!("redis://{redis}"),
            },
            hello_interval: stage.hello(),
            timeout: Duration::from_millis(stage.either(1_500, 3_000)),
            ack_timeout: Duration::from_millis(100),
        };
        let mut crew = Crew {
            world,
            servers: Vec::new(),
            nodes: Vec::new(),
            updates: 0,
            started: 0,
            _service: service,
            stage,
        };
        for id in ["a", "b", "c"] {
            let server = crew.server(id);
            crew.servers.push(server);
        }
        crew.start_nodes();
        crew
    }

    fn start_nodes(&mut self) {
        let (nodes, notifiers) = self.stage.either((2, 30), (4, 50));
        // Half of them have one row; the others have so many that a server has more waiting than it processes while an
        // answer is on its way.
        let (rows, updates) = (10, 40);
        for number in 0..nodes {
            let spec = NodeSpec {
                name: number.to_string(),
                folder: self.stage.folder().to_owned(),
                world: self.world.clone(),
                notifiers: [1, rows].repeat(notifiers / 2),
                updates,
            };
            self.nodes.push(Actor::start(&Part::Node(spec)));
        }
        self.updates = nodes * notifiers as u64 * updates;
        for node in &mut self.nodes {
            node.answer::<()>();
            node.tell(&node::Order::Begin(self.servers.len()));
        }
        self.nodes.iter_mut().for_each(Actor::answer::<()>);
    }

    /// Starts a server, and waits until its listener is registered under this id.
    pub(crate) fn server(&mut self, id: &str) -> Server {
        let mut world = self.world.clone();
        let proxy = world.store.strip_prefix("redis://").map(Proxy::plain);
        if let Some(proxy) = &proxy {
            world.store = proxy.address().replace("tcp://", "redis://");
        }
        self.started += 1;
        let spec = ServerSpec {
            log: self.log(self.started),
            id: id.into(),
            world,
        };
        let mut actor = Actor::start(&Part::Server(spec.clone()));
        actor.answer::<()>();
        Server { actor, spec, proxy }
    }

    fn log(&self, number: usize) -> PathBuf {
        self.stage.folder().join(format!("{SERVER}{number:02}"))
    }

    /// Ends one server by `go` and starts another at once, under the same id unless another is given.
    pub(crate) fn change(&mut self, number: usize, go: impl FnOnce(Server) -> ServerSpec, id: Option<&str>) {
        let gone = go(self.servers.remove(number));
        let server = self.server(id.unwrap_or(&gone.id));
        self.servers.insert(number, server);
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.stage.either(30, 300))
    }

    /// Stops the process of this server at a fair moment.
    pub(crate) fn suspend(&mut self, number: usize) {
        let limit = self.limit();
        self.servers[number].suspend(limit);
    }

    /// Waits for a multiple of the timeout after which a silent listener is gone.
    pub(crate) fn pass_timeouts(&self, count: f64) {
        pass(self.world.timeout.mul_f64(count));
    }

    /// Makes this server's handler take so long that a listener silent from now on is gone when it returns. Updates
    /// that wait here meanwhile go to other servers too.
    pub(crate) fn delay(&mut self, number: usize) {
        let time = self.world.timeout * 2;
        self.servers[number].actor.ask::<()>(&server::Order::Slow(time));
    }

    /// Waits until this part of the minimum number of updates is acknowledged in addition.
    pub(crate) fn go_on(&mut self, part: f64) {
        let (limit, count) = (self.limit(), (self.updates as f64 * part) as u64);
        let acknowledged = |crew: &mut Crew<'_>| crew.reports().iter().map(|report| report.acknowledged).sum::<u64>();
        let before = acknowledged(self);
        let what = format!("{count} more are not acknowledged");
        wait_for(limit, &what, || acknowledged(self) >= before + count);
    }

    fn reports(&mut self) -> Vec<node::Report> {
        let nodes = self.nodes.iter_mut();
        nodes.map(|node| node.ask(&node::Order::Report)).collect()
    }

    /// Waits until the nodes see that this server's listener is gone, or present.
    pub(crate) fn await_known(&mut self, number: usize, is_there: bool) {
        let (limit, id) = (self.limit(), self.servers[number].spec.id.clone());
        let what = format!(
            "the nodes do not see that {id} is {}",
            if is_there { "there" } else { "gone" }
        );
        wait_for(limit, &what, || {
            self.nodes.iter_mut().all(|node| {
                let listeners: Vec<String> = node.ask(&node::Order::Listeners);
                // A listener that was taken for dead may have a suffix.
                let is_its = |listener: &String| listener.split(' ').next() == Some(&id);
                listeners.iter().any(is_its) == is_there
            })
        });
    }

    /// Waits until all is acknowledged, ends all processes, and checks the promise. Prints the scenario's line.
    pub(crate) fn verdict(mut self, what: &str) -> Tally {
        self.go_on(0.1);
        let nodes = self.nodes.iter_mut();
        nodes.for_each(|node| node.ask::<()>(&node::Order::Finish));
        wait_for(self.limit(), "not all is acknowledged", || {
            self.reports().iter().all(|report| report.pending == 0)
        });
        let (mut sent, mut retried) = (0, 0);
        for report in self.reports() {
            (sent, retried) = (sent + report.sent, retried + report.retried);
        }
        self.nodes.into_iter().for_each(Actor::end);
        self.servers.into_iter().for_each(|server| drop(server.end()));
        let folder = self.stage.folder();
        let (violations, tally) = once(&History::read_all(folder, SERVER), &History::read_all(folder, NODE));
        self.stage.say(format!(
            "{what}: {tally}, messages {sent}, of them sent again {retried}"
        ));
        assert!(tally.notified >= self.updates, "{what}: {tally}");
        assert!(violations.is_empty(), "{what}: {tally}; {}", listed(&violations));
        tally
    }
}
