use std::sync::Arc;
use std::time::Duration;

use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::script::Script;
use gatecast_transports::{BoxSocket, ConnInfo, Newcomer, Rewound, Sever, Timing};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// More than any deadline that is under test: in paused time it costs nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Serves one socket; the task gives what is for hyper.
pub(crate) struct Line {
    pub(crate) peer: DuplexStream,
    pub(crate) served: JoinHandle<Option<Rewound>>,
    pub(crate) sever: Sever,
    pub(crate) drain: CancellationToken,
    /// The connections that outlive their request.
    pub(crate) tasks: TaskTracker,
}

impl Line {
    /// As the transport of `C` serves it, over a pipe of so many bytes.
    pub(crate) fn new<C: Client>(script: &Script, pipe_bytes: usize) -> Self {
        let (peer, near) = tokio::io::duplex(pipe_bytes);
        Self::over::<C>(Box::new(near), peer, script)
    }

    pub(crate) fn over<C: Client>(near: BoxSocket, peer: DuplexStream, script: &Script) -> Self {
        let (sever, drain, tasks) = (Sever::new(), CancellationToken::new(), TaskTracker::new());
        let direct = C::transport(Timing::default(), tasks.clone()).direct(Arc::new(script.clone())).unwrap();
        let info = Arc::new(ConnInfo::of(([127, 0, 0, 1], 1).into()));
        let newcomer = Newcomer { socket: Rewound::from(near), info, sever: sever.clone(), drain: drain.clone() };
        Self { peer, served: tokio::spawn(async move { direct.serve(newcomer).await }), sever, drain, tasks }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.peer.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until what came ends so.
    pub(crate) async fn until(&mut self, end: impl AsRef<[u8]>) -> String {
        let mut read = Vec::new();
        let whole = async {
            while !read.ends_with(end.as_ref()) {
                assert!(self.peer.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
            }
        };
        timeout(PATIENCE, whole).await.unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    async fn served(&mut self) -> Option<Rewound> {
        timeout(PATIENCE, &mut self.served).await.unwrap().unwrap()
    }

    /// Nothing is left for hyper.
    pub(crate) async fn is_over(&mut self) {
        assert!(self.served().await.is_none());
    }

    /// Hyper gets these bytes and no others before them.
    pub(crate) async fn is_for_hyper(&mut self, bytes: &str) {
        let mut rewound = self.served().await.unwrap();
        let mut read = vec![0; bytes.len()];
        timeout(PATIENCE, rewound.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), bytes);
    }
}
