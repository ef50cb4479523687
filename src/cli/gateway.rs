//! `gateway`: register, list, update, delete.

use std::io;

use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::output::{Output, table};
use super::printable::printable;
use crate::client::api::{ApiClient, Gateway, GatewayFilter, NewGateway, Page};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum GatewayCommand {
    /// Register a gateway
    #[command(after_help = "\
Examples:
  gatecast -k gateway create --organization 6d1f… --name edge-1 --display-name 'Edge 1'
  gatecast -k --json gateway create --organization 6d1f… --name edge-1 | jq -r .id")]
    Create(Create),
    /// Change a gateway: what is not named stays as it is
    #[command(after_help = "\
Examples:
  gatecast -k gateway update d1aa71bc-8cb5-4294-8a26-fe1273c28632 --allowed-address 10.1.0.0/16,192.0.2.7
  gatecast -k gateway update d1aa71bc-8cb5-4294-8a26-fe1273c28632 --certificate-name edge-1.example
  gatecast -k gateway update d1aa71bc-8cb5-4294-8a26-fe1273c28632 --allowed-address ''   # any address again")]
    Update(Update),
    /// List gateways
    #[command(after_help = "Example:\n  gatecast -k gateway list --connected true")]
    List(List),
    /// Delete a gateway: its connections end, its events are gone
    #[command(after_help = "Example:\n  gatecast -k gateway delete d1aa71bc-8cb5-4294-8a26-fe1273c28632")]
    Delete {
        /// The gateway's id
        id: Uuid,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Create {
    /// The organization that it belongs to
    #[arg(long, value_name = "ID")]
    organization: String,
    /// Lower-case letters, digits and hyphens; unique per organization
    #[arg(long)]
    name: String,
    /// For people [default: the name]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    #[command(flatten)]
    properties: PropertyArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Update {
    /// The gateway's id
    id: Uuid,
    /// For people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    #[command(flatten)]
    properties: PropertyArgs,
}

/// What a gateway may be given at first and changed to later. In a list, an empty value stands for no entry.
#[derive(Debug, Clone, Args)]
struct PropertyArgs {
    /// For people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The host name that its APIs are served under
    #[arg(long, value_name = "HOST")]
    vhost: Option<String>,
    /// Where a connection without a cursor starts
    #[arg(long, value_name = "live|stored", value_parser = ["live", "stored"])]
    catch_up: Option<String>,
    /// Networks that it may come from, comma-separated or repeated; without any: from everywhere
    #[arg(long = "allowed-address", value_name = "NETWORK", value_delimiter = ',')]
    allowed_addresses: Option<Vec<String>>,
    /// Names of client certificates that prove it, comma-separated or repeated
    #[arg(long = "certificate-name", value_name = "NAME", value_delimiter = ',')]
    certificate_names: Option<Vec<String>>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct List {
    /// Of this organization only
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Connected ones only, or only those that are not
    #[arg(long, value_name = "true|false")]
    connected: Option<bool>,
    #[command(flatten)]
    page: PageArgs,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct PageArgs {
    /// Elements at most
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Elements to skip
    #[arg(long, value_name = "N")]
    offset: Option<u32>,
}

impl From<PageArgs> for Page {
    fn from(args: PageArgs) -> Self {
        Self { limit: args.limit, offset: args.offset }
    }
}

impl GatewayCommand {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::Create(args) => create(args, api, output).await,
            Self::Update(args) => update(args, api, output).await,
            Self::List(args) => list(args, api, output).await,
            Self::Delete { id } => {
                let answer = api.delete_gateway(id).await?;
                Ok(output.answer(&answer, |_, out| writeln!(out, "✓ Deleted gateway {id}"))?)
            }
        }
    }
}

async fn create(args: Create, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let Create { organization, name, display_name, properties } = args;
    let new = NewGateway {
        organization_id: organization,
        display_name: display_name.unwrap_or_else(|| name.clone()),
        name,
        description: properties.description,
        vhost: properties.vhost,
        catch_up: properties.catch_up,
        allowed_addresses: entries(properties.allowed_addresses).unwrap_or_default(),
        certificate_names: entries(properties.certificate_names).unwrap_or_default(),
    };
    let answer = api.create_gateway(&new).await?;
    let words = |gateway: &Gateway, out: &mut dyn io::Write| {
        let id = printable(&gateway.id);
        writeln!(out, "✓ Registered gateway {}\n  ID: {id}", printable(&gateway.name))?;
        writeln!(out, "Next: gatecast token create --gateway {id}")
    };
    Ok(output.answer(&answer, words)?)
}

fn entries(written: Option<Vec<String>>) -> Option<Vec<String>> {
    written.map(|all| all.into_iter().filter(|entry| !entry.is_empty()).collect())
}

async fn update(args: Update, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let Update { id, display_name, properties } = args;
    // The call sets all that may change, so what is there is sent back.
    let mut to = api.gateway(id).await?.json;
    let texts = [
        ("displayName", display_name),
        ("description", properties.description),
        ("vhost", properties.vhost),
        ("catchUp", properties.catch_up),
    ];
    let lists = [
        ("allowedAddresses", entries(properties.allowed_addresses)),
        ("certificateNames", entries(properties.certificate_names)),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::from(text?))));
    let lists = lists.into_iter().filter_map(|(name, list)| Some((name, Value::from(list?))));
    for (name, value) in texts.chain(lists) {
        // An empty text is none, as an empty list is.
        to[name] = if value == "" { Value::Null } else { value };
    }
    let answer = api.put_gateway(id, &to).await?;
    let words =
        |gateway: &Gateway, out: &mut dyn io::Write| writeln!(out, "✓ Updated gateway {}", printable(&gateway.name));
    Ok(output.answer(&answer, words)?)
}

async fn list(args: List, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let filter = GatewayFilter { organization_id: args.organization, connected: args.connected };
    let answer = api.list_gateways(&filter, args.page.into()).await?;
    Ok(output.answer(&answer, |page, out| {
        let row = |g: &Gateway| {
            let connections = g.connections.map_or_else(|| "-".to_owned(), |n| n.to_string());
            [g.id.clone(), g.name.clone(), g.display_name.clone(), g.organization_id.clone(), connections]
        };
        let rows: Vec<_> = page.list.iter().map(row).collect();
        let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        table(out, &["ID", "NAME", "DISPLAY NAME", "ORGANIZATION", "CONNECTIONS"], &rows)?;
        writeln!(out, "{} of {}", page.list.len(), page.pagination.total)
    })?)
}
