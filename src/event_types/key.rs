use serde_json::Value;

/// The longest entity key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 512;
/// The longest pointer, in bytes.
const POINTER_BYTES_MAX: usize = 512;

/// How the key of the entity that an event is about is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRule {
    /// JSON Pointers into the payload (RFC 6901); the first that leads to a string, number or boolean counts.
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

    pub(super) fn find(&self, payload: &Value) -> Option<String> {
        let found = self.pointers.iter().find_map(|pointer| match payload.pointer(pointer)? {
            Value::String(text) if !text.is_empty() => Some(format!("{}{text}", self.prefix)),
            Value::Number(number) => Some(format!("{}{number}", self.prefix)),
            Value::Bool(bool) => Some(format!("{}{bool}", self.prefix)),
            _ => None,
        });
        found.or_else(|| self.otherwise.map(str::to_owned))
    }
}

fn is_pointer(text: &str) -> bool {
    let escapes_are_valid = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    text.starts_with('/') && escapes_are_valid && text.len() <= POINTER_BYTES_MAX
}
