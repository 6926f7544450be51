//! `own-redis`: a command's own Redis server, which ends with the command, however that ends.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::Builder;

use parking_lot::Mutex;
use tablecast::{Error, ErrorKind, Result};

use crate::output;

/// Arguments of a Redis server; the command passes them.
#[derive(Debug, clap::Args)]
pub(crate) struct RedisArgs {
    /// The server's program.
    #[arg(long)]
    program: PathBuf,
    /// Its folder.
    #[arg(long)]
    folder: PathBuf,
}

impl RedisArgs {
    /// The command line of these arguments.
    pub(super) fn command_line(program: &Path, folder: &Path) -> Vec<String> {
        let program = format!("--program={}", program.display());
        vec!["own-redis".into(), program, format!("--folder={}", folder.display())]
    }
}

/// Attempts with different ports, since another process may take a free one.
const TRIES: u32 = 5;

/// Finds the installed server.
pub(super) fn find() -> Result<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let mut programs = env::split_paths(&folders).map(|folder| folder.join("redis-server"));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        let context = "there is no redis-server on the PATH: install Redis, or use a running one with --redis \
                       redis://127.0.0.1:6379";
        Error::new(ErrorKind::Unsupported, context)
    })
}

/// Runs the server until stdin ends; prints `ready host:port`.
///
/// # Errors
/// If it cannot be started, or ends by itself.
pub(crate) fn run(args: &RedisArgs) -> Result<()> {
    let running = Arc::new(Mutex::new(Running::default()));
    let stop = Arc::clone(&running);
    let watch = move || {
        // Until stdin ends, for any reason.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let mut running = stop.lock();
        running.is_over = true;
        if let Some(server) = &mut running.server {
            // Fails only if the server has ended.
            let _ = server.kill();
        }
    };
    let watch = Builder::new().name("stdin".into()).spawn(watch);
    watch.map_err(|e| failed("cannot start a thread", e))?;
    let mut said = String::new();
    for _ in 0..TRIES {
        let port = free_port().map_err(|e| failed("cannot find a free port", e))?;
        let log = running
            .lock()
            .start(args, port)
            .map_err(|e| failed("cannot start", e))?;
        let Some(log) = log else { return Ok(()) };
        let (was_ready, last) = read(log, port)?;
        let mut running = running.lock();
        running.wait().map_err(|e| failed("cannot wait for it", e))?;
        if running.is_over {
            return Ok(());
        }
        said = last;
        if was_ready {
            break;
        }
    }
    let context = format!("the Redis server ended; it last said: {said}");
    Err(Error::new(ErrorKind::Io, context))
}

/// The server, and the flag that ends it.
#[derive(Default)]
struct Running {
    server: Option<Child>,
    is_over: bool,
}

impl Running {
    /// Starts the server and returns its log; `None` if it is no longer needed.
    fn start(&mut self, args: &RedisArgs, port: u16) -> io::Result<Option<ChildStdout>> {
        if self.is_over {
            return Ok(None);
        }
        let mut command = Command::new(&args.program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
        command.arg(&args.folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let server = self.server.insert(command.spawn()?);
        Ok(server.stdout.take())
    }

    fn wait(&mut self) -> io::Result<()> {
        match &mut self.server {
            Some(server) => server.wait().map(drop),
            None => Ok(()),
        }
    }
}

/// Reads the server's log until the server ends, and prints `ready` when it is; returns true if it was, and the last
/// line.
fn read(log: ChildStdout, port: u16) -> Result<(bool, String)> {
    let mut is_ready = false;
    let mut last = String::new();
    for line in BufReader::new(log).lines().map_while(io::Result::ok) {
        if !is_ready && line.contains("Ready to accept connections") {
            is_ready = true;
            output::result(&format!("ready 127.0.0.1:{port}"))?;
        }
        last = line;
    }
    Ok((is_ready, last))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn failed(what: &str, e: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("the Redis server: {what}")).with_source(e)
}
