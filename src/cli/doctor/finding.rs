//! What can be wrong between a gateway and its server: how it is called, said, and put right.

use std::net::IpAddr;
use std::time::Duration;

use super::super::exit::Exit;
use super::super::seconds::seconds;
use crate::client::probe::{TlsFault, Unreached};

/// Something in the way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// The server's port is not reached, or it does not speak TLS as it should.
    Unreached(Unreached),
    /// Some of the name's addresses are not reached; another is.
    AddressSilent { silent: Vec<IpAddr>, reached: IpAddr },
    /// What answers does not speak HTTP.
    NotHttp,
    /// A page of something else.
    NotGatecast { status: u16, by: String },
    /// Somewhere else.
    Redirected { status: u16, to: String, by: String },
    /// The server itself says that the key is not good.
    KeyRefused,
    /// The header `api-key` does not arrive; `Authorization` does.
    ApiKeyStripped,
    /// The header `Last-Event-ID` does not arrive.
    CursorStripped,
    /// The server itself asks to come back later.
    Busy { code: String, retry_after: Option<Duration> },
    /// Something in between has no server behind it.
    NothingBehind { status: u16, by: String },
    /// The server itself refuses for another reason, with a status or in the midst of a stream.
    Refused { status: Option<u16>, code: String, detail: String },
    /// Something in between refuses the upgrade.
    UpgradeRefused { status: u16, by: String },
    /// The upgrade arrives as a plain request.
    UpgradeStripped,
    /// Something in between refuses the request.
    Blocked { status: u16, by: String },
    /// What arrives is not what was sent.
    Altered(String),
    /// The stream is compressed on its way.
    Compressed { encoding: String, by: String },
    /// The stream begins late or not at all.
    HeldBack { first: Option<Duration>, waited: Duration },
    /// Comments come late or not at all, after a prompt beginning.
    BeatsHeldBack { gap: Duration, every: Duration },
    /// Pings do not pass.
    PingsDropped { gap: Option<Duration>, every: Duration },
    /// Pongs do not pass: the server took us for dead.
    PongsDropped { after: Duration },
    /// The stream was cut.
    Cut { at: Duration, silence: Duration, reason: String },
    /// A poll was cut.
    PollCut { after: Duration, held: Duration, reason: String },
    /// A poll was answered long before anything happened.
    PollEarly { after: Duration, held: Duration },
    /// A poll is held on to beyond its time.
    PollLate { after: Duration, held: Duration },
    /// The connection breaks at once.
    Broken { after: Duration, reason: String },
    /// The server left: it shuts down.
    Drained,
    /// The clocks disagree.
    ClockSkew { ahead_s: i64, whose: String },
}

impl Finding {
    /// Stable, for programs and for the documentation.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unreached(unreached) => match unreached {
                Unreached::Name { .. } => "name-unknown",
                Unreached::Refused { .. } => "tcp-refused",
                Unreached::Silent { .. } => "tcp-silent",
                Unreached::Network { .. } => "tcp-failed",
                Unreached::Tls(fault) => match fault {
                    TlsFault::Untrusted => "certificate-untrusted",
                    TlsFault::OfAuthority => "certificate-of-authority",
                    TlsFault::Expired { .. } => "certificate-expired",
                    TlsFault::NotYetValid => "certificate-not-yet-valid",
                    TlsFault::WrongName { .. } => "certificate-wrong-name",
                    TlsFault::NotTls => "not-tls",
                    TlsFault::Late | TlsFault::Other(_) => "tls-failed",
                },
            },
            Self::AddressSilent { .. } => "address-silent",
            Self::NotHttp => "not-http",
            Self::NotGatecast { .. } => "not-gatecast",
            Self::Redirected { .. } => "redirected",
            Self::KeyRefused => "key-refused",
            Self::ApiKeyStripped => "api-key-stripped",
            Self::CursorStripped => "last-event-id-stripped",
            Self::Busy { .. } => "server-busy",
            Self::NothingBehind { .. } => "nothing-behind-proxy",
            Self::Refused { .. } => "server-refused",
            Self::UpgradeRefused { .. } => "upgrade-refused",
            Self::UpgradeStripped => "upgrade-stripped",
            Self::Blocked { .. } => "blocked",
            Self::Altered(_) => "altered",
            Self::Compressed { .. } => "compressed",
            Self::HeldBack { .. } => "stream-held-back",
            Self::BeatsHeldBack { .. } => "stream-buffered",
            Self::PingsDropped { .. } => "pings-dropped",
            Self::PongsDropped { .. } => "pongs-dropped",
            Self::Cut { .. } => "cut",
            Self::PollCut { .. } => "poll-cut",
            Self::PollEarly { .. } => "poll-answered-early",
            Self::PollLate { .. } => "poll-held-back",
            Self::Broken { .. } => "connection-broken",
            Self::Drained => "server-left",
            Self::ClockSkew { .. } => "clock-skew",
        }
    }

    /// Worth knowing, but no transport suffers from it.
    pub(super) fn is_warning(&self) -> bool {
        matches!(self, Self::ClockSkew { .. } | Self::AddressSilent { .. })
    }

    /// What it means for the process if no transport works.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Unreached(_) | Self::NotHttp | Self::NotGatecast { .. } | Self::Redirected { .. } => {
                Exit::Unreachable
            }
            Self::KeyRefused => Exit::Unauthorized,
            Self::Busy { .. } | Self::NothingBehind { .. } | Self::Drained => Exit::TryLater,
            _ => Exit::Failure,
        }
    }

    /// What was seen, in a sentence.
    pub(super) fn seen(&self) -> String {
        match self {
            Self::Unreached(unreached) => unreached_words(unreached),
            Self::AddressSilent { silent, reached } => silent_words(silent, *reached),
            Self::NotHttp => "what listens there does not speak HTTP, or only over TLS".to_owned(),
            Self::NotGatecast { status, by } => format!("the answer, {status} from {by}, is not gatecast's"),
            Self::Redirected { status, to, by } => format!("{by} redirects to {to} ({status})"),
            Self::KeyRefused => {
                "the server answers, and refuses the key: it is wrong, revoked or expired (or something \
                in between takes away both headers that can carry it)"
                    .to_owned()
            }
            Self::ApiKeyStripped => "the header api-key does not arrive; the same key in Authorization does".to_owned(),
            Self::CursorStripped => "the header Last-Event-ID does not arrive: a gateway cannot resume".to_owned(),
            Self::Busy { code, retry_after } => {
                let wait = retry_after.map(|wait| format!(", come back in {} s", wait.as_secs()));
                format!("the server is not ready to take connections ({code}{})", wait.unwrap_or_default())
            }
            Self::NothingBehind { status, by } => format!("{by} answers {status}: it has no server behind it"),
            Self::Refused { status: Some(status), code, detail } => {
                format!("the server refuses: {status} {code}: {detail}")
            }
            Self::Refused { status: None, code, detail } => format!("the server refuses: {code}: {detail}"),
            Self::UpgradeRefused { status, by } => format!("{by} refuses the WebSocket upgrade with {status}"),
            Self::UpgradeStripped => {
                "the upgrade reaches the server as a plain request: Upgrade was taken away".to_owned()
            }
            Self::Blocked { status, by } => format!("{by} refuses the request with {status}"),
            Self::Altered(what) => format!("what arrives is not what the server sends: {what}"),
            Self::Compressed { encoding, by } => format!("the stream is compressed ({encoding}) by {by}"),
            Self::HeldBack { first: Some(first), .. } => {
                format!("the stream's first message came after {}: something gathers it", seconds(*first))
            }
            Self::HeldBack { first: None, waited } => {
                format!("nothing of the stream arrived within {}: something gathers it", seconds(*waited))
            }
            Self::BeatsHeldBack { gap, every } => format!(
                "the stream began at once, then nothing came for {}, though the server writes every {}: something \
                 gathers it",
                seconds(*gap),
                seconds(*every)
            ),
            Self::PingsDropped { gap: Some(gap), every } => {
                format!("no ping came for {}, though the server sends one every {}", seconds(*gap), seconds(*every))
            }
            Self::PingsDropped { gap: None, .. } => "a ping of ours was not answered: pings do not pass".to_owned(),
            Self::PongsDropped { after } => {
                format!("after {} the server saw no sign of life: pongs do not pass", seconds(*after))
            }
            Self::Cut { at, silence, reason } if is_by_age(*at, *silence) => format!(
                "cut {} after it began, {} after the last byte: a limit on its age ({reason})",
                seconds(*at),
                seconds(*silence)
            ),
            Self::Cut { silence, reason, .. } => format!("cut after {} of silence ({reason})", seconds(*silence)),
            Self::PollCut { after, held, reason } => {
                format!("a poll that may take {} was cut after {} ({reason})", seconds(*held), seconds(*after))
            }
            Self::PollEarly { after, held } => {
                format!("a poll that may take {} was answered empty after {}", seconds(*held), seconds(*after))
            }
            Self::PollLate { after, held } => {
                format!("a poll that may take {} had no answer after {}", seconds(*held), seconds(*after))
            }
            Self::Broken { after, reason } => format!("the connection broke after {}: {reason}", seconds(*after)),
            Self::Drained => "the server said goodbye while it was watched: it shuts down or restarts".to_owned(),
            Self::ClockSkew { ahead_s, whose } => {
                let way = if *ahead_s > 0 { "ahead of" } else { "behind" };
                format!("{whose} is {} s {way} this machine's", ahead_s.unsigned_abs())
            }
        }
    }

    /// What to do about it. `idle` is the least idle time-out that leaves the heartbeats room.
    pub(super) fn advice(&self, idle: Duration) -> String {
        let idle = idle.as_secs();
        match self {
            Self::Unreached(unreached) => unreached_advice(unreached),
            Self::AddressSilent { .. } => {
                "Let the server listen there too, or take the address out of the DNS: each connection may lose time with it"
            }
            Self::NotHttp => "Is it the right port? With TLS the address starts with https://",
            Self::NotGatecast { .. } => "Check --url: is it the server, or a proxy without a route for /api/internal/v1/?",
            Self::Redirected { .. } => "Use the address that it names in --url, or take the path out of the proxy's login",
            Self::KeyRefused => "Make a key: gatecast token create --gateway ID",
            Self::ApiKeyStripped => "Let the proxy pass the header api-key on (gateways have no other way to send it)",
            Self::CursorStripped => "Let the proxy pass the header Last-Event-ID on",
            Self::Busy { .. } | Self::Drained => "Try again later",
            Self::NothingBehind { .. } => "Is the server running, and where the proxy looks for it (its scheme, too)?",
            Self::Refused { .. } => "The server's log has more",
            Self::UpgradeRefused { .. } => "Allow WebSocket upgrades for this path in it",
            Self::UpgradeStripped => {
                "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
            }
            Self::Blocked { .. } => "Allow this path in it",
            Self::Altered(_) => "Turn off whatever rewrites answers on this path (virus scanners, injected scripts)",
            Self::Compressed { .. } => "Turn compression off for text/event-stream",
            Self::HeldBack { .. } | Self::BeatsHeldBack { .. } => {
                "nginx: proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering. Others: streaming on, caching \
                 and scanning of answers off for this path"
            }
            Self::PingsDropped { .. } | Self::PongsDropped { .. } => {
                "Let WebSocket control frames pass; a gateway leaves after 35 s without a ping"
            }
            Self::Cut { at, silence, .. } => return cut_advice(idle, *at, *silence),
            Self::PollCut { .. } | Self::PollEarly { .. } => {
                return format!(
                    "Raise the proxy's time-out for answers to {idle} s or more (nginx: proxy_read_timeout; haproxy: timeout server)"
                );
            }
            Self::PollLate { .. } => "Let answers through at once: buffering off for this path",
            Self::Broken { .. } => "The proxy's log may have more; does --url have the right scheme and port?",
            Self::ClockSkew { .. } => "Set it right (NTP): certificates, tokens' ends and time stamps depend on it",
        }
        .to_owned()
    }
}

fn silent_words(silent: &[IpAddr], reached: IpAddr) -> String {
    let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
    format!("no answer from {}, of the same name as {reached}, which answers", silent.join(", "))
}

fn unreached_words(unreached: &Unreached) -> String {
    match unreached {
        Unreached::Name { host, reason } => format!("the name {host} cannot be resolved: {reason}"),
        Unreached::Refused { address } => format!("nothing listens at {address}"),
        Unreached::Silent { address, after } => format!("no answer from {address} within {}", seconds(*after)),
        Unreached::Network { address, reason } => format!("{address} cannot be reached: {reason}"),
        Unreached::Tls(TlsFault::Untrusted) => {
            "the certificate is signed by itself or by an authority that is not trusted here".to_owned()
        }
        Unreached::Tls(TlsFault::OfAuthority) => {
            "the certificate is an authority's (CA:TRUE), which no server may have, trusted or not".to_owned()
        }
        Unreached::Tls(TlsFault::Expired { seconds: Some(past) }) if *past >= 86_400 => {
            format!("the certificate expired {} day(s) ago", past / 86_400)
        }
        Unreached::Tls(TlsFault::Expired { .. }) => "the certificate has expired".to_owned(),
        Unreached::Tls(TlsFault::NotYetValid) => "the certificate is not valid yet".to_owned(),
        Unreached::Tls(TlsFault::WrongName { names }) if !names.is_empty() => {
            format!("the certificate is for {} and not for this name", names.join(", "))
        }
        Unreached::Tls(TlsFault::WrongName { .. }) => "the certificate is not for this name".to_owned(),
        Unreached::Tls(TlsFault::NotTls) => "what listens there does not speak TLS".to_owned(),
        Unreached::Tls(TlsFault::Late) => "the TLS handshake was not finished in time".to_owned(),
        Unreached::Tls(TlsFault::Other(reason)) => format!("TLS failed: {reason}"),
    }
}

fn unreached_advice(unreached: &Unreached) -> &'static str {
    match unreached {
        Unreached::Name { .. } => "Check the spelling in --url, and this machine's DNS",
        Unreached::Refused { .. } => "Is the server running, and on this port?",
        Unreached::Silent { .. } | Unreached::Network { .. } => "Is a firewall in between? Is the address right?",
        Unreached::Tls(TlsFault::Untrusted) => "Name its authority with --ca FILE (only for a test: --insecure)",
        Unreached::Tls(TlsFault::OfAuthority) => {
            "Make another: openssl req -x509 … -addext basicConstraints=critical,CA:FALSE (only for a test: --insecure)"
        }
        Unreached::Tls(TlsFault::Expired { .. } | TlsFault::NotYetValid) => {
            "Renew the certificate, or set this machine's clock right"
        }
        Unreached::Tls(TlsFault::WrongName { .. }) => "Use one of its names in --url, or a certificate for this name",
        Unreached::Tls(TlsFault::NotTls) => "Is it the right port? Without TLS the address starts with http://",
        Unreached::Tls(TlsFault::Late | TlsFault::Other(_)) => "Is something in between that inspects TLS?",
    }
}

/// Whether a stream was cut for how long it lasted: something came shortly before, so it was not for its silence.
fn is_by_age(at: Duration, silence: Duration) -> bool {
    silence * 2 < at
}

fn cut_advice(idle: u64, at: Duration, silence: Duration) -> String {
    if is_by_age(at, silence) {
        return "Raise or lift the limit on how long a request may take; each cut costs a reconnect, though no event"
            .to_owned();
    }
    let raise = format!(
        "Raise the idle time-out to {idle} s or more (nginx: proxy_read_timeout, proxy_send_timeout; haproxy: timeout \
         tunnel, timeout server, timeout client)"
    );
    match silence.as_secs() {
        // A setting that the server takes, and by which it shows life often enough.
        limit @ 5.. => {
            format!("{raise}; or set WS_CONNECTION_TIMEOUT={limit} on the server, for more frequent heartbeats")
        }
        _ => raise,
    }
}
