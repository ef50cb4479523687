//! From an address to a socket: TCP, then TLS.

use std::io;
use std::sync::Arc;

use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The host without the brackets of an IPv6 address, and the port.
pub(super) fn host_and_port(url: &Url) -> (&str, u16) {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host, url.port_or_known_default().unwrap_or(443))
}

/// A socket to the first of the host's addresses that takes it.
pub(super) async fn tcp(url: &Url) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(host_and_port(url)).await?;
    // Pongs are small and wanted at once.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// TLS over it.
pub(super) async fn tls(config: Arc<ClientConfig>, url: &Url, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let host = host_and_port(url).0.to_owned();
    let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(config).connect(name, tcp).await
}
