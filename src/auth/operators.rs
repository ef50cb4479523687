use gatecast_transports::{Handshake, host};
use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Method};

use super::browsers::SignedIn;
use super::{AdminAuth, AuthError, Browsers, bearer};

/// A form of another site cannot send it, and a script of another site would have to ask first, which we never allow.
const DASHBOARD: &str = "gatecast-dashboard";
/// Where a browser says that a call comes from (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Who may call the platform API: who holds the admin token, and browsers that have exchanged it for a cookie.
pub struct Operators {
    auth: AdminAuth,
    /// Who has exchanged it.
    pub browsers: Browsers,
}

/// For how long an operator may watch.
#[derive(Debug, Clone)]
pub enum Standing {
    /// As long as it likes.
    Token,
    /// As long as it is signed in.
    Browser(SignedIn),
}

impl Standing {
    /// The browser that has to be signed in.
    pub(crate) fn browser(&self) -> Option<&SignedIn> {
        match self {
            Self::Token => None,
            Self::Browser(browser) => Some(browser),
        }
    }
}

impl Operators {
    /// Nobody is signed in yet.
    #[must_use]
    pub fn new(auth: AdminAuth) -> Self {
        Self { auth, browsers: Browsers::default() }
    }

    /// Whether everybody may call.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.auth, AdminAuth::Open)
    }

    /// Checks a call. What a browser sends by itself (a cookie; with `--dev` nothing at all) counts only from our own
    /// pages, and changes something only with a header that pages of other sites cannot send.
    ///
    /// # Errors
    /// [`AuthError`]; the caller of the API learns [`AuthError::CrossSite`] and nothing of the others.
    pub fn call(&self, method: &Method, headers: &HeaderMap) -> Result<(), AuthError> {
        let is_asked_as_loopback = headers.get_all(HOST).iter().all(|host| host::is_loopback(host.as_bytes()));
        if !self.may_be_asked(is_asked_as_loopback) {
            return Err(AuthError::CrossSite);
        }
        if headers.contains_key(AUTHORIZATION) {
            return self.auth.check(bearer(headers));
        }
        if !self.is_open() {
            self.browsers.find(cookies(headers)).ok_or(AuthError::Missing)?;
        }
        let ours = is_ours(headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes), method);
        let stated = method.is_safe() || self.is_open() || headers.contains_key(DASHBOARD);
        if ours && stated { Ok(()) } else { Err(AuthError::CrossSite) }
    }

    /// Checks a request to watch a stream, as a call that changes nothing.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn watch(&self, handshake: &Handshake) -> Result<Standing, AuthError> {
        if !self.may_be_asked(handshake.is_asked_as_loopback) {
            return Err(AuthError::CrossSite);
        }
        if let Some(credential) = &handshake.credential {
            return self.auth.check(Some(credential.expose())).map(|()| Standing::Token);
        }
        let browser = self.browsers.find(handshake.cookie.iter().map(|secret| secret.expose()));
        let standing = match browser {
            Some(browser) => Standing::Browser(browser),
            None => self.auth.check(None).map(|()| Standing::Token)?,
        };
        let ours = is_ours(handshake.fetch_site.as_deref().map(str::as_bytes), &Method::GET);
        if ours { Ok(standing) } else { Err(AuthError::CrossSite) }
    }

    /// Whether it may be asked, by a name of this machine for itself or by another. A page of another site whose name leads here for a moment (DNS rebinding) is
    /// one of our own to a browser, and who needs no token is known by nothing but the name.
    fn may_be_asked(&self, as_loopback: bool) -> bool {
        as_loopback || !self.is_open()
    }
}

/// Whether what a browser sends by itself comes from our own pages, by what it says of that.
fn is_ours(fetch_site: Option<&[u8]>, method: &Method) -> bool {
    match fetch_site {
        Some(b"same-origin") => true,
        // Typed into the address bar: a page to look at, never a change.
        Some(b"none") => method.is_safe(),
        Some(_) => false,
        // Not a browser, or one of before 2023, which the header protects.
        None => true,
    }
}

/// The cookie headers of a call.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok())
}

#[cfg(test)]
mod tests {
    use gatecast_transports::{ConnInfo, Liveness};

    use super::*;
    use crate::auth::hash_of;

    const TOKEN: &str = "the-admin-token-of-the-tests";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn handshake(headers: &HeaderMap) -> Handshake {
        let info = ConnInfo::of(([127, 0, 0, 1], 4711).into());
        Handshake::read("sse", Liveness::WriteOnly, &info, headers, "").unwrap()
    }

    #[test]
    fn a_cookie_counts_from_our_own_pages_only_and_changes_nothing_without_the_header() {
        let operators = Operators::new(AdminAuth::Token(hash_of(TOKEN)));
        let cookie = operators.browsers.sign_in().unwrap();
        let cookie = cookie.split(';').next().unwrap();
        let call = |method, more: &[(&'static str, &'static str)]| {
            let all: Vec<_> = more.iter().copied().chain([("cookie", cookie)]).collect();
            operators.call(&method, &headers(&all))
        };
        let (site, stated) = (|site| ("sec-fetch-site", site), ("gatecast-dashboard", "1"));
        assert_eq!(call(Method::GET, &[]), Ok(()));
        assert_eq!(call(Method::GET, &[site("none")]), Ok(()));
        assert_eq!(call(Method::POST, &[site("same-origin"), stated]), Ok(()));
        assert_eq!(call(Method::POST, &[stated]), Ok(()), "a browser that does not say where from");
        for (method, more) in [
            (Method::POST, &[site("same-origin")][..]),
            (Method::DELETE, &[]),
            (Method::PUT, &[site("none"), stated]),
            (Method::POST, &[site("cross-site"), stated]),
            (Method::POST, &[site("same-site"), stated]),
            (Method::GET, &[site("cross-site")]),
        ] {
            assert_eq!(call(method, more), Err(AuthError::CrossSite), "{more:?}");
        }
    }

    #[test]
    fn the_token_needs_no_more_than_itself_and_wins_over_a_cookie() {
        let operators = Operators::new(AdminAuth::Token(hash_of(TOKEN)));
        let cookie = operators.browsers.sign_in().unwrap();
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(operators.call(&Method::POST, &headers(&[("authorization", &bearer)])), Ok(()));
        let wrong = headers(&[("authorization", "Bearer wrong"), ("cookie", &cookie)]);
        assert_eq!(operators.call(&Method::GET, &wrong), Err(AuthError::Unknown));
        assert_eq!(operators.call(&Method::GET, &HeaderMap::new()), Err(AuthError::Missing));
    }

    #[test]
    fn what_a_browser_sends_by_itself_lets_our_own_pages_watch_and_no_others() {
        let (open, operators) = (Operators::new(AdminAuth::Open), Operators::new(AdminAuth::Token(hash_of(TOKEN))));
        let cookie = operators.browsers.sign_in().unwrap();
        let (cookie, bearer) = (("cookie", cookie.split(';').next().unwrap()), format!("Bearer {TOKEN}"));
        let site = |site| ("sec-fetch-site", site);
        for (at, sent, answer) in [
            (&open, &[][..], Ok(())),
            (&open, &[site("same-origin")], Ok(())),
            (&open, &[site("none")], Ok(())),
            (&open, &[site("cross-site")], Err(AuthError::CrossSite)),
            (&open, &[site("same-site")], Err(AuthError::CrossSite)),
            (&operators, &[cookie, site("same-origin")], Ok(())),
            (&operators, &[cookie, site("cross-site")], Err(AuthError::CrossSite)),
            (&operators, &[site("cross-site")], Err(AuthError::Missing)),
            (&operators, &[("authorization", &bearer), site("cross-site")], Ok(())),
        ] {
            assert_eq!(at.watch(&handshake(&headers(sent))).map(drop), answer, "{sent:?}");
        }
    }

    #[test]
    fn an_open_server_is_not_open_to_pages_of_other_sites() {
        let operators = Operators::new(AdminAuth::Open);
        assert_eq!(operators.call(&Method::POST, &HeaderMap::new()), Ok(()));
        let cross = headers(&[("sec-fetch-site", "cross-site")]);
        assert_eq!(operators.call(&Method::POST, &cross), Err(AuthError::CrossSite));
    }

    #[test]
    fn an_open_server_is_called_by_the_names_of_its_own_machine_alone() {
        let (open, operators) = (Operators::new(AdminAuth::Open), Operators::new(AdminAuth::Token(hash_of(TOKEN))));
        let bearer = ("authorization", &*format!("Bearer {TOKEN}"));
        for (host, answer) in [
            ("localhost", Ok(())),
            ("LocalHost:8443", Ok(())),
            ("127.0.0.1", Ok(())),
            ("127.8.0.1:80", Ok(())),
            ("[::1]", Ok(())),
            ("[::1]:8443", Ok(())),
            ("evil.example", Err(AuthError::CrossSite)),
            ("evil.example:8443", Err(AuthError::CrossSite)),
            ("localhost.evil.example", Err(AuthError::CrossSite)),
            ("127.0.0.1.evil.example", Err(AuthError::CrossSite)),
            ("192.0.2.1:8443", Err(AuthError::CrossSite)),
            ("[2001:db8::1]", Err(AuthError::CrossSite)),
            ("", Err(AuthError::CrossSite)),
        ] {
            // A page of that name may send whatever it likes.
            for more in [&[][..], &[("sec-fetch-site", "same-origin")], &[bearer]] {
                let sent = headers(&[&[("host", host)], more].concat());
                assert_eq!(open.call(&Method::POST, &sent), answer, "{host} {more:?}");
                assert_eq!(open.watch(&handshake(&sent)).map(drop), answer, "{host} {more:?}");
            }
            let sent = headers(&[("host", host), bearer]);
            assert_eq!(operators.call(&Method::POST, &sent), Ok(()), "{host}");
            assert_eq!(operators.watch(&handshake(&sent)).map(drop), Ok(()), "{host}");
        }
    }
}
