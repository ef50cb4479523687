//! The configuration file: lines of `NAME=VALUE` with the names of the environment.

use std::path::Path;

use super::fault::ConfigFault;

/// One line that was a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) line: usize,
}

/// Splits the text of a file. Blank lines and lines that start with `#` are skipped; one pair of quotes around a
/// value is taken off.
pub(super) fn parse<'a>(path: &Path, text: &'a str, faults: &mut Vec<ConfigFault>) -> Vec<Written<'a>> {
    let mut written: Vec<Written<'a>> = Vec::new();
    for (index, content) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let line = index + 1;
        let mut fault = |problem| faults.push(ConfigFault::Line { path: path.to_owned(), line, problem });
        match content.split_once('=') {
            None => fault("not of the form NAME=VALUE"),
            Some((name, _)) if written.iter().any(|earlier| earlier.name == name.trim()) => {
                fault("this name is already set above");
            }
            Some((name, value)) => written.push(Written { name: name.trim(), value: unquoted(value.trim()), line }),
        }
    }
    written
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_quotes_and_equal_signs_are_understood() {
        let mut faults = Vec::new();
        let text = "\u{feff}# a comment\n\nA = 1\nB=\"x = y\"\r\nC=\nD='\n";
        let read = parse(Path::new("f"), text, &mut faults);
        let seen: Vec<_> = read.iter().map(|w| (w.name, w.value, w.line)).collect();
        assert_eq!(seen, [("A", "1", 3), ("B", "x = y", 4), ("C", "", 5), ("D", "'", 6)]);
        assert!(faults.is_empty());
    }

    #[test]
    fn every_bad_line_is_reported() {
        let mut faults = Vec::new();
        parse(Path::new("f"), "nonsense\nA=1\nA=2\nmore", &mut faults);
        assert_eq!(faults.len(), 3);
    }
}
