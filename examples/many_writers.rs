//! Many processes of one host publish through its publisher service, which alone binds the port.
//!
//! The program starts itself again for each writer. A service is usually a process of its own, `tablecast service`.

use std::process::Command;
use std::time::Duration;

use tablecast::{Action, Config, DbUpdate, Error, ErrorKind, Node, Result};

const WRITERS: usize = 4;
const UPDATES: usize = 250;

fn main() -> Result<()> {
    match std::env::args().nth(1) {
        // Options come from the environment: see `serve`.
        Some(name) => write(&name, &Config::load(None)?),
        None => serve(),
    }
}

fn write(name: &str, config: &Config) -> Result<()> {
    // The publisher connects to the service on the first send.
    let publisher = Node::open(config)?.publisher()?;
    for i in 0..UPDATES {
        publisher.send_event(&DbUpdate::new("lport", format!("{name}-{i}"), Action::Create).value("{}"))?;
    }
    Ok(())
}

fn serve() -> Result<()> {
    let failed = |what: &str, e: std::io::Error| Error::new(ErrorKind::Io, what.to_owned()).with_source(e);
    let folder = tempfile::tempdir().map_err(|e| failed("no temporary folder", e))?;
    let mut config = Config::default();
    config.publisher_multiproc_socket = folder.path().join("publisher.sock");
    config.publisher_port = 0;
    let host = Node::open(&config)?;
    let service = host.service()?;
    config.publishers.extend(service.address());

    let node = Node::open(&config)?;
    let (updates, received) = crossbeam_channel::unbounded();
    // A channel can be a callback.
    let _guard = node.dispatcher()?.on_table("lport", updates);
    let subscriber = node.subscriber()?;
    subscriber.wait_live(Duration::from_secs(5))?;

    let program = std::env::current_exe().map_err(|e| failed("no path of this program", e))?;
    let start = |i| {
        let mut writer = Command::new(&program);
        writer.arg(format!("writer-{i}"));
        writer.env(
            "TABLECAST_PUBLISHER_MULTIPROC_SOCKET",
            &config.publisher_multiproc_socket,
        );
        writer.spawn().map_err(|e| failed("cannot start a writer", e))
    };
    let writers: Vec<_> = (0..WRITERS).map(start).collect::<Result<_>>()?;
    let mut publishers = std::collections::BTreeMap::new();
    for _ in 0..WRITERS * UPDATES {
        let update: DbUpdate = received
            .recv_timeout(Duration::from_secs(10))
            .expect("every update arrives");
        let origin = update.origin.expect("updates of this library are numbered");
        *publishers.entry(origin.publisher).or_insert(0) += 1;
    }
    for mut writer in writers {
        writer.wait().map_err(|e| failed("cannot wait for a writer", e))?;
    }
    println!("{publishers:?} {:?}", service.stats());
    Ok(())
}
