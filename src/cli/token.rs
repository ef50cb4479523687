//! `token`: make, list, revoke.

use clap::Subcommand;
use uuid::Uuid;

use super::failure::Failure;
use super::gateway::PageArgs;
use super::output::{Output, table};
use super::printable::printable;
use crate::client::api::ApiClient;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown once and never again
    #[command(after_help = "\
Examples:
  gatecast -k token create --gateway d1aa71bc-8cb5-4294-8a26-fe1273c28632
  gatecast -k --json token create --gateway d1aa71bc-… | jq -r .token")]
    Create {
        /// The gateway's id
        #[arg(long, value_name = "ID")]
        gateway: Uuid,
        /// When it ends by itself, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List the tokens of a gateway, without their secrets
    #[command(after_help = "Example:\n  gatecast -k token list --gateway d1aa71bc-8cb5-4294-8a26-fe1273c28632")]
    List {
        /// The gateway's id
        #[arg(long, value_name = "ID")]
        gateway: Uuid,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Revoke a token: its connections end within a second
    #[command(
        after_help = "Example:\n  gatecast -k token revoke --gateway d1aa71bc-… 1db8b0e4-f237-4aa3-a6f2-e466c878de0f"
    )]
    Revoke {
        /// The gateway's id
        #[arg(long, value_name = "ID")]
        gateway: Uuid,
        /// The token's id (not the token)
        id: Uuid,
    },
}

impl TokenCommand {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::Create { gateway, expires_at } => {
                let answer = api.create_token(gateway, expires_at.as_deref()).await?;
                let shown = output.answer(&answer, |token, out| {
                    writeln!(out, "✓ Made token {}", printable(&token.id))?;
                    writeln!(out, "  Token: {}", printable(token.reveal()))?;
                    writeln!(out, "It is not shown again. Next: gatecast listen --api-key …")
                });
                let shown = shown.and_then(|()| output.out.flush());
                shown.map_err(|source| Failure::TokenUnseen { gateway, token: answer.value.id, source })
            }
            Self::List { gateway, page } => list(gateway, page, api, output).await,
            Self::Revoke { gateway, id } => {
                let answer = api.revoke_token(gateway, id).await?;
                Ok(output.answer(&answer, |_, out| writeln!(out, "✓ Revoked token {id}"))?)
            }
        }
    }
}

async fn list(gateway: Uuid, page: PageArgs, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
    let answer = api.list_tokens(gateway, page.into()).await?;
    Ok(output.answer(&answer, |page, out| {
        let time = |at: &'_ Option<String>| at.clone().unwrap_or_else(|| "-".to_owned());
        let row = |t: &crate::client::api::Token| {
            [t.id.clone(), time(&t.created_at), time(&t.expires_at), time(&t.revoked_at)]
        };
        let rows: Vec<_> = page.list.iter().map(row).collect();
        let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        table(out, &["ID", "CREATED", "EXPIRES", "REVOKED"], &rows)
    })?)
}
