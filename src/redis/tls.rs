//! TLS: the authorities, the client's own certificate, and the session of a connection.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

use crate::error::{Error, ErrorKind, Result};

use super::RedisOptions;
use super::node::Node;

/// The configuration of sessions, made once for a driver or store.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the certificates.
    pub(crate) fn new(options: &RedisOptions) -> Result<Tls> {
        let failed = |e: rustls::Error| Error::new(ErrorKind::Config, "TLS cannot be set up").with_source(e);
        let mut roots = RootCertStore::empty();
        if options.tls_ca.as_os_str().is_empty() {
            // An unreadable or malformed certificate of the system does not make the others untrusted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            for certificate in certificates(&options.tls_ca)? {
                roots.add(certificate).map_err(failed)?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(failed)?.with_root_certificates(roots);
        let config = if options.tls_cert.as_os_str().is_empty() {
            builder.with_no_client_auth()
        } else {
            let key = PrivateKeyDer::from_pem_file(&options.tls_key);
            let key = key.map_err(|e| unreadable(&options.tls_key, e))?;
            let own = certificates(&options.tls_cert)?;
            builder.with_client_auth_cert(own, key).map_err(failed)?
        };
        Ok(Tls(Arc::new(config)))
    }

    /// A session with this server, which has to prove its name. The handshake takes place with the first bytes.
    pub(crate) fn session(&self, node: &Node) -> io::Result<Session> {
        // The scope of an IP address has a meaning only on this host.
        let host = node.host.split('%').next().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(&self.0), name);
        session.map(Session).map_err(io::Error::other)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|e| unreadable(path, e))?;
    if certificates.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("there is no certificate in {}", path.display()),
        ));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, e: rustls::pki_types::pem::Error) -> Error {
    let context = format!("cannot read {}", path.display());
    match fs::metadata(path) {
        Err(missing) => Error::new(ErrorKind::Io, context).with_source(missing),
        Ok(_) => Error::new(ErrorKind::Config, context).with_source(e.to_string()),
    }
}

/// The TLS of one connection.
pub(crate) struct Session(ClientConnection);

impl Session {
    pub(crate) fn read(&mut self, socket: &mut Socket, into: &mut [u8]) -> io::Result<usize> {
        match self.on(socket).read(into) {
            // Redis closes without TLS's closing message.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }

    pub(crate) fn write(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        self.on(socket).write(bytes)
    }

    pub(crate) fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        self.on(socket).flush()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    fn on<'a>(&'a mut self, socket: &'a mut Socket) -> rustls::Stream<'a, ClientConnection, Socket> {
        rustls::Stream::new(&mut self.0, socket)
    }
}
