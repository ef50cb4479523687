//! What is logged.

use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};

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
        // Not by `Targets`, which takes slips for names of targets that nothing is logged under.
        let targets = text.split(',').try_fold(Targets::new(), |targets, part| match part.split_once('=') {
            None => Some(targets.with_default(level(part)?)),
            Some((name, of)) => Some(targets.with_target(target(name)?, level(of)?)),
        });
        let targets = targets.ok_or(ValueError::NotOneOf(EXPECTED))?;
        Ok(Self { text: text.to_owned(), targets })
    }

    /// For a `tracing_subscriber` layer.
    #[must_use]
    pub fn targets(&self) -> Targets {
        self.targets.clone()
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    // Nothing would be the level `error`.
    Some(text.trim()).filter(|text| !text.is_empty())?.parse().ok()
}

/// A path of modules, such as `gatecast::api`.
fn target(text: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:-.".contains(c);
    Some(text.trim()).filter(|text| !text.is_empty() && text.chars().all(is_name))
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_and_lists_parse_and_slips_do_not() {
        for text in ["info", "off", "DEBUG", "warn,gatecast=debug", "gatecast::session=trace", "off,gatecast=warn"] {
            assert!(LogFilter::parse(text).is_ok(), "{text}");
        }
        for text in
            ["inof", "gatecast=loud", "", "info,,", "a=b=c", "gatecast=", "=debug", "gatecast[x]=debug", "a b=info"]
        {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spaces_around_the_parts_do_not_matter() {
        let targets = LogFilter::parse(" warn , gatecast = debug,hyper=off ").unwrap().targets();
        assert!(targets.would_enable("gatecast::api", &Level::DEBUG));
        assert!(!targets.would_enable("gatecast::api", &Level::TRACE));
        assert!(targets.would_enable("rustls", &Level::WARN) && !targets.would_enable("rustls", &Level::INFO));
        assert!(!targets.would_enable("hyper", &Level::ERROR));
    }
}
