//! A part of a list: what comes behind a place in its order, so that what is made or deleted meanwhile moves nothing else.

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    after: Option<Place>,
    count: usize,
}

/// Where something stands in the order of its list: by a name, then a number. A list has one of each kind once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name; empty in a list by numbers.
    pub name: String,
    /// The number; 0 in a list by names.
    pub number: u64,
}

impl Page {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self { after: None, count: usize::MAX }
    }

    /// At most `count` of what stands behind a place.
    pub(crate) const fn behind(after: Option<Place>, count: usize) -> Self {
        Self { after, count }
    }

    /// Puts a list in order, and leaves in it what is asked for.
    #[must_use]
    pub fn of<T>(&self, items: impl IntoIterator<Item = T>, place: impl Fn(&T) -> Place) -> Vec<T> {
        let mut placed: Vec<(Place, T)> = items.into_iter().map(|item| (place(&item), item)).collect();
        placed.retain(|(place, _)| self.after.as_ref().is_none_or(|after| place > after));
        placed.sort_by(|(a, _), (b, _)| a.cmp(b));
        placed.truncate(self.count);
        placed.into_iter().map(|(_, item)| item).collect()
    }
}

impl Place {
    /// In a list by names.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), number: 0 }
    }

    /// In a list by numbers.
    #[must_use]
    pub const fn numbered(number: u64) -> Self {
        Self { name: String::new(), number }
    }
}
