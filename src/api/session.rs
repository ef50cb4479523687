use http::header::{AUTHORIZATION, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tracing::info;

use super::error::ApiError;
use super::reply::{self, Answer};
use super::{Api, Request};
use crate::auth::cookies;

/// Gives a cookie to a browser whose operator holds the admin token. For a cookie there is none: it would outlast the
/// other's time, and its end.
pub(super) fn sign_in(api: &Api, request: &Request<'_>) -> Answer {
    if !api.admin.is_open() && !request.headers.contains_key(AUTHORIZATION) {
        return Err(ApiError::Unauthorized);
    }
    let cookie = api.admin.browsers.sign_in()?;
    info!("A browser signed in.");
    with_cookie(reply::json(StatusCode::CREATED, &json!({ "signedIn": true })), &cookie)
}

/// Whether the caller is a browser that is signed in. Without a token everybody may call, so nobody has to be.
pub(super) fn read(api: &Api, request: &Request<'_>) -> Answer {
    let signed_in = api.admin.browsers.find(cookies(request.headers)).is_some();
    reply::json(StatusCode::OK, &json!({ "signedIn": signed_in, "isOpen": api.admin.is_open() }))
}

pub(super) fn sign_out(api: &Api, request: &Request<'_>) -> Answer {
    info!("A browser signed out.");
    with_cookie(reply::no_content(), &api.admin.browsers.sign_out(cookies(request.headers)))
}

fn with_cookie(answer: Answer, cookie: &str) -> Answer {
    let mut answer = answer?;
    let cookie = HeaderValue::from_str(cookie).map_err(|error| ApiError::Unavailable(Box::new(error)))?;
    answer.headers_mut().insert(SET_COOKIE, cookie);
    Ok(answer)
}
