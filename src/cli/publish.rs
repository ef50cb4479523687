//! `publish`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use clap::Args;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::failure::{Failure, all_told};
use super::output::Output;
use super::printable::printable;
use crate::client::api::{ApiClient, NewEvent, Outcome, PublishConditions, Targets};

/// The largest payload that is read, in bytes: that of the largest event a server can be configured for.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  gatecast -k publish --gateway d1aa… --type gateway.config.updated --payload '{\"level\":\"debug\"}'
  gatecast -k publish --organization 6d1f… --type gateway.config.updated --payload @config.json
  jq … | gatecast -k publish --all --type gateway.config.updated --payload -")]
#[command(group = clap::ArgGroup::new("targets").required(true).args(["gateway", "organization", "all"]))]
pub(super) struct Publish {
    /// A gateway's id; may be repeated
    #[arg(long, value_name = "ID")]
    gateway: Vec<Uuid>,
    /// All gateways of an organization
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Every gateway
    #[arg(long)]
    all: bool,
    /// A registered event type, such as gateway.config.updated
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,
    /// JSON, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: String,
    /// The entity that the event is about, for compaction
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,
    /// Ties events together
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    correlation_id: Option<String>,
    /// A repeat with the same key within 10 minutes publishes nothing new
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    idempotency_key: Option<String>,
    /// Publish only if this is the gateway's newest event
    #[arg(long, value_name = "EVENT_ID")]
    if_match: Option<String>,
}

impl Publish {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let payload = payload(&self.payload)?;
        let event =
            NewEvent { event_type: self.event_type, payload, key: self.key, correlation_id: self.correlation_id };
        let conditions = PublishConditions { idempotency_key: self.idempotency_key, if_match: self.if_match };
        if let [gateway] = self.gateway[..] {
            let answer = api.publish(gateway, &event, &conditions).await?;
            return Ok(output.answer(&answer, |stored, out| {
                writeln!(out, "✓ Stored event {}", printable(&stored.event_id))?;
                writeln!(out, "  Connections: {}", stored.connections)
            })?);
        }
        let targets = match self.organization {
            _ if self.all => Targets::All(true),
            Some(organization) => Targets::OrganizationId(organization),
            None => Targets::GatewayIds(self.gateway),
        };
        let answer = api.publish_to(&targets, &event, &conditions).await?;
        output.answer(&answer, |all, out| write(&all.results, out))?;
        all_told(answer.value.results.iter().map(|one| &one.code))
    }
}

fn write(all: &[Outcome], out: &mut dyn io::Write) -> io::Result<()> {
    for one in all {
        let id = printable(&one.gateway_id);
        match &one.code {
            Some(code) => writeln!(out, "✗ Not stored for gateway {id}: {}", printable(code))?,
            None => writeln!(out, "✓ Stored {} for gateway {id}", printable(one.event_id.as_deref().unwrap_or("it")))?,
        }
    }
    writeln!(out, "{} gateways", all.len())
}

fn payload(text: &str) -> Result<Box<RawValue>, Failure> {
    let read = match text.strip_prefix('@') {
        Some(path) => {
            let fault = |source| Failure::File { path: path.into(), source };
            read_bounded(fs::File::open(Path::new(path)).map_err(fault)?).map_err(fault)?
        }
        None if text == "-" => {
            read_bounded(io::stdin()).map_err(|source| Failure::File { path: "stdin".into(), source })?
        }
        None => text.to_owned(),
    };
    let fault = |error: serde_json::Error| Failure::Input {
        what: "--payload is not JSON".to_owned(),
        problem: format!("{error}; quote it for the shell, or pass @FILE"),
    };
    serde_json::from_str(&read).map_err(fault)
}

fn read_bounded(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(PAYLOAD_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(io::Error::other(format!("has more than {PAYLOAD_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_or_a_file_with_json() {
        assert_eq!(payload(r#"{"b": 1.0}"#).unwrap().get(), r#"{"b": 1.0}"#);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[1]\n").unwrap();
        assert_eq!(payload(&format!("@{}", file.path().display())).unwrap().get(), "[1]");
        assert!(matches!(payload("{a:1}"), Err(Failure::Input { .. })));
        assert!(matches!(payload("@/nowhere"), Err(Failure::File { .. })));
        assert!(read_bounded(io::repeat(b'x')).is_err());
    }
}
