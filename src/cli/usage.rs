//! Command lines that are not understood.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

use super::failure::Failure;
use super::{Cli, Exit};

impl Cli {
    /// Reads what was typed, the program's name first.
    ///
    /// # Errors
    /// How the process ends if there is nothing to do: help was asked for, or the line is not understood. Either was
    /// answered: as JSON, to `err`, if that is how errors are to be told.
    pub fn read(typed: impl IntoIterator<Item = OsString>, err: &mut dyn Write) -> Result<Self, Exit> {
        let typed: Vec<_> = typed.into_iter().collect();
        // Of a line that is not understood it is all that is known of `--json`.
        let json = typed.iter().take_while(|word| *word != "--").any(|word| word == "--json");
        Self::try_parse_from(typed).map_err(|error| {
            let is_fault = error.use_stderr();
            // Nobody reads it: the exit code remains.
            let _ = if is_fault && json { failure(&error).write_json(err) } else { error.print() };
            if is_fault { Exit::Usage } else { Exit::Ok }
        })
    }
}

/// clap's words without what is only for people.
fn failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::Usage("a command is missing".to_owned());
    }
    let said = error.render().to_string();
    let message = said.split("\n\n").next().unwrap_or_default();
    Failure::Usage(message.trim_start_matches("error: ").trim().to_owned())
}
