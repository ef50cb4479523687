//! Where the server is: one base address, from whatever form of URL the user has.

use reqwest::Url;

use super::picker::Transport;

/// The address when none is given.
pub const DEFAULT_URL: &str = "https://localhost:8443";

const WEBSOCKET_PATH: &str = "/api/internal/v1/ws/gateways/connect";
const SSE_PATH: &str = "/api/internal/v1/sse/gateways/connect";
const POLL_PATH: &str = "/api/internal/v1/poll/gateways/connect";

/// A server's address: `https://host:port`, possibly with a path that a proxy adds, or the full address of one of its
/// connect endpoints (`wss://host/api/internal/v1/ws/gateways/connect`), from which the others follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    /// A WebSocket address whose path is not ours, taken as it is.
    websocket: Option<Url>,
}

/// The text is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a server address: {problem}; expected such as {DEFAULT_URL} or wss://host:8443/path")]
pub struct InvalidUrl {
    url: String,
    problem: String,
}

impl Endpoint {
    /// Parses `http`, `https`, `ws` and `wss` addresses.
    ///
    /// # Errors
    /// If it is none, names no host, or carries a user, a query or a fragment (secrets do not belong there).
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let fault = |problem: &str| InvalidUrl { url: text.to_owned(), problem: problem.to_owned() };
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(|| fault("it has no scheme"))?;
        let (scheme, is_ws) = match scheme.to_ascii_lowercase().as_str() {
            "https" => ("https", false),
            "http" => ("http", false),
            "wss" => ("https", true),
            "ws" => ("http", true),
            _ => return Err(fault("the scheme is not https, http, wss or ws")),
        };
        let mut base = Url::parse(&format!("{scheme}://{rest}")).map_err(|e| fault(&e.to_string()))?;
        if !base.username().is_empty()
            || base.password().is_some()
            || base.query().is_some()
            || base.fragment().is_some()
        {
            return Err(fault("it must have no user, query or fragment"));
        }
        let path = base.path().trim_end_matches('/').to_owned();
        let known = [WEBSOCKET_PATH, SSE_PATH, POLL_PATH].into_iter().find_map(|ours| path.strip_suffix(ours));
        match known {
            Some(prefix) => base.set_path(prefix),
            None if is_ws && !path.is_empty() => {
                let websocket = Some(base.clone());
                base.set_path("");
                return Ok(Self { base, websocket });
            }
            None => base.set_path(&path),
        }
        Ok(Self { base, websocket: None })
    }

    /// The address of a path of the server's own, such as `/api/v1/gateways`.
    #[must_use]
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// Where a transport connects.
    #[must_use]
    pub fn connect(&self, transport: Transport) -> Url {
        match (transport, &self.websocket) {
            (Transport::WebSocket, Some(url)) => url.clone(),
            (Transport::WebSocket, None) => self.at(WEBSOCKET_PATH),
            (Transport::Sse, _) => self.at(SSE_PATH),
            (Transport::LongPoll, _) => self.at(POLL_PATH),
        }
    }

    /// As [`Endpoint::connect`], as people write it: a WebSocket's address starts with `wss`.
    #[must_use]
    pub fn shown(&self, transport: Transport) -> String {
        let url = self.connect(transport).to_string();
        match transport {
            Transport::WebSocket => url.replacen("http", "ws", 1),
            Transport::Sse | Transport::LongPoll => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str, transport: Transport) -> String {
        Endpoint::parse(text).unwrap().shown(transport)
    }

    #[test]
    fn the_default_is_the_seeds_address() {
        let seed = "wss://localhost:8443/api/internal/v1/ws/gateways/connect";
        assert_eq!(shown(DEFAULT_URL, Transport::WebSocket), seed);
        assert_eq!(shown(seed, Transport::WebSocket), seed);
    }

    #[test]
    fn every_form_leads_to_every_transport() {
        for text in [
            "https://h:1/p",
            "https://h:1/p/",
            "wss://h:1/p/api/internal/v1/ws/gateways/connect",
            "https://h:1/p/api/internal/v1/poll/gateways/connect",
        ] {
            assert_eq!(shown(text, Transport::Sse), "https://h:1/p/api/internal/v1/sse/gateways/connect");
            assert_eq!(shown(text, Transport::WebSocket), "wss://h:1/p/api/internal/v1/ws/gateways/connect");
        }
    }

    #[test]
    fn a_foreign_websocket_path_is_taken_as_it_is() {
        assert_eq!(shown("wss://example.com/ws/connect", Transport::WebSocket), "wss://example.com/ws/connect");
        assert_eq!(shown("ws://h:80", Transport::WebSocket), "ws://h/api/internal/v1/ws/gateways/connect");
        let sse = shown("wss://example.com/ws/connect", Transport::Sse);
        assert_eq!(sse, "https://example.com/api/internal/v1/sse/gateways/connect");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in
            ["", "localhost:8443", "ftp://h", "https://", "https://u:p@h", "https://h/?api-key=x", "https://h/#f"]
        {
            assert!(Endpoint::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?|wss?)?(://)?\\PC{0,30}") {
            if let Ok(endpoint) = Endpoint::parse(&text) { let _ = endpoint.shown(Transport::LongPoll); }
        }
    }
}
