//! CURVE: encryption and authentication of TCP connections, by the keys that the options name.

use std::sync::{Arc, OnceLock};

use crate::config::join_key;
use crate::error::{Error, ErrorKind, Result};

use super::calls::zmq_error;
use super::clients::Clients;
use super::context::Seat;
use super::endpoint::{Endpoint, Role};
use super::key::{Key, KeyPair, check_curve};
use super::options::ZmqOptions;
use super::zap::Door;

/// The keys of a driver.
#[derive(Debug, Default)]
pub(super) struct Curve {
    own: Option<KeyPair>,
    /// The key of publishers whose addresses have none.
    server: Option<Key>,
    /// The clients that a bound socket lets in; `None` for all that know its key.
    clients: Option<Arc<Clients>>,
    /// Made for connections without a pair of their own.
    passing: OnceLock<KeyPair>,
}

impl Curve {
    /// Reads what the options name.
    pub(super) fn of(options: &ZmqOptions) -> Result<Curve> {
        let (pair, clients) = (&options.curve_secret_key_file, &options.curve_allowed_clients);
        let server = options.curve_server_key.as_str();
        let asked = [
            ("curve_secret_key_file", pair.as_os_str().is_empty()),
            ("curve_allowed_clients", clients.as_os_str().is_empty()),
            ("curve_server_key", server.is_empty()),
        ];
        let Some((option, _)) = asked.into_iter().find(|(_, is_empty)| !is_empty) else {
            return Ok(Curve::default());
        };
        check_curve(&format!("option {option}"))?;
        let wrong = |context: &str| Error::new(ErrorKind::Config, context);
        let own = match pair.as_os_str().is_empty() {
            true => None,
            false => Some(KeyPair::read("curve_secret_key_file", pair)?),
        };
        let clients = match clients.as_os_str().is_empty() {
            true => None,
            false if own.is_none() => {
                return Err(wrong(
                    "option curve_allowed_clients: expected curve_secret_key_file to be set with it",
                ));
            }
            false => Some(Arc::new(Clients::read("curve_allowed_clients", clients)?)),
        };
        let server = match server {
            "" => None,
            key => {
                let wrong = || wrong("option curve_server_key: expected a public key of 40 characters (Z85)");
                Some(Key::parse(key).ok_or_else(wrong)?)
            }
        };
        Ok(Curve {
            own,
            server,
            clients,
            passing: OnceLock::new(),
        })
    }

    /// The address by which others reach the socket that is bound at `address`.
    pub(super) fn advertised(&self, endpoint: &Endpoint, address: &str) -> String {
        match self.own.as_ref().filter(|_| self.secures(endpoint)) {
            Some(own) => join_key(address, own.public()),
            None => address.to_owned(),
        }
    }

    /// True if connections to this address prove who is there.
    pub(super) fn secures(&self, endpoint: &Endpoint) -> bool {
        endpoint.is_tcp() && (self.own.is_some() || self.server.is_some() || endpoint.key().is_some())
    }

    /// Sets the keys of a socket that is to be bound or connected. Returns the check of a bound one's clients.
    pub(super) fn secure(
        &self,
        socket: &zmq::Socket,
        endpoint: &Endpoint,
        role: Role,
        seat: &Seat,
    ) -> Result<Option<Door>> {
        let is_asked = self.own.is_some() || self.server.is_some();
        if is_asked && endpoint.is_multicast() {
            let context =
                format!("cannot open {endpoint}: multicast has no CURVE; expected no option curve_.. with it");
            return Err(Error::new(ErrorKind::Unsupported, context));
        }
        if !self.secures(endpoint) {
            return Ok(None);
        }
        let failed = |e| zmq_error(e, format!("cannot set the keys for {endpoint}"));
        match (role, &self.own) {
            (Role::Bind, _) if endpoint.key().is_some() => {
                let context =
                    format!("cannot bind {endpoint}: expected an address without a key, which is that of another end");
                Err(Error::new(ErrorKind::InvalidInput, context))
            }
            (Role::Bind, Some(own)) => {
                let door = seat.door(self.clients.clone())?;
                socket.set_zap_domain(door.domain()).map_err(failed)?;
                socket.set_curve_server(true).map_err(failed)?;
                set_pair(socket, own).map_err(failed)?;
                Ok(Some(door))
            }
            (Role::Bind, None) => {
                let context =
                    format!("cannot bind {endpoint}: with curve_server_key, expected curve_secret_key_file to be set");
                Err(Error::new(ErrorKind::Config, context))
            }
            (Role::Connect, own) => {
                let pair = own.as_ref().map_or_else(|| self.passing(), Ok)?;
                // Without a named key the other end has the same pair.
                let server = endpoint.key().or(self.server.as_ref()).unwrap_or(pair.key());
                socket.set_curve_serverkey(server.as_str().as_bytes()).map_err(failed)?;
                set_pair(socket, pair).map_err(failed)?;
                Ok(None)
            }
        }
    }

    /// A pair of this process, for servers that let in every client.
    fn passing(&self) -> Result<&KeyPair> {
        match self.passing.get() {
            Some(pair) => Ok(pair),
            None => {
                let pair = KeyPair::generate()?;
                Ok(self.passing.get_or_init(|| pair))
            }
        }
    }
}

fn set_pair(socket: &zmq::Socket, pair: &KeyPair) -> zmq::Result<()> {
    socket.set_curve_publickey(pair.key().as_str().as_bytes())?;
    socket.set_curve_secretkey(pair.secret().expose().as_bytes())
}
