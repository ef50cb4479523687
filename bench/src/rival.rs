//! Other servers of the kind, where Debian's packages of them are installed (`nginx` with `libnginx-mod-nchan`,
//! `nats-server`): each on the measured core, with no limit in the way, told to keep no log.
//!
//! What they promise is less: Nchan keeps events in memory, NATS keeps none, JetStream writes them to a file that it syncs
//! every two minutes. The answer to a publish comes before that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::{Address, Http, Place, request};
use crate::lab::Lab;
use crate::nats::Nats;
use crate::peer::Transport;
use crate::process::Process;
use crate::tls;

/// How often one that starts is tried, and how long.
const READY_EVERY: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Where Debian has Nchan.
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// Another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    Nchan,
    Nats,
    JetStream,
}

/// One that is ready.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: Address,
    pub(crate) rival: Rival,
    _files: TempDir,
}

/// Publishes to one, an event at a time.
pub(crate) enum Publisher {
    Nchan(Http),
    Nats(Nats),
    /// With the subject that its answers come to.
    JetStream(Nats, String),
}

impl Rival {
    pub(crate) const ALL: [Self; 3] = [Self::Nchan, Self::Nats, Self::JetStream];

    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nchan => "Nchan",
            Self::Nats => "NATS",
            Self::JetStream => "JetStream",
        }
    }

    /// Whether it can be run here.
    pub(crate) fn is_installed(self) -> bool {
        Path::new(self.program()).exists() && (self != Self::Nchan || Path::new(NCHAN).exists())
    }

    /// How peers connect to it for what a transport of ours does; `None` if it has nothing of the kind.
    pub(crate) fn like(self, ours: Transport) -> Option<Transport> {
        match (self, ours) {
            (_, Transport::WebSocket) => Some(Transport::Rival(self)),
            (Self::Nchan, Transport::Sse) => Some(Transport::NchanSse),
            (Self::Nchan, Transport::LongPoll) => Some(Transport::NchanLongPoll),
            _ => None,
        }
    }

    /// Whether it gives a subscriber what was published before.
    pub(crate) fn keeps(self) -> bool {
        self != Self::Nats
    }

    fn program(self) -> &'static str {
        match self {
            Self::Nchan => "/usr/sbin/nginx",
            Self::Nats | Self::JetStream => "/usr/sbin/nats-server",
        }
    }

    /// Starts it with nothing in it.
    pub(crate) async fn start(self, lab: &Lab, tls: bool) -> Result<Running> {
        let files = tempfile::Builder::new().prefix("gatecast-bench-").tempdir()?;
        let dir = files.path().display().to_string();
        let (certificate, key) = tls::pem()?;
        fs::write(files.path().join("cert.pem"), certificate)?;
        fs::write(files.path().join("key.pem"), key)?;
        let (at, clients) = (free()?, free()?);
        let config = files.path().join("config");
        let (text, args) = match self {
            Self::Nchan => (nchan(&dir, &at, tls), ["-p", dir.as_str(), "-c"]),
            Self::Nats => (nats(&dir, &at, &clients, tls, false), ["--addr", "127.0.0.1", "--config"]),
            Self::JetStream => (nats(&dir, &at, &clients, tls, true), ["--addr", "127.0.0.1", "--config"]),
        };
        fs::write(&config, text)?;
        let config = config.display().to_string();
        let args: Vec<&str> = args.into_iter().chain([config.as_str()]).collect();
        let process = Process::start(Path::new(self.program()), &args, &[])?;
        let running = Running { process, address: lab.address(at, tls), rival: self, _files: files };
        running.ready().await?;
        Ok(running)
    }
}

impl Running {
    async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        while self.address.dial(Place::default()).await.is_err() {
            if began.elapsed() > READY_WITHIN {
                return Err(format!("{} does not start", self.rival.name()).into());
            }
            sleep(READY_EVERY).await;
        }
        if self.rival == Rival::JetStream {
            let mut nats = Nats::connect(&self.address, Place::default()).await?;
            let stream = r#"{"name":"events","subjects":["gw.>"],"storage":"file","max_msgs_per_subject":10000}"#;
            ask(&mut nats, "$JS.API.STREAM.CREATE.events", "made", stream).await?;
            accepted(&nats.message().await?)?;
        }
        Ok(())
    }

    /// A new publisher, the how many-th.
    pub(crate) async fn publisher(&self, number: usize) -> Result<Publisher> {
        if self.rival == Rival::Nchan {
            return Ok(Publisher::Nchan(Http::connect(&self.address).await?));
        }
        let mut nats = Nats::connect(&self.address, Place::default()).await?;
        if self.rival == Rival::Nats {
            return Ok(Publisher::Nats(nats));
        }
        let answers = format!("answers.{number}");
        nats.say(&format!("SUB {answers} 1\r\n")).await?;
        Ok(Publisher::JetStream(nats, answers))
    }
}

impl Publisher {
    /// Publishes the event of this position to a channel and waits for the answer.
    pub(crate) async fn publish(&mut self, channel: &str, seq: u64) -> Result<()> {
        let event = event(seq);
        match self {
            Self::Nchan(http) => {
                let answer = http.call(&request("POST", &format!("/pub/{channel}"), "", &event)).await?;
                // 202: nobody listens.
                if !matches!(answer.status, 201 | 202) {
                    return Err(format!("Nchan: status {}", answer.status).into());
                }
                Ok(())
            }
            Self::Nats(nats) => {
                nats.say(&format!("PUB gw.{channel} {}\r\n{event}\r\n", event.len())).await?;
                nats.settle().await
            }
            Self::JetStream(nats, answers) => {
                nats.say(&format!("PUB gw.{channel} {answers} {}\r\n{event}\r\n", event.len())).await?;
                accepted(&nats.message().await?)
            }
        }
    }
}

/// Subscribes to a channel: to what comes from now on; of JetStream, through a consumer of its own, to all that it holds.
pub(crate) async fn subscribe(nats: &mut Nats, is_stored: bool, channel: &str, instance: usize) -> Result<()> {
    if !is_stored {
        nats.say(&format!("SUB gw.{channel} 1\r\n")).await?;
        return nats.settle().await;
    }
    let to = format!("to.{instance}");
    let consumer = format!(
        r#"{{"stream_name":"events","config":{{"deliver_subject":"{to}","deliver_policy":"all","ack_policy":"none","filter_subject":"gw.{channel}","mem_storage":true}}}}"#
    );
    nats.say(&format!("SUB {to} 1\r\n")).await?;
    ask(nats, "$JS.API.CONSUMER.CREATE.events", &format!("made.{instance}"), &consumer).await
}

/// Whether a message is JetStream's own answer, and no event.
pub(crate) fn is_answer(message: &[u8]) -> Result<bool> {
    let is_answer = message.starts_with(br#"{"type":"io.nats.jetstream"#);
    if is_answer {
        accepted(message)?;
    }
    Ok(is_answer)
}

/// Calls JetStream. Its answer comes as a message, maybe after others.
async fn ask(nats: &mut Nats, what: &str, reply: &str, body: &str) -> Result<()> {
    nats.say(&format!("SUB {reply} 2\r\nPUB {what} {reply} {}\r\n{body}\r\n", body.len())).await
}

fn accepted(answer: &[u8]) -> Result<()> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    if answer.get("error").is_some() { Err(format!("JetStream: {answer}").into()) } else { Ok(()) }
}

/// An event of the size that is measured.
fn event(seq: u64) -> String {
    let head = format!(r#"{{"type":"gateway.config.updated","eventId":"00000000-{seq}","payload":""#);
    let filler = "x".repeat(EVENT_BYTES.saturating_sub(head.len() + 2));
    format!("{head}{filler}\"}}")
}

/// Bound and freed at once.
fn free() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn nchan(dir: &str, at: &str, tls: bool) -> String {
    let tls = if tls {
        format!(" ssl; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem")
    } else {
        String::new()
    };
    format!(
        "load_module {NCHAN}; daemon off; user root; worker_processes 1; worker_rlimit_nofile 20000; pid {dir}/pid; error_log /dev/null;
        events {{ worker_connections 20000; }}
        http {{
            access_log off; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 1h; nchan_shared_memory_size 1G;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            server {{
                listen {at}{tls};
                location ~ ^/pub/(.+)$ {{ nchan_publisher http; nchan_channel_id $1; nchan_message_buffer_length 10000; nchan_message_timeout 1h; }}
                location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket eventsource longpoll; nchan_channel_id $1; }}
            }}
        }}
        "
    )
}

fn nats(dir: &str, at: &str, clients: &str, tls: bool, is_stored: bool) -> String {
    let tls = if tls {
        format!("tls {{ cert_file: \"{dir}/cert.pem\", key_file: \"{dir}/key.pem\" }}")
    } else {
        "no_tls: true".to_owned()
    };
    let stored = if is_stored { format!("jetstream {{ store_dir: \"{dir}\" }}\n") } else { String::new() };
    format!(
        "listen: \"{clients}\"\nmax_connections: 20000\nlog_file: \"/dev/null\"\nwebsocket {{ listen: \"{at}\"\n {tls} }}\n{stored}"
    )
}
