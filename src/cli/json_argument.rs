//! JSON on the command line: as it is, from a file, or from stdin.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde_json::value::RawValue;

use super::failure::Failure;

/// The most that is read, in bytes: the largest event that a server can be configured for.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The JSON of an option: written out, `@FILE`, or `-` for stdin.
pub(super) fn json_argument(option: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    let read = match text.strip_prefix('@') {
        Some(path) => {
            let fault = |source| Failure::File { path: path.into(), source };
            read_bounded(fs::File::open(Path::new(path)).map_err(fault)?).map_err(fault)?
        }
        None if text == "-" => {
            read_bounded(io::stdin()).map_err(|source| Failure::File { path: "stdin".into(), source })?
        }
        None => text.to_owned(),
    };
    let fault = |error: serde_json::Error| Failure::Input {
        what: format!("{option} is not JSON"),
        problem: format!("{error}; quote it for the shell, or pass @FILE"),
    };
    serde_json::from_str(&read).map_err(fault)
}

fn read_bounded(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("has more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_or_a_file_with_json() {
        let json = |text: &str| json_argument("--payload", text);
        assert_eq!(json(r#"{"b": 1.0}"#).unwrap().get(), r#"{"b": 1.0}"#);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[1]\n").unwrap();
        assert_eq!(json(&format!("@{}", file.path().display())).unwrap().get(), "[1]");
        assert!(matches!(json("{a:1}"), Err(Failure::Input { .. })));
        assert!(matches!(json("@/nowhere"), Err(Failure::File { .. })));
        assert!(read_bounded(io::repeat(b'x')).is_err());
    }
}
