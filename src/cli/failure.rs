//! Why a command failed, what to do about it, and the exit code.

use std::io::{self, Write};
use std::path::PathBuf;

use gatecast_storage::StoreError;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ServeError;
use super::exit::Exit;
use super::printable::printable;
use crate::auth::AdminSetupError;
use crate::client::api::ApiError;
use crate::client::{ClientError, InvalidApiKey, InvalidUrl, LinkError, Problem};
use crate::config::{ConfigFault, ValueError};
use crate::server::{StartError, TlsError};

/// A command's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("the configuration has {} fault(s)", .0.len())]
    Config(Vec<ConfigFault>),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    #[error(transparent)]
    ApiKey(#[from] InvalidApiKey),
    #[error("no API key: pass --api-key, or set GATECAST_API_KEY")]
    NoApiKey,
    #[error("the admin token {0}")]
    AdminToken(ValueError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{what}: {problem}")]
    Input { what: String, problem: String },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("connection rejected: {}{detail}", .status.map(|status| format!("{status} ")).unwrap_or_default())]
    Rejected { status: Option<u16>, code: String, detail: String, has_key: bool },
    #[error("the event may be stored: {error}")]
    Unconfirmed { error: ApiError, key: String },
    #[error("{failed} of {total} gateways were not told")]
    Partial { failed: usize, total: usize, key: String },
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("the new token {token} cannot be shown: {source}")]
    TokenUnseen { gateway: Uuid, token: String, source: io::Error },
    #[error("interrupted; nothing was written")]
    Interrupted,
    #[error("the store has {0} fault(s)")]
    Faults(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no transport works cleanly from here; what is in the way stands above")]
    Ailing(Exit),
    #[error("the server failed: {0}")]
    Serve(ServeError),
}

impl Failure {
    /// What ended a server. Its files are read after the settings that name them are found good.
    pub(super) fn of_server(error: ServeError) -> Self {
        match error.downcast().map(|error| *error) {
            Ok(StartError::Tls(TlsError::Files(faults))) => Self::Config(faults),
            Ok(error) => Self::Serve(error.into()),
            Err(error) => Self::Serve(error),
        }
    }

    /// Why a call failed that is done once however often it is made with this key.
    pub(super) fn of_call(error: ApiError, key: &str) -> Self {
        if error.may_be_done() { Self::Unconfirmed { error, key: key.to_owned() } } else { error.into() }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            // A token is missing that has to be configured where none can be shown.
            Self::Serve(_) if self.is_token_unseen() => Exit::Config,
            Self::Api(_) | Self::Rejected { .. } if self.is_of_something_else() => Exit::Unreachable,
            Self::Api(error) | Self::Unconfirmed { error, .. } => exit_of_call(error),
            Self::Rejected { code, .. } if code == "GATEWAY_DELETED" => Exit::NotFound,
            Self::Rejected { status, .. } => status.map_or(Exit::Unauthorized, Exit::from_status),
            Self::NoApiKey => Exit::Unauthorized,
            Self::Ailing(exit) => *exit,
            Self::Faults(_) => Exit::Data,
            Self::Store(_) | Self::Serve(_) => self.store_error().map_or(Exit::Failure, exit_of),
            Self::Url(_) | Self::ApiKey(_) | Self::AdminToken(_) | Self::Input { .. } | Self::File { .. } => Exit::Data,
            // What the files of certificates hold is all that can be wrong with it.
            Self::Link(LinkError::Tls(_)) | Self::Client(ClientError::Link(LinkError::Tls(_))) => Exit::Data,
            // A reader that went away (`gatecast listen | head`) has what it wanted. What was not done goes before.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Link(_)
            | Self::Client(_)
            | Self::Output(_)
            | Self::TokenUnseen { .. }
            | Self::Partial { .. }
            | Self::Interrupted => Exit::Failure,
        }
    }

    /// For people.
    pub(super) fn write_text(&self, err: &mut dyn Write) -> io::Result<()> {
        writeln!(err, "error: {}", printable(&self.to_string()))?;
        match self {
            Self::Config(faults) => {
                for fault in faults {
                    writeln!(err, "  - {}", printable(&fault.to_string()))?;
                }
            }
            Self::Api(ApiError::Refused { problem, .. })
            | Self::Unconfirmed { error: ApiError::Refused { problem, .. }, .. } => write_problem(problem, err)?,
            Self::Rejected { code, .. } => writeln!(err, "  code: {}", printable(code))?,
            _ => {}
        }
        match self.hint() {
            Some(hint) => writeln!(err, "  {hint}"),
            None => Ok(()),
        }
    }

    /// For programs, on one line.
    pub(super) fn write_json(&self, err: &mut dyn Write) -> io::Result<()> {
        let mut fault = json!({ "message": self.to_string(), "exitCode": self.exit().code(), "hint": self.hint() });
        let more = match self {
            Self::Config(faults) => json!({ "faults": faults.iter().map(ToString::to_string).collect::<Vec<_>>() }),
            Self::Api(ApiError::Refused { problem, status, .. }) => json!({ "status": status, "problem": problem }),
            Self::Rejected { status, code, .. } => json!({ "status": status, "code": code }),
            Self::Unconfirmed { error: ApiError::Refused { problem, status, .. }, key } => {
                json!({ "status": status, "problem": problem, "idempotencyKey": key })
            }
            Self::Unconfirmed { key, .. } | Self::Partial { key, .. } => json!({ "idempotencyKey": key }),
            _ => Value::Null,
        };
        if let (Some(fault), Value::Object(more)) = (fault.as_object_mut(), more) {
            fault.extend(more);
        }
        writeln!(err, "{}", json!({ "error": fault }))
    }

    /// Whether nobody could be shown the first admin token.
    fn is_token_unseen(&self) -> bool {
        let Self::Serve(error) = self else { return false };
        matches!(error.downcast_ref(), Some(StartError::Admin(AdminSetupError::Show(_))))
    }

    /// Whether what answers has no such path, or another address for it, and has none of our codes: it is no gatecast.
    fn is_of_something_else(&self) -> bool {
        match self {
            Self::Api(ApiError::Refused { status: 300..400 | 404, problem, .. }) => problem.code.is_none(),
            Self::Rejected { status: Some(404), code, .. } => code == "HTTP_404",
            _ => false,
        }
    }

    /// The store's error, if it is one.
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Serve(error) => match error.downcast_ref() {
                Some(StartError::Store(error)) => Some(error),
                _ => error.downcast_ref(),
            },
            _ => None,
        }
    }

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(_) | Self::Serve(_) if matches!(self.store_error(), Some(StoreError::InUse(_))) => {
                "A server has it open. Stop that one first, or name another with --data-dir (or GATECAST_DATA_DIR)"
            }
            Self::Store(_) | Self::Serve(_) if matches!(self.store_error(), Some(StoreError::Unusable { .. })) => {
                "It has to be a directory that this user may write to, with all that is in it (chown -R). Name it with \
                 --data-dir (or GATECAST_DATA_DIR)"
            }
            Self::Serve(_) if matches!(self.store_error(), Some(StoreError::Damaged { .. })) => {
                "See what is damaged: gatecast store check. Make it whole again: gatecast store repair"
            }
            Self::Serve(_) if self.is_token_unseen() => {
                "Choose one with GATECAST_ADMIN_TOKEN_FILE (or GATECAST_ADMIN_TOKEN), or start once where the output is read"
            }
            Self::Usage(_) => "What there is: --help, after a command or without one",
            Self::Faults(_) => "Make it whole again: gatecast store repair (what was damaged is kept)",
            Self::Config(_) => "All settings with their meanings: gatecast config --dev",
            Self::Unconfirmed { key, .. } => {
                return Some(format!("Repeat it within 10 minutes with --idempotency-key {key}: it is stored once"));
            }
            Self::TokenUnseen { gateway, token, .. } => {
                let token = printable(token);
                return Some(format!(
                    "Nobody can use it. Revoke it: gatecast token revoke --gateway {gateway} {token}"
                ));
            }
            Self::Api(_) | Self::Rejected { .. } if self.is_of_something_else() => IN_FRONT,
            Self::Api(error) => return hint_of_call(error),
            Self::Partial { key, .. } => {
                return Some(format!(
                    "Repeat it within 10 minutes with --idempotency-key {key}: it is stored once for each gateway"
                ));
            }
            Self::Rejected { code, .. } if code == "GATEWAY_DELETED" => LIST_GATEWAYS,
            Self::Rejected { code, .. } if code == "ACCESS_WITHDRAWN" => {
                "The key is good, but not from this address or with this certificate. Allow it: gatecast gateway update ID"
            }
            Self::Rejected { status: Some(401 | 403) | None, has_key: false, .. } => {
                "No gateway has a name of this certificate, or nobody whom the server trusts has signed it. Give it to one: \
                 gatecast gateway update ID --certificate-name NAME"
            }
            Self::Rejected { status: Some(401 | 403) | None, .. } => {
                "The key is wrong, revoked or expired. Make one: gatecast token create --gateway ID"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

const IN_FRONT: &str = "Does --url name a gatecast server, and not something in front of it?";

const LIST_GATEWAYS: &str = "List what there is: gatecast gateway list";

/// What to do about a call without success.
fn hint_of_call(error: &ApiError) -> Option<String> {
    let hint = match error {
        // Something is there, and the text says what is wrong with it.
        ApiError::Unreachable(text) if text.contains("certificate") || text.contains("the address starts with") => {
            return None;
        }
        ApiError::Unreachable(_) => {
            "Is the server running there? Check --url (or GATECAST_URL); start one with: gatecast serve --dev"
        }
        error if error.may_be_done() => "It may have been done: see what there is before you repeat it",
        ApiError::Unanswered { .. } => "Nothing was to be changed. Try again",
        ApiError::Refused { status: 401 | 403, .. } => {
            "Pass the admin token: --admin-token, --admin-token-file, GATECAST_ADMIN_TOKEN or GATECAST_ADMIN_TOKEN_FILE"
        }
        ApiError::Refused { problem, retry_after, .. } => match (problem.code.as_deref(), retry_after) {
            (Some("EVENT_TYPE_NOT_FOUND" | "UNKNOWN_EVENT_TYPE"), _) => "List what there is: gatecast event-type list",
            (Some("GATEWAY_NOT_FOUND"), _) => LIST_GATEWAYS,
            (Some("TOKEN_NOT_FOUND"), _) => "List what there is: gatecast token list --gateway ID",
            (_, Some(wait)) => return Some(format!("Try again in {} s.", wait.as_secs())),
            _ => return None,
        },
        ApiError::Strange(_) => IN_FRONT,
    };
    Some(hint.to_owned())
}

/// What a call without success means for the process.
fn exit_of_call(error: &ApiError) -> Exit {
    match error {
        // What says such things is something else.
        ApiError::Unreachable(_) | ApiError::Strange(_) => Exit::Unreachable,
        ApiError::Unanswered { .. } => Exit::TryLater,
        ApiError::Refused { status, .. } => Exit::from_status(*status),
    }
}

/// What an error of the store means for the process.
fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::InUse(_) | StoreError::Full | StoreError::OutOfFiles | StoreError::Overloaded => Exit::TryLater,
        StoreError::Unusable { .. }
        | StoreError::Damaged { .. }
        | StoreError::Malformed(_)
        | StoreError::NotEmpty(_)
        | StoreError::Unreadable { .. } => Exit::Data,
        _ => Exit::Failure,
    }
}

/// Fails if some of several gateways were not told. `key` is what the call can be repeated by.
pub(super) fn all_told<'c>(codes: impl Iterator<Item = Option<&'c str>> + Clone, key: String) -> Result<(), Failure> {
    let (failed, total) = (codes.clone().flatten().count(), codes.count());
    if failed == 0 { Ok(()) } else { Err(Failure::Partial { failed, total, key }) }
}

fn write_problem(problem: &Problem, err: &mut dyn Write) -> io::Result<()> {
    let members = [("title", &problem.title), ("code", &problem.code), ("tracking id", &problem.tracking_id)];
    for (name, value) in members {
        if let Some(value) = value {
            writeln!(err, "  {name}: {}", printable(value))?;
        }
    }
    for fault in &problem.errors {
        writeln!(err, "  - {}: {}", printable(&fault.field), printable(&fault.message))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::FieldError;

    fn refused(status: u16) -> Failure {
        let errors = vec![FieldError { field: "name".to_owned(), message: "too short".to_owned() }];
        let problem = Problem {
            title: Some("Invalid".to_owned()),
            detail: Some("the name is \u{1b}[31mnot valid".to_owned()),
            code: Some("INVALID_NAME".to_owned()),
            errors,
            ..Problem::default()
        };
        ApiError::Refused { status, problem: Box::new(problem), retry_after: None, changes: true }.into()
    }

    fn text(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.write_text(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_problem_is_shown_whole_and_cannot_paint_the_terminal() {
        let said = text(&refused(400));
        for part in ["the name is", "title: Invalid", "code: INVALID_NAME", "- name: too short"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }

    #[test]
    fn codes_say_what_to_do() {
        for (status, code) in [(400, 65), (401, 77), (403, 77), (404, 3), (409, 65), (429, 75), (503, 75), (500, 1)] {
            assert_eq!(refused(status).exit().code(), code, "{status}");
        }
        assert_eq!(Failure::Api(ApiError::Unreachable(String::new())).exit().code(), 69);
        assert_eq!(Failure::Config(Vec::new()).exit().code(), 64);
        assert!(text(&refused(401)).contains("--admin-token"));
    }

    #[test]
    fn who_is_expelled_is_told_what_of_it_can_be_put_right() {
        for (code, exit, hint) in [
            ("TOKEN_REVOKED", 77, "token create"),
            ("GATEWAY_DELETED", 3, "gateway list"),
            ("ACCESS_WITHDRAWN", 77, "gateway update"),
        ] {
            let (code, detail) = (code.to_owned(), String::new());
            let expelled = Failure::Rejected { status: None, code: code.clone(), detail, has_key: true };
            assert_eq!(expelled.exit().code(), exit, "{code}");
            assert!(text(&expelled).contains(hint), "{}", text(&expelled));
        }
    }

    #[test]
    fn json_is_one_line() {
        let mut out = Vec::new();
        refused(409).write_json(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["error"]["problem"]["code"], "INVALID_NAME");
        assert_eq!(json["error"]["exitCode"], 65);
    }
}
