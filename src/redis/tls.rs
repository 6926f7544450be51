//! TLS: the authorities, the client's own certificate, and the session of a connection.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

use crate::error::{Error, ErrorKind, Result};
use crate::stamp::Stamp;

use super::node::Node;
use super::options::RedisOptions;
use super::trust::Trust;

/// The configuration of sessions, for a driver or store.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Inner>);

struct Inner {
    files: Files,
    state: Mutex<State>,
}

struct State {
    config: Arc<ClientConfig>,
    /// The files as they were when they were last read.
    seen: Stamps,
    /// They were read long enough after they were written for another writing to show.
    is_settled: bool,
    /// They could not be used, which was reported.
    has_failed: bool,
}

/// The options that name files; empty ones are not set.
#[derive(Debug, Clone)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// The files that are there.
type Stamps = [Option<Stamp>; 3];

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the certificates.
    pub(crate) fn new(options: &RedisOptions) -> Result<Tls> {
        let files = Files {
            ca: options.tls_ca.clone(),
            cert: options.tls_cert.clone(),
            key: options.tls_key.clone(),
        };
        let (began, seen) = (SystemTime::now(), files.stamps());
        let state = Mutex::new(State {
            config: files.config()?,
            is_settled: is_settled(&seen, began),
            seen,
            has_failed: false,
        });
        Ok(Tls(Arc::new(Inner { files, state })))
    }

    /// A session with this server, which has to prove its name. The handshake takes place with the first bytes.
    pub(crate) fn session(&self, node: &Node) -> io::Result<Session> {
        // The scope of an IP address has a meaning only on this host.
        let host = node.host.split('%').next().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.config(), name);
        session.map(Session).map_err(io::Error::other)
    }

    /// The configuration, made anew if a file was renewed. While that fails, as between the renewal of a certificate
    /// and that of its key, it stays as it is.
    fn config(&self) -> Arc<ClientConfig> {
        let Inner { files, state } = &*self.0;
        let mut state = state.lock();
        let (began, now) = (SystemTime::now(), files.stamps());
        let has_changed = now != state.seen;
        if has_changed || !state.is_settled {
            match files.config() {
                Ok(config) => (state.config, state.has_failed) = (config, false),
                Err(e) => {
                    if has_changed || !state.has_failed {
                        log::warn!("certificates were renewed, and the ones read before stay in use: {e}");
                    }
                    state.has_failed = true;
                }
            }
            (state.is_settled, state.seen) = (is_settled(&now, began), now);
        }
        Arc::clone(&state.config)
    }
}

fn is_settled(files: &Stamps, at: SystemTime) -> bool {
    files.iter().flatten().all(|file| file.is_settled(at))
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.ca, &self.cert, &self.key].map(|path| Stamp::of(path).ok())
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        let failed = |e: rustls::Error| Error::new(ErrorKind::Config, "TLS cannot be set up").with_source(e);
        let mut roots = RootCertStore::empty();
        let mut trusted = Vec::new();
        if self.ca.as_os_str().is_empty() {
            // An unreadable or malformed certificate of the system does not make the others untrusted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            trusted = certificates("redis_tls_ca", &self.ca)?;
            for certificate in &trusted {
                let added = roots.add(certificate.clone());
                added.map_err(|e| {
                    wrong(
                        "redis_tls_ca",
                        &self.ca,
                        "not a certificate that can be trusted",
                        cause(&e),
                    )
                })?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(roots, trusted, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        if self.cert.as_os_str().is_empty() {
            return Ok(Arc::new(builder.with_no_client_auth()));
        }
        let own = certificates("redis_tls_cert", &self.cert)?;
        let key = read("redis_tls_key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| match contains(&key, b"ENCRYPTED") {
            true => wrong(
                "redis_tls_key",
                &self.key,
                "an encrypted private key",
                "a key without a passphrase is needed, as `openssl pkey` writes it",
            ),
            false => wrong("redis_tls_key", &self.key, "not a private key", fault(&e)),
        })?;
        let config = builder.with_client_auth_cert(own, key).map_err(|e| {
            let key = self.key.display();
            wrong(
                "redis_tls_cert",
                &self.cert,
                &format!("not of the key in {key} (option redis_tls_key)"),
                cause(&e),
            )
        })?;
        Ok(Arc::new(config))
    }
}

/// The content of a file, without the byte order marks that editors put before it, and so before each of joined files.
fn read(option: &str, path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).map_err(|e| {
        let context = format!("option {option}: cannot read {}", path.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    })?;
    Ok(String::from_utf8_lossy(&content).replace('\u{feff}', "").into_bytes())
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let content = read(option, path)?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates = certificates.map_err(|e| wrong(option, path, "not in the form of PEM", fault(&e)))?;
    match certificates.is_empty() {
        true => {
            let context = format!("option {option}: there is no certificate in {}", path.display());
            Err(Error::new(ErrorKind::Config, context))
        }
        false => Ok(certificates),
    }
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|part| part == word)
}

/// The fault of a PEM file, with its lines as text.
fn fault(e: &pem::Error) -> String {
    match e {
        pem::Error::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(end_marker);
            format!("the line -----END {label}----- is missing")
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("the line {:?} does not end with -----", String::from_utf8_lossy(line))
        }
        other => other.to_string(),
    }
}

/// The fault of a certificate. The text of `rustls` calls every certificate a peer's.
fn cause(e: &rustls::Error) -> String {
    match e {
        rustls::Error::InvalidCertificate(e) => format!("{e:?}"),
        other => other.to_string(),
    }
}

fn wrong(option: &str, path: &Path, what: &str, e: impl fmt::Display) -> Error {
    let context = format!("option {option}: {} is {what}", path.display());
    Error::new(ErrorKind::Config, context).with_source(e.to_string())
}

/// The TLS of one connection.
pub(crate) struct Session(ClientConnection);

impl Session {
    pub(crate) fn read(&mut self, socket: &mut Socket, into: &mut [u8]) -> io::Result<usize> {
        match self.on(socket).read(into) {
            // Redis closes without TLS's closing message.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read.map_err(explained),
        }
    }

    pub(crate) fn write(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        self.on(socket).write(bytes).map_err(explained)
    }

    pub(crate) fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        self.on(socket).flush().map_err(explained)
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    fn on<'a>(&'a mut self, socket: &'a mut Socket) -> rustls::Stream<'a, ClientConnection, Socket> {
        rustls::Stream::new(&mut self.0, socket)
    }
}

/// The error with the option that it is about.
fn explained(e: io::Error) -> io::Error {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        UnknownCA, UnsupportedCertificate,
    };
    let Some(fault) = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return e;
    };
    let advice = match fault {
        rustls::Error::AlertReceived(CertificateRequired) => {
            "the server wants a certificate: set option redis_tls_cert"
        }
        rustls::Error::AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate,
        ) => "the server refuses the certificate of option redis_tls_cert",
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_),
        ) => "the server's certificate is not of an authority of option redis_tls_ca",
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS at this port",
        _ => return e,
    };
    io::Error::new(e.kind(), format!("{advice}: {fault}"))
}
