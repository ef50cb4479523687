//! A loopback server over a transport's routes: HTTP/1.1, or HTTP/2 with prior knowledge.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::script::Script;
use crate::bare::{BoxSocket, Rewound};
use crate::hand_over::{HandOver, Http1};
use crate::handshake::ConnInfo;
use crate::sever::Sever;
use crate::transport::{Direct, Newcomer, Transport};

/// A server; it stops accepting when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves a transport whose gate is `script`, over HTTP/1.1.
    pub async fn start(transport: &dyn Transport, script: &Script) -> Self {
        Self::start_version(transport, script, http::Version::HTTP_11).await
    }

    /// The same over HTTP/2 (`version` is `HTTP_2`).
    pub async fn start_version(transport: &dyn Transport, script: &Script, version: http::Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let routes = transport.routes(Arc::new(script.clone()));
        let direct = transport.direct(Arc::new(script.clone())).filter(|_| version == http::Version::HTTP_11);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                drop(tokio::spawn(serve(socket, peer, direct.clone(), routes.clone(), version)));
            }
        });
        Self { addr, accepting }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What the accept loop of a real server does too: facts about the socket into the request, and an end to it when a
/// transport says so.
async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    direct: Option<Arc<dyn Direct>>,
    routes: BoxedFilter<(Response,)>,
    version: http::Version,
) {
    let (info, sever, hand_over) = (Arc::new(ConnInfo::of(peer)), Sever::new(), HandOver::new());
    let socket = Rewound::from(Box::new(socket) as BoxSocket);
    let socket = match direct {
        Some(direct) => {
            let (info, sever, drain) = (Arc::clone(&info), sever.clone(), CancellationToken::new());
            let Some(socket) = direct.serve(Newcomer { socket, info, sever, drain }).await else { return };
            socket
        }
        None => socket,
    };
    let (inserted, offered) = (sever.clone(), hand_over.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&info));
        request.extensions_mut().insert(inserted.clone());
        if request.version() == http::Version::HTTP_11 {
            request.extensions_mut().insert(offered.clone());
        }
        let answer = TowerToHyperService::new(warp::service(routes.clone())).call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection: BoxFuture<'_, hyper::Result<()>> = if version == http::Version::HTTP_2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        Box::pin(builder.serve_connection(TokioIo::new(socket), service))
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        let io = TokioIo::new(hand_over.watch(socket, sever.clone()));
        let connection = builder.max_buf_size(HYPER_BUFFER_BYTES).serve_connection(io, service).with_upgrades();
        Box::pin(Http1::new(connection, hand_over))
    };
    tokio::select! {
        biased;
        () = sever.severed() => {}
        _ = connection => {}
    }
}

const HYPER_BUFFER_BYTES: usize = 16 * 1024;
