//! `deploy` and `undeploy`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use crate::client::api::{ApiClient, Deployed, Deployment};

/// The host name when neither the command line nor the gateway names one.
const VHOST_DEFAULT: &str = "localhost";

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  gatecast -k deploy --api 2382… --revision 90d1… --gateway d1aa… --file api.yaml
  gatecast -k deploy --api 2382… --revision 90d1… --gateway d1aa… --gateway 77f0… --vhost mg.example.com")]
pub(super) struct Deploy {
    #[command(flatten)]
    what: What,
    /// The API's artifact (YAML), uploaded before the deployment
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  gatecast -k undeploy --api 2382… --revision 90d1… --gateway d1aa…")]
pub(super) struct Undeploy {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, Clone, Args)]
struct What {
    /// The API's id
    #[arg(long, value_name = "ID")]
    api: Uuid,
    /// The revision's id
    #[arg(long, value_name = "ID")]
    revision: String,
    /// A gateway's id; may be repeated
    #[arg(long, value_name = "ID", required = true)]
    gateway: Vec<Uuid>,
    /// The host name that the API is served under [default: the gateway's own, else localhost]
    #[arg(long, value_name = "HOST")]
    vhost: Option<String>,
    /// Do not show it on the developer portal
    #[arg(long)]
    hide_on_devportal: bool,
}

impl What {
    async fn deployments(&self, api: &ApiClient) -> Result<Vec<Deployment>, Failure> {
        let mut all = Vec::with_capacity(self.gateway.len());
        for &gateway_id in &self.gateway {
            let vhost = match &self.vhost {
                Some(vhost) => vhost.clone(),
                None => api.gateway(gateway_id).await?.value.vhost.unwrap_or_else(|| VHOST_DEFAULT.to_owned()),
            };
            let (revision_id, display_on_devportal) = (self.revision.clone(), !self.hide_on_devportal);
            all.push(Deployment { revision_id, gateway_id, vhost, display_on_devportal });
        }
        Ok(all)
    }
}

impl Deploy {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let What { api: id, revision, .. } = &self.what;
        // Everything that can fail here fails before anything is changed there.
        let artifact = self
            .file
            .as_ref()
            .map(|path| fs::read(path).map_err(|source| Failure::File { path: path.clone(), source }));
        let artifact = artifact.transpose()?;
        let deployments = self.what.deployments(api).await?;
        if let Some(yaml) = artifact {
            api.put_api(*id, revision, yaml).await?;
        }
        let answer = api.deploy(*id, revision, &deployments).await?;
        Ok(output.answer(&answer, |all, out| write(all, "Deployed to", out))?)
    }
}

impl Undeploy {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let deployments = self.what.deployments(api).await?;
        let answer = api.undeploy(self.what.api, &self.what.revision, &deployments).await?;
        Ok(output.answer(&answer, |all, out| write(all, "Undeployed from", out))?)
    }
}

fn write(all: &[Deployed], what: &str, out: &mut dyn io::Write) -> io::Result<()> {
    for one in all {
        writeln!(out, "✓ {what} gateway {}", printable(&one.gateway_id))?;
        for (name, value) in [("Deployment", &one.deployment_id), ("Event", &one.event_id), ("Status", &one.status)] {
            if let Some(value) = value {
                writeln!(out, "  {name}: {}", printable(value))?;
            }
        }
    }
    Ok(())
}
