//! What HTTP asks of every request before anybody looks at what it is about: whom and what it is for (RFC 9112 § 3.2).

use http::{Method, Request};

use crate::api::error::ApiError;

/// What is wrong with a request's target.
pub(super) fn fault<B>(request: &Request<B>) -> Option<ApiError> {
    if request.uri().path_and_query().is_some() {
        return None;
    }
    Some(if request.method() == Method::CONNECT {
        // Nobody's proxy.
        ApiError::MethodNotAllowed { allow: METHODS.to_owned() }
    } else {
        ApiError::InvalidParameter { name: "request target", expected: "a path".to_owned() }
    })
}

/// All that some path takes.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
