use serde_json::Value;

use super::fault_at;
use crate::publish::Fault;

/// The longest entity key, in bytes.
const KEY_BYTES_MAX: usize = 512;
/// The longest pointer, in bytes.
const POINTER_BYTES_MAX: usize = 512;
/// What a number is that is a key. Any other is rounded when it is read, so that two of them would be one entity.
const NUMBER_EXPECTED: &str = "is the entity key, so a number must be an integer of 64 bits; send others as a string";

/// How the key of the entity that an event is about is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRule {
    /// JSON Pointers into the payload (RFC 6901); the first that leads to a string, number or boolean counts, as it is
    /// written: `1` and `"1"` are one key.
    pointers: Vec<String>,
    /// Put before what was found, so that the type's keys are its own.
    prefix: &'static str,
    /// The key when nothing was found.
    otherwise: Option<&'static str>,
}

impl KeyRule {
    /// The key is where this pointer leads; without one, events have no key.
    pub(super) fn at(pointer: Option<&str>) -> Result<Self, &'static str> {
        let pointers = match pointer {
            Some(pointer) if is_pointer(pointer) => vec![pointer.to_owned()],
            Some(_) => {
                return Err("must be a JSON Pointer into the payload (RFC 6901), such as /apiId, of at most 512 bytes");
            }
            None => Vec::new(),
        };
        Ok(Self { pointers, prefix: "", otherwise: None })
    }

    /// The first of these pointers that leads somewhere, after a prefix.
    pub(super) fn first_of(pointers: &[&str], prefix: &'static str) -> Self {
        Self { pointers: pointers.iter().map(|&p| p.to_owned()).collect(), prefix, otherwise: None }
    }

    /// All events of the type are about one entity of the gateway.
    pub(super) fn always(key: &'static str) -> Self {
        Self { pointers: Vec::new(), prefix: "", otherwise: Some(key) }
    }

    /// Where in the payload the key is, if it is looked for there.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        self.pointers.first().map(String::as_str)
    }

    /// The key of an event with this payload.
    pub(super) fn find(&self, payload: &Value) -> Result<Option<String>, Fault> {
        for pointer in &self.pointers {
            let found = match payload.pointer(pointer) {
                Some(Value::String(text)) if !text.is_empty() => text.clone(),
                Some(Value::Number(number)) if number.is_f64() => return Err(fault_at(pointer, &NUMBER_EXPECTED)),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Bool(bool)) => bool.to_string(),
                _ => continue,
            };
            let key = format!("{}{found}", self.prefix);
            if key.len() > KEY_BYTES_MAX {
                return Err(fault_at(pointer, &format_args!("makes an entity key of more than {KEY_BYTES_MAX} bytes")));
            }
            return Ok(Some(key));
        }
        Ok(self.otherwise.map(str::to_owned))
    }
}

fn is_pointer(text: &str) -> bool {
    let escapes_are_valid = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    text.starts_with('/') && escapes_are_valid && text.len() <= POINTER_BYTES_MAX
}
