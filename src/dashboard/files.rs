use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;

/// A file of the page.
struct File {
    path: &'static str,
    media_type: &'static str,
    body: &'static str,
}

macro_rules! files {
    ($($path:literal $media_type:literal $name:literal),* $(,)?) => {
        &[$(File { path: $path, media_type: $media_type, body: include_str!(concat!("static/", $name)) }),*]
    };
}

#[rustfmt::skip]
const FILES: &[File] = files![
    "/"                          "text/html; charset=utf-8"       "index.html",
    "/dashboard/style.css"       "text/css; charset=utf-8"        "style.css",
    "/dashboard/icon.svg"        "image/svg+xml"                  "icon.svg",
    "/dashboard/app.js"          "text/javascript; charset=utf-8" "app.js",
    "/dashboard/api.js"          "text/javascript; charset=utf-8" "api.js",
    "/dashboard/exact.js"        "text/javascript; charset=utf-8" "exact.js",
    "/dashboard/dom.js"          "text/javascript; charset=utf-8" "dom.js",
    "/dashboard/chart.js"        "text/javascript; charset=utf-8" "chart.js",
    "/dashboard/live.js"         "text/javascript; charset=utf-8" "live.js",
    "/dashboard/form.js"         "text/javascript; charset=utf-8" "form.js",
    "/dashboard/overview.js"     "text/javascript; charset=utf-8" "overview.js",
    "/dashboard/gateways.js"     "text/javascript; charset=utf-8" "gateways.js",
    "/dashboard/gateway.js"      "text/javascript; charset=utf-8" "gateway.js",
    "/dashboard/tokens.js"       "text/javascript; charset=utf-8" "tokens.js",
    "/dashboard/failures.js"     "text/javascript; charset=utf-8" "failures.js",
    "/dashboard/deployments.js"  "text/javascript; charset=utf-8" "deployments.js",
    "/dashboard/event-types.js"  "text/javascript; charset=utf-8" "event-types.js",
    "/dashboard/publish.js"      "text/javascript; charset=utf-8" "publish.js",
];

/// Scripts, styles and calls of our own only; nothing inline, nothing of others, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page and its files. They hold nothing secret, so everybody may have them.
pub(crate) fn routes() -> BoxedFilter<(warp::reply::Response,)> {
    let file = |path: FullPath| async move {
        let found = FILES.iter().find(|file| file.path == path.as_str());
        found.map(answer).ok_or_else(warp::reject::not_found)
    };
    let is_read = warp::get().or(warp::head()).unify();
    is_read.and(warp::path::full()).and_then(file).boxed()
}

fn answer(file: &File) -> warp::reply::Response {
    let mut response = Response::new(file.body.into());
    let fixed = HeaderValue::from_static;
    let headers: [(HeaderName, HeaderValue); 6] = [
        (CONTENT_TYPE, fixed(file.media_type)),
        // Asked for again each time: a newer server has a newer page.
        (CACHE_CONTROL, fixed("no-cache")),
        (CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (X_FRAME_OPTIONS, fixed("DENY")),
    ];
    response.headers_mut().extend(headers);
    response
}
