//! Calls that change the directory: gateways come, tokens are created and revoked, gateways are deleted.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::load::{Work, other_than};
use crate::platform::{ORGANIZATION, Platform};

/// What the server has answered of one gateway.
#[derive(Debug, Default)]
struct Office {
    /// Each token's status by its id.
    tokens: BTreeMap<String, &'static str>,
    is_deleted: bool,
}

/// Changes the directory until it is to stop; after each restart everything that was answered must be there. Returns
/// how many calls were answered.
pub(super) async fn clerk(mut work: Work) -> u64 {
    let (mut offices, mut dead, mut answered) = (BTreeMap::new(), None, 0);
    while !work.stops() {
        let address = other_than(&mut work.here, dead).await;
        let platform = Platform::new(address);
        if check(&platform, &offices).await.is_some() {
            while !work.stops() && found(&platform, &mut offices, &mut answered).await.is_some() {}
        }
        dead = Some(address);
    }
    answered
}

/// The answer with this status; `None` if the server is gone.
async fn ask(platform: &Platform, method: Method, path: &str, body: Option<Value>, status: u16) -> Option<Value> {
    let request = platform.http.request(method, platform.url(path));
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let response = request.send().await.ok()?;
    assert_eq!(response.status(), status, "{path}");
    let text = response.text().await.ok()?;
    Some(serde_json::from_str(&text).unwrap_or_default())
}

async fn check(platform: &Platform, offices: &BTreeMap<String, Office>) -> Option<()> {
    for (id, office) in offices {
        let path = format!("/api/v1/gateways/{id}");
        if office.is_deleted {
            ask(platform, Method::GET, &path, None, 404).await?;
            continue;
        }
        let list = ask(platform, Method::GET, &format!("{path}/tokens"), None, 200).await?;
        let list = list["list"].as_array().unwrap();
        for (token, status) in &office.tokens {
            let kept = list.iter().find(|kept| kept["id"] == **token);
            let kept = kept.unwrap_or_else(|| panic!("token {token} of {id} was answered and is lost"));
            assert_eq!(kept["status"], *status, "token {token} of {id}");
        }
    }
    Some(())
}

/// One gateway with two tokens, of which one is revoked; every third gateway is deleted. A gateway of which one call
/// was not answered is kept on no record: it may be either way.
async fn found(platform: &Platform, offices: &mut BTreeMap<String, Office>, answered: &mut u64) -> Option<()> {
    let name = format!("office-{}", uuid::Uuid::new_v4());
    let gateway = json!({"organizationId": ORGANIZATION, "name": name, "displayName": name});
    let gateway = ask(platform, Method::POST, "/api/v1/gateways", Some(gateway), 201).await?;
    let id = gateway["id"].as_str().unwrap().to_owned();
    offices.insert(id.clone(), Office::default());
    *answered += 1;
    let path = format!("/api/v1/gateways/{id}");
    for revoked in [false, true] {
        let token = ask(platform, Method::POST, &format!("{path}/tokens"), None, 201).await?;
        let token = token["id"].as_str().unwrap().to_owned();
        *answered += 1;
        if revoked {
            ask(platform, Method::DELETE, &format!("{path}/tokens/{token}"), None, 204).await?;
            *answered += 1;
        }
        let status = if revoked { "revoked" } else { "active" };
        offices.get_mut(&id).unwrap().tokens.insert(token, status);
    }
    if offices.len().is_multiple_of(3) {
        let office = offices.remove(&id).unwrap();
        ask(platform, Method::DELETE, &path, None, 204).await?;
        *answered += 1;
        offices.insert(id, Office { is_deleted: true, ..office });
    }
    Some(())
}
