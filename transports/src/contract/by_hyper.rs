//! The same clients of the same transports where hyper serves every request, as it does over HTTP/2 and behind another
//! request.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::client::{Client, Got};
use super::raw::Head;
use crate::close::Ending;
use crate::timing::Timing;
use crate::transport::{Gate, Transport};

/// A client of a transport that hyper alone serves.
#[derive(Debug)]
pub struct ByHyper<C>(C);

/// A transport but for what it does without hyper.
struct Routes(Box<dyn Transport>);

impl Transport for Routes {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn routes(&self, gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)> {
        self.0.routes(gate)
    }
}

#[async_trait]
impl<C: Client> Client for ByHyper<C> {
    const STREAMS: bool = C::STREAMS;
    const PATH: &'static str = C::PATH;
    const HEADERS: &'static str = C::HEADERS;

    fn transport(timing: Timing, tasks: TaskTracker) -> Box<dyn Transport> {
        Box::new(Routes(C::transport(timing, tasks)))
    }

    async fn connect(addr: SocketAddr) -> Result<Self, (Head, Vec<u8>)> {
        C::connect(addr).await.map(Self)
    }

    async fn next(&mut self) -> Got {
        self.0.next().await
    }

    fn told(ending: &Ending) -> (Option<String>, Option<u16>) {
        C::told(ending)
    }
}
