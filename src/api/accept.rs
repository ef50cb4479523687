//! What a caller accepts (RFC 9110 § 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// How much a media type is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    /// Out of 1000.
    weight: u16,
    /// Of two that are wanted as much, the one that is named is meant.
    precision: Precision,
}

/// By what kind of range a media type is accepted. What is said more precisely counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Named,
}

/// How much a media type without parameters is wanted; `None` if it is not, or not spoken of.
pub(super) fn wish(headers: &HeaderMap, media_type: &str) -> Option<Wish> {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges = lines.flat_map(|line| line.split(','));
    let said = ranges.filter_map(|range| read(range, media_type)).max_by_key(|wish| (wish.precision, wish.weight));
    said.filter(|wish| wish.weight > 0)
}

/// What one range says. Its parameters but for the weight are passed over.
fn read(range: &str, media_type: &str) -> Option<Wish> {
    let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
    let precision = precision(range.trim(), media_type)?;
    let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let weight = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    Some(Wish { weight: weight.map_or(WEIGHT_MAX, |(_, value)| thousandths(value.trim())), precision })
}

fn precision(range: &str, media_type: &str) -> Option<Precision> {
    let kind = |text: &str| text.split_once('/').map(|(kind, _)| kind.to_ascii_lowercase());
    if range == "*/*" {
        Some(Precision::Any)
    } else if range.ends_with("/*") && kind(range) == kind(media_type) {
        Some(Precision::Type)
    } else if range.eq_ignore_ascii_case(media_type) {
        Some(Precision::Named)
    } else {
        None
    }
}

/// A weight from `0` to `1`; what is none is passed over like any parameter that is not understood.
fn thousandths(weight: &str) -> u16 {
    let weight = weight.parse().ok().filter(|weight: &f32| (0.0..=1.0).contains(weight));
    weight.map_or(WEIGHT_MAX, |weight| (weight * f32::from(WEIGHT_MAX)).round() as u16)
}

const WEIGHT_MAX: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers_zip(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        wish(&headers, "application/zip") > wish(&headers, "application/yaml")
    }

    #[test]
    fn what_is_wanted_more_or_is_named_is_preferred() {
        for accept in [
            &["application/zip"][..],
            &["Application/ZIP ; Q=0.5"],
            &["text/html, application/zip;q=0.001"],
            &["application/zip, */*"],
            &["application/zip;q=1.0, application/*;q=0.9"],
            &["application/yaml;q=0.2, application/zip;q=0.3"],
            &["application/yaml;q=0.2", "application/zip;q=0.3"],
            &["application/zip;level=9;q=0.5, */*;q=0.4"],
            &["application/yaml;q=0, */*"],
            &["application/zip;q=high"],
        ] {
            assert!(prefers_zip(accept), "{accept:?}");
        }
        for accept in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["text/html"],
            &["application/yaml"],
            &["x-application/zipper"],
            &["application/zipper, application/z*"],
            &["application/zip;q=0, application/yaml"],
            &["application/zip;q=0, */*"],
            &["application/zip;q=0"],
            &["application/zip;q=0.5, application/yaml"],
            &["application/zip;q=0.5, application/*"],
            &["application/zip, application/yaml"],
        ] {
            assert!(!prefers_zip(accept), "{accept:?}");
        }
    }
}
