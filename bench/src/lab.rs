//! A server under test and its gateways. The data directory outlives the server, so that each figure gets a fresh
//! process with the same gateways.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::{Address, Http, request};
use crate::peer::Pass;
use crate::process::Process;
use crate::{http, tls};

const ADMIN_TOKEN: &str = "bench-admin-token-of-this-run-only";
/// Calls under way at once when gateways are made.
const MAKERS: usize = 32;
/// How often a server that starts is asked whether it is ready, and how long.
const READY_EVERY: Duration = Duration::from_millis(50);
const READY_TRIES: usize = 200;

/// A gateway and a key of it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) key: String,
}

/// What all servers of a run share.
pub(crate) struct Lab {
    binary: PathBuf,
    data: TempDir,
    client: Arc<ClientConfig>,
    gateways: OnceCell<Vec<Gateway>>,
}

/// A server that is ready.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: Address,
}

impl Lab {
    pub(crate) fn new(binary: PathBuf) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("gatecast-bench-").tempdir()?;
        Ok(Self { binary, data, client: tls::client()?, gateways: OnceCell::new() })
    }

    /// Starts a server with no limit in the way.
    pub(crate) async fn server(&self, tls: bool) -> Result<Server> {
        // Bound and freed at once: the server says where it listens only in its log.
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = self.data.path().display().to_string();
        let env = [
            ("GATECAST_LISTEN", free.as_str()),
            ("GATECAST_DATA_DIR", &data),
            ("GATECAST_ADMIN_TOKEN", ADMIN_TOKEN),
            ("GATECAST_TLS", if tls { "on" } else { "off" }),
            ("WS_MAX_CONNECTIONS", "18000"),
            ("WS_RATE_LIMIT_PER_MINUTE", "1000000"),
            ("GATECAST_MAX_CONNECTIONS_PER_GATEWAY", "10000"),
        ];
        // --dev makes the certificate.
        let args: &[&str] = if tls { &["serve", "--dev"] } else { &["serve"] };
        let process = Process::start(&self.binary, args, &env)?;
        let address = self.address(free, tls);
        for _ in 0..READY_TRIES {
            if let Ok(mut http) = Http::connect(&address).await
                && http.call(&request("GET", "/ready", "", "")).await?.status == 200
            {
                return Ok(Server { process, address });
            }
            sleep(READY_EVERY).await;
        }
        Err("the server does not start".into())
    }

    /// Where a process listens.
    pub(crate) fn address(&self, at: String, tls: bool) -> Address {
        Address { at, tls: tls.then(|| self.client.clone()) }
    }

    /// Gateways by their number; made once and kept.
    pub(crate) async fn gateways(&self, count: usize) -> Result<&[Gateway]> {
        if self.gateways.get().is_none() {
            let server = self.server(false).await?;
            let made = make(&server.address, count).await?;
            server.process.stop().await?;
            let _ = self.gateways.set(made);
        }
        Ok(self.gateways.get().and_then(|all| all.get(..count)).ok_or("more gateways than were made")?)
    }
}

impl Gateway {
    pub(crate) fn pass(&self, cursor: Option<String>) -> Pass {
        Pass { key: self.key.clone(), cursor }
    }

    /// A request that publishes an event whose envelope has [`EVENT_BYTES`], give or take the digits of its position.
    pub(crate) fn event(&self) -> Vec<u8> {
        let filler = "x".repeat(EVENT_BYTES - ENVELOPE_BYTES);
        let body =
            format!(r#"{{"type":"gateway.config.updated","correlationId":"bench","payload":{{"filler":"{filler}"}}}}"#);
        request("POST", &format!("/api/internal/v1/gateways/{}/events", self.id), &authorization(), &body)
    }
}

/// Publishes an event and gives its id.
pub(crate) async fn publish(http: &mut Http, event: &[u8]) -> Result<String> {
    let answer = http.call(event).await?;
    if answer.status != 201 {
        return Err(format!("publish: {} {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
    }
    member(&answer, "eventId")
}

/// Publishes `each` events to every gateway, from 64 publishers, and gives the last event's id of each.
pub(crate) async fn publish_all(to: &Address, gateways: &[Gateway], each: usize) -> Result<Vec<String>> {
    let gateways = Rc::new(gateways.to_vec());
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (to, gateways) = (to.clone(), gateways.clone());
        publishers.spawn_local(async move {
            let mut http = Http::connect(&to).await?;
            let mut last = Vec::new();
            for (index, gateway) in gateways.iter().enumerate().skip(publisher).step_by(PUBLISHERS) {
                let event = gateway.event();
                let mut id = String::new();
                for _ in 0..each {
                    id = publish(&mut http, &event).await?;
                }
                last.push((index, id));
            }
            Result::Ok(last)
        });
    }
    let mut last = Vec::new();
    while let Some(done) = publishers.join_next().await {
        last.extend(done??);
    }
    last.sort();
    Ok(last.into_iter().map(|(_, id)| id).collect())
}

async fn make(to: &Address, count: usize) -> Result<Vec<Gateway>> {
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let to = to.clone();
        makers.spawn_local(async move {
            let mut http = Http::connect(&to).await?;
            let mut made = Vec::new();
            for index in (maker..count).step_by(MAKERS) {
                made.push(gateway(&mut http, index).await?);
            }
            Result::Ok(made)
        });
    }
    let mut made = Vec::new();
    while let Some(some) = makers.join_next().await {
        made.extend(some??);
    }
    Ok(made)
}

async fn gateway(http: &mut Http, index: usize) -> Result<Gateway> {
    let body = format!(r#"{{"organizationId":"{ORGANIZATION}","name":"bench-{index}","displayName":"Bench {index}"}}"#);
    let made = http.call(&request("POST", "/api/v1/gateways", &authorization(), &body)).await?;
    let id = member(&made, "id")?;
    let path = format!("/api/v1/gateways/{id}/tokens");
    let token = http.call(&request("POST", &path, &authorization(), "{}")).await?;
    Ok(Gateway { id, key: member(&token, "token")? })
}

fn member(answer: &http::Answer, name: &str) -> Result<String> {
    let body: Value = serde_json::from_slice(&answer.body)?;
    let text = body.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(text.ok_or_else(|| format!("no {name} in {body}"))?)
}

fn authorization() -> String {
    format!("authorization: Bearer {ADMIN_TOKEN}\r\n")
}

/// Keep-alive publishers at once.
pub(crate) const PUBLISHERS: usize = 64;
const ORGANIZATION: &str = "6d1f2c1e-8d5c-4a8e-9d0a-0c8e5d2f7b11";
/// What an envelope has besides the filler.
const ENVELOPE_BYTES: usize = 203;
