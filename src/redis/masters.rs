//! The way to the master that Sentinels name: a thread for each Sentinel, shared by all of this process that use them.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::error::Result;
use crate::poll::pair;
use crate::thread::{self, Thread};

use super::access::Access;
use super::address::Servers;
use super::master::Master;
use super::options::RedisOptions;
use super::poller::Poller;
use super::stream::Limit;
use super::watch::Watch;

/// Finds the master, and notices when it is another one. Clones share the threads, which begin with the first question.
#[derive(Clone)]
pub(crate) struct Masters(Arc<Lazy>);

struct Lazy {
    servers: Servers,
    access: Access,
    options: RedisOptions,
    threads: OnceLock<Arc<Threads>>,
}

/// The threads; dropping it stops them.
struct Threads {
    watch: Arc<Watch>,
    threads: Vec<Thread>,
    stop: Option<UnixStream>,
}

impl Masters {
    /// `access` is that to the Sentinels.
    pub(super) fn new(servers: &Servers, access: Access, options: &RedisOptions) -> Masters {
        Masters(Arc::new(Lazy {
            servers: Servers {
                database: 0,
                ..servers.clone()
            },
            access,
            options: options.bounded(),
            threads: OnceLock::new(),
        }))
    }

    /// The master. The Sentinels are asked if it is not known, or was doubted.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if no Sentinel names it, [`ErrorKind::Denied`] if all
    /// refuse the login.
    pub(crate) fn master(&self, limit: Limit<'_>) -> Result<Arc<Master>> {
        let master = self.threads()?.watch.master(limit);
        master.map_err(|e| e.context(format!("no master at {}", self.0.servers)))
    }

    /// The master, as far as is known without asking.
    pub(crate) fn current(&self) -> Option<Arc<Master>> {
        self.0.threads.get()?.watch.current()
    }

    /// Notes that the master failed, so that the Sentinels are asked again.
    pub(crate) fn doubt(&self) {
        if let Some(threads) = self.0.threads.get() {
            threads.watch.doubt();
        }
    }

    fn threads(&self) -> Result<&Threads> {
        if let Some(threads) = self.0.threads.get() {
            return Ok(threads);
        }
        let threads = Threads::shared(&self.0)?;
        Ok(self.0.threads.get_or_init(|| threads))
    }
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masters({})", self.0.servers)
    }
}

impl Threads {
    /// The threads for these Sentinels, which all of the process share that have the same login.
    fn shared(lazy: &Lazy) -> Result<Arc<Threads>> {
        type Key = (Servers, [PathBuf; 3]);
        static SHARED: Mutex<Vec<(Key, Weak<Threads>)>> = Mutex::new(Vec::new());
        let files = [&lazy.options.tls_ca, &lazy.options.tls_cert, &lazy.options.tls_key];
        let key = (lazy.servers.clone(), files.map(Clone::clone));
        let mut shared = SHARED.lock();
        shared.retain(|(_, threads)| threads.strong_count() > 0);
        if let Some(threads) = shared
            .iter()
            .find(|(other, _)| *other == key)
            .and_then(|(_, it)| it.upgrade())
        {
            return Ok(threads);
        }
        let threads = Arc::new(Threads::start(lazy)?);
        shared.push((key, Arc::downgrade(&threads)));
        Ok(threads)
    }

    fn start(lazy: &Lazy) -> Result<Threads> {
        let nodes = &lazy.servers.nodes;
        let pairs = nodes.iter().map(|_| pair()).collect::<Result<Vec<_>>>()?;
        let (wakes, woken): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let watch = Arc::new(Watch::new(lazy.servers.to_string(), wakes));
        let (stop, stopped) = pair()?;
        let stopped = Arc::new(stopped);
        let mut all = Threads {
            watch: Arc::clone(&watch),
            threads: Vec::with_capacity(nodes.len()),
            stop: Some(stop),
        };
        for ((number, node), wake) in nodes.iter().enumerate().zip(woken) {
            let poller = Poller {
                number,
                node: node.clone(),
                name: lazy.servers.master.clone().unwrap_or_default(),
                access: lazy.access.clone(),
                options: lazy.options.clone(),
                watch: Arc::clone(&watch),
                wake,
                stop: Arc::clone(&stopped),
            };
            let thread = thread::spawn("tc-sentinel", None, move || poller.run())?;
            all.threads.push(thread);
        }
        Ok(all)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop = None;
        self.threads.clear();
    }
}
