//! Name, TCP, TLS: one after the other, so that what fails is known.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rustls::{CertificateError, Error as RustlsError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Probe;
use crate::client::dial;
use crate::client::link::DIAL_TIMEOUT;
use crate::client::trouble::{IS_OF_AUTHORITY, causes};

/// An address is silent after this long: time for two repetitions of what is lost on the way.
const SILENT_AFTER: Duration = Duration::from_secs(4);

/// The server's port is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// What the name stands for.
    pub addresses: Vec<IpAddr>,
    /// The one that took the connection.
    pub address: IpAddr,
    /// How long TCP took.
    pub tcp: Duration,
    /// Others of them, from which not a word comes.
    pub silent: Vec<IpAddr>,
    /// How long TLS took, and whether HTTP/2 is offered; `None` over plain HTTP.
    pub tls: Option<(Duration, bool)>,
}

/// How far it went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreached {
    /// The name stands for nothing.
    Name {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// The host says that nobody listens.
    Refused {
        /// Where.
        address: String,
    },
    /// Not a word came back.
    Silent {
        /// Where.
        address: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Something else in the network.
    Network {
        /// Where.
        address: String,
        /// What.
        reason: String,
    },
    /// TCP works, TLS does not.
    Tls(TlsFault),
}

/// Why there is no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// Signed by itself or by an authority that is not trusted here.
    Untrusted,
    /// It is an authority's own, which is no server's, trusted or not.
    OfAuthority,
    /// Its time is over.
    Expired {
        /// Since how many seconds, if that is known.
        seconds: Option<u64>,
    },
    /// Its time has not come.
    NotYetValid,
    /// It is for other names.
    WrongName {
        /// These.
        names: Vec<String>,
    },
    /// What answers does not speak TLS.
    NotTls,
    /// Not finished in time.
    Late,
    /// Anything else.
    Other(String),
}

impl Probe {
    /// Goes as far as TLS and hangs up.
    ///
    /// # Errors
    /// Where it ends.
    pub async fn reach(&self) -> Result<Reached, Unreached> {
        let url = self.link.endpoint.at("");
        let (host, port) = dial::host_and_port(&url);
        let unknown = |reason: String| Unreached::Name { host: host.to_owned(), reason };
        let found = timeout(DIAL_TIMEOUT, dial::addresses(&url)).await;
        let found = found.map_err(|_| unknown(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())))?;
        let found = found.map_err(|error| unknown(error.to_string()))?;
        let start = Instant::now();
        let shown = || format!("{host}:{port}");
        let tcp = match timeout(DIAL_TIMEOUT, dial::tcp(&found)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(Unreached::Refused { address: shown() });
            }
            Ok(Err(error)) => return Err(Unreached::Network { address: shown(), reason: error.to_string() }),
            Err(_) => return Err(Unreached::Silent { address: shown(), after: DIAL_TIMEOUT }),
        };
        let peer = tcp.peer_addr();
        let address = peer.map_err(|error| Unreached::Network { address: shown(), reason: error.to_string() })?.ip();
        let addresses = found.iter().map(SocketAddr::ip).collect();
        let mut reached = Reached { addresses, address, silent: Vec::new(), tcp: start.elapsed(), tls: None };
        if url.scheme() == "https" {
            let start = Instant::now();
            let mut config = self.link.tls.as_ref().clone();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let dialled = timeout(DIAL_TIMEOUT, dial::tls(Arc::new(config), &url, tcp)).await;
            let tls = dialled.map_err(|_| Unreached::Tls(TlsFault::Late))?;
            let tls = tls.map_err(|error| Unreached::Tls(TlsFault::of(&error)))?;
            reached.tls = Some((start.elapsed(), tls.get_ref().1.alpn_protocol() == Some(b"h2")));
        }
        reached.silent = silent(found.into_iter().filter(|other| other.ip() != address)).await;
        Ok(reached)
    }
}

/// Those of the addresses that neither take a connection nor refuse it.
async fn silent(addresses: impl Iterator<Item = SocketAddr>) -> Vec<IpAddr> {
    let asked = addresses.map(async |address| {
        let answer = timeout(SILENT_AFTER, TcpStream::connect(address)).await;
        answer.is_err().then_some(address.ip())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

impl TlsFault {
    fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
        match inner {
            Some(RustlsError::InvalidCertificate(certificate)) => match certificate {
                CertificateError::UnknownIssuer => Self::Untrusted,
                CertificateError::Other(other) if other.to_string().contains(IS_OF_AUTHORITY) => Self::OfAuthority,
                CertificateError::Expired => Self::Expired { seconds: None },
                CertificateError::ExpiredContext { time, not_after } => {
                    Self::Expired { seconds: Some(time.as_secs().saturating_sub(not_after.as_secs())) }
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::NotValidForName => Self::WrongName { names: Vec::new() },
                CertificateError::NotValidForNameContext { presented, .. } => {
                    Self::WrongName { names: presented.clone() }
                }
                other => Self::Other(other.to_string()),
            },
            Some(RustlsError::InvalidMessage(_)) => Self::NotTls,
            _ => Self::Other(causes(error)),
        }
    }
}
