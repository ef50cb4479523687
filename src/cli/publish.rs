//! `publish`.

use std::io;

use clap::Args;
use uuid::Uuid;

use super::failure::{Failure, all_told};
use super::json_argument::json_argument;
use super::output::Output;
use super::printable::printable;
use crate::client::api::{ApiClient, End, NewEvent, Outcome, PublishConditions, Targets};

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
    /// A repeat with the same key within 10 minutes publishes nothing new [default: a key of its own]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    idempotency_key: Option<String>,
    /// Publish only if this is the gateway's newest event
    #[arg(long, value_name = "EVENT_ID")]
    if_match: Option<String>,
}

impl Publish {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let payload = json_argument("--payload", &self.payload)?;
        let event =
            NewEvent { event_type: self.event_type, payload, key: self.key, correlation_id: self.correlation_id };
        let key = self.idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let conditions = PublishConditions { idempotency_key: Some(key.clone()), if_match: self.if_match };
        let failed = |error| Failure::of_call(error, &key);
        if let [gateway] = self.gateway[..] {
            let answer = api.publish(gateway, &event, &conditions).await.map_err(failed)?;
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
        let answer = api.publish_to(&targets, &event, &conditions).await.map_err(failed)?;
        let written = output.answer(&answer, |all, out| write(&all.results, out));
        all_told(answer.value.results.iter().map(Outcome::code), key)?;
        Ok(written?)
    }
}

fn write(all: &[Outcome], out: &mut dyn io::Write) -> io::Result<()> {
    for one in all {
        let id = printable(&one.gateway_id);
        match &one.end {
            End::Failed { code } => writeln!(out, "✗ Not stored for gateway {id}: {}", printable(code))?,
            End::Stored { event_id } => writeln!(out, "✓ Stored {} for gateway {id}", printable(event_id))?,
        }
    }
    writeln!(out, "{} gateways", all.len())
}
