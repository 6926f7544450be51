//! A master, its replica, and three Sentinels that watch it. Everything reaches the servers through proxies.

use std::time::{Duration, Instant};

use crate::common::{eventually, pass};
use crate::proxy::{Fault, Proxy};
use crate::servers::Server;

const LONG: Duration = Duration::from_secs(60);

/// What happens to a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    Killed,
    Stopped,
    CutOff,
}

pub(crate) struct Group {
    /// The master is the first.
    pub(crate) servers: [Server; 2],
    pub(crate) proxies: [Proxy; 2],
    pub(crate) sentinels: Vec<Server>,
}

impl Group {
    pub(crate) fn start() -> Group {
        Group::with(&[], "", None)
    }

    /// A group whose servers and Sentinels have these options in addition; the Sentinels want this password.
    pub(crate) fn with(args: &[&str], lines: &str, password: Option<&str>) -> Group {
        let options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let server = || Server::with(&[&options, args].concat());
        let servers = [server(), server()];
        let proxies = servers.each_ref().map(|server| Proxy::to(server.port()));
        let master = port(&proxies[0]);
        let lines = format!(
            "port PORT\nbind 127.0.0.1\n\
             sentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds mymaster 500\n\
             sentinel failover-timeout mymaster 2000\n{lines}\n"
        );
        let sentinel = || match password {
            None => Server::sentinel(&lines),
            Some(password) => Server::sentinel(&format!("{lines}requirepass {password}\n")).log_in_with(password),
        };
        let group = Group {
            servers,
            proxies,
            sentinels: Vec::new(),
        };
        (0..2).for_each(|index| group.announce(index));
        let () = group.servers[1].ask(&["REPLICAOF", "127.0.0.1", &master]);
        eventually(LONG, || {
            group.servers[1].info("replication", "master_link_status").as_deref() == Some("up")
        });
        let group = Group {
            sentinels: (0..3).map(|_| sentinel()).collect(),
            ..group
        };
        eventually(LONG, || group.sentinels.iter().all(knows_all));
        group
    }

    /// The server is known by the address of its proxy.
    fn announce(&self, index: usize) {
        let server = &self.servers[index];
        let () = server.ask(&["CONFIG", "SET", "replica-announce-ip", "127.0.0.1"]);
        let () = server.ask(&["CONFIG", "SET", "replica-announce-port", &port(&self.proxies[index])]);
    }

    /// The address, beginning with the Sentinel of this number; each makes processes ask anew.
    pub(crate) fn address(&self, first: usize) -> String {
        let mut hosts: Vec<_> = self.sentinels.iter().map(Server::host).collect();
        hosts.rotate_left(first);
        format!("redis-sentinel://{}/mymaster", hosts.join(","))
    }

    pub(crate) fn begin(&mut self, outage: Outage) {
        match outage {
            Outage::Killed => self.servers[0].kill(),
            Outage::Stopped => self.servers[0].hang(),
            Outage::CutOff => self.proxies[0].set(Fault::Silence),
        }
    }

    pub(crate) fn end(&mut self, outage: Outage) {
        match outage {
            Outage::Killed => {
                self.servers[0].restart();
                self.announce(0);
            }
            Outage::Stopped => self.servers[0].resume(),
            Outage::CutOff => self.proxies[0].set(Fault::None),
        }
    }

    /// When the replica has become the master.
    pub(crate) fn await_promotion(&self) -> Instant {
        eventually(LONG, || self.servers[1].role() == "master");
        Instant::now()
    }

    /// Waits until the old master follows the new one, or has been a master for long; counts what it stores meanwhile, at
    /// first and at last.
    pub(crate) fn watch_old_master(&self) -> (i64, i64) {
        let old = &self.servers[0];
        let stored = || old.try_ask::<i64>(&["EVAL", STORED, "0"]).ok();
        // One that has just begun may not answer.
        let mut first = None;
        eventually(LONG, || {
            first = stored();
            first.is_some()
        });
        let (start, first) = (Instant::now(), first.unwrap_or_default());
        let mut last = first;
        while start.elapsed() < LONG_ENOUGH {
            let now = stored();
            // A replica may have begun to copy the new one.
            if old.role() != "master" {
                break;
            }
            last = last.max(now.unwrap_or(last));
            pass(Duration::from_millis(20));
        }
        (first, last)
    }
}

/// Sentinels make a replica of an old master that is back after 8 s, or later if it was cut off from them.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

/// The number of all writes of the library that a server has.
const STORED: &str = "local count = 0 \
                      for _, key in ipairs(redis.call('KEYS', 'tablecast{*}/about')) do \
                      count = count + (redis.call('HGET', key, 'version') or 0) end \
                      return count";

/// True if the Sentinel has found the others and the replica.
fn knows_all(sentinel: &Server) -> bool {
    let about: Vec<String> = sentinel
        .try_ask(&["SENTINEL", "MASTER", "mymaster"])
        .unwrap_or_default();
    let is = |name: &str, value: &str| about.chunks(2).any(|pair| pair == [name, value]);
    is("num-slaves", "1") && is("num-other-sentinels", "2") && is("flags", "master")
}

fn port(proxy: &Proxy) -> String {
    proxy.host().rsplit(':').next().unwrap_or_default().to_owned()
}
