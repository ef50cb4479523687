use std::collections::{HashMap, HashSet};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::publish::Fault;

/// The largest schema, in bytes of compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// The most subschemas, each counted as often as it is referred to: one value may meet all of them.
const SUBSCHEMAS_MAX: u64 = 10_000;
/// The deepest nesting of subschemas, references followed.
const NESTING_MAX: usize = 64;
/// What a pattern costs for a byte of text, in comparisons: that of an automaton of many states.
const PATTERN_WORK: u64 = 100;
/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// The most patterns that differ. 500 of some 200 KB, in a schema of 13 KB, took 0.4 s to compile.
pub(super) const PATTERNS_MAX: usize = 100;
/// The one dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema that payloads can be checked against.
pub(super) struct Compiled {
    /// `None` if it allows everything.
    pub(super) validator: Option<Validator>,
    /// As [`Cost::work`], of the whole schema.
    pub(super) work: u64,
}

/// Compiles a schema.
///
/// # Errors
/// What is wrong with it, with a pointer below `/schema`.
pub(super) fn compile(schema: &Value) -> Result<Compiled, Fault> {
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(fault("", format!("has more than {SCHEMA_BYTES_MAX} bytes")));
    }
    let mut measure = Measure { root: schema, known: HashMap::new(), open: Vec::new(), patterns: HashSet::new() };
    let Cost { work, .. } = measure.subschema(schema, "", 0)?;
    if matches!(schema, Value::Bool(true)) || schema.as_object().is_some_and(Map::is_empty) {
        return Ok(Compiled { validator: None, work });
    }
    let options = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
        .should_validate_formats(false)
        .offline();
    let built = options.build(schema).map_err(|error| fault(error.instance_path().as_str(), error.to_string()))?;
    Ok(Compiled { validator: Some(built), work })
}

/// What a subschema costs, references followed.
#[derive(Clone, Copy)]
struct Cost {
    subschemas: u64,
    nesting: usize,
    /// The most comparisons that a value, or a byte of it, is good for.
    work: u64,
}

/// Measures a schema before it is compiled. It refuses what would make cost unbounded: references out of the schema,
/// references that come back to where they start, and those whose target depends on where validation came from.
struct Measure<'a> {
    root: &'a Value,
    /// Targets of references that were measured.
    known: HashMap<&'a str, Cost>,
    /// Targets of references that are being measured.
    open: Vec<&'a str>,
    /// Each is compiled once, wherever it stands.
    patterns: HashSet<&'a str>,
}

impl<'a> Measure<'a> {
    fn subschema(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<Cost, Fault> {
        let mut cost = Cost { subschemas: 1, nesting: 1, work: 1 };
        let Value::Object(members) = schema else { return Ok(cost) };
        for (keyword, value) in members {
            cost.work = cost.work.saturating_add(own_work(keyword, value));
            let at = format!("{at}/{}", keyword.replace('~', "~0").replace('/', "~1"));
            match (keyword.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    self.add(&mut cost, depth, &at, |this| this.reference(target, &at, depth + 1))?
                }
                ("$dynamicRef" | "$recursiveRef", _) => return Err(fault(&at, "dynamic references are not supported")),
                ("$id", id) => identifier(id, &at)?,
                ("$schema", dialect) => check_dialect(dialect, &at)?,
                ("const" | "enum" | "default" | "examples", _) => {}
                ("pattern", Value::String(pattern)) => self.pattern(pattern, &at)?,
                (
                    "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                    Value::Object(named),
                ) => {
                    for (name, value) in named {
                        if keyword == "patternProperties" {
                            self.pattern(name, &at)?;
                        }
                        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                        self.add(&mut cost, depth, &at, |this| this.subschema(value, &at, depth + 1))?;
                    }
                }
                (_, Value::Array(items)) => {
                    for (index, value) in items.iter().enumerate().filter(|(_, value)| value.is_object()) {
                        let at = format!("{at}/{index}");
                        self.add(&mut cost, depth, &at, |this| this.subschema(value, &at, depth + 1))?;
                    }
                }
                (_, Value::Object(_)) => {
                    self.add(&mut cost, depth, &at, |this| this.subschema(value, &at, depth + 1))?
                }
                _ => {}
            }
        }
        Ok(cost)
    }

    fn pattern(&mut self, pattern: &'a str, at: &str) -> Result<(), Fault> {
        self.patterns.insert(pattern);
        if self.patterns.len() > PATTERNS_MAX {
            return Err(fault(at, format!("is beyond the {PATTERNS_MAX} different patterns that a schema may have")));
        }
        Ok(())
    }

    /// Adds what `measure` finds. The depth is looked at before, so that no schema makes us recurse deeper.
    fn add(
        &mut self,
        cost: &mut Cost,
        depth: usize,
        at: &str,
        measure: impl FnOnce(&mut Self) -> Result<Cost, Fault>,
    ) -> Result<(), Fault> {
        let too_deep = || fault(at, format!("is nested deeper than {NESTING_MAX} subschemas, references followed"));
        if depth >= NESTING_MAX {
            return Err(too_deep());
        }
        let inner = measure(self)?;
        cost.subschemas = cost.subschemas.saturating_add(inner.subschemas);
        cost.work = cost.work.saturating_add(inner.work);
        cost.nesting = cost.nesting.max(inner.nesting + 1);
        if depth + cost.nesting > NESTING_MAX {
            return Err(too_deep());
        }
        if cost.subschemas > SUBSCHEMAS_MAX {
            return Err(fault(at, format!("makes more than {SUBSCHEMAS_MAX} subschemas, references followed")));
        }
        Ok(())
    }

    fn reference(&mut self, target: &'a str, at: &str, depth: usize) -> Result<Cost, Fault> {
        let pointer = target.strip_prefix('#').filter(|pointer| !pointer.contains('%'));
        let Some(pointer) = pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/')) else {
            return Err(fault(at, "must be a JSON Pointer into this schema, such as #/$defs/name"));
        };
        if let Some(cost) = self.known.get(pointer) {
            return Ok(*cost);
        }
        if pointer.is_empty() || self.open.contains(&pointer) {
            return Err(fault(at, "refers to a schema that contains it; recursive schemas are not supported"));
        }
        let schema = self.root.pointer(pointer).ok_or_else(|| fault(at, "leads nowhere"))?;
        self.open.push(pointer);
        let cost = self.subschema(schema, pointer, depth)?;
        self.open.pop();
        self.known.insert(pointer, cost);
        Ok(cost)
    }
}

/// What a keyword costs beyond the subschemas in it.
fn own_work(keyword: &str, value: &Value) -> u64 {
    match (keyword, value) {
        ("pattern", _) => PATTERN_WORK,
        ("patternProperties", Value::Object(patterns)) => PATTERN_WORK * patterns.len() as u64,
        // The values of an `enum`, and `true` and `false` in place of subschemas.
        (_, Value::Array(items)) => items.len() as u64,
        _ => 0,
    }
}

/// An `$id` within a schema would change what `#/…` means there.
fn identifier(id: &Value, at: &str) -> Result<(), Fault> {
    let ours = id.as_str().is_none_or(|id| !id.starts_with("https://json-schema.org/"));
    if at == "/$id" && ours { Ok(()) } else { Err(fault(at, "is supported at the root only, and must be your own")) }
}

fn check_dialect(dialect: &Value, at: &str) -> Result<(), Fault> {
    match dialect.as_str() {
        Some(dialect) if dialect.trim_end_matches('#') == DIALECT => Ok(()),
        _ => Err(fault(at, format!("must be {DIALECT}"))),
    }
}

fn fault(at: &str, message: impl Into<String>) -> Fault {
    let message: String = message.into();
    Fault { pointer: format!("/schema{at}"), message: message.chars().take(super::FAULT_CHARS_MAX).collect() }
}
