//! Event types are data (CONTRACT.md § 6): a name, a JSON Schema for the payload, and where the entity key is.
//!
//! - A schema has at most 64 KiB, and makes at most 10,000 subschemas (`schema.rs` has the bounds): it refers to nothing
//!   outside itself, does not refer to itself, and its patterns run in linear time.
//! - Each value of a payload may meet all of them: a megabyte can take a good part of a minute. What may take more than
//!   some milliseconds is known before ([`EventTypes::may_take_long`]), and is no work for a thread of the runtime.
//! - A schema is compiled once, when its type is registered. Each of its patterns takes up to a quarter of a megabyte and a
//!   millisecond, so it has at most 100 that differ, and compiling them is no work for a thread of the runtime either.
//! - A check parses the payload once, whatever its type: one that no parser takes would come to its gateways again for
//!   ever. So it is nested at most 124 deep, too.
//! - Keys are shared by all types: `api.undeployed` takes the place of `api.deployed` of the same API in a gateway's
//!   compacted state. A type whose events end their key (`api.deleted`) leaves a tombstone there. A type whose events
//!   must not displace those of others has keys of its own ([`KeyRule`]).

mod built_in;
mod key;
mod name;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use gatecast_storage::EventType;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::warn;

pub use self::key::KeyRule;
pub use self::name::{InvalidTypeName, TypeName};
use self::schema::Compiled;
pub use self::schema::SCHEMA_BYTES_MAX;

use crate::control;
use crate::publish::Fault;

/// The most faults of one payload that are reported.
const FAULTS_MAX: usize = 20;
/// The longest message of one fault, in characters.
const FAULT_CHARS_MAX: usize = 240;
/// What a check may come to and still be quick: comparisons of a value, times bytes of payload. A million took 13 ms in a
/// debug build, with others on the machine.
const QUICK_WORK_MAX: u64 = 1_000_000;
/// The deepest nesting of a payload. Parsers stop at 128 (serde_json), and the answer to a poll has three levels around it.
const NESTING_MAX: usize = 124;

/// A type that can check payloads.
pub struct CheckedType {
    /// Its name.
    pub name: TypeName,
    /// For people.
    pub description: Option<String>,
    /// What payloads must be: JSON Schema 2020-12.
    pub schema: Value,
    /// Which entity an event is about.
    pub key: KeyRule,
    /// Whether that entity is gone with it.
    pub ends_key: bool,
    /// Part of the product: it cannot be replaced or deleted.
    pub built_in: bool,
    /// When it was first registered; `None` for a built-in.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last registered; `None` for a built-in.
    pub updated_at: Option<DateTime<Utc>>,
    compiled: Compiled,
}

/// What an event means to the state of its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The entity that it is about, if any.
    pub key: Option<String>,
    /// Whether that entity is gone with it.
    pub ends_key: bool,
}

/// The event type is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event type is not registered")]
pub struct UnknownType;

/// The registered event types. Reading takes no lock.
pub struct EventTypes {
    types: ArcSwap<BTreeMap<TypeName, Arc<CheckedType>>>,
}

impl CheckedType {
    /// Compiles a type.
    ///
    /// # Errors
    /// What is wrong with it, with pointers such as `/schema/properties/a/type` and `/keyPointer`.
    pub fn compile(row: EventType) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let fault = |pointer: &str, message: String| Fault { pointer: pointer.to_owned(), message };
        let name = row.name.parse::<TypeName>().map_err(|e| faults.push(fault("/type", e.to_string()))).ok();
        if control::TYPES.contains(&&*row.name) {
            faults.push(fault("/type", "is the type of a control message".to_owned()));
        }
        let key = KeyRule::at(row.key_pointer.as_deref())
            .map_err(|message| faults.push(fault("/keyPointer", message.to_owned())))
            .ok();
        let compiled = schema::compile(&row.schema).map_err(|fault| faults.push(fault)).ok();
        let (Some(name), Some(key), Some(compiled)) = (name, key, compiled) else { return Err(faults) };
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            name,
            description: row.description,
            schema: row.schema,
            key,
            ends_key: row.ends_key,
            built_in: false,
            created_at: Some(row.created_at),
            updated_at: Some(row.updated_at),
            compiled,
        })
    }

    fn check(&self, payload: &RawValue, faults: &mut Vec<Fault>) -> Option<String> {
        let payload = match serde_json::from_str::<Value>(payload.get()) {
            Ok(payload) => payload,
            Err(error) => {
                faults.push(fault_at("", &error));
                return None;
            }
        };
        if is_deeper(&payload, NESTING_MAX) {
            faults.push(fault_at("", &format_args!("is nested deeper than {NESTING_MAX} arrays and objects")));
            return None;
        }
        if let Some(validator) = &self.compiled.validator {
            // A valid payload is the rule, and finding out that much is cheaper than looking for errors.
            if !validator.is_valid(&payload) {
                let errors = validator.iter_errors(&payload).take(FAULTS_MAX);
                faults.extend(errors.map(|error| fault_at(error.instance_path().as_str(), &error.masked())));
            }
        }
        self.key.find(&payload).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        })
    }
}

impl EventTypes {
    /// The types that are part of the product.
    #[must_use]
    pub fn built_in() -> Self {
        let types = built_in::all().into_iter().map(|kind| (kind.name.clone(), Arc::new(kind))).collect();
        Self { types: ArcSwap::from_pointee(types) }
    }

    /// The built-in types and the stored ones. A stored type that this version cannot compile is left out, and
    /// logged: its events are refused, the others are not.
    #[must_use]
    pub fn load(rows: impl IntoIterator<Item = Arc<EventType>>) -> Self {
        let types = Self::built_in();
        for row in rows {
            match CheckedType::compile((*row).clone()) {
                Ok(kind) if !types.is_built_in(&kind.name) => drop(types.install(kind)),
                Ok(kind) => {
                    warn!(event.kind = %kind.name, "A stored event type is now built in; the stored one is ignored.")
                }
                Err(faults) => {
                    warn!(event.kind = %row.name, ?faults, "A stored event type cannot be compiled; its events are refused.")
                }
            }
        }
        types
    }

    /// Checks a payload against its type: adds what is wrong to `faults`, with pointers below `/payload`, and returns
    /// what the event is about.
    ///
    /// # Errors
    /// If there is no such type.
    pub fn check(&self, kind: &TypeName, payload: &RawValue, faults: &mut Vec<Fault>) -> Result<Subject, UnknownType> {
        let types = self.types.load();
        let kind = types.get(kind).ok_or(UnknownType)?;
        Ok(Subject { key: kind.check(payload, faults), ends_key: kind.ends_key })
    }

    /// Whether a check of so many bytes may take more than some milliseconds.
    #[must_use]
    pub fn may_take_long(&self, kind: &TypeName, payload_bytes: usize) -> bool {
        let work = self.types.load().get(kind).map_or(0, |kind| kind.compiled.work);
        work.saturating_mul(payload_bytes as u64) > QUICK_WORK_MAX
    }

    /// A type by name.
    #[must_use]
    pub fn get(&self, name: &TypeName) -> Option<Arc<CheckedType>> {
        self.types.load().get(name).cloned()
    }

    /// All types, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<CheckedType>> {
        self.types.load().values().cloned().collect()
    }

    /// Whether the name is that of a built-in type.
    #[must_use]
    pub fn is_built_in(&self, name: &TypeName) -> bool {
        self.types.load().get(name).is_some_and(|kind| kind.built_in)
    }

    /// Registers a type, in effect at once; it replaces the one of its name.
    pub fn install(&self, kind: CheckedType) -> Arc<CheckedType> {
        let kind = Arc::new(kind);
        self.types.rcu(|types| {
            let mut types = BTreeMap::clone(types);
            types.insert(kind.name.clone(), Arc::clone(&kind));
            types
        });
        kind
    }

    /// Removes a type, in effect at once.
    pub fn remove(&self, name: &TypeName) {
        self.types.rcu(|types| {
            let mut types = BTreeMap::clone(types);
            types.remove(name);
            types
        });
    }
}

/// Whether arrays and objects are nested deeper than that.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let inner_is_deeper = |value| is_deeper(value, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(inner_is_deeper),
        Value::Object(members) => levels == 0 || members.values().any(inner_is_deeper),
        _ => false,
    }
}

fn fault_at(pointer: &str, message: &dyn std::fmt::Display) -> Fault {
    let message = message.to_string().chars().take(FAULT_CHARS_MAX).collect();
    Fault { pointer: format!("/payload{pointer}"), message }
}

#[cfg(test)]
mod tests;
