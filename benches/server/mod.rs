//! A Redis server for one benchmark.
#![allow(dead_code, unreachable_pub)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, cmd};
use tablecast::config::JoinFrames;
use tablecast::drivers::redis::{RedisDriver, RedisOptions};
use tablecast::store::StoreOptions;
use tablecast::stores::redis::RedisStore;

/// Time limit for its start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a free port of this host, which ends when this value is dropped.
pub struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Server {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--client-output-buffer-limit", "pubsub 0 0 0"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let server = Server {
            child,
            port,
            _folder: folder,
        };
        let deadline = Instant::now() + PATIENCE;
        while server.try_connect().is_err() {
            assert!(Instant::now() < deadline, "the server does not start");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        server
    }

    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        let mut connection = redis::Client::open(self.address())?.get_connection()?;
        cmd("PING").exec(&mut connection)?;
        Ok(connection)
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap()
    }

    pub fn driver(&self) -> RedisDriver {
        self.driver_with(JoinFrames::default())
    }

    pub fn driver_with(&self, join_frames: JoinFrames) -> RedisDriver {
        let options = RedisOptions {
            join_frames,
            ..RedisOptions::default()
        };
        RedisDriver::new(&self.address(), options).unwrap()
    }

    pub fn store(&self) -> RedisStore {
        RedisStore::new(&self.address(), StoreOptions::default(), &RedisOptions::default()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
