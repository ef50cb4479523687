//! Kill -9 under publishers that repeat every call they got no answer to, with its key: each event is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gatecast_storage::GatewayId;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::platform::Platform;
use crate::process::Served;
use crate::wire::PATIENCE;

const KILLS: u64 = 10;
const GATEWAYS: usize = 3;
const PUBLISHERS: u64 = 4;
/// Answers between a start and its kill.
const ANSWERS: u64 = 20;
const SETTINGS: &[(&str, &str)] = &[("GATECAST_RING_MAX_EVENTS", "1000000")];
const API: &str = "23826f9e-8daf-4638-b295-14898312759f";

type Here = watch::Receiver<SocketAddr>;

/// What one publisher asks: an event to one gateway, to all, or a deployment to all, in turns.
fn request(number: u64, to: &[GatewayId]) -> (String, Value) {
    let event = |n: u64| json!({"type": "api.deployed", "payload": {"apiId": "pets", "n": n}});
    match number % 3 {
        0 => {
            let to = to[usize::try_from(number).unwrap() % to.len()];
            (format!("/api/internal/v1/gateways/{to}/events"), event(number))
        }
        1 => {
            let mut event = event(number);
            event["targets"] = json!({ "gatewayIds": to });
            ("/api/internal/v1/events".to_owned(), event)
        }
        _ => {
            let elements =
                to.iter().map(|to| json!({"gatewayId": to, "vhost": "v.example", "environment": number.to_string()}));
            (format!("/api/v1/apis/{API}-{}/deploy-revision?revisionId=r1", number % 2), elements.collect())
        }
    }
}

/// Asks for one thing after the other and repeats each until it is answered; says what was answered.
async fn publisher(
    here: Here,
    to: Vec<GatewayId>,
    first: u64,
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<(u64, Value)> {
    let mut told = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::Acquire) {
        let (path, body) = request(number, &to);
        let answer = loop {
            let platform = Platform::new(*here.borrow());
            let request = platform.http.request(Method::POST, platform.url(&path)).json(&body);
            let sent = request.header("Idempotency-Key", format!("call {number}")).send().await;
            if let Ok(response) = sent
                && response.status().is_success()
                && let Ok(answer) = response.json::<Value>().await
            {
                break answer;
            }
            // Broken off, or refused for now: the server dies or comes up.
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        told.push((number, answer));
        answers.fetch_add(1, Ordering::Release);
        number += PUBLISHERS;
    }
    told
}

/// Which call each event of a gateway is of, by eventId.
async fn held(platform: &Platform, gateway: GatewayId) -> BTreeMap<String, u64> {
    let (_, stream) = platform.get(&format!("/api/internal/v1/gateways/{gateway}/stream")).await;
    let (epoch, newest) = stream["newest"].as_str().unwrap().rsplit_once('-').unwrap();
    let mut events = BTreeMap::new();
    for seq in 1..=newest.parse::<u64>().unwrap() {
        let id = format!("{epoch}-{seq}");
        let (_, view) = platform.get(&format!("/api/internal/v1/events/{gateway}/{id}")).await;
        let payload = &view["event"]["payload"];
        let of = payload["n"].as_u64().or_else(|| payload["environment"].as_str()?.parse().ok());
        events.insert(id, of.unwrap());
    }
    events
}

/// The eventIds of an answer: one, or one for each gateway.
fn event_ids(answer: &Value) -> Vec<String> {
    let many = answer.as_array().or_else(|| answer["results"].as_array());
    let ids = many.map_or_else(|| vec![answer], |many| many.iter().collect());
    ids.into_iter().map(|one| one["eventId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_under_publishers_that_repeat_with_their_keys_leave_every_event_once() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), SETTINGS).await;
    let mut gateways = Vec::new();
    for index in 0..GATEWAYS {
        gateways.push(served.platform.register(&format!("gateway-{index}")).await.id);
    }
    let (here, now) = watch::channel(served.platform.address);
    let (answers, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let mut publishers = JoinSet::new();
    for first in 0..PUBLISHERS {
        publishers.spawn(publisher(now.clone(), gateways.clone(), first, answers.clone(), stop.clone()));
    }
    for round in 1..=KILLS {
        let wanted = answers.load(Ordering::Acquire) + ANSWERS + round * 7 % 5;
        let answered = async {
            while answers.load(Ordering::Acquire) < wanted {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        };
        timeout(PATIENCE, answered).await.expect("the server answers");
        served.process.kill().await;
        served = Served::dev(data.path(), SETTINGS).await;
        here.send_replace(served.platform.address);
    }
    stop.store(true, Ordering::Release);
    let told = timeout(PATIENCE, publishers.join_all()).await.expect("publishers end");
    let answered: BTreeMap<u64, Value> = told.into_iter().flatten().collect();

    for (index, gateway) in gateways.iter().enumerate() {
        let held = held(&served.platform, *gateway).await;
        let numbers: BTreeSet<_> = held.values().copied().collect();
        assert_eq!(numbers.len(), held.len(), "an event is there twice");
        let asked = answered.keys().filter(|n| **n % 3 != 0 || usize::try_from(**n).unwrap() % GATEWAYS == index);
        assert!(asked.copied().eq(numbers), "exactly what was answered is there");
        for (number, answer) in &answered {
            let ids = event_ids(answer);
            let told = ids.iter().find(|id| held.get(*id) == Some(number));
            assert!(told.is_some() || (number % 3 == 0), "{number}: {answer}");
            let results = answer["results"].as_array().into_iter().flatten();
            let correlations: BTreeSet<_> = results.map(|result| result["correlationId"].as_str()).collect();
            assert!(correlations.len() <= 1, "one call, one correlation: {number}: {answer}");
        }
    }
    check_deployments(&served.platform, &answered).await;
}

/// Each row names the event of the last deployment that was answered for its gateway.
async fn check_deployments(platform: &Platform, answered: &BTreeMap<u64, Value>) {
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    for element in answered.iter().filter(|(n, _)| **n % 3 == 2).flat_map(|(_, answer)| answer.as_array().unwrap()) {
        let [api, gateway] = ["apiId", "gatewayId"].map(|name| element[name].as_str().unwrap().to_owned());
        let (_, seq) = element["eventId"].as_str().unwrap().rsplit_once('-').unwrap();
        let newest = last.entry((api, gateway)).or_default();
        *newest = (*newest).max(seq.parse().unwrap());
    }
    assert!(!last.is_empty());
    for ((api, gateway), seq) in last {
        let (_, list) = platform.get(&format!("/api/v1/apis/{api}/deployments")).await;
        let row = list["list"].as_array().unwrap().iter().find(|row| row["gatewayId"] == *gateway).unwrap();
        assert!(row["eventId"].as_str().unwrap().ends_with(&format!("-{seq}")), "{row}: {seq}");
    }
}
