use proptest::prelude::*;
use serde_json::json;

use super::*;

fn raw(json: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(json).unwrap()
}

fn row(schema: Value, key_pointer: Option<&str>) -> EventType {
    EventType {
        name: "a.type".to_owned(),
        description: None,
        schema,
        key_pointer: key_pointer.map(str::to_owned),
        ends_key: false,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

/// The key and the pointers of what is wrong.
fn check(types: &EventTypes, kind: &str, payload: &Value) -> (Option<String>, Vec<String>) {
    let mut faults = Vec::new();
    let subject = types.check(&kind.parse().unwrap(), &raw(payload), &mut faults).unwrap();
    (subject.key, faults.into_iter().map(|fault| fault.pointer).collect())
}

fn refusal(schema: Value) -> Fault {
    CheckedType::compile(row(schema, None)).err().unwrap().remove(0)
}

#[test]
fn built_in_types_compile() {
    assert_eq!(built_in::all().len(), 5);
}

#[test]
fn an_api_is_found_by_its_old_and_its_new_name() {
    let types = EventTypes::built_in();
    for payload in
        [json!({ "apiId": "a" }), json!({ "apiUuid": "a", "x": [1] }), json!({ "apiId": "a", "apiUuid": "b" })]
    {
        assert_eq!(check(&types, "api.deployed", &payload), (Some("a".to_owned()), vec![]));
    }
    assert_eq!(check(&types, "api.deployed", &json!({})), (None, vec!["/payload".to_owned()]));
    assert_eq!(check(&types, "api.deployed", &json!({ "apiId": 5 })).1, ["/payload/apiId"]);
    assert_eq!(check(&types, "api.deployed", &json!([])).1, ["/payload"]);
}

#[test]
fn an_undeployment_displaces_the_deployment_and_a_lifecycle_change_does_not() {
    let types = EventTypes::built_in();
    let payload = json!({ "apiId": "a" });
    let key = |kind| check(&types, kind, &payload).0;
    assert_eq!(key("api.deployed"), key("api.undeployed"));
    assert_eq!(key("api.deployed"), key("api.deleted"));
    assert_ne!(key("api.deployed"), key("api.lifecycle.changed"));
    assert_eq!(key("gateway.config.updated").as_deref(), Some("gateway.config"));
}

#[test]
fn only_a_deletion_ends_its_key_among_the_built_in_types() {
    let ending = built_in::all().into_iter().filter(|kind| kind.ends_key).map(|kind| kind.name.to_string());
    assert_eq!(ending.collect::<Vec<_>>(), ["api.deleted"]);
}

#[test]
fn the_key_is_where_the_pointer_leads() {
    let kind = CheckedType::compile(row(json!(true), Some("/a~1b/1"))).unwrap();
    let key = |payload: Value| kind.check(&raw(&payload), &mut Vec::new());
    assert_eq!(key(json!({ "a/b": [0, "x"] })).as_deref(), Some("x"));
    assert_eq!(key(json!({ "a/b": [0, 7] })).as_deref(), Some("7"));
    for none in [json!({}), json!({ "a/b": [0, null] }), json!({ "a/b": [0, ""] }), json!(5)] {
        assert_eq!(key(none), None);
    }
    let mut faults = Vec::new();
    kind.check(&raw(&json!({ "a/b": [0, "x".repeat(513)] })), &mut faults);
    assert_eq!(faults.len(), 1);
    for wrong in ["", "a", "/~2", "/a~"] {
        assert_eq!(CheckedType::compile(row(json!(true), Some(wrong))).err().unwrap()[0].pointer, "/keyPointer");
    }
}

#[test]
fn a_number_that_may_be_read_as_another_is_no_key() {
    let kind = CheckedType::compile(row(json!(true), Some("/id"))).unwrap();
    let check = |payload: &str| {
        let mut faults = Vec::new();
        (kind.check(&RawValue::from_string(payload.to_owned()).unwrap(), &mut faults), faults)
    };
    for id in ["18446744073709551615", "-9223372036854775808", "0"] {
        assert_eq!(check(&format!(r#"{{"id":{id}}}"#)), (Some(id.to_owned()), vec![]));
    }
    for id in ["12345678901234567890123", "12345678901234567890124", "18446744073709551616", "1.5", "1e3", "-0"] {
        let (key, faults) = check(&format!(r#"{{"id":{id}}}"#));
        assert_eq!((key, faults.len(), faults[0].pointer.as_str()), (None, 1, "/payload/id"));
        assert!(faults[0].message.contains("string"), "{faults:?}");
    }
    // As a text it is what it is.
    assert_eq!(check(r#"{"id":"12345678901234567890123"}"#).0.as_deref(), Some("12345678901234567890123"));
}

#[test]
fn whoever_parses_what_is_sent_can_parse_a_payload_that_was_taken_whatever_its_schema() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let bad =
        [r#"{"a":"\ud800"}"#, r#"["\udc00\ud800"]"#, "1e999", "[-1e999]", &nested(NESTING_MAX + 1), &nested(100_000)];
    let said = |schema: Value, payload: &str| {
        let mut faults = Vec::new();
        let payload = RawValue::from_string(payload.to_owned()).unwrap();
        CheckedType::compile(row(schema, None)).unwrap().check(&payload, &mut faults);
        faults
    };
    for payload in bad {
        let faults = said(json!({ "not": false }), payload);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].pointer, "/payload");
        for schema in [json!(true), json!({})] {
            assert_eq!(said(schema, payload), faults);
        }
    }
    let deep = nested(NESTING_MAX);
    assert_eq!(said(json!(true), &deep), []);
    // The most that is put around a payload: an envelope, in the answer to a poll.
    assert!(serde_json::from_str::<Value>(&format!(r#"{{"events":[{{"payload":{deep}}}]}}"#)).is_ok());
    assert!(serde_json::from_str::<Value>(&format!(r#"{{"events":[{{"payload":[{deep}]}}]}}"#)).is_err());
}

#[test]
fn what_is_wrong_is_said_without_the_values() {
    let schema = json!({ "properties": { "a": { "type": "integer" }, "b": { "const": 1 } } });
    let kind = CheckedType::compile(row(schema, None)).unwrap();
    let mut faults = Vec::new();
    kind.check(&raw(&json!({ "a": "a secret", "b": 2 })), &mut faults);
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/payload/a", "/payload/b"]);
    assert!(faults.iter().all(|fault| !fault.message.contains("secret")), "{faults:?}");
}

#[test]
fn faults_are_bounded_in_number_and_length() {
    let kind = CheckedType::compile(row(json!({ "items": { "type": "null" } }), None)).unwrap();
    let mut faults = Vec::new();
    kind.check(&raw(&json!(vec![1; 1000])), &mut faults);
    assert_eq!(faults.len(), FAULTS_MAX);
    let kind = CheckedType::compile(row(json!({ "additionalProperties": false }), None)).unwrap();
    let mut faults = Vec::new();
    kind.check(&raw(&json!({ "x".repeat(5000): 1 })), &mut faults);
    assert!(faults[0].message.chars().count() <= FAULT_CHARS_MAX);
}

#[test]
fn a_schema_stands_alone() {
    for (schema, pointer) in [
        (json!({ "$ref": "https://example.com/x" }), "/schema/$ref"),
        (json!({ "$ref": "file:///etc/passwd" }), "/schema/$ref"),
        (json!({ "$ref": "#name" }), "/schema/$ref"),
        (json!({ "$ref": "#/$defs/none" }), "/schema/$ref"),
        (json!({ "items": { "$ref": "https://json-schema.org/draft/2020-12/schema" } }), "/schema/items/$ref"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "/schema/$schema"),
        (json!({ "items": { "$id": "https://example.com/x" } }), "/schema/items/$id"),
        (json!({ "$dynamicRef": "#x" }), "/schema/$dynamicRef"),
    ] {
        assert_eq!(refusal(schema).pointer, pointer);
    }
    let fine = json!({ "$schema": schema_dialect(), "$id": "https://example.com/x", "$ref": "#/$defs/a", "$defs": { "a": {} } });
    assert!(CheckedType::compile(row(fine, None)).is_ok());
}

fn schema_dialect() -> &'static str {
    "https://json-schema.org/draft/2020-12/schema"
}

#[test]
fn a_schema_costs_no_more_than_its_bounds() {
    assert_eq!(refusal(json!({ "const": "x".repeat(SCHEMA_BYTES_MAX) })).pointer, "/schema");
    // References that come back: as data they would be bounded by the payload, as `allOf` they are not.
    assert_eq!(refusal(json!({ "$ref": "#" })).pointer, "/schema/$ref");
    assert_eq!(refusal(json!({ "properties": { "a": { "$ref": "#" } } })).pointer, "/schema/properties/a/$ref");
    let cycle = json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } });
    assert!(refusal(cycle).message.contains("recursive"));
    // 2³⁰ ways through thirty definitions.
    let doubling = |n: usize| json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", n + 1) }, { "$ref": format!("#/$defs/d{}", n + 1) }] });
    let mut defs: serde_json::Map<_, _> = (0..30).map(|n| (format!("d{n}"), doubling(n))).collect();
    defs.insert("d30".to_owned(), json!({}));
    assert!(refusal(json!({ "$defs": defs })).message.contains("subschemas"));
    // A chain of references that is deeper than any stack should be.
    let mut defs: serde_json::Map<_, _> =
        (0..500).map(|n| (format!("d{n}"), json!({ "$ref": format!("#/$defs/d{}", n + 1) }))).collect();
    defs.insert("d500".to_owned(), json!({}));
    assert!(refusal(json!({ "$defs": defs })).message.contains("nested"));
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "items": deep });
    }
    assert!(refusal(deep).message.contains("nested"));
    assert!(CheckedType::compile(row(json!({ "pattern": "(a{1000}){1000}" }), None)).is_err());
}

#[test]
fn a_schema_has_no_more_different_patterns_than_it_may() {
    let patterns = |from: usize, to: usize| (from..to).map(|n| json!({ "pattern": format!("^a+{n}$") }));
    let most = schema::PATTERNS_MAX;
    // Each is compiled once, however often it stands there and whatever refers to it.
    let all: Vec<_> = patterns(0, most).chain(patterns(0, most)).chain([json!({ "$ref": "#/allOf/0" })]).collect();
    assert!(CheckedType::compile(row(json!({ "allOf": all }), None)).is_ok());
    let too_many: Vec<_> = patterns(0, most + 1).collect();
    let fault = refusal(json!({ "allOf": too_many }));
    assert_eq!(fault.pointer, format!("/schema/allOf/{most}/pattern"));
    assert!(fault.message.contains("patterns"));
    let named: serde_json::Map<_, _> = (0..=most).map(|n| (format!("^a+{n:04}$"), json!(true))).collect();
    let fault = refusal(json!({ "properties": { "a": { "patternProperties": named } } }));
    assert_eq!(fault.pointer, "/schema/properties/a/patternProperties");
}

#[test]
fn what_may_take_long_is_known_before() {
    let types = EventTypes::built_in();
    let may_take_long = |schema: Value, payload_bytes| {
        let kind = types.install(CheckedType::compile(row(schema, None)).unwrap());
        types.may_take_long(&kind.name, payload_bytes)
    };
    let others: Vec<_> = (1..1_000).map(|n| json!({ "not": { "const": n } })).collect();
    let of_refs = json!({ "$defs": { "a": { "enum": (0..100).collect::<Vec<_>>() } }, "items": { "allOf": vec![json!({ "$ref": "#/$defs/a" }); 20] } });
    for schema in [
        json!({ "items": { "allOf": others } }),
        json!({ "items": { "enum": (0..5_000).collect::<Vec<_>>() } }),
        json!({ "items": { "allOf": vec![true; 5_000] } }),
        json!({ "items": { "allOf": vec![json!({ "pattern": "^a+b$" }); 20] } }),
        json!({ "patternProperties": (0..20).map(|n| (format!("^{n}"), json!(true))).collect::<serde_json::Map<_, _>>() }),
        of_refs,
    ] {
        assert!(may_take_long(schema.clone(), 10_000), "{schema}");
        assert!(!may_take_long(schema.clone(), 100), "{schema}");
    }
    assert!(!may_take_long(json!(true), 1_000_000));
    assert!(!types.may_take_long(&"no.such".parse().unwrap(), 1_000_000));
    for kind in built_in::all() {
        assert!(!types.may_take_long(&kind.name, 10_000), "{}", kind.name);
    }
}

#[test]
fn members_that_only_look_like_keywords_are_data() {
    let schema = json!({
        "const": { "$ref": "https://example.com" },
        "properties": { "$ref": { "type": "string" }, "$id": { "type": "string" }, "const": { "type": "object" } }
    });
    assert!(CheckedType::compile(row(schema, None)).is_ok());
}

#[test]
fn a_stored_type_that_cannot_be_compiled_is_left_out() {
    let types = EventTypes::load([
        Arc::new(row(json!({ "$ref": "#" }), None)),
        Arc::new(EventType { name: "api.deployed".to_owned(), ..row(json!(false), None) }),
    ]);
    assert!(types.get(&"a.type".parse().unwrap()).is_none());
    assert!(check(&types, "api.deployed", &json!({ "apiId": "a" })).1.is_empty());
}

proptest! {
    #[test]
    fn any_payload_is_checked_without_panic(text in "[\\[\\]{}\",:0-9a-zA-Zé \\\\.eE+-]{0,60}") {
        let types = EventTypes::built_in();
        if let Ok(payload) = serde_json::from_str::<Box<RawValue>>(&text) {
            let _ = types.check(&"api.deployed".parse().unwrap(), &payload, &mut Vec::new());
        }
    }
}
