//! From an address to a socket: TCP, then TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long an address is waited for until the next is tried beside it (RFC 8305 § 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// The host without the brackets of an IPv6 address, and the port.
pub(super) fn host_and_port(url: &Url) -> (&str, u16) {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host, url.port_or_known_default().unwrap_or(443))
}

/// What the host's name stands for, in the order of preference; never nothing.
pub(super) async fn addresses(url: &Url) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = lookup_host(host_and_port(url)).await?.collect();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
}

/// A socket to the first of the addresses that takes it: one that is silent holds up the others no longer than a moment.
pub(super) async fn tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let tcp = first(addresses, TcpStream::connect).await?;
    // Pongs are small and wanted at once.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn first<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let (mut addresses, mut attempts) = (addresses.iter(), FuturesUnordered::new());
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        attempts.extend(addresses.next().map(|&address| connect(address)));
        let patience = if addresses.len() > 0 { NEXT_ADDRESS_AFTER } else { Duration::MAX };
        match timeout(patience, attempts.next()).await {
            Ok(Some(Ok(taken))) => return Ok(taken),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) => return Err(failure),
            // The next one joins those that are waited for.
            Err(_) => {}
        }
    }
}

/// TLS over it.
pub(super) async fn tls(config: Arc<ClientConfig>, url: &Url, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let host = host_and_port(url).0.to_owned();
    let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    TlsConnector::from(config).connect(name, tcp).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::{Instant, sleep};

    const SILENT: u16 = 1;
    const REFUSES: u16 = 2;
    const SLOW: u16 = 3;
    const TAKES: u16 = 4;

    async fn dialled(ports: &[u16]) -> io::Result<u16> {
        let addresses: Vec<_> = ports.iter().map(|&port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        let connect = async |address: SocketAddr| match address.port() {
            SILENT => pending().await,
            REFUSES => Err(io::ErrorKind::ConnectionRefused.into()),
            SLOW => {
                sleep(NEXT_ADDRESS_AFTER * 2).await;
                Ok(SLOW)
            }
            port => Ok(port),
        };
        first(&addresses, connect).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_takes_it_wins_and_a_silent_one_costs_a_moment() {
        for (ports, winner, moments) in [
            (&[TAKES, SILENT][..], TAKES, 0),
            (&[SILENT, TAKES], TAKES, 1),
            (&[SILENT, SILENT, TAKES], TAKES, 2),
            (&[SILENT, REFUSES, TAKES], TAKES, 1),
            (&[REFUSES, TAKES], TAKES, 0),
            // Who was asked first may still win while others are asked beside it.
            (&[SLOW, SILENT, SILENT], SLOW, 2),
            (&[SLOW, REFUSES], SLOW, 2),
        ] {
            let start = Instant::now();
            assert_eq!(dialled(ports).await.unwrap(), winner, "{ports:?}");
            assert_eq!(start.elapsed(), NEXT_ADDRESS_AFTER * moments, "{ports:?}");
        }
        let refused = dialled(&[REFUSES, REFUSES]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(timeout(Duration::from_secs(60), dialled(&[SILENT, REFUSES])).await.is_err());
    }
}
