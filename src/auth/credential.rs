use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The header that gateways put their token in.
const API_KEY: &str = "api-key";

/// The credential of `Authorization: Bearer <credential>` (RFC 6750 § 2.1).
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credential) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// What a gateway presents: `api-key`, or else a bearer credential.
#[must_use]
pub fn gateway_credential(headers: &HeaderMap) -> Option<&str> {
    match headers.get(API_KEY) {
        Some(key) => key.to_str().ok().filter(|key| !key.is_empty()),
        None => bearer(headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_nothing_else_counts() {
        assert_eq!(bearer(&headers(&[("authorization", "bEARER abc")])), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(bearer(&headers(&[("authorization", other)])), None, "{other}");
        }
    }

    #[test]
    fn an_api_key_wins_over_a_bearer_credential() {
        assert_eq!(gateway_credential(&headers(&[("api-key", "k"), ("authorization", "Bearer b")])), Some("k"));
        assert_eq!(gateway_credential(&headers(&[("authorization", "Bearer b")])), Some("b"));
        assert_eq!(gateway_credential(&headers(&[("api-key", "")])), None);
    }
}
