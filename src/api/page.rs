use serde::Serialize;

use super::error::ApiError;
use super::query::Query;

/// Elements of a page that asks for no number.
const LIMIT_DEFAULT: usize = 100;
/// The most elements of a page.
const LIMIT_MAX: usize = 1_000;
/// The largest offset.
const OFFSET_MAX: usize = 10_000_000;

/// Which part of a list is asked for: `?limit=&offset=`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest {
    pub(crate) limit: usize,
    pub(crate) offset: usize,
}

/// A part of a list (CONTRACT.md § 1).
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    count: usize,
    list: Vec<T>,
    pagination: Pagination,
}

/// Where a part lies in the whole.
#[derive(Debug, Serialize)]
pub(crate) struct Pagination {
    total: usize,
    offset: usize,
    limit: usize,
}

impl PageRequest {
    pub(crate) fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        let within = |min: usize, max: usize| move |text: &str| text.parse().ok().filter(|n| (min..=max).contains(n));
        let limit = query.parsed_by("limit", &format!("a number from 1 to {LIMIT_MAX}"), within(1, LIMIT_MAX))?;
        let offset = query.parsed_by("offset", &format!("a number from 0 to {OFFSET_MAX}"), within(0, OFFSET_MAX))?;
        Ok(Self { limit: limit.unwrap_or(LIMIT_DEFAULT), offset: offset.unwrap_or(0) })
    }

    /// The page of a whole list; only what is on it is looked at.
    pub(crate) fn cut<S, T>(self, all: Vec<S>, view: impl FnMut(S) -> T) -> Page<T> {
        let total = all.len();
        self.page(total, all.into_iter().skip(self.offset).take(self.limit).map(view).collect())
    }

    /// The page whose elements are known.
    pub(crate) fn page<T>(self, total: usize, list: Vec<T>) -> Page<T> {
        Page { count: list.len(), list, pagination: self.within(total) }
    }

    /// Where the page lies.
    pub(crate) fn within(self, total: usize) -> Pagination {
        Pagination { total, offset: self.offset, limit: self.limit }
    }
}
