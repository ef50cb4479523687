//! A server in this process, with a data directory of its own, and calls to its API.

use std::fs;
use std::ops::Deref;
use std::sync::Arc;

use gatecast::config::{self, Sources};
use gatecast::hub::Hub;
use gatecast::server::{Server, StartError};
use gatecast_storage::StoreError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use crate::platform::Registered;
use crate::platform::{Platform, spacious};

pub(crate) struct App {
    platform: Platform,
    pub(crate) hub: Arc<Hub>,
    data: Option<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Deref for App {
    type Target = Platform;

    fn deref(&self) -> &Platform {
        &self.platform
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::in_dir(settings, tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn in_dir(settings: &[(&str, &str)], data: tempfile::TempDir) -> Self {
        let mut env: Vec<_> = spacious(settings).into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        env.push(("GATECAST_LISTEN".into(), "127.0.0.1:0".into()));
        env.push(("GATECAST_DATA_DIR".into(), data.path().into()));
        let admin =
            settings.iter().find(|(name, _)| *name == "GATECAST_ADMIN_TOKEN").map(|(_, token)| (*token).to_owned());
        let dev = !settings.iter().any(|(name, _)| ["GATECAST_TLS_CERT", "GATECAST_TLS"].contains(name));
        let scheme = if settings.contains(&("GATECAST_TLS", "off")) { "http" } else { "https" };
        let sources = Sources { dev, env, ..Sources::default() };
        let read = |path: &str| fs::read(path).map_err(|error| error.to_string());
        let config = config::load(sources, &read, &|_| Vec::new()).unwrap().config;
        let server = loop {
            match Server::start(&config, |_| panic!("a token is configured, or none is needed")).await {
                // The tasks of the server that had this directory before are still about to end.
                Err(StartError::Store(StoreError::InUse(_))) => tokio::task::yield_now().await,
                started => break started.unwrap(),
            }
        };
        let (platform, hub) = (Platform { admin, scheme, ..Platform::new(server.address()) }, server.hub());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { platform, hub, data: Some(data), stop: Some(stop), serving: Some(serving) }
    }

    /// Waits until so many connections are registered.
    pub(crate) async fn connected(&self, count: usize) {
        let counted = async {
            while self.hub.registry.len() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::wire::PATIENCE, counted).await.expect("as many connections as that");
    }

    /// Drains and returns the data directory.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap().unwrap();
        self.data.take().unwrap()
    }

    /// Begins to drain.
    pub(crate) fn drain(&mut self) {
        drop(self.stop.take());
    }
}
