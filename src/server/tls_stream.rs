//! A socket that speaks TLS and holds no buffer while nothing is on its way.
//!
//! rustls' own stream keeps 4 KiB to read into for as long as a connection lives, which is two fifths of what an idle
//! one takes. Its unbuffered connection leaves the buffers to us: here they are there for as long as they hold something,
//! which between two events is not at all. What is on its way is at most one write, and inwards what one read brings and
//! the part of a record, or of a handshake's message, before it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// The server's side of a TLS connection.
pub(super) struct TlsStream {
    socket: Socket,
    tls: UnbufferedServerConnection,
    /// Read from the socket and not understood yet.
    incoming: BytesMut,
    /// Understood and not read yet.
    plain: BytesMut,
    /// Not taken by the socket yet.
    outgoing: BytesMut,
    /// The peer said that nothing more comes.
    is_over: bool,
    /// We did.
    has_closed: bool,
    /// What waits to go out is the ticket alone, for which nobody waits: it goes with the first write, which is a system call
    /// less. Only TLS 1.3 has it after the handshake; what TLS 1.2 says last is waited for.
    holds_ticket: bool,
}

/// What is to be said next.
#[derive(Clone, Copy)]
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

impl TlsStream {
    /// Shakes hands.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: Socket) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let [incoming, plain, outgoing] = [(); 3].map(|()| BytesMut::new());
        let mut stream =
            Self { socket, tls, incoming, plain, outgoing, is_over: false, has_closed: false, holds_ticket: false };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What was agreed on.
    pub(super) fn session(&self) -> &CommonState {
        &self.tls
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.holds_ticket {
                ready!(self.poll_send(cx))?;
            }
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Reads from the socket, and understands what that completes.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.extend_from_slice(read.filled());
        let (is_handshake, waiting) = (self.tls.is_handshaking(), self.outgoing.len());
        let processed = self.process(Say::Nothing);
        self.holds_ticket = processed.is_ok()
            && if is_handshake {
                waiting == 0 && !self.tls.is_handshaking() && self.tls.protocol_version() == TICKET_AFTERWARDS
            } else {
                self.holds_ticket && waiting == self.outgoing.len()
            };
        // What that had to answer (a handshake's message, new keys, an alert) goes out behind what waits already.
        let sent = if self.holds_ticket { Poll::Pending } else { self.poll_send(cx) };
        processed?;
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        if self.incoming.len() > INCOMING_BYTES_MAX {
            return Poll::Ready(Err(invalid(rustls::Error::General("a message is too long".to_owned()))));
        }
        Poll::Ready(Ok(()))
    }

    /// Hands what waits to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.holds_ticket = false;
        while !self.outgoing.is_empty() {
            let taken = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outgoing))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(taken);
        }
        self.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Understands what came in, as far as it is whole, and then puts what is to be said behind what waits to go out.
    fn process(&mut self, say: Say<'_>) -> io::Result<()> {
        let Self { tls, incoming, plain, outgoing, is_over, .. } = self;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = tls.process_tls_records(incoming);
            let is_done = match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(outgoing, 0, |space| message.encode(space))?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(encoded)) => {
                    // What is said later goes out behind it.
                    encoded.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    *is_over = true;
                    false
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    speak(&mut traffic, say, outgoing)?;
                    true
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => match say {
                    Say::Data(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                    Say::Nothing | Say::Close => true,
                },
                // Early data, which is not offered.
                Ok(_) => return Err(io::ErrorKind::Unsupported.into()),
                Err(error) => {
                    let status = tls.process_tls_records(&mut []);
                    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = status.state {
                        append(outgoing, 0, |space| alert.encode(space))?;
                    }
                    return Err(invalid(error));
                }
            };
            incoming.advance(discard);
            if is_done {
                if incoming.is_empty() {
                    *incoming = BytesMut::new();
                }
                return Ok(());
            }
        }
    }
}

fn speak<D>(traffic: &mut WriteTraffic<'_, D>, say: Say<'_>, outgoing: &mut BytesMut) -> io::Result<()> {
    match say {
        Say::Nothing => Ok(()),
        Say::Data(data) => {
            let records = data.len().div_ceil(RECORD_BYTES_MAX).max(1);
            append(outgoing, data.len() + records * RECORD_EXTRA_BYTES, |space| traffic.encrypt(data, space))
        }
        Say::Close => append(outgoing, RECORD_EXTRA_BYTES, |space| traffic.queue_close_notify(space)),
    }
}

/// Has something written behind what is there: into `guess` bytes, or into as many as it then asks for.
fn append<E: Into<Unwritten>>(
    to: &mut BytesMut,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> io::Result<()> {
    let (at, mut space) = (to.len(), guess);
    loop {
        to.resize(at + space, 0);
        let written = write(to.get_mut(at..).unwrap_or_default()).map_err(Into::into);
        to.truncate(at + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => return Ok(()),
            Err(Unwritten::Wants(more)) if more > space => space = more,
            Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Why something was not written.
enum Unwritten {
    /// It needs so many bytes.
    Wants(usize),
    Never,
}

impl From<EncodeError> for Unwritten {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Wants(required_size),
            EncodeError::AlreadyEncoded => Self::Never,
        }
    }
}

impl From<EncryptError> for Unwritten {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Wants(required_size),
            EncryptError::EncryptExhausted => Self::Never,
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.plain.is_empty() {
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
        let len = self.plain.len().min(buf.remaining());
        buf.put_slice(&self.plain.split_to(len));
        if self.plain.is_empty() {
            self.plain = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    /// Takes one write at a time: the next once the socket has taken the one before.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.holds_ticket {
            ready!(self.poll_send(cx))?;
        }
        if buf.is_empty() {
            // It would make a record.
            return Poll::Ready(Ok(0));
        }
        let taken = buf.get(..WRITE_BYTES_MAX).unwrap_or(buf);
        self.process(Say::Data(taken))?;
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken.len()))
    }

    /// Small pieces share a record, and a system call.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(WRITE_BYTES_MAX);
        let mut joined = Vec::with_capacity(len);
        for buf in bufs {
            let room = len - joined.len();
            joined.extend_from_slice(buf.get(..room).unwrap_or(buf));
        }
        self.poll_write(cx, &joined)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_closed {
            self.has_closed = true;
            self.process(Say::Close)?;
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The version that has its ticket after the handshake.
const TICKET_AFTERWARDS: Option<ProtocolVersion> = Some(ProtocolVersion::TLSv1_3);
/// On the stack while it is read into, and nowhere else.
const READ_BYTES: usize = 4 * 1024;
/// The longest message of a handshake that rustls takes, and a record behind it.
const INCOMING_BYTES_MAX: usize = 64 * 1024 + 18 * 1024;
/// What is taken of one write: bounds what a peer that does not read holds here.
const WRITE_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;
/// RFC 8446 § 5.1.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// More than any cipher suite adds to a record.
const RECORD_EXTRA_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatecast_storage::SystemClock;
    use gatecast_transports::Sever;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::config::TlsMode;
    use crate::server::tls::Tls;

    /// A server's and a client's configuration.
    fn configured(dir: &std::path::Path) -> (Tls, TlsConnector) {
        configured_for(dir, rustls::DEFAULT_VERSIONS)
    }

    fn configured_for(dir: &std::path::Path, versions: &[&'static SupportedProtocolVersion]) -> (Tls, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls =
            Tls::try_load(&TlsMode::Files { cert, key, client_ca: None }, Arc::new(SystemClock)).unwrap().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap();
        (tls, TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth())))
    }

    async fn sockets() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0, Sever::new(), Duration::from_secs(30)), far)
    }

    #[tokio::test]
    async fn megabytes_pass_both_ways_and_nothing_is_held_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let (tls, connector) = configured(dir.path());
        let (near, far) = sockets().await;
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(tls.accept(near), connector.connect(name, far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let mut got = vec![0; sent.len()];
        let writing = async {
            near.write_all(&sent).await.unwrap();
            near.flush().await.unwrap();
        };
        tokio::join!(writing, async { far.read_exact(&mut got).await.unwrap() });
        assert!(got == sent);
        got.fill(0);
        let writing = async {
            far.write_all(&sent).await.unwrap();
            far.flush().await.unwrap();
        };
        tokio::join!(writing, async { near.read_exact(&mut got).await.unwrap() });
        assert!(got == sent);
        let pieces = [b"one ".as_slice(), b"", b"record"].map(IoSlice::new);
        assert_eq!(near.write_vectored(&pieces).await.unwrap(), 10);
        near.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 10);
        let held = [&near.incoming, &near.plain, &near.outgoing].map(BytesMut::capacity);
        assert_eq!(held, [0; 3]);
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 0, "told, not cut off");
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_ticket_goes_with_the_first_write_and_is_good_for_the_next_connection() {
        let dir = tempfile::tempdir().unwrap();
        let (tls, connector) = configured(dir.path());
        let name = ServerName::try_from("localhost").unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (near, far) = sockets().await;
            let (near, far) = tokio::join!(tls.accept(near), connector.connect(name.clone(), far));
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            assert_eq!(far.get_ref().1.handshake_kind(), Some(kind));
            assert!(near.holds_ticket && !near.outgoing.is_empty());
            far.write_all(b"question").await.unwrap();
            let mut said = [0; 8];
            near.read_exact(&mut said).await.unwrap();
            assert!(near.holds_ticket, "a read is not the time");
            near.write_all(b"answered").await.unwrap();
            assert!(!near.holds_ticket && near.outgoing.is_empty());
            far.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"answered");
        }
    }

    #[tokio::test]
    async fn a_client_of_tls_1_2_waits_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (tls, connector) = configured_for(dir.path(), &[&rustls::version::TLS12]);
        let name = ServerName::try_from("localhost").unwrap();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (near, far) = sockets().await;
            let shaken = async { tokio::join!(tls.accept(near), connector.connect(name.clone(), far)) };
            let (near, far) = tokio::time::timeout(Duration::from_secs(60), shaken).await.expect("nobody waits");
            assert!(!near.unwrap().holds_ticket);
            assert_eq!(far.unwrap().get_ref().1.handshake_kind(), Some(kind));
        }
    }

    #[tokio::test]
    async fn a_peer_that_speaks_no_tls_is_told_so_and_one_that_is_gone_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let (tls, connector) = configured(dir.path());
        let (near, mut far) = sockets().await;
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(tls.accept(near).await.err().unwrap().kind(), io::ErrorKind::InvalidData);
        assert_eq!(far.read_u8().await.unwrap(), ALERT);
        let (near, far) = sockets().await;
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(tls.accept(near), connector.connect(name, far));
        let mut gone = far.unwrap().into_inner().0;
        gone.shutdown().await.unwrap();
        assert_eq!(near.unwrap().read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// RFC 8446 § 5.1.
    const ALERT: u8 = 21;
}
