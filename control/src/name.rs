//! Names of volumes.

use std::fmt;
use std::str::FromStr;

/// A volume's name: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit. It is also the NBD export's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

/// Most characters of a name.
pub(crate) const NAME_LEN_MAX: usize = 128;

/// Why a text cannot name a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No character at all.
    #[error("a volume's name cannot be empty: {RULE}")]
    Empty,
    /// Too many characters.
    #[error("a volume's name has at most {NAME_LEN_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// Begins with a dot, dash or underscore.
    #[error("volume name {0:?} begins with {1:?}: {RULE}")]
    BadStart(String, char),
    /// Holds a character that is not allowed.
    #[error("volume name {0:?} holds {1:?}: {RULE}")]
    BadCharacter(String, char),
}

impl VolumeName {
    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first = text.chars().next().ok_or(InvalidName::Empty)?;
        let count = text.chars().count();
        if count > NAME_LEN_MAX {
            return Err(InvalidName::TooLong(count));
        }
        if let Some(bad) = text.chars().find(|c| !is_name_character(*c)) {
            return Err(InvalidName::BadCharacter(text.to_owned(), bad));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(InvalidName::BadStart(text.to_owned(), first));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `/` and `@` stay free: they part a tenant and a snapshot from a volume's name.
const fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The rule as a hint.
const RULE: &str = "use letters, digits, '.', '_' and '-', beginning with a letter or digit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_taken() {
        for name in ["a", "vm-100-disk-0", "web_01.root", "7zip", &"x".repeat(128)] {
            assert_eq!(name.parse::<VolumeName>().unwrap().as_str(), name);
        }
    }

    /// P8. A name cannot leave the place it is looked up in.
    #[test]
    fn names_with_other_meanings_are_refused() {
        let refusal = |name: &str| name.parse::<VolumeName>().unwrap_err();
        assert_eq!(refusal(""), InvalidName::Empty);
        assert_eq!(refusal(&"x".repeat(129)), InvalidName::TooLong(129));
        assert_eq!(refusal(".."), InvalidName::BadStart("..".into(), '.'));
        assert_eq!(refusal("-rf"), InvalidName::BadStart("-rf".into(), '-'));
        for (name, bad) in [("a/b", '/'), ("a@b", '@'), ("a b", ' '), ("a\0", '\0'), ("caf\u{e9}", '\u{e9}')] {
            assert_eq!(refusal(name), InvalidName::BadCharacter(name.into(), bad));
        }
    }
}
