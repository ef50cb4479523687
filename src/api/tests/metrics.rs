use gatecast_storage::Clock as _;
use gatecast_storage::{
    Access, CatchUp, Cursor, Epoch, Failure, FailureReason, Gateway, GatewayId, OrganizationId, Seq,
};
use serde_json::json;
use uuid::Uuid;

use super::world::World;

/// Samples of a metric.
fn samples<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect()
}

async fn page(world: &World) -> String {
    let answer = world.get("/metrics").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"text/plain; version=0.0.4; charset=utf-8".parse().unwrap())
    );
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn metrics_are_for_the_admin() {
    let world = World::new().await;
    world.bare("GET", "/metrics").await.problem(401, "UNAUTHORIZED");
    assert!(page(&world).await.contains("gatecast_build_info{version="));
}

#[tokio::test]
async fn a_page_is_as_small_with_a_hundred_thousand_gateways_behind_as_with_ten() {
    let world = World::new().await;
    let few = page(&world).await;
    // Of 100,000 failures, which are as many as are kept, ten gateways have two.
    for number in 0..99_990_u64 {
        let gateway = GatewayId(Uuid::from_u128(u128::from(number)));
        // Those that are shown are there.
        if number < 10 {
            let registered = Gateway {
                id: gateway,
                organization: OrganizationId(Uuid::nil()),
                name: format!("gw-{number}").into(),
                display_name: "".into(),
                description: None,
                vhost: None,
                catch_up: CatchUp::Live,
                access: Access::default(),
                created_at: world.clock.now(),
                updated_at: world.clock.now(),
            };
            world.parts.directory.create_gateway(registered).await.unwrap();
        }
        let events = if number < 10 { 2 } else { 1 };
        let failure = |seq| Failure {
            gateway,
            event: Cursor { epoch: Epoch(1), seq: Seq(seq) },
            event_type: Some("api.deployed".to_owned()),
            replica: None,
            events: 1,
            correlation_id: Some("c".to_owned()),
            reason: FailureReason::NotConnected,
            at: world.clock.now(),
        };
        for seq in 1..=events {
            world.parts.deliveries.record(failure(seq));
        }
    }
    world.parts.deliveries.flush().await.unwrap();
    let many = page(&world).await;
    assert_eq!(samples(&many, "gatecast_gateways_behind"), ["gatecast_gateways_behind 99990"]);
    assert_eq!(samples(&many, "gatecast_gateway_lag_events").len(), 10);
    assert!(many.len() < few.len() + 10 * 200, "{} and {}", few.len(), many.len());
}

#[tokio::test]
async fn those_furthest_behind_are_shown_with_their_lag() {
    let world = World::new().await;
    let (near, far) = (world.gateway("near").await, world.gateway("far").await);
    for (gateway, events) in [(near, 1), (far, 3)] {
        for _ in 0..events {
            let event = json!({ "type": "api.deployed", "payload": { "apiId": "a" } });
            world.admin("POST", &format!("/api/internal/v1/gateways/{gateway}/events"), event).await.expect(201);
        }
    }
    let expected = [(far, 3), (near, 1)]
        .map(|(id, events)| format!("gatecast_gateway_lag_events{{gateway_id=\"{id}\"}} {events}"));
    assert_eq!(samples(&page(&world).await, "gatecast_gateway_lag_events"), expected);
}
