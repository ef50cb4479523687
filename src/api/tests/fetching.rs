use std::io::Read;

use serde_json::{Value, json};

use super::world::{ADMIN, Reply, World};

const YAML: &str = "kind: RestApi\nname: pets\n";

async fn put(world: &World, id: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let bearer = format!("Bearer {ADMIN}");
    let headers: Vec<_> = [("authorization", bearer.as_str())].into_iter().chain(headers.iter().copied()).collect();
    world.send("PUT", &format!("/api/v1/apis/{id}?revisionId=r-1"), &headers, body).await
}

#[tokio::test]
async fn an_artifact_is_kept_replaced_and_deleted() {
    let world = World::new().await;
    let yaml = [("content-type", "application/yaml; charset=utf-8")];
    let made = put(&world, "pets", &yaml, YAML).await.expect(201);
    assert_eq!((&made["revisionId"], &made["sizeBytes"]), (&json!("r-1"), &json!(YAML.len())));
    put(&world, "pets", &[("content-type", "text/yaml")], YAML).await.expect(200);
    let read = world.get("/api/v1/apis/pets").await;
    assert_eq!(read.headers["content-type"], "application/yaml");
    assert_eq!(read.body, YAML);

    put(&world, "pets", &[("content-type", "application/json")], "{}").await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    put(&world, "pets", &yaml, " \n").await.problem(400, "VALIDATION_FAILED");
    put(&world, "a%2Fb", &yaml, YAML).await.problem(400, "INVALID_PARAMETER");
    put(&world, "pets", &yaml, &" ".repeat((10 << 20) + 1)).await.problem(413, "PAYLOAD_TOO_LARGE");

    assert_eq!(world.admin("DELETE", "/api/v1/apis/pets", Value::Null).await.status, 204);
    world.get("/api/v1/apis/pets").await.problem(404, "API_NOT_FOUND");
    let strange = world.admin("PUT", "/api/v1/apis/a%2e", Value::Null).await;
    assert_eq!(strange.problem(400, "INVALID_PARAMETER"), ["apiId"]);
    let expected = "The parameter apiId must be 1 to 128 letters, digits, or any of . _ ~ - (not . or .. alone).";
    assert_eq!(strange.expect(400)["detail"], expected);
}

#[tokio::test]
async fn a_gateway_fetches_what_is_deployed_to_it_and_nothing_else() {
    let world = World::new().await;
    let (mine, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let ((_, token), (_, foreign)) = (world.token(mine).await, world.token(other).await);
    put(&world, "pets", &[], YAML).await.expect(201);
    let zip_path = "/api/internal/v1/apis/pets";
    let yaml_path = "/api/internal/v1/api-runtime-artifacts/pets";
    world.gateway_get(&token, zip_path).await.problem(404, "API_NOT_FOUND");

    let deploy = "/api/v1/apis/pets/deploy-revision?revisionId=r-1";
    world.admin("POST", deploy, json!([{ "gatewayId": mine }])).await.expect(200);
    let reply = world.gateway_get(&token, zip_path).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "application/zip");
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(reply.body)).unwrap();
    assert_eq!(zip.len(), 1);
    let mut text = String::new();
    zip.by_name("api-pets.yaml").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, YAML);

    assert_eq!(world.gateway_get(&token, yaml_path).await.body, YAML);
    let zipped = world.send("GET", yaml_path, &[("api-key", &token), ("accept", "application/zip")], "").await;
    assert_eq!(zipped.headers["content-type"], "application/zip");
    let refused = [("api-key", &*token), ("accept", "application/zip;q=0, application/yaml")];
    assert_eq!(world.send("GET", yaml_path, &refused, "").await.body, YAML);
    let bearer = format!("Bearer {token}");
    assert_eq!(world.send("GET", yaml_path, &[("authorization", &bearer)], "").await.status, 200);
    for path in [zip_path, yaml_path] {
        world.gateway_get(&foreign, path).await.problem(404, "API_NOT_FOUND");
    }

    world.admin("POST", "/api/v1/apis/pets/undeploy-revision", json!([{ "gatewayId": mine }])).await.expect(200);
    world.gateway_get(&token, zip_path).await.problem(404, "API_NOT_FOUND");
}

#[tokio::test]
async fn whoever_is_sent_an_artifact_gets_it_as_it_is_now_and_shares_it() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, token) = world.token(gateway).await;
    put(&world, "pets", &[], YAML).await.expect(201);
    let deploy = "/api/v1/apis/pets/deploy-revision?revisionId=r-1";
    world.admin("POST", deploy, json!([{ "gatewayId": gateway }])).await.expect(200);
    for path in ["/api/internal/v1/apis/pets", "/api/internal/v1/api-runtime-artifacts/pets"] {
        let sent = world.gateway_get(&token, path).await.body;
        assert_eq!(world.gateway_get(&token, path).await.body.as_ptr(), sent.as_ptr(), "{path}");
        put(&world, "pets", &[], &format!("{YAML}path: {path}\n")).await.expect(200);
        let anew = world.gateway_get(&token, path).await.body;
        // A zip's are stored.
        let has_path = |body: &[u8]| String::from_utf8_lossy(body).contains(path);
        assert_eq!((has_path(&sent), has_path(&anew)), (false, true));
    }
}

#[tokio::test]
async fn deployments_are_told_truthfully_and_never_as_an_empty_list() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, token) = world.token(gateway).await;
    let path = "/api/internal/v1/deployments";
    world.gateway_get(&token, path).await.problem(404, "DEPLOYMENT_NOT_FOUND");
    let deploy = "/api/v1/apis/pets/deploy-revision?revisionId=r-1";
    let made = world.admin("POST", deploy, json!([{ "gatewayId": gateway }])).await.expect(200);
    let told = world.gateway_get(&token, path).await.expect(200);
    assert_eq!(told["deployments"].as_array().unwrap().len(), 1);
    assert_eq!(told["deployments"][0]["deploymentId"], made[0]["deploymentId"]);
    assert_eq!(told["deployments"][0]["apiId"], "pets");
    world.admin("POST", "/api/v1/apis/pets/undeploy-revision", json!([{ "gatewayId": gateway }])).await.expect(200);
    world.gateway_get(&token, path).await.problem(404, "DEPLOYMENT_NOT_FOUND");
    // Deployed but never uploaded: the gateway is told, and survives the 404.
    world.admin("POST", deploy, json!([{ "gatewayId": gateway }])).await.expect(200);
    world.gateway_get(&token, "/api/internal/v1/apis/pets").await.problem(404, "API_NOT_FOUND");
}

#[tokio::test]
async fn what_other_control_planes_have_is_404_and_a_manifest_is_taken() {
    let world = World::new().await;
    let (mine, other) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (_, token) = world.token(mine).await;
    for path in ["/api/internal/v1/subscription-plans", "/api/internal/v1/artifacts/exists"] {
        world.gateway_get(&token, path).await.problem(404, "NOT_FOUND");
    }
    let manifest = |of, bytes| {
        let (world, token) = (&world, &token);
        let path = format!("/api/internal/v1/gateways/{of}/manifest");
        async move { world.send("POST", &path, &[("api-key", token)], &" ".repeat(bytes)).await }
    };
    assert_eq!(manifest(mine, 9).await.status, 204);
    assert_eq!(manifest(mine, 2 << 20).await.status, 204, "a gateway would exit on a 413");
    manifest(other, 9).await.problem(403, "FORBIDDEN");
}
