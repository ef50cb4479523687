//! One look at each part of the way to a server: what was seen and when, never what it means. For `doctor`.
//!
//! # Layout
//! [`Probe`] asks; `reach` is name, TCP and TLS, `poll` one long-poll request, `watch` a stream that is held for a
//! while, `head` what an answer says of itself and of who wrote it.
//!
//! # What holds
//! - Every probe names itself [`INSTANCE`], in the query, where nothing in between takes it away as it may a header: what
//!   it receives is never taken for a receipt of a real replica.
//! - Every wait has a deadline, and nothing is tried twice: a server counts attempts by address.

mod head;
mod poll;
mod reach;
mod watch;

use std::time::Duration;

use http::{HeaderMap, header};
use reqwest::Url;

use super::api_key::ApiKey;
use super::endpoint::Endpoint;
use super::link::{API_KEY, Link, LinkError};
use super::picker::Transport;
use super::tls::Trust;
use super::trouble::{causes, is_no_http};
pub use head::Head;
pub use poll::{PollAsk, Polled};
pub use reach::{Reached, TlsFault, Unreached};
pub use watch::{Ending, Sign, Watched, Why};

/// The name of the replica that a probe poses as.
pub const INSTANCE: &str = "gatecast-doctor";

/// Which header carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// `api-key`, as gateways send it.
    ApiKey,
    /// `Authorization: Bearer`.
    Bearer,
}

/// Nothing usable came back.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Unopened {
    /// An answer that is no connection.
    Refused(Box<Head>),
    /// What came is not what a server of ours says.
    Altered(String),
    /// What answers does not speak HTTP.
    NotHttp,
    /// The request was cut off.
    Cut {
        /// Since it was sent.
        after: Duration,
        /// What was seen.
        reason: String,
    },
    /// No answer in time.
    Late {
        /// How long it was waited for.
        after: Duration,
    },
}

/// Asks a server.
#[derive(Debug)]
pub struct Probe {
    link: Link,
}

impl Probe {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(endpoint: Endpoint, api_key: ApiKey, trust: &Trust) -> Result<Self, LinkError> {
        Ok(Self { link: Link::new(endpoint, Some(api_key), None, (trust, None))? })
    }

    fn url(&self, transport: Transport) -> Url {
        let mut url = self.link.endpoint.connect(transport);
        url.query_pairs_mut().append_pair("instance", INSTANCE);
        url
    }

    fn headers(&self, by: Credential, cursor: Option<&str>) -> HeaderMap {
        let mut headers = self.link.headers(cursor);
        if by == Credential::Bearer
            && let Some(Ok(bearer)) = self.link.api_key.as_ref().map(ApiKey::bearer)
        {
            headers.remove(API_KEY);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        headers
    }
}

fn cut(after: Duration, error: reqwest::Error) -> Unopened {
    if is_no_http(&error) {
        return Unopened::NotHttp;
    }
    Unopened::Cut { after, reason: causes(&error.without_url()) }
}
