use std::sync::Arc;

use bytes::Bytes;
use gatecast_storage::{MemoryRecords, Records as _, Table};
use proptest::prelude::*;
use serde_json::Value;

use super::world::{ADMIN, World};
use crate::api::router::table;

/// JSON that often has the members that calls look for.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("b0a7d4c6-52a1-4b3f-8a55-2f1f5a3f7c10")),
        Just(Value::from("api.deployed")),
        Just(Value::from("+999999-01-01T00:00:00Z")),
    ];
    let names = prop_oneof![
        proptest::sample::select(vec![
            "organizationId",
            "name",
            "displayName",
            "description",
            "vhost",
            "catchUp",
            "expiresAt",
            "type",
            "payload",
            "key",
            "correlationId",
            "targets",
            "gatewayIds",
            "all",
            "schema",
            "keyPointer",
            "gatewayId",
            "revisionId",
            "properties",
            "$ref",
            "$defs",
            "apiId",
            "pattern",
            "enum",
            "items",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((names.clone(), inner), 0..6).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => json().prop_map(|json| json.to_string().into_bytes()),
        1 => json().prop_map(|json| json.to_string().into_bytes().into_iter().rev().collect::<Vec<_>>()),
        1 => any::<Vec<u8>>(),
    ]
}

/// A path of the table, with anything for its parameters, or any path.
fn path() -> impl Strategy<Value = (String, String)> {
    let rows: Vec<_> = table().map(|(method, path, _)| (method.to_string(), path)).collect();
    let param = "[a-zA-Z0-9.%_~-]{1,12}";
    prop_oneof![
        3 => proptest::sample::select(rows.clone()),
        3 => (proptest::sample::select(rows), param)
            .prop_map(|((method, path), param)| (method, path.replace("d1aa71bc-8cb5-4294-8a26-fe1273c28632", &param))),
        1 => ("[A-Z]{1,9}", "(/[a-zA-Z0-9.%_~-]{0,9}){1,6}"),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = "limit|offset|gatewayId|organizationId|connected|since|until|reason|revisionId|[a-z%+]{0,5}";
    let pair = (name, "[a-zA-Z0-9.%_~+:-]{0,12}").prop_map(|(name, value)| format!("{name}={value}"));
    proptest::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
}

/// Every row of every table that is written at once.
async fn stored(records: &MemoryRecords) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    for table in [Table::Gateways, Table::Tokens, Table::Apis, Table::Deployments, Table::EventTypes, Table::Meta] {
        rows.extend(records.scan(table).await.unwrap());
    }
    rows
}

proptest! {
    #[test]
    fn nothing_that_is_sent_panics_or_is_our_fault_and_nothing_is_stored_of_what_is_refused((method, path) in path(), query in query(), body in body(), if_match in "[ -~]{0,20}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, before, after) = runtime.block_on(async {
            let records = Arc::new(MemoryRecords::new());
            let world = World::over(records.clone()).await;
            let gateway = world.gateway("gw-1").await;
            let (_, token) = world.token(gateway).await;
            let path = path.replace("d1aa71bc-8cb5-4294-8a26-fe1273c28632", &gateway.to_string());
            let bearer = format!("Bearer {ADMIN}");
            let headers = [("authorization", bearer.as_str()), ("api-key", token.as_str()), ("if-match", &if_match)];
            let before = (stored(&records).await, world.head(gateway).await);
            let status = world.send(&method, &format!("{path}?{query}"), &headers, body).await.status;
            (status, before, (stored(&records).await, world.head(gateway).await))
        });
        prop_assert!(!status.is_server_error(), "{}", status);
        prop_assert!(!status.is_client_error() || before == after, "{} and stored", status);
    }
}
