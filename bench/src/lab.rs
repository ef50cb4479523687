//! A server under test and its gateways. The data directory outlives the server, so that each figure gets a fresh
//! process with the same gateways.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::{Address, Http, request};
use crate::peer::Pass;
use crate::process::Process;
use crate::rival::Rival;
use crate::{http, tls};

const ADMIN_TOKEN: &str = "bench-admin-token-of-this-run-only";
/// Calls under way at once when gateways are made.
const MAKERS: usize = 32;
/// How often a server that starts is asked whether it is ready, and how long.
const READY_EVERY: Duration = Duration::from_millis(5);
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A gateway and a key of it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) key: String,
}

/// Whether gateways that are made can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    OneEach,
    None,
}

/// What all servers of a run share.
pub(crate) struct Lab {
    binary: PathBuf,
    data: TempDir,
    client: Arc<ClientConfig>,
    gateways: OnceCell<Vec<Gateway>>,
    /// Whom gatecast is compared with.
    pub(crate) rivals: Vec<Rival>,
}

/// A server that is ready.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: Address,
    /// How long it took from its start until it was ready.
    pub(crate) ready_after: Duration,
}

impl Lab {
    pub(crate) fn new(binary: PathBuf) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("gatecast-bench-").tempdir()?;
        Ok(Self { binary, data, client: tls::client()?, gateways: OnceCell::new(), rivals: Vec::new() })
    }

    /// The same, with others to compare with.
    pub(crate) fn beside(self, rivals: Vec<Rival>) -> Self {
        Self { rivals, ..self }
    }

    /// Starts a server with no limit in the way.
    pub(crate) async fn server(&self, tls: bool) -> Result<Server> {
        // --dev makes the certificate.
        let args: &[&str] = if tls { &["serve", "--dev"] } else { &["serve"] };
        self.start(&self.binary, args, tls, "sled").await
    }

    /// Starts a server whose instructions callgrind counts, into files whose names begin as `profile`. It keeps its
    /// events in memory: a disk's turns are nothing to count on.
    pub(crate) async fn counted_server(&self, profile: &Path) -> Result<Server> {
        let out = format!("--callgrind-out-file={}", profile.display());
        let binary = self.binary.display().to_string();
        self.start(Path::new("valgrind"), &["--quiet", "--tool=callgrind", &out, &binary, "serve"], false, "memory")
            .await
    }

    async fn start(&self, program: &Path, args: &[&str], tls: bool, store: &str) -> Result<Server> {
        // Bound and freed at once: the server says where it listens only in its log.
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data = self.data.path().display().to_string();
        let env = [
            ("GATECAST_LISTEN", free.as_str()),
            ("GATECAST_DATA_DIR", &data),
            ("GATECAST_STORE", store),
            ("GATECAST_ADMIN_TOKEN", ADMIN_TOKEN),
            ("GATECAST_TLS", if tls { "on" } else { "off" }),
            ("WS_MAX_CONNECTIONS", "18000"),
            ("WS_RATE_LIMIT_PER_MINUTE", "1000000"),
            ("GATECAST_MAX_CONNECTIONS_PER_GATEWAY", "10000"),
        ];
        let process = Process::start(program, args, &env)?;
        let address = self.address(free, tls);
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if let Ok(mut http) = Http::connect(&address).await
                && http.call(&request("GET", "/ready", "", "")).await?.status == 200
            {
                return Ok(Server { process, address, ready_after: began.elapsed() });
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
            let made = make(&server.address, 0..count, Keys::OneEach).await?;
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

    /// A request that publishes an event whose envelope has so many bytes, give or take the digits of its position.
    pub(crate) fn event(&self, bytes: usize) -> Vec<u8> {
        let body = format!("{{{}}}", event(bytes));
        request("POST", &format!("/api/internal/v1/gateways/{}/events", self.id), &authorization(), &body)
    }
}

/// A request that publishes an event to several gateways in one call.
pub(crate) fn batch(to: &[Gateway]) -> Vec<u8> {
    let ids = to.iter().map(|gateway| format!("\"{}\"", gateway.id)).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"targets":{{"gatewayIds":[{ids}]}},{}}}"#, event(EVENT_BYTES));
    request("POST", "/api/internal/v1/events", &authorization(), &body)
}

/// The members of an event whose envelope has so many bytes.
fn event(bytes: usize) -> String {
    let filler = "x".repeat(bytes.saturating_sub(ENVELOPE_BYTES));
    format!(r#""type":"gateway.config.updated","correlationId":"bench","payload":{{"filler":"{filler}"}}"#)
}

/// Publishes an event and gives its id.
pub(crate) async fn publish(http: &mut Http, event: &[u8]) -> Result<String> {
    let answer = http.call(event).await?;
    if answer.status != 201 {
        return Err(format!("publish: {} {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
    }
    member(&answer, "eventId")
}

/// The position in an eventId.
pub(crate) fn seq_of(event_id: &str) -> Result<u64> {
    let (_, seq) = event_id.split_once('-').ok_or("not an eventId")?;
    Ok(seq.parse()?)
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
                let event = gateway.event(EVENT_BYTES);
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

/// Makes gateways whose numbers are these.
pub(crate) async fn make(to: &Address, numbers: Range<usize>, keys: Keys) -> Result<Vec<Gateway>> {
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let (to, numbers) = (to.clone(), numbers.clone());
        makers.spawn_local(async move {
            let mut http = Http::connect(&to).await?;
            let mut made = Vec::new();
            for index in numbers.skip(maker).step_by(MAKERS) {
                made.push(gateway(&mut http, index, keys).await?);
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

async fn gateway(http: &mut Http, index: usize, keys: Keys) -> Result<Gateway> {
    let body = format!(r#"{{"organizationId":"{ORGANIZATION}","name":"bench-{index}","displayName":"Bench {index}"}}"#);
    let made = http.call(&request("POST", "/api/v1/gateways", &authorization(), &body)).await?;
    let id = member(&made, "id")?;
    if keys == Keys::None {
        return Ok(Gateway { id, key: String::new() });
    }
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
