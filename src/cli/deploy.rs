//! `deploy` and `undeploy`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

use super::failure::{Failure, all_told};
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
    /// Do not show it on the developer portal
    #[arg(long)]
    hide_on_devportal: bool,
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
    /// The host name that the API is served under [deploy: the gateway's own, else localhost; undeploy: as deployed]
    #[arg(long, value_name = "HOST")]
    vhost: Option<String>,
    /// A repeat with the same key within 10 minutes tells no gateway again [default: a key of its own]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    idempotency_key: Option<String>,
}

impl What {
    fn key(&self) -> String {
        self.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string())
    }

    /// As the command line says it, and no more.
    fn deployments(&self) -> Vec<Deployment> {
        let deployment = |&gateway_id| Deployment {
            revision_id: self.revision.clone(),
            gateway_id,
            vhost: self.vhost.clone(),
            display_on_devportal: None,
        };
        self.gateway.iter().map(deployment).collect()
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
        let mut deployments = self.what.deployments();
        for deployment in &mut deployments {
            deployment.display_on_devportal = Some(!self.hide_on_devportal);
            if deployment.vhost.is_none() {
                let own = api.gateway(deployment.gateway_id).await?.value.vhost;
                deployment.vhost = own.or_else(|| Some(VHOST_DEFAULT.to_owned()));
            }
        }
        if let Some(yaml) = artifact {
            api.put_api(*id, revision, yaml).await?;
        }
        let key = self.what.key();
        let answer =
            api.deploy(*id, revision, &deployments, &key).await.map_err(|error| Failure::of_call(error, &key))?;
        let written = output.answer(&answer, |all, out| write(all, "Deployed to", out));
        all_told(answer.value.iter().map(|one| one.code.as_deref()), key)?;
        Ok(written?)
    }
}

impl Undeploy {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let deployments = self.what.deployments();
        let key = self.what.key();
        let answer = api.undeploy(self.what.api, &self.what.revision, &deployments, &key).await;
        let answer = answer.map_err(|error| Failure::of_call(error, &key))?;
        let written = output.answer(&answer, |all, out| write(all, "Undeployed from", out));
        all_told(answer.value.iter().map(|one| one.code.as_deref()), key)?;
        Ok(written?)
    }
}

fn write(all: &[Deployed], what: &str, out: &mut dyn io::Write) -> io::Result<()> {
    for one in all {
        let id = printable(&one.gateway_id);
        match &one.code {
            Some(code) => writeln!(out, "✗ Gateway {id} was not told: {}", printable(code))?,
            None => writeln!(out, "✓ {what} gateway {id}")?,
        }
        writeln!(out, "  Deployment: {}", printable(&one.deployment_id))?;
        if let Some(event) = &one.event_id {
            writeln!(out, "  Event: {}", printable(event))?;
        }
        writeln!(out, "  Status: {}", printable(&one.status))?;
    }
    Ok(())
}
