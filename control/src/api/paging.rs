//! Lists come in parts. A cursor says which place of the order the part before ended with, and nothing else: it is good as long
//! as one likes, and whatever was made or deleted meanwhile, what stays is listed once.

use crate::error::{ErrorCode, ServiceError};
use crate::page::{Page, Place};
use serde::Deserialize;
use utoipa::IntoParams;

/// Most things of an answer.
const LIMIT_MAX: usize = 1000;

/// Things of an answer unless it is said otherwise.
const LIMIT_DEFAULT: usize = 100;

/// Most characters of a cursor: a volume's name in digits, and a number.
const CURSOR_LEN_MAX: usize = 600;

/// What is asked of a list, whatever it lists: for the document alone, since a query that refuses unknown parameters names all.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is read by the document's derive alone")]
pub(super) struct PageParameters {
    /// At most so many
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// The `next_cursor` of the part before
    cursor: Option<String>,
}

/// The query of a list of which nothing else is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartParameters {
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

/// One part of a list, as it is asked for.
pub(super) struct Asked {
    limit: usize,
    after: Option<Place>,
}

impl Asked {
    /// By the parameters `limit` and `cursor`.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(super) fn by(limit: Option<String>, cursor: Option<String>) -> Result<Self, ServiceError> {
        let refused = |detail: String| ServiceError::new(ErrorCode::InvalidRequest, detail);
        let limit = limit.map_or(Ok(LIMIT_DEFAULT), |text| {
            let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| refused(format!("limit={text:?} is not a number from 1 to {LIMIT_MAX}")))
        })?;
        let unknown = || refused("the cursor is none: give the next_cursor of the part before as it is".to_owned());
        let after = cursor.map(|text| place_of(&text).ok_or_else(unknown)).transpose()?;
        Ok(Self { limit, after })
    }

    /// What a service is to give: one more than is answered, which tells whether there is more.
    pub(super) fn page(&self) -> Page {
        Page::behind(self.after.clone(), self.limit + 1)
    }

    /// Where the part before ended.
    pub(super) const fn after(&self) -> Option<&Place> {
        self.after.as_ref()
    }

    /// Most things of the answer.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Leaves in a list what is answered, and tells the cursor of the next part, where there is one.
    pub(super) fn cut<T>(&self, items: &mut Vec<T>, place: impl Fn(&T) -> Place) -> Option<String> {
        let is_more = items.len() > self.limit;
        items.truncate(self.limit);
        items.last().filter(|_| is_more).map(|last| cursor_of(&place(last)))
    }
}

fn cursor_of(place: &Place) -> String {
    let name: String = place.name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:x}-{name}", place.number)
}

fn place_of(text: &str) -> Option<Place> {
    if text.len() > CURSOR_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return None;
    }
    let (number, name) = text.split_once('-')?;
    let digits = name.as_bytes().chunks(2);
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let name = digits.map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect::<Option<Vec<u8>>>()?;
    Some(Place { name: String::from_utf8(name).ok()?, number: u64::from_str_radix(number, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_place_that_it_was_made_of_and_nothing_else_is_one() {
        for place in [Place::named("acme/vm-1"), Place::numbered(u64::MAX), Place { name: "a".into(), number: 7 }] {
            assert_eq!(place_of(&cursor_of(&place)), Some(place));
        }
        for text in ["", "7", "x-", "-", "1-a", "1-ff", "1-zz", "1-61-61", &"1".repeat(601), "1-\u{e9}"] {
            assert_eq!(place_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        let asked = |limit: &str| Asked::by(Some(limit.to_owned()), None);
        for limit in ["0", "1001", "-1", "many", ""] {
            assert_eq!(asked(limit).err().map(|error| error.code), Some(ErrorCode::InvalidRequest), "{limit}");
        }
        assert_eq!(asked("1000").unwrap().limit(), LIMIT_MAX);
        assert_eq!(Asked::by(None, None).unwrap().limit(), LIMIT_DEFAULT);
    }
}
