//! Indents JSON and changes nothing else: members keep their order, numbers their digits.

/// The JSON text `raw` with two spaces per level. `raw` must be valid JSON.
pub(super) fn pretty(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                copy_string(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn copy_string(chars: &mut impl Iterator<Item = char>, out: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            // JSON escapes C0 controls itself; DEL and C1 may stand in it and would reach the terminal.
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
        match c {
            '"' => return,
            '\\' => out.extend(chars.next()),
            _ => {}
        }
    }
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn the_seeds_event_looks_like_in_the_quickstart() {
        let raw = r#"{"type":"api.deployed","payload":{"b":1.50,"a":[],"c":[1,{}]},"timestamp":"t: {, \" }"}"#;
        let expected = "{\n  \"type\": \"api.deployed\",\n  \"payload\": {\n    \"b\": 1.50,\n    \"a\": [],\n    \"c\": [\n      1,\n      {}\n    ]\n  },\n  \"timestamp\": \"t: {, \\\" }\"\n}";
        assert_eq!(pretty(raw), expected);
    }

    #[test]
    fn raw_controls_do_not_reach_the_terminal() {
        assert_eq!(pretty("\"a\u{9b}2Jb\""), "\"a\\u009b2Jb\"");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_value_stays_the_same(value in any_json()) {
            let shown = pretty(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            pretty(&text);
        }
    }
}
