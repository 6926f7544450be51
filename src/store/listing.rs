//! Listings, a page at a time.

use std::fmt;
use std::vec;

use super::row::Row;
use crate::error::Result;
use crate::update::Name;

/// Size of keys and values at which a page of a listing ends early, so that large rows do not fill the memory.
pub const PAGE_BYTES: usize = 4 << 20;

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Rows or keys, in order; may be empty.
    pub items: Vec<T>,
    /// The next page begins after this key; `None` on the last page.
    pub next: Option<Name>,
}

impl<T> Default for Page<T> {
    /// The last page, without items.
    fn default() -> Page<T> {
        Page {
            items: Vec::new(),
            next: None,
        }
    }
}

/// Item of a listing: a row or a key.
#[doc(hidden)]
pub trait Item {
    /// The row's key.
    fn key(&self) -> &Name;

    /// Approximate memory use in bytes.
    fn size(&self) -> usize;
}

impl Item for Row {
    fn key(&self) -> &Name {
        &self.key
    }

    fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl Item for Name {
    fn key(&self) -> &Name {
        self
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl<T: Item> Page<T> {
    /// Takes items until there are no more, or `limit` of them, or [`PAGE_BYTES`].
    ///
    /// # Errors
    /// The first error among the items.
    pub fn fill<E>(items: impl IntoIterator<Item = Result<T, E>>, limit: usize) -> Result<Page<T>, E> {
        let mut page = Page::default();
        let mut bytes = 0;
        for item in items {
            let item = item?;
            bytes += item.size();
            let is_full = page.items.len() + 1 >= limit || bytes >= PAGE_BYTES;
            page.next = is_full.then(|| item.key().clone());
            page.items.push(item);
            if is_full {
                break;
            }
        }
        Ok(page)
    }
}

/// All rows or all keys, fetched a page at a time during iteration. Ends after an error.
#[must_use]
pub struct Listing<'a, T> {
    fetch: Fetch<'a, T>,
    items: vec::IntoIter<T>,
    after: Option<Name>,
    is_last: bool,
}

/// Fetches the page after this key.
type Fetch<'a, T> = Box<dyn Fn(Option<&str>) -> Result<Page<T>> + Send + 'a>;

impl<'a, T> Listing<'a, T> {
    pub(super) fn new(fetch: impl Fn(Option<&str>) -> Result<Page<T>> + Send + 'a) -> Listing<'a, T> {
        Listing {
            fetch: Box::new(fetch),
            items: Vec::new().into_iter(),
            after: None,
            is_last: false,
        }
    }
}

impl<T> Iterator for Listing<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(Ok(item));
            }
            if self.is_last {
                return None;
            }
            match (self.fetch)(self.after.as_deref()) {
                Ok(page) => {
                    self.is_last = page.next.is_none();
                    self.after = page.next;
                    self.items = page.items.into_iter();
                }
                Err(e) => {
                    self.is_last = true;
                    return Some(Err(e));
                }
            }
        }
    }
}

impl<T> fmt::Debug for Listing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
