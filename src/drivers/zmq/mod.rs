//! The ZeroMQ drivers: `zmq` (PUB/SUB over tcp, ipc, inproc, epgm) and `zmq-multiproc` (PUSH/PULL over ipc).
//!
//! An address may state its role, as in CZMQ: `@tcp://…` binds, `>tcp://…` connects. Without a sign a publisher and the
//! service's receiving end bind, and the other ends connect.

mod access;
mod backoff;
mod calls;
mod census;
mod clients;
mod connection;
mod context;
mod copy;
mod curve;
mod cut;
mod endpoint;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod inbound;
mod interfaces;
mod keepalive;
mod key;
mod line;
mod monitor;
mod multicast;
#[cfg(target_os = "linux")]
mod netlink;
mod options;
mod outbound;
mod path_lock;
mod peer;
mod push;
mod room;
mod settings;
mod story;
mod topics;
mod traffic;
mod zap;

use std::sync::Arc;

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::transport::{Driver, Inbound, Outbound, Wake};

use endpoint::Endpoint;
use inbound::ZmqInbound;
use outbound::ZmqOutbound;
use push::PushOutbound;
use settings::Settings;

pub use calls::libzmq;
pub use key::KeyPair;
pub use options::ZmqOptions;

/// PUB/SUB, the network driver; its alias is `zmq`.
#[derive(Debug)]
pub struct ZmqDriver {
    publish: Endpoint,
    settings: Settings,
}

impl ZmqDriver {
    /// Creates a driver whose publishers use this address, for example `tcp://127.0.0.1:8866`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an invalid address, [`ErrorKind::Unsupported`] for a transport, or CURVE, that
    /// this libzmq lacks, [`ErrorKind::Config`] for keys that cannot be used.
    pub fn new(publish: &str, options: ZmqOptions) -> Result<ZmqDriver> {
        Ok(ZmqDriver {
            publish: Endpoint::parse(publish)?,
            settings: Settings::new(options)?,
        })
    }
}

impl Driver for ZmqDriver {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(ZmqOutbound::open(&self.publish, &self.settings)?))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = ZmqInbound::open(peer::SUB, &self.settings)?;
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        check_address(address)
    }

    fn authenticates(&self, address: &str) -> bool {
        Endpoint::parse(address).is_ok_and(|endpoint| self.settings.curve.secures(&endpoint))
    }
}

/// Fails as [`ZmqDriver::new`] does for an address alone.
pub(crate) fn check_address(address: &str) -> Result<()> {
    Endpoint::parse(address).map(drop)
}

/// PUSH/PULL between the processes of one host; its alias is `zmq-multiproc`.
///
/// Its sending end connects on the first send; its receiving end binds.
#[derive(Debug)]
pub struct ZmqMultiproc {
    socket: Endpoint,
    settings: Settings,
}

impl ZmqMultiproc {
    /// Creates a driver on this socket, for example `ipc:///run/tablecast/publisher.sock`.
    ///
    /// # Errors
    /// As [`ZmqDriver::new`].
    pub fn new(socket: &str, options: ZmqOptions) -> Result<ZmqMultiproc> {
        Ok(ZmqMultiproc {
            socket: Endpoint::parse(socket)?,
            settings: Settings::new(options)?,
        })
    }
}

impl Driver for ZmqMultiproc {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(PushOutbound::new(self.socket.clone(), self.settings.clone())))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let (inbound, wake) = ZmqInbound::open(peer::PULL, &self.settings)?;
        Ok((Box::new(inbound), wake))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        Endpoint::parse(address).map(drop)
    }
}
