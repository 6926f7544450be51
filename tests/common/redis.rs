//! Redis servers for tests, alone and as a cluster. They end with the test, however it ends.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, RedisConnectionInfo, RedisResult};

use crate::common::{eventually, free_port};

/// More than a server takes to start or answer on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// One server, in a folder of its own.
pub(crate) struct Server {
    port: u16,
    folder: tempfile::TempDir,
    args: Vec<String>,
    /// It is a Sentinel, with these lines of configuration.
    sentinel: Option<String>,
    /// The password with which tests log in.
    password: Option<String>,
    running: Option<Running>,
}

/// A shell that runs the server and kills it when the shell's input ends: when this is dropped, and also when the test
/// program was killed. It then removes the folder, unless it was told to keep it.
struct Running {
    shell: Child,
    pid: u32,
}

const SHELL: &str = r#""$@" >>log 2>&1 & echo $!; read -r keep; kill -9 $!; wait; [ "$keep" ] || rm -rf "$PWD""#;

impl Server {
    /// A running server without a password.
    pub(crate) fn start() -> Server {
        Server::with(&[])
    }

    /// A server with these options in addition.
    pub(crate) fn with(args: &[&str]) -> Server {
        Server::new(args, None)
    }

    /// A Sentinel with these lines of configuration; `PORT` is its port.
    pub(crate) fn sentinel(configuration: &str) -> Server {
        Server::new(&[], Some(configuration))
    }

    fn new(args: &[&str], sentinel: Option<&str>) -> Server {
        let deadline = Instant::now() + LONG;
        loop {
            let mut server = Server {
                port: free_port(),
                folder: tempfile::tempdir().unwrap(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                sentinel: sentinel.map(str::to_owned),
                password: None,
                running: None,
            };
            if let Some(lines) = sentinel {
                let lines = lines.replace("PORT", &server.port.to_string());
                fs::write(server.folder.path().join("sentinel.conf"), lines).unwrap();
            }
            if let Some(at) = args.iter().position(|arg| *arg == "--requirepass") {
                server.password = args.get(at + 1).map(|password| (*password).to_owned());
            }
            // Another process may take the port first.
            if server.try_restart() {
                return server;
            }
            assert!(Instant::now() < deadline, "no server starts; its log: {}", server.log());
        }
    }

    /// Starts it again after [`Server::kill`], on the same port and with the same folder.
    pub(crate) fn restart(&mut self) {
        assert!(
            self.try_restart(),
            "the server does not start again; its log: {}",
            self.log()
        );
    }

    fn try_restart(&mut self) -> bool {
        self.kill();
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "sh", "redis-server"]);
        match self.sentinel {
            Some(_) => command.args(["sentinel.conf", "--sentinel"]),
            None => command.args(["--save", "", "--bind", "127.0.0.1", "-::1", "--daemonize", "no"]),
        };
        if self.sentinel.is_none() && !self.args.iter().any(|arg| arg == "--tls-port") {
            command.args(["--port", &self.port.to_string()]);
        }
        let args = self.args.iter().map(|arg| match &**arg {
            "PORT" => self.port.to_string(),
            arg => arg.to_owned(),
        });
        command.args(args).current_dir(self.folder.path());
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        let output = shell.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().unwrap();
        self.running = Some(Running { shell, pid });
        let deadline = Instant::now() + LONG;
        loop {
            let log = self.log();
            let is_ready = log.contains("Ready to accept connections") || log.contains("Sentinel ID is");
            if is_ready && self.is_running() {
                return true;
            }
            if !self.is_running() || Instant::now() > deadline {
                self.kill();
                return false;
            }
            pause();
        }
    }

    fn is_running(&self) -> bool {
        let Some(Running { pid, .. }) = self.running else {
            return false;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, in parentheses, comes the state.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// With what [`Server::ask`] logs in.
    pub(crate) fn log_in_with(mut self, password: &str) -> Server {
        self.password = Some(password.to_owned());
        self
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address in the driver's form.
    pub(crate) fn address(&self) -> String {
        format!("redis://{}", self.host())
    }

    /// Sends it SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(Running { shell, .. }) = &mut self.running {
            shell.stdin.as_mut().unwrap().write_all(b"keep\n").unwrap();
        }
        self.running = None;
        let _ = fs::remove_file(self.folder.path().join("log"));
    }

    /// Makes it hang, until [`Server::resume`].
    pub(crate) fn hang(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        crate::common::signal(self.running.as_ref().unwrap().pid, signal);
    }

    /// The server's memory before `body`, and its peak during it.
    pub(crate) fn growth(&self, body: impl FnOnce()) -> (u64, u64) {
        let pid = self.running.as_ref().unwrap().pid;
        let read = |field: &str| -> u64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let kib = status
                .lines()
                .find_map(|line| line.strip_prefix(field)?.split_whitespace().nth(1));
            kib.unwrap().parse::<u64>().unwrap() << 10
        };
        // Resets the peak.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let before = read("VmRSS");
        body();
        (before, read("VmHWM"))
    }

    fn connect(&self, limit: Duration) -> RedisResult<redis::Connection> {
        let settings = RedisConnectionInfo::default();
        let settings = match &self.password {
            Some(password) => settings.set_password(password.as_str()),
            None => settings,
        };
        let option = |name: &str| {
            self.args
                .iter()
                .rposition(|arg| arg == name)
                .and_then(|at| self.args.get(at + 1))
        };
        let host = option("--bind").map_or("127.0.0.1", String::as_str);
        let port = option("--port")
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0);
        let address = ConnectionAddr::Tcp(host.into(), port.unwrap_or(self.port));
        let info: ConnectionInfo = redis::IntoConnectionInfo::into_connection_info(address)?;
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let connection = client.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        Ok(connection)
    }

    fn query<T: FromRedisValue>(&self, words: &[&str], limit: Duration) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connect(limit)?)
    }

    /// Runs a command at a server that may hang. Returns the answer.
    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        self.query(words, Duration::from_secs(2))
    }

    /// Runs a command. Returns the answer.
    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.query(words, LONG).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Number of the library's connections.
    pub(crate) fn clients(&self) -> usize {
        let clients: String = self.ask(&["CLIENT", "LIST"]);
        clients
            .lines()
            .filter(|client| client.contains(" name=tablecast "))
            .count()
    }

    /// Waits until this channel has this many subscribers here.
    pub(crate) fn await_subscribers(&self, channel: &str, count: i64) {
        eventually(LONG, || {
            self.ask::<(String, i64)>(&["PUBSUB", "NUMSUB", channel]).1 == count
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Three masters, each with a replica.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

/// A node counts as failed after this long without an answer; its replica is promoted a second or two later.
const NODE_TIMEOUT: &str = "1000";

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster::with(&[])
    }

    /// A cluster whose nodes have these options in addition.
    pub(crate) fn with(args: &[&str]) -> Cluster {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT,
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
            // Otherwise nodes do not name a replica that has never heard from its master.
            "--repl-ping-replica-period",
            "1",
        ];
        let cluster = Cluster {
            nodes: (0..6).map(|_| Server::with(&[&options, args].concat())).collect(),
        };
        let (masters, replicas) = cluster.nodes.split_at(3);
        for (number, master) in masters.iter().enumerate() {
            let (first, last) = (number * 16_384 / 3, (number + 1) * 16_384 / 3 - 1);
            let () = master.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            let () = master.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for other in &cluster.nodes[1..] {
            let () = other.ask(&["CLUSTER", "MEET", "127.0.0.1", &masters[0].port.to_string()]);
        }
        for (master, replica) in masters.iter().zip(replicas) {
            let id: String = master.ask(&["CLUSTER", "MYID"]);
            // Repeated until the replica has heard of the master.
            eventually(LONG, || replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok());
        }
        cluster.await_ok();
        cluster
    }

    /// Waits until all running nodes agree that the cluster is well, with a replica for each master if all six run.
    pub(crate) fn await_ok(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.running.is_some()).collect();
        eventually(LONG, || running.iter().all(|node| node.is_well(running.len() == 6)));
    }

    /// The masters, as the running nodes see it.
    pub(crate) fn masters(&self) -> Vec<usize> {
        let is_master = |node: &Server| node.running.is_some() && node.role() == "master";
        (0..self.nodes.len())
            .filter(|&index| is_master(&self.nodes[index]))
            .collect()
    }

    /// A running replica of this master.
    pub(crate) fn replica_of(&self, master: usize) -> usize {
        self.find_replica(master).expect("it has no replica")
    }

    fn find_replica(&self, master: usize) -> Option<usize> {
        let port = self.nodes[master].port.to_string();
        let is_its = |node: &Server| {
            node.running.is_some()
                && node.role() == "slave"
                && node.info("replication", "master_port") == Some(port.clone())
        };
        self.nodes.iter().position(is_its)
    }

    /// Makes a replica take this master's place. Returns it once all nodes agree.
    pub(crate) fn hand_over(&self, master: usize) -> usize {
        // A failover that does not succeed is given up after 5 s, and writes are held back for twice as long.
        const PATIENCE: Duration = Duration::from_secs(6);
        let (mut heir, mut asked) = (None, None::<Instant>);
        eventually(2 * LONG, || {
            heir = heir.or_else(|| self.find_replica(master));
            let Some(heir) = heir else { return false };
            if self.nodes[heir].role() == "master" {
                return true;
            }
            if asked.is_none_or(|at| at.elapsed() > PATIENCE) {
                // Refused while it still connects to its master.
                asked = self.nodes[heir]
                    .try_ask::<()>(&["CLUSTER", "FAILOVER"])
                    .ok()
                    .map(|()| Instant::now());
            }
            false
        });
        self.await_ok();
        heir.unwrap()
    }

    /// The index of the node on this port.
    pub(crate) fn on_port(&self, port: u16) -> usize {
        self.nodes.iter().position(|node| node.port == port).unwrap()
    }

    /// The address of one node in the driver's form; the others are found.
    pub(crate) fn address(&self) -> String {
        self.nodes[0].address()
    }

    /// The address of all nodes.
    pub(crate) fn addresses(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(Server::host).collect();
        format!("redis://{}", hosts.join(","))
    }

    /// Waits until everything published so far has reached every node: nodes pass messages on after they have confirmed
    /// them.
    pub(crate) fn settle(&self) {
        let mut listening: Vec<_> = self.nodes.iter().map(|node| node.connect(LONG).unwrap()).collect();
        let mut ears: Vec<_> = listening.iter_mut().map(redis::Connection::as_pubsub).collect();
        for ear in &mut ears {
            ear.subscribe("settled").unwrap();
        }
        for node in &self.nodes {
            let () = node.ask(&["PUBLISH", "settled", ""]);
        }
        for ear in &mut ears {
            self.nodes.iter().for_each(|_| drop(ear.get_message().unwrap()));
        }
    }

    /// The slot of a store's table.
    pub(crate) fn slot(&self, table: &str) -> u16 {
        let key = format!("tablecast{{{}:{table}}}/rows", table.len());
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", &key])
    }

    /// The master that has this slot in a new cluster.
    pub(crate) fn first_owner(&self, slot: u16) -> usize {
        let last = |number: usize| ((number + 1) * 16_384 / 3 - 1) as u16;
        (0..3).find(|number| slot <= last(*number)).unwrap()
    }

    /// Begins to move a slot from one master to another.
    pub(crate) fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let id = |index: usize| self.nodes[index].ask::<String>(&["CLUSTER", "MYID"]);
        let () = self.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        let () = self.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Moves all keys of a slot that is being moved.
    pub(crate) fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port.to_string());
        loop {
            let keys: Vec<String> = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let () = self.nodes[from].ask(&migrate);
        }
    }

    /// Moves a slot with all its keys from one master to another.
    pub(crate) fn move_slot(&self, number: u16, from: usize, to: usize) {
        self.begin_move(number, from, to);
        self.move_keys(number, from, to);
        let (slot, to) = (number.to_string(), &self.nodes[to]);
        let to_id: String = to.ask(&["CLUSTER", "MYID"]);
        let tell = |node: &Server| node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        // The new owner first, as redis-cli does.
        tell(to);
        let masters = self.masters();
        let is_wrong = |node: &&Server| node.owner(number) != Some(to.port);
        // If it moved on before all nodes know of it, two nodes might each take the other for its owner; and a node
        // that knew the owner, but not the epoch that it won with, might still take an old claim for news.
        eventually(LONG, || {
            // Redis 7.0 may do so, even the new owner, and then never settles it: told again.
            let wrong = masters.iter().map(|&master| &self.nodes[master]).filter(is_wrong);
            wrong.for_each(tell);
            let epochs: BTreeSet<_> = self.nodes.iter().map(Server::epochs).collect();
            epochs.len() == 1 && !self.nodes.iter().any(|node| is_wrong(&node))
        });
    }

    /// The nodes that have subscribers to this channel.
    pub(crate) fn subscribed(&self, channel: &str) -> Vec<usize> {
        let has = |node: &Server| {
            node.try_ask::<(String, i64)>(&["PUBSUB", "NUMSUB", channel])
                .is_ok_and(|n| n.1 > 0)
        };
        (0..self.nodes.len()).filter(|&index| has(&self.nodes[index])).collect()
    }

    /// The subscribers of this channel, at each node.
    pub(crate) fn spread(&self, channel: &str) -> Vec<i64> {
        let count = |node: &Server| node.ask::<(String, i64)>(&["PUBSUB", "NUMSUB", channel]).1;
        self.nodes.iter().map(count).collect()
    }
}

/// A cluster lent to one test at a time, since making one takes seconds.
pub(crate) struct Lease(Option<Cluster>);

static CLUSTERS: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());

impl Lease {
    pub(crate) fn new() -> Lease {
        let cluster = CLUSTERS.lock().unwrap().pop();
        Lease(Some(cluster.unwrap_or_else(Cluster::start)))
    }

    /// Removes all stored data.
    pub(crate) fn clear(&self) {
        for master in self.masters() {
            let () = self.nodes[master].ask(&["FLUSHALL"]);
        }
    }
}

impl std::ops::Deref for Lease {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.take() {
            cluster.settle();
            CLUSTERS.lock().unwrap().push(cluster);
        }
    }
}

impl Server {
    fn is_well(&self, whole: bool) -> bool {
        let info: RedisResult<String> = self.try_ask(&["CLUSTER", "INFO"]);
        let nodes: RedisResult<String> = self.try_ask(&["CLUSTER", "NODES"]);
        let slots: RedisResult<Vec<Vec<redis::Value>>> = self.try_ask(&["CLUSTER", "SLOTS"]);
        let (Ok(info), Ok(nodes), Ok(slots)) = (info, nodes, slots) else {
            return false;
        };
        let masters: BTreeSet<_> = nodes
            .lines()
            .filter_map(|line| line.split(' ').nth(3))
            .filter(|id| *id != "-")
            .collect();
        let linked = self.role() == "master" || self.info("replication", "master_link_status").as_deref() == Some("up");
        let all_known = nodes.lines().count() == 6 && masters.len() == 3 && !nodes.contains("fail");
        // Each range has its two ends, the master, and the replica.
        let whole = !whole || (all_known && slots.iter().all(|range| range.len() == 4));
        info.contains("cluster_state:ok") && linked && whole
    }

    /// The port of the master with this slot, as this node knows it.
    fn owner(&self, slot: u16) -> Option<u16> {
        // The ends of the range, then the master: its host, its port, its id, and more.
        type Range = (u16, u16, (String, u16, String, redis::Value));
        let ranges: Vec<Vec<redis::Value>> = self.try_ask(&["CLUSTER", "SLOTS"]).ok()?;
        let ranges = ranges.into_iter().map(|mut range| {
            range.truncate(3);
            redis::from_redis_value::<Range>(redis::Value::Array(range)).unwrap()
        });
        let range = ranges.into_iter().find(|range| (range.0..=range.1).contains(&slot))?;
        Some(range.2.1)
    }

    /// The masters' ids and epochs, as this node knows them.
    fn epochs(&self) -> Option<BTreeSet<(String, String)>> {
        let nodes: String = self.try_ask(&["CLUSTER", "NODES"]).ok()?;
        let masters = nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let masters = masters.filter(|fields| fields[2].contains("master"));
        Some(masters.map(|fields| (fields[0].into(), fields[6].into())).collect())
    }

    pub(crate) fn role(&self) -> String {
        self.info("replication", "role").unwrap_or_default()
    }

    /// A field of this section of INFO.
    pub(crate) fn info(&self, section: &str, field: &str) -> Option<String> {
        let info: String = self.try_ask(&["INFO", section]).ok()?;
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(str::to_owned)
    }
}

fn pause() {
    let _ = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(2));
}
