//! `event-type`: list, show, set, delete.

use std::io;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::gateway::PageArgs;
use super::json_argument::json_argument;
use super::output::{Output, table};
use super::printable::printable;
use crate::client::api::{ApiClient, EventType, NewEventType};
use crate::event_types::TypeName;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum EventTypeCommand {
    /// List the types that events may have
    #[command(after_help = "Example:\n  gatecast -k event-type list")]
    List(PageArgs),
    /// Show a type with its schema
    #[command(after_help = "Example:\n  gatecast -k event-type show api.deployed")]
    Show {
        /// The type
        #[arg(value_name = "TYPE")]
        name: TypeName,
    },
    /// Register a type, or change it; in effect at once
    #[command(after_help = "\
Examples:
  gatecast -k event-type set order.shipped --schema @order.json --key /id
  gatecast -k event-type set order.gone --schema '{\"type\":\"object\",\"required\":[\"id\"]}' --key /id --ends-key

What is wrong with a schema is told with pointers, and nothing is changed then (exit code 65).")]
    Set(Set),
    /// Delete a type: its events can no longer be published; stored ones stay
    #[command(after_help = "Example:\n  gatecast -k event-type delete order.shipped")]
    Delete {
        /// The type
        #[arg(value_name = "TYPE")]
        name: TypeName,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct Set {
    /// The type, such as order.shipped
    #[arg(value_name = "TYPE")]
    name: TypeName,
    /// A JSON Schema (2020-12) of the payload: JSON, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    schema: String,
    /// For people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A JSON Pointer to the payload's entity, such as /id: who was away gets the latest event of each
    #[arg(long, value_name = "POINTER")]
    key: Option<String>,
    /// An event of this type ends its entity
    #[arg(long)]
    ends_key: bool,
}

impl EventTypeCommand {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::List(page) => list(page, api, output).await,
            Self::Show { name } => {
                let answer = api.event_type(&name).await?;
                Ok(output.answer(&answer, show)?)
            }
            Self::Set(args) => set(args, api, output).await,
            Self::Delete { name } => {
                let answer = api.delete_event_type(&name).await?;
                Ok(output.answer(&answer, |_, out| writeln!(out, "✓ Deleted event type {name}"))?)
            }
        }
    }
}

async fn list(page: PageArgs, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let answer = api.list_event_types(page.into()).await?;
    Ok(output.answer(&answer, |page, out| {
        let rows: Vec<_> = page.list.iter().map(|t| vec![t.name.as_str(), key(t), kind(t), about(t)]).collect();
        table(out, &["TYPE", "KEY", "KIND", "DESCRIPTION"], &rows)?;
        writeln!(out, "{} of {}", page.list.len(), page.pagination.total)
    })?)
}

async fn set(args: Set, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let Set { name, schema, description, key, ends_key } = args;
    let schema = json_argument("--schema", &schema)?;
    let answer = api.put_event_type(&name, &NewEventType { description, schema, key_pointer: key, ends_key }).await?;
    Ok(output.answer(&answer, |set, out| {
        writeln!(out, "✓ Set event type {}", printable(&set.name))?;
        writeln!(out, "Next: gatecast publish --gateway ID --type {name} --payload …")
    })?)
}

fn show(shown: &EventType, out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "{} ({})", printable(&shown.name), kind(shown))?;
    writeln!(out, "  Description: {}\n  Key: {}", printable(about(shown)), printable(key(shown)))?;
    if shown.ends_key {
        writeln!(out, "  An event of it ends its key")?;
    }
    // Written by a serializer, which escapes what a terminal would obey.
    writeln!(out, "{:#}", shown.schema)
}

fn kind(of: &EventType) -> &'static str {
    if of.built_in { "built in" } else { "registered" }
}

fn key(of: &EventType) -> &str {
    of.key_pointer.as_deref().unwrap_or("-")
}

fn about(of: &EventType) -> &str {
    of.description.as_deref().unwrap_or("-")
}
