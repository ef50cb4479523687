//! Prometheus's text format 0.0.4: `# HELP`, `# TYPE`, samples. All that we say is names, numbers and short labels.

use std::fmt::{Display, Write as _};

use super::histogram::{BOUNDS_SECONDS, Snapshot};

/// What the text is served as.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics, family after family.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

/// One metric with its samples; its name is written once per sample.
#[derive(Debug)]
pub(crate) struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl Text {
    /// A number that goes up until the process ends; its name ends in `_total`.
    pub(crate) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// A number that goes up and down.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// A distribution; its name has its unit.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        write(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl Family<'_> {
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    pub(crate) fn distribution(&mut self, labels: &[(&str, &str)], of: &Snapshot) -> &mut Self {
        for (bound, at_most) in BOUNDS_SECONDS.iter().zip(of.cumulative) {
            self.line("_bucket", labels, Some(&bound.to_string()), at_most);
        }
        self.line("_bucket", labels, Some("+Inf"), of.count);
        self.line("_sum", labels, None, of.sum_seconds);
        self.line("_count", labels, None, of.count);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: impl Display) {
        write(self.text, format_args!("{}{suffix}", self.name));
        let le = le.map(|le| ("le", le));
        for (index, (name, value)) in labels.iter().copied().chain(le).enumerate() {
            write(self.text, format_args!("{}{name}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(value)));
        }
        let end = if labels.is_empty() && le.is_none() { "" } else { "}" };
        write(self.text, format_args!("{end} {value}\n"));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

fn write(to: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes all that is written to it.
    let _ = to.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spelt_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.gauge("a_bytes", "Bytes.").sample(&[], 1).sample(&[("path", "a\"b\\c\nd"), ("x", "y")], 0.5);
        assert_eq!(
            text.into_string(),
            "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 1\na_bytes{path=\"a\\\"b\\\\c\\nd\",x=\"y\"} 0.5\n"
        );
    }
}
