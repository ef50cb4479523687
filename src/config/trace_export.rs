//! Where traces go: the standard variables of OpenTelemetry's exporters, as far as they concern OTLP over HTTP.

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;

use super::value::ValueError;
use crate::client::Trust;

/// The longest name of a service, in bytes.
const SERVICE_BYTES_MAX: usize = 255;

/// A collector and what it is told. Its `Debug` shows no header's value.
#[derive(Debug, Clone)]
pub struct TraceExport {
    /// Where spans are posted.
    pub url: Url,
    /// With what.
    pub headers: HeaderMap,
    /// Whose certificates it may have.
    pub trust: Trust,
    /// What this server is called.
    pub service: String,
}

/// `/v1/traces` below the endpoint, as the specification has it for `OTEL_EXPORTER_OTLP_ENDPOINT`.
pub(super) fn url(text: &str) -> Result<Url, ValueError> {
    let fault = |problem: &str| ValueError::Other(problem.to_owned());
    let mut url = Url::parse(text).map_err(|_| fault("must be a URL, such as http://127.0.0.1:4318"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(fault("must start with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(fault("must have no user, query or fragment; secrets belong in OTEL_EXPORTER_OTLP_HEADERS"));
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// `name=value,…` with percent-encoded values (W3C Baggage without properties).
pub(super) fn headers(text: &str) -> Result<HeaderMap, ValueError> {
    let fault = || ValueError::Other("must be name=value pairs of HTTP headers, separated by commas".to_owned());
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(fault)?;
        let name: HeaderName = name.trim().parse().map_err(|_| fault())?;
        // What means something in a form means itself here.
        let value = value.trim().replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
        let value: String = form_urlencoded::parse(value.as_bytes()).map(|(decoded, _)| decoded).collect();
        let mut value: HeaderValue = value.parse().map_err(|_| fault())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

pub(super) fn service(text: &str) -> Result<String, ValueError> {
    if text.len() > SERVICE_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(ValueError::Other(format!("must have 1 to {SERVICE_BYTES_MAX} bytes and no control characters")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_posted_below_the_endpoint() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/otlp/", "https://collector.example/otlp/v1/traces"),
        ] {
            assert_eq!(url(text).unwrap().as_str(), expected);
        }
        for text in ["", "127.0.0.1:4318", "grpc://host:4317", "http://me:secret@host", "http://host/?key=secret"] {
            let fault = url(text).unwrap_err().to_string();
            assert!(!fault.contains("secret@") && !fault.contains("key="), "{fault}");
        }
    }

    #[test]
    fn headers_are_decoded_and_not_shown() {
        let headers = headers("authorization=Basic%20YWJj+w==, x-scope=a%3Db").unwrap();
        assert_eq!(
            (&headers["authorization"], &headers["x-scope"]),
            (&"Basic YWJj+w==".parse().unwrap(), &"a=b".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("YWJj"));
        for text in ["secret", "a b=secret", "x=secret%0d%0a"] {
            let fault = super::headers(text).unwrap_err().to_string();
            assert!(!fault.contains("secret"), "{fault}");
        }
    }
}
