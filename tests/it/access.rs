//! Who may come in a gateway's name: from which addresses, and by which certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Method, StatusCode};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::App;
use crate::platform::{Platform, Registered, answer};
use crate::process::run;
use crate::tls::write_certificate;
use crate::wire::{End, PATIENCE, Sse, Ws, trusting_all};

const ADMIN: &str = "an-admin-token-for-tests";
/// Within this a connection must have ended that is no longer allowed.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn update(app: &Platform, gateway: &Registered, more: Value) -> (StatusCode, Value) {
    let mut body = json!({"displayName": "changed"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app.call(Method::PUT, &format!("/api/v1/gateways/{}", gateway.id), Some(body)).await
}

#[tokio::test]
async fn a_gateway_bound_to_its_networks_is_refused_from_elsewhere_like_anyone_without_a_key() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let networks = json!({"allowedAddresses": ["192.0.2.0/24", "2001:db8::1", "::ffff:198.51.100.7"]});
    let (status, said) = update(&app, &gateway, networks).await;
    let networks = json!(["192.0.2.0/24", "2001:db8::1/128", "198.51.100.7/32"]);
    assert_eq!((status, &said["allowedAddresses"]), (StatusCode::OK, &networks));
    for path in ["poll/gateways/connect", "sse/gateways/connect", "deployments"] {
        let ask = async |key: &str| {
            let url = app.url(&format!("/api/internal/v1/{path}"));
            answer(app.http.get(url).header("api-key", key).send().await.unwrap()).await
        };
        let (right, wrong) = (ask(&gateway.token).await, ask(&"x".repeat(43)).await);
        assert_eq!((right.0, &right), (StatusCode::UNAUTHORIZED, &wrong), "{path} tells nothing of the key");
    }
    assert_eq!(Ws::connect(app.address, &gateway.token, None).await.err(), Some(401));
    let receipts = app.http.post(app.url("/api/internal/v1/gateways/receipts")).header("api-key", &gateway.token);
    assert_eq!(receipts.json(&json!([])).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    for (wrong, status) in [
        (json!({"allowedAddresses": ["10.0.0.0/33"]}), StatusCode::BAD_REQUEST),
        (json!({"allowedAddresses": "10.0.0.0/8"}), StatusCode::BAD_REQUEST),
        (json!({"certificateNames": ["*.example"]}), StatusCode::BAD_REQUEST),
        (json!({"allowedAddresses": null}), StatusCode::OK),
    ] {
        assert_eq!(update(&app, &gateway, wrong.clone()).await.0, status, "{wrong}");
    }
    assert!(Ws::connect(app.address, &gateway.token, None).await.is_ok(), "absent is any");
}

#[tokio::test]
async fn a_network_that_is_taken_away_ends_its_connections_within_a_second_on_every_transport() {
    let app = App::start().await;
    let (gateway, other) = (app.register("one").await, app.register("other").await);
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    let mut stays = Ws::connect(app.address, &other.token, None).await.unwrap();
    sse.event().await.unwrap();
    for connection in [&mut ws, &mut stays] {
        connection.message().await.unwrap();
    }
    let (_, opened, _) = app.poll(&gateway.token, "").await.unwrap();
    let cursor = opened["lastEventId"].as_str().unwrap();
    let query = format!("lastEventId={cursor}&timeout=60");
    let polling = app.poll(&gateway.token, &query);
    let withdraw = async {
        assert_eq!(update(&app, &gateway, json!({"allowedAddresses": ["127.0.0.0/8"]})).await.0, StatusCode::OK);
        app.connected(4).await;
        assert_eq!(update(&app, &gateway, json!({"allowedAddresses": ["192.0.2.0/24"]})).await.0, StatusCode::OK);
        let at = Instant::now();
        // Heartbeats go on over a connection that is not ended: a wait of its own for each.
        let closed = timeout(PATIENCE, ws.message()).await.expect("an end");
        assert_eq!(closed, Err(End::Closed(1008, "access withdrawn".into())));
        let last = timeout(PATIENCE, sse.event()).await.expect("an end");
        assert_eq!(last.unwrap().json()["code"], "ACCESS_WITHDRAWN");
        assert!(at.elapsed() < AT_ONCE, "{:?}", at.elapsed());
        at
    };
    let (polled, at) = tokio::join!(polling, withdraw);
    assert!(polled.unwrap().0 == 204 && at.elapsed() < AT_ONCE, "{:?}", at.elapsed());
    assert_eq!(app.poll(&gateway.token, "").await.unwrap().0, 401);
    let id = app.publish(other.id, 1).await;
    assert_eq!(stays.message().await.unwrap()["eventId"], id.as_str(), "another gateway is not meant");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_address_that_it_reports_counts() {
    let app = App::with(&[("GATECAST_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let gateway = app.register("one").await;
    assert_eq!(update(&app, &gateway, json!({"allowedAddresses": ["192.0.2.0/24"]})).await.0, StatusCode::OK);
    for (client, status) in [("192.0.2.7", 200), ("198.51.100.7", 401), ("192.0.2.7, 198.51.100.7", 401)] {
        for (path, method) in [("poll/gateways/connect", Method::GET), ("gateways/receipts", Method::POST)] {
            let request = app.http.request(method, app.url(&format!("/api/internal/v1/{path}")));
            let request = request.header("api-key", &gateway.token).header("x-forwarded-for", client);
            let got = request.json(&json!([])).send().await.unwrap().status().as_u16();
            assert_eq!(got == 401, status == 401, "{path} from {client}: {got}");
        }
    }
}

/// Polls of one gateway that come through a trusted proxy from wherever they say.
struct Elsewhere<'a> {
    app: &'a App,
    gateway: &'a Registered,
}

impl Elsewhere<'_> {
    async fn poll(&self, from: &str, query: &str) -> (StatusCode, Value) {
        let url = self.app.url(&format!("/api/internal/v1/poll/gateways/connect?{query}"));
        let request = self.app.http.get(url).header("api-key", &self.gateway.token).header("x-forwarded-for", from);
        answer(request.send().await.unwrap()).await
    }

    /// Waits until a poll from there that was just sent is under way, which is not the one that opened its connection.
    async fn is_polled(&self, from: &str) {
        let polled = async {
            loop {
                let stats = self.app.get(&format!("/api/internal/v1/stats?gatewayId={}", self.gateway.id)).await.1;
                let connections = stats["gatewayConnections"]["connections"].as_array().unwrap();
                if connections.iter().any(|one| one["peer"] == from && one["lastHeartbeat"] != one["connectedAt"]) {
                    return;
                }
            }
        };
        timeout(PATIENCE, polled).await.expect("it is polled");
    }

    /// Has only these networks from now on.
    async fn allow(&self, networks: &[&str]) -> Instant {
        let at = Instant::now();
        assert_eq!(update(self.app, self.gateway, json!({"allowedAddresses": networks})).await.0, StatusCode::OK);
        at
    }
}

/// A poll that goes on where this answer has ended.
fn named(said: &Value, timeout: u8) -> String {
    let [id, cursor] = ["connectionId", "lastEventId"].map(|member| said[member].as_str().unwrap().to_owned());
    format!("connectionId={id}&lastEventId={cursor}&timeout={timeout}")
}

const HERE: &str = "192.0.2.7";
const THERE: &str = "198.51.100.7";

/// As behind a pool of addresses, of which each request has another.
#[tokio::test]
async fn a_poll_that_names_its_connection_goes_on_with_it_from_another_address() {
    let app = App::with(&[("GATECAST_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let gateway = app.register("one").await;
    let line = Elsewhere { app: &app, gateway: &gateway };
    let (_, opened) = line.poll(HERE, "").await;
    // Times are of milliseconds.
    sleep_until(Instant::now() + Duration::from_millis(2)).await;
    let (held, on) = (named(&opened, 60), named(&opened, 1));
    let moved = async {
        line.is_polled(HERE).await;
        let at = Instant::now();
        (line.poll(THERE, &on).await, at)
    };
    let (ended, (moved, at)) = tokio::join!(line.poll(HERE, &held), moved);
    assert_eq!((ended.0, moved.0), (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT), "one poll at a time");
    assert!(at.elapsed() < 2 * AT_ONCE, "{:?}", at.elapsed());
    app.publish(gateway.id, 1).await;
    for from in [HERE, THERE, THERE, HERE] {
        let (status, said) = line.poll(from, &on).await;
        assert_eq!((status, &said["connectionId"]), (StatusCode::OK, &opened["connectionId"]), "{from}");
    }
    app.connected(1).await;
    let (_, other) = line.poll(THERE, "").await;
    assert_ne!(other["connectionId"], opened["connectionId"], "without a name it is that of its address");
    let failed = app.get(&format!("/api/internal/v1/deliveries/failed?gatewayId={}", gateway.id)).await.1;
    assert_eq!(failed["count"], 0, "{failed}");
}

/// Polls of a connection that another address opened.
#[tokio::test]
async fn what_is_barred_is_where_the_poll_comes_from_whoever_opened_its_connection() {
    let app = App::with(&[("GATECAST_TRUSTED_PROXIES", "127.0.0.1")]).await;
    for (name, opens, polls) in [("one", HERE, THERE), ("other", THERE, HERE)] {
        let gateway = app.register(name).await;
        let line = Elsewhere { app: &app, gateway: &gateway };
        let (_, opened) = line.poll(opens, "").await;
        sleep_until(Instant::now() + Duration::from_millis(2)).await;
        let held = named(&opened, 60);
        let barred = async {
            line.is_polled(polls).await;
            // The poll goes on that is not meant.
            line.allow(&[polls]).await;
            app.publish(gateway.id, 1).await;
        };
        let (served, ()) = tokio::join!(line.poll(polls, &held), barred);
        assert_eq!((served.0, &served.1["connectionId"]), (StatusCode::OK, &opened["connectionId"]), "{polls}");
        let barred = async {
            let at = line.allow(&[opens]).await;
            app.connected(0).await;
            app.publish(gateway.id, 2).await;
            at
        };
        let held = named(&served.1, 60);
        let (ended, at) = tokio::join!(line.poll(polls, &held), barred);
        let silenced = [StatusCode::NO_CONTENT, StatusCode::UNAUTHORIZED];
        assert!(silenced.contains(&ended.0), "nothing of what was published: {ended:?}");
        assert!(at.elapsed() < 2 * AT_ONCE, "{:?}", at.elapsed());
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client certificate of these names.
fn certified(by: &Authority, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Arc<CertifiedKey> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.signed_by(&key, by).unwrap().der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()))
}

/// The same server as seen with a client certificate, whatever the server says about authorities.
fn with(app: &Platform, certificate: &Arc<CertifiedKey>) -> Platform {
    let mut tls = trusting_all(&[b"h2", b"http/1.1"]);
    tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certificate.clone()));
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    Platform { http, ..app.clone() }
}

async fn server(dir: &Path, by: &Authority) -> App {
    write_certificate(dir);
    std::fs::write(dir.join("ca.pem"), by.pem()).unwrap();
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| dir.join(name).display().to_string());
    let tls = [("GATECAST_TLS_CERT", &*cert), ("GATECAST_TLS_KEY", &key), ("GATECAST_TLS_CLIENT_CA", &ca)];
    App::with(&[&tls[..], &[("GATECAST_ADMIN_TOKEN", ADMIN)]].concat()).await
}

/// Polls once, with a token or without: the status, or nothing if there was no handshake.
async fn poll(by: &Platform, token: Option<&str>) -> Option<u16> {
    let mut request = by.http.get(by.url("/api/internal/v1/poll/gateways/connect"));
    if let Some(token) = token {
        request = request.header("api-key", token);
    }
    Some(request.send().await.ok()?.status().as_u16())
}

#[tokio::test]
async fn a_verified_certificate_of_a_gateways_name_is_as_good_as_a_token_and_no_other_is() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), authority(), authority());
    let app = server(dir.path(), &ours).await;
    let (edge, other) = (app.register("edge").await, app.register("other").await);
    let names = json!({"certificateNames": ["Edge-1.example"]});
    assert_eq!(update(&app, &edge, names.clone()).await.1["certificateNames"], json!(["edge-1.example"]));
    let (status, said) = update(&app, &other, names).await;
    assert_eq!((status, &said["code"]), (StatusCode::CONFLICT, &json!("CERTIFICATE_NAME_TAKEN")));
    assert_eq!(update(&app, &other, json!({"certificateNames": ["other.example"]})).await.0, StatusCode::OK);

    let plain = |_: &mut CertificateParams| {};
    let good = with(&app, &certified(&ours, &["edge-1.example", "elsewhere.example"], plain));
    assert_eq!(poll(&good, None).await, Some(200));
    assert_eq!(poll(&good, Some(&edge.token)).await, Some(200), "a token of the same gateway");
    assert_eq!(poll(&good, Some(&other.token)).await, Some(401), "a token of another gateway");
    assert_eq!(poll(&good, Some(&"x".repeat(43))).await, Some(401), "a wrong token counts more");
    let stranger = with(&app, &certified(&ours, &["nobody.example"], plain));
    assert_eq!(poll(&stranger, None).await, Some(401));
    assert_eq!(poll(&stranger, Some(&edge.token)).await, Some(200), "names of nobody do no harm");
    let both = with(&app, &certified(&ours, &["edge-1.example", "other.example"], plain));
    assert_eq!(poll(&both, None).await, Some(401), "of two gateways");
    let wild = with(&app, &certified(&ours, &["*.example"], plain));
    assert_eq!(poll(&wild, None).await, Some(401), "a wildcard stands for nobody");
    assert_eq!(poll(&app, Some(&edge.token)).await, Some(200), "no certificate");
    assert_eq!(poll(&app, None).await, Some(401));

    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let forged = with(&app, &certified(&theirs, &["edge-1.example"], plain));
    let expired = with(&app, &certified(&ours, &["edge-1.example"], expired));
    let mut garbage = (*certified(&ours, &["edge-1.example"], plain)).clone();
    garbage.cert = vec![CertificateDer::from(vec![0x30; 40_000])];
    for (what, by) in [("forged", forged), ("expired", expired), ("garbage", with(&app, &Arc::new(garbage)))] {
        assert_eq!(poll(&by, Some(&edge.token)).await, None, "{what}: no handshake");
    }
    assert_eq!(poll(&app, Some(&edge.token)).await, Some(200), "the server goes on");
}

#[tokio::test]
async fn listen_connects_by_its_certificate_on_every_transport_without_a_token() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let app = server(dir.path(), &ours).await;
    let edge = app.register("edge").await;
    update(&app, &edge, json!({"certificateNames": ["edge-1.example"]})).await;
    let (key, params) =
        (KeyPair::generate().unwrap(), CertificateParams::new(vec!["edge-1.example".to_owned()]).unwrap());
    let [cert_path, key_path] = ["client.pem", "client.key"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&cert_path, params.signed_by(&key, &ours).unwrap().pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    let id = app.publish(edge.id, 1).await;
    let url = format!("https://{}", app.address);
    let listen = ["-k", "--json", "--url", &url, "listen", "--resume", "earliest", "--count", "1"];
    for transport in ["ws", "sse", "poll"] {
        let by = ["--transport", transport, "--cert", &cert_path, "--key", &key_path];
        let said = run(&[&listen[..], &by].concat(), &[]).await;
        assert!(said.exit == 0 && said.out.contains(&id), "{transport}: {said:?}");
    }
    assert_eq!(run(&listen, &[]).await.exit, 77, "neither token nor certificate");
}

#[tokio::test]
async fn a_name_that_is_taken_away_ends_its_connections_within_a_second_and_leaves_those_by_token() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let app = server(dir.path(), &ours).await;
    let edge = app.register("edge").await;
    update(&app, &edge, json!({"certificateNames": ["edge-1.example"]})).await;
    let good = with(&app, &certified(&ours, &["edge-1.example"], |_| {}));
    let request = good.http.get(good.url("/api/internal/v1/sse/gateways/connect"));
    let mut certified = Sse::new(request.send().await.unwrap());
    let mut by_token = Ws::connect(app.address, &edge.token, None).await.unwrap();
    certified.event().await.unwrap();
    by_token.message().await.unwrap();
    assert_eq!(update(&app, &edge, json!({})).await.0, StatusCode::OK);
    let at = Instant::now();
    let last = timeout(PATIENCE, certified.event()).await.expect("an end");
    assert_eq!(last.unwrap().json()["code"], "ACCESS_WITHDRAWN");
    assert!(at.elapsed() < AT_ONCE, "{:?}", at.elapsed());
    // Over the connection that has the certificate still.
    assert_eq!(poll(&good, None).await, Some(401));
    let id = app.publish(edge.id, 1).await;
    assert_eq!(by_token.message().await.unwrap()["eventId"], id.as_str());
}

#[tokio::test]
async fn other_authorities_are_taken_over_while_the_server_runs() {
    let (dir, before, after) = (tempfile::tempdir().unwrap(), authority(), authority());
    let app = server(dir.path(), &before).await;
    let edge = app.register("edge").await;
    update(&app, &edge, json!({"certificateNames": ["edge-1.example"]})).await;
    let [old, new] = [&before, &after].map(|by| certified(by, &["edge-1.example"], |_| {}));
    assert_eq!((poll(&with(&app, &old), None).await, poll(&with(&app, &new), None).await), (Some(200), None));
    std::fs::write(dir.path().join("ca.pem"), after.pem()).unwrap();
    let taken = async { while poll(&with(&app, &new), None).await.is_none() {} };
    timeout(PATIENCE, taken).await.expect("the new authority counts");
    assert_eq!(poll(&with(&app, &old), None).await, None);
}
