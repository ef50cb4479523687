//! Which known name a misspelt one most likely means.

/// The most similar of `known`, if one is similar enough to be a likely slip.
pub(super) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = bare(written);
    let (distance, name) = known.into_iter().map(|name| (distance(&written, &bare(name)), name)).min()?;
    (distance <= written.len().div_ceil(3)).then_some(name)
}

/// Without the prefix, so that a forgotten or an added one is no difference.
fn bare(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("GATECAST_").map_or(name.clone(), str::to_owned)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, pair) in b.bytes().zip(row.windows(2)) {
            // `windows(2)` gives slices of two.
            let &[diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["GATECAST_RING_MAX_EVENTS", "GATECAST_RING_MAX_BYTES", "WS_MAX_CONNECTIONS"];

    #[test]
    fn slips_find_their_name() {
        assert_eq!(nearest("GATECAST_RING_MAX_EVENT", KNOWN), Some("GATECAST_RING_MAX_EVENTS"));
        assert_eq!(nearest("GATECAST_WS_MAX_CONNECTIONS", KNOWN), Some("WS_MAX_CONNECTIONS"));
        assert_eq!(nearest("gatecast_ring_max_byte", KNOWN), Some("GATECAST_RING_MAX_BYTES"));
        assert_eq!(nearest("GATECAST_COLOUR", KNOWN), None);
        assert_eq!(nearest("GATECAST_", KNOWN), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
