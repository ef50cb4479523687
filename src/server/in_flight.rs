//! What a connection is asked, and has not answered to the end.
//!
//! An answer that has an end goes to hyper in pieces that say when they have left, so that it shows whether the peer takes
//! any of it: hyper keeps what its peer has no window for as long as that answers pings. Endless ones have limits of their
//! own, in the transports.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gatecast_transports::{Stall, TAKEN_BYTES_MIN};
use http::Response;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;

/// What hyper is given at once: one frame of HTTP/2, so that each that a peer takes shows (RFC 9113 § 6.5.2).
const PIECE_BYTES: usize = 16 * 1024;

/// Requests whose responses have not ended.
#[derive(Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    /// Requests ever begun: tells whether there was one between two looks.
    begun: AtomicUsize,
    /// Answers that have an end and have not left.
    leaving: AtomicUsize,
    /// Pieces and answers that ever left: tells whether the peer took any between two looks.
    left: AtomicUsize,
}

impl InFlight {
    /// A request begins.
    pub(super) fn enter(this: &Arc<Self>) -> Entered {
        this.count.fetch_add(1, Ordering::AcqRel);
        this.begun.fetch_add(1, Ordering::AcqRel);
        Entered { in_flight: this.clone(), ends: false }
    }

    /// Resolves when there was no request in flight for at least `limit`, and at most twice that.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Acquire);
            let idle = self.count.load(Ordering::Acquire) == 0;
            sleep(limit).await;
            if idle && begun == self.begun.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Resolves when the peer is [stalled](Stall) with what it asked for: it took nothing of it for at least `limit`, and at
    /// most four times that. What it takes of one answer counts for all: they share a line, and have turns.
    pub(super) async fn stalled_for(&self, limit: Duration) {
        loop {
            let mut stall = Stall::new(limit, self.taken());
            while self.leaving.load(Ordering::Acquire) > 0 {
                let taken = self.taken();
                stall.stalled(taken).await;
                if taken == self.taken() {
                    return;
                }
            }
            sleep(limit).await;
        }
    }

    /// Each piece, and each answer, counts as much as a peer has to take in the limit: one is enough.
    fn taken(&self) -> u64 {
        self.left.load(Ordering::Acquire) as u64 * u64::from(TAKEN_BYTES_MIN)
    }
}

/// A request, until its response has left.
pub(super) struct Entered {
    in_flight: Arc<InFlight>,
    ends: bool,
}

impl Entered {
    /// Its response is one that has an end.
    fn ends(&mut self) {
        self.in_flight.leaving.fetch_add(1, Ordering::AcqRel);
        self.ends = true;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.ends {
            self.in_flight.leaving.fetch_sub(1, Ordering::AcqRel);
            self.in_flight.left.fetch_add(1, Ordering::AcqRel);
        }
        self.in_flight.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response body that counts as in flight until it has left, or is dropped.
pub(super) struct Counted<B> {
    body: B,
    /// What is to be given next, of one that ends.
    rest: Bytes,
    entered: Arc<Entered>,
}

impl<B> Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// The answer to a request.
    pub(super) fn answer(response: Response<B>, mut entered: Entered) -> Response<Self> {
        if response.body().size_hint().exact().is_some() || response.headers().contains_key(CONTENT_LENGTH) {
            entered.ends();
        }
        response.map(|body| Self { body, rest: Bytes::new(), entered: Arc::new(entered) })
    }

    /// The next piece of what the body gave.
    fn piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        Bytes::from_owner(Piece { bytes, entered: self.entered.clone() })
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if self.entered.ends => self.rest = data,
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// A part of an answer, until hyper lets go of it: then the socket has taken it.
struct Piece {
    bytes: Bytes,
    entered: Arc<Entered>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.entered.in_flight.left.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Request;
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::{Instant, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const BODY_BYTES: usize = 1024 * 1024;

    /// All of its bytes at once, and then nothing more, or an end.
    struct Given {
        bytes: Bytes,
        ends: bool,
    }

    impl Body for Given {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match std::mem::take(&mut self.bytes) {
                bytes if bytes.is_empty() && self.ends => Poll::Ready(None),
                bytes if bytes.is_empty() => Poll::Pending,
                bytes => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.ends && self.bytes.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            if self.ends { SizeHint::with_exact(self.bytes.len() as u64) } else { SizeHint::default() }
        }
    }

    /// An HTTP/2 peer that asks once and gives windows of so many bytes, with what counts its answer.
    async fn asked(ends: bool, window: u32) -> (DuplexStream, Arc<InFlight>) {
        let (mut peer, socket) = tokio::io::duplex(64 * 1024);
        let in_flight = Arc::<InFlight>::default();
        let counted = in_flight.clone();
        let service = service_fn(move |_: Request<Incoming>| {
            let given = Given { bytes: vec![0; BODY_BYTES].into(), ends };
            let answer = Counted::answer(Response::new(given), InFlight::enter(&counted));
            async { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service));
        // The preface, INITIAL_WINDOW_SIZE, and a `GET` of `/` of the authority `x` (RFC 7541 appendix A).
        let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &window.to_be_bytes()].concat();
        let get = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x01, 1, b'x'];
        peer.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &get].concat()).await.unwrap();
        (peer, in_flight)
    }

    /// Lets the server send so many bytes more, on the stream and on the connection.
    async fn give(peer: &mut DuplexStream, bytes: u32) {
        for stream in [0, 1] {
            let update = [&[0, 0, 4, 8, 0, 0, 0, 0, stream][..], &bytes.to_be_bytes()].concat();
            peer.write_all(&update).await.unwrap();
        }
    }

    /// Reads what there is for a while.
    async fn read_for(peer: &mut DuplexStream, time: Duration) -> usize {
        let mut bytes = 0;
        let _ = timeout(time, async {
            while peer.read_buf(&mut Vec::with_capacity(65_536)).await.map(|n| bytes += n).is_ok() {}
        })
        .await;
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_a_peer_takes_nothing_of_is_stalled_whatever_its_window() {
        // hyper gets rid of the whole answer into a window of one byte.
        for window in [0, 1, 40_000] {
            let (mut peer, in_flight) = asked(true, window).await;
            let before = Instant::now();
            tokio::select! {
                () = in_flight.stalled_for(LIMIT) => {}
                _ = read_for(&mut peer, LIMIT * 9) => panic!("{window}"),
            }
            assert!((LIMIT..=LIMIT * 2).contains(&before.elapsed()), "{window}: {:?}", before.elapsed());
            assert_eq!(in_flight.count.load(Ordering::Acquire), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_that_takes_a_piece_now_and_then_gets_all_of_its_answer() {
        let (mut peer, in_flight) = asked(true, 0).await;
        let read = async {
            let mut read = 0;
            while read < BODY_BYTES {
                give(&mut peer, 20_000).await;
                read += read_for(&mut peer, LIMIT - Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = in_flight.stalled_for(LIMIT) => panic!("it is slow"),
            () = read => {}
        }
        let _ = read_for(&mut peer, LIMIT).await;
        assert_eq!(in_flight.count.load(Ordering::Acquire), 0);
        assert!(timeout(LIMIT * 9, in_flight.stalled_for(LIMIT)).await.is_err(), "there is nothing to take");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_an_end_is_left_to_whoever_gives_it() {
        let (_peer, in_flight) = asked(false, 0).await;
        assert!(timeout(LIMIT * 9, in_flight.stalled_for(LIMIT)).await.is_err());
        assert_eq!(in_flight.count.load(Ordering::Acquire), 1);
    }
}
