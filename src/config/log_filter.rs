//! What is logged.

use std::fmt;

use tracing_subscriber::filter::Targets;

use super::value::ValueError;

/// A level such as `info`, or a list such as `warn,gatecast=debug`, with the text it was parsed from.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

impl LogFilter {
    /// Parses a level or a list of `target=level`.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        const EXPECTED: &str = "off, error, warn, info, debug, trace; or a list such as warn,gatecast=debug";
        // `Targets` takes a lone unknown word for the name of a target and would log it in full: that is a slip.
        let slip = text.split(',').any(|part| !part.contains('=') && part.trim().parse::<tracing::Level>().is_err());
        if slip && text != "off" {
            return Err(ValueError::NotOneOf(EXPECTED));
        }
        let targets = text.parse().map_err(|_| ValueError::NotOneOf(EXPECTED))?;
        Ok(Self { text: text.to_owned(), targets })
    }

    /// For a `tracing_subscriber` layer.
    #[must_use]
    pub fn targets(&self) -> Targets {
        self.targets.clone()
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_parse_and_slips_do_not() {
        for text in ["info", "off", "DEBUG", "warn,gatecast=debug", "gatecast::session=trace"] {
            assert!(LogFilter::parse(text).is_ok(), "{text}");
        }
        for text in ["inof", "gatecast=loud", "", "info,,", "a=b=c"] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }
}
