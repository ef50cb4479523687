use serde_json::{Value, json};

use super::{CheckedType, KeyRule, schema};

/// Old payloads name an API `apiUuid`, new ones `apiId` (CONTRACT.md § 8).
const API_POINTERS: &[&str] = &["/apiId", "/apiUuid"];

/// The types that are part of the product.
pub(super) fn all() -> Vec<CheckedType> {
    let of_api = || KeyRule::first_of(API_POINTERS, "");
    vec![
        built_in("api.deployed", "A revision of an API is to be served by the gateway.", about_api(), of_api()),
        built_in("api.undeployed", "An API is no longer to be served by the gateway.", about_api(), of_api()),
        CheckedType { ends_key: true, ..built_in("api.deleted", "An API is gone for good.", about_api(), of_api()) },
        // Its own keys: in a compacted state the latest lifecycle change must not displace the deployment.
        built_in(
            "api.lifecycle.changed",
            "An API is in another state of its life, such as deprecated.",
            about_api(),
            KeyRule::first_of(API_POINTERS, "lifecycle/"),
        ),
        built_in(
            "gateway.config.updated",
            "The gateway's own configuration changed; the latest event counts.",
            json!({ "type": "object" }),
            KeyRule::always("gateway.config"),
        ),
    ]
}

/// Lenient: it names an API; what else is known has its type; anything more is allowed.
fn about_api() -> Value {
    let id = json!({ "type": "string", "minLength": 1, "maxLength": 128 });
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "anyOf": [{ "required": ["apiId"] }, { "required": ["apiUuid"] }],
        "properties": {
            "apiId": id, "apiUuid": id,
            "revisionId": text, "deploymentId": text, "vhost": text, "environment": text, "performedAt": text
        }
    })
}

#[expect(clippy::expect_used, reason = "these names and schemas are constants; a test compiles them all")]
fn built_in(name: &str, description: &str, schema: Value, key: KeyRule) -> CheckedType {
    CheckedType {
        // Invariant: names and schemas here are valid, held by the test `built_in_types_compile`.
        name: name.parse().expect("a valid name"),
        compiled: schema::compile(&schema).expect("a valid schema"),
        description: Some(description.to_owned()),
        schema,
        key,
        ends_key: false,
        built_in: true,
        created_at: None,
        updated_at: None,
    }
}
