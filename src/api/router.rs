//! Which call a method and a path mean. One table; what a path answers to another method (405 and `Allow`), who may
//! call, and how large a body may be all come from it.

use http::Method;

use super::error::{ApiError, Missing};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever holds the admin token.
    Admin,
    /// Whoever holds a token of a gateway.
    Gateway,
    /// Everybody.
    Public,
}

/// How large the body of a call may be; the server knows the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLimit {
    /// There is none.
    Unread,
    /// It may be of any size, and is not looked at.
    Ignored,
    /// A few members.
    Small,
    /// A list of elements.
    List,
    /// An event, with room for white space.
    Event,
    /// An event and the list of its targets.
    EventAndTargets,
    /// A schema, with room for white space.
    Schema,
    /// An API's artifact.
    Artifact,
}

/// What a call does. `HEAD` is what `GET` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish,
    PublishToMany,
    ReadEvent,
    CreateGateway,
    ListGateways,
    ReadGateway,
    UpdateGateway,
    DeleteGateway,
    CreateToken,
    ListTokens,
    RevokeToken,
    ListEventTypes,
    ReadEventType,
    PutEventType,
    DeleteEventType,
    PutApi,
    ReadApi,
    DeleteApi,
    Deploy,
    Undeploy,
    ListDeployments,
    FetchApi,
    FetchArtifact,
    FetchDeployments,
    TakeManifest,
    TakeReceipts,
    Unsupported,
    ReadStats,
    ReadMetrics,
    ReadOpenApi,
    ReadAsyncApi,
    ListFailures,
    ReadStream,
    SignIn,
    ReadSession,
    SignOut,
    ListAllDeployments,
    Backup,
    Health,
    Ready,
}

struct Row(&'static str, &'static str, Action, Access, BodyLimit);

/// A call that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call<'p> {
    pub(crate) action: Action,
    pub(crate) access: Access,
    pub(crate) body: BodyLimit,
    /// What stands for `{}` in the path, in order.
    pub(crate) params: [&'p str; 2],
}

/// Publishing is first because it is the call that is made most.
#[rustfmt::skip]
const TABLE: &[Row] = {
    use Access::{Admin, Gateway, Public};
    use Action as A;
    use BodyLimit as B;
    &[
        Row("POST",   "/api/internal/v1/gateways/{}/events",     A::Publish,          Admin,   B::Event),
        Row("POST",   "/api/internal/v1/events",                 A::PublishToMany,    Admin,   B::EventAndTargets),
        Row("GET",    "/api/internal/v1/events/{}/{}",           A::ReadEvent,        Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/gateways/{}/stream",     A::ReadStream,       Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/stats",                  A::ReadStats,        Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/deliveries/failed",      A::ListFailures,     Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/event-types",            A::ListEventTypes,   Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/event-types/{}",         A::ReadEventType,    Admin,   B::Unread),
        Row("PUT",    "/api/internal/v1/event-types/{}",         A::PutEventType,     Admin,   B::Schema),
        Row("DELETE", "/api/internal/v1/event-types/{}",         A::DeleteEventType,  Admin,   B::Unread),

        Row("POST",   "/api/internal/v1/backup",                 A::Backup,           Admin,   B::Unread),
        Row("GET",    "/api/internal/v1/session",                A::ReadSession,      Admin,   B::Unread),
        Row("POST",   "/api/internal/v1/session",                A::SignIn,           Admin,   B::Unread),
        Row("DELETE", "/api/internal/v1/session",                A::SignOut,          Admin,   B::Unread),

        Row("GET",    "/api/v1/gateways",                        A::ListGateways,     Admin,   B::Unread),
        Row("POST",   "/api/v1/gateways",                        A::CreateGateway,    Admin,   B::Small),
        Row("GET",    "/api/v1/gateways/{}",                     A::ReadGateway,      Admin,   B::Unread),
        Row("PUT",    "/api/v1/gateways/{}",                     A::UpdateGateway,    Admin,   B::Small),
        Row("DELETE", "/api/v1/gateways/{}",                     A::DeleteGateway,    Admin,   B::Unread),
        Row("GET",    "/api/v1/gateways/{}/tokens",              A::ListTokens,       Admin,   B::Unread),
        Row("POST",   "/api/v1/gateways/{}/tokens",              A::CreateToken,      Admin,   B::Small),
        Row("DELETE", "/api/v1/gateways/{}/tokens/{}",           A::RevokeToken,      Admin,   B::Unread),

        Row("GET",    "/api/v1/apis/{}",                         A::ReadApi,          Admin,   B::Unread),
        Row("PUT",    "/api/v1/apis/{}",                         A::PutApi,           Admin,   B::Artifact),
        Row("DELETE", "/api/v1/apis/{}",                         A::DeleteApi,        Admin,   B::Unread),
        Row("POST",   "/api/v1/apis/{}/deploy-revision",         A::Deploy,           Admin,   B::List),
        Row("POST",   "/api/v1/apis/{}/undeploy-revision",       A::Undeploy,         Admin,   B::List),
        Row("GET",    "/api/v1/apis/{}/deployments",             A::ListDeployments,  Admin,   B::Unread),
        Row("GET",    "/api/v1/deployments",                     A::ListAllDeployments, Admin, B::Unread),

        Row("GET",    "/api/internal/v1/apis/{}",                A::FetchApi,         Gateway, B::Unread),
        Row("GET",    "/api/internal/v1/api-runtime-artifacts/{}", A::FetchArtifact,  Gateway, B::Unread),
        Row("GET",    "/api/internal/v1/deployments",            A::FetchDeployments, Gateway, B::Unread),
        Row("POST",   "/api/internal/v1/gateways/{}/manifest",   A::TakeManifest,     Gateway, B::Ignored),
        Row("POST",   "/api/internal/v1/gateways/receipts",      A::TakeReceipts,     Gateway, B::List),
        Row("GET",    "/api/internal/v1/subscription-plans",     A::Unsupported,      Gateway, B::Unread),
        Row("GET",    "/api/internal/v1/artifacts/exists",       A::Unsupported,      Gateway, B::Unread),
        Row("POST",   "/api/internal/v1/artifacts/exists",       A::Unsupported,      Gateway, B::Unread),

        Row("GET",    "/health",                                 A::Health,           Public,  B::Unread),
        Row("GET",    "/ready",                                  A::Ready,            Public,  B::Unread),
        Row("GET",    "/metrics",                                A::ReadMetrics,      Admin,   B::Unread),
        Row("GET",    "/openapi.json",                           A::ReadOpenApi,      Admin,   B::Unread),
        Row("GET",    "/asyncapi.json",                          A::ReadAsyncApi,     Admin,   B::Unread),
    ]
};

/// Finds the call.
pub(crate) fn route<'p>(method: &Method, path: &'p str) -> Result<Call<'p>, ApiError> {
    let asked = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut allow = Vec::new();
    for &Row(method, pattern, action, access, body) in TABLE {
        let Some(params) = matches(pattern, path) else { continue };
        if method == asked {
            return Ok(Call { action, access, body, params });
        }
        allow.push(method);
        if method == "GET" {
            allow.push("HEAD");
        }
    }
    if allow.is_empty() {
        Err(ApiError::NotFound(Missing::Path))
    } else {
        Err(ApiError::MethodNotAllowed { allow: allow.join(", ") })
    }
}

/// What stands for `{}`, if the path is of the pattern. A segment that a parameter stands for is not empty.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<[&'p str; 2]> {
    // Most patterns differ from most paths here, which costs a tenth of a look at the segments.
    let fixed = pattern.split_once('{').map_or(pattern, |(fixed, _)| fixed);
    if !path.starts_with(fixed) {
        return None;
    }
    let mut params = [""; 2];
    let mut free = params.iter_mut();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        if expected != "{}" {
            if segment != expected {
                return None;
            }
        } else if !segment.is_empty() {
            *free.next()? = segment;
        } else {
            return None;
        }
    }
    segments.next().is_none().then_some(params)
}

/// Every method and pattern as it stands in the table, with who may call it and whether it has a body.
#[cfg(test)]
pub(crate) fn rows() -> impl Iterator<Item = (&'static str, &'static str, Access, bool)> {
    TABLE.iter().map(|Row(method, pattern, _, access, body)| (*method, *pattern, *access, *body != BodyLimit::Unread))
}

/// Every method and path with who may call it, for tests that must hold for all.
#[cfg(test)]
pub(crate) fn table() -> impl Iterator<Item = (Method, String, Access)> {
    TABLE.iter().map(|Row(method, pattern, _, access, _)| {
        let path = pattern.replace("{}", "d1aa71bc-8cb5-4294-8a26-fe1273c28632");
        (method.parse().unwrap(), path, *access)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_method_and_path() {
        for ((method, path, access), Row(_, _, action, ..)) in table().zip(TABLE) {
            let call = route(&method, &path).unwrap();
            assert_eq!((call.action, call.access), (*action, access), "{method} {path}");
        }
    }

    #[test]
    fn params_come_in_order_and_are_never_empty() {
        let call = route(&Method::DELETE, "/api/v1/gateways/g/tokens/t").unwrap();
        assert_eq!(call.params, ["g", "t"]);
        for path in ["/api/v1/gateways//tokens/t", "/api/v1/gateways/", "/", "", "//", "/api/v1/gateways/g/tokens/t/x"]
        {
            assert!(matches!(route(&Method::GET, path), Err(ApiError::NotFound(Missing::Path))), "{path}");
        }
    }

    #[test]
    fn another_method_learns_which_there_are() {
        let refused = route(&Method::PATCH, "/api/v1/gateways/g");
        assert!(matches!(refused, Err(ApiError::MethodNotAllowed { allow }) if allow == "GET, HEAD, PUT, DELETE"));
    }
}
