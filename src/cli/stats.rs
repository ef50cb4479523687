//! `stats`.

use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::output::{Output, table};
use super::printable::printable;
use crate::client::api::ApiClient;

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  gatecast -k stats\n  gatecast -k --json stats --gateway d1aa… | jq .eventDelivery"
)]
pub(super) struct StatsArgs {
    /// Of this gateway only
    #[arg(long, value_name = "ID")]
    gateway: Option<Uuid>,
}

impl StatsArgs {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let answer = api.stats(self.gateway).await?;
        Ok(output.answer(&answer, |stats, out| {
            let delivery = &stats.event_delivery;
            writeln!(out, "Connections: {}", stats.gateway_connections.total_active)?;
            writeln!(out, "Events sent: {}", delivery.total_events_sent)?;
            writeln!(out, "Failed deliveries: {}", delivery.failed_deliveries)?;
            if let Some(time) = &delivery.last_failure_time {
                let reason = delivery.last_failure_reason.as_deref().unwrap_or("unknown");
                writeln!(out, "Last failure: {} ({})", printable(time), printable(reason))?;
            }
            let connections = &stats.gateway_connections.connections;
            if connections.is_empty() {
                return Ok(());
            }
            let rows: Vec<Vec<&str>> = connections
                .iter()
                .map(|c| {
                    let heard = c.last_heartbeat.as_deref().unwrap_or("-");
                    vec![c.gateway_id.as_str(), &c.connection_id, &c.connected_at, heard, &c.status]
                })
                .collect();
            writeln!(out)?;
            table(out, &["GATEWAY", "CONNECTION", "SINCE", "LAST HEARTBEAT", "STATUS"], &rows)
        })?)
    }
}
