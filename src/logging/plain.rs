//! The fields of a line for people, without colours.
//!
//! As tracing-subscriber spells them, which paints each name and equals sign though there is no colour, and looks for what a
//! terminal would obey one character at a time: of a line's 12,000 instructions that was half, and a line is a tenth of a
//! publish to a gateway that is away. A line break is escaped as well, so that nobody's text passes for a line.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Most lines have fewer bytes.
const LINE_BYTES: usize = 256;

/// Spells the fields of lines.
pub(super) struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line(String::with_capacity(LINE_BYTES));
        fields.record(&mut line);
        // Nearly all lines are plain ASCII, which is found out without a jump for each byte.
        let is_plain = line.0.bytes().fold(true, |is_plain, byte| is_plain & (b' '..=b'~').contains(&byte));
        if !is_plain && line.0.chars().any(char::is_control) {
            return writer.write_str(&escaped(&line.0));
        }
        writer.write_str(&line.0)
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
        // Writing to a string does not fail; what a value's own formatting leaves out is left out.
        let _ = write!(self.0, "{value:?}");
    }
}

fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 16);
    for character in line.chars() {
        if character.is_control() { escaped.extend(character.escape_default()) } else { escaped.push(character) }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A line as we spell it, and as it would be spelled without us.
    fn told(line: impl Fn()) -> [String; 2] {
        let [ours, theirs] = [Written::default(), Written::default()];
        let to = |written: &Written| {
            let written = written.clone();
            fmt().without_time().with_ansi(false).with_writer(move || written.clone())
        };
        tracing::subscriber::with_default(to(&ours).fmt_fields(PlainFields).finish(), &line);
        tracing::subscriber::with_default(to(&theirs).finish(), &line);
        [ours, theirs].map(|written| String::from_utf8(written.0.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn a_line_is_as_it_would_be_without_us() {
        let error = "1x".parse::<u8>().unwrap_err();
        let [ours, theirs] = told(|| {
            tracing::warn!(gateway.id = %"g-1", count = 3, text = "a \"b\"", is = true, kind = ?Some(1), "Told to {}.", "all");
            tracing::info!(%error, "Größe");
            tracing::info!(error = &error as &dyn std::error::Error, share = 0.5);
        });
        assert_eq!(ours, theirs);
        assert_eq!(ours.lines().count(), 3);
    }

    #[test]
    fn nothing_that_others_say_is_obeyed_by_a_terminal_or_passes_for_a_line() {
        let [ours, _] = told(|| tracing::info!(said = %"a\nb\x1b[2J", "c\u{9b}d\te"));
        assert_eq!(ours, " INFO gatecast::logging::plain::tests: c\\u{9b}d\\te said=a\\nb\\u{1b}[2J\n");
    }
}
