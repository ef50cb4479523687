//! What HTTP asks of every request before anybody looks at what it is about: whom and what it is for (RFC 9112 § 3.2).

use gatecast_transports::host;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Version};

use crate::api::error::ApiError;

/// What is wrong with a request's target.
pub(super) fn fault<B>(request: &Request<B>) -> Option<ApiError> {
    let invalid = |name, expected: &str| Some(ApiError::InvalidParameter { name, expected: expected.to_owned() });
    let hosts = request.headers().get_all(HOST).iter().map(|host| host.as_bytes());
    // HTTP/1.0 has none, and HTTP/2 `:authority`.
    if request.version() == Version::HTTP_11 && !host::is_named(hosts) {
        return invalid("Host", "given once, as a host and maybe a port");
    }
    match request.uri().path_and_query() {
        Some(_) => None,
        // Nobody's proxy.
        None if request.method() == Method::CONNECT => Some(ApiError::MethodNotAllowed { allow: METHODS.to_owned() }),
        None => invalid("request target", "a path"),
    }
}

/// Lets `Host` say whom a request is for also where its target does, which is what counts (RFC 9112 § 3.2.2, RFC 9113 § 8.3.1).
pub(super) fn name_host<B>(request: &mut Request<B>) {
    let named = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = named {
        request.headers_mut().insert(HOST, host);
    }
}

/// All that some path takes.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
