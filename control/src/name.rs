//! Names of tenants, volumes and snapshots.

use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// A name by itself, such as a tenant's: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A volume's name, `TENANT/NAME`: both parts by the rule of a [`Name`], the first one left out where the tenant is the
/// default one. It is also the NBD export's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName {
    text: String,
    tenant: Name,
}

/// A snapshot's name, `VOLUME@NAME`, the second part by the rule of a [`Name`]. It is also the NBD export's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    volume: VolumeName,
    name: Name,
}

/// What can be read: a volume, or a snapshot of one. It is the NBD export's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportName {
    /// A volume, as it is now.
    Volume(VolumeName),
    /// A snapshot.
    Snapshot(SnapshotName),
}

/// A second of a volume's history, `VOLUME@2026-11-24T03:15:07Z`: in UTC, RFC 3339. No snapshot's name has a colon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MomentName {
    volume: VolumeName,
    at: Second,
}

/// A second, in UTC, written by RFC 3339: `2026-11-24T03:15:07Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Second(Timestamp);

/// Most characters of a name.
pub(crate) const NAME_LEN_MAX: usize = 128;

/// Why a text cannot name a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No character at all.
    #[error("a name cannot be empty: {RULE}")]
    Empty,
    /// Too many characters.
    #[error("a name has at most {NAME_LEN_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// Begins with a dot, dash or underscore.
    #[error("name {0:?} begins with {1:?}: {RULE}")]
    BadStart(String, char),
    /// Holds a character that is not allowed.
    #[error("name {0:?} holds {1:?}: {RULE}")]
    BadCharacter(String, char),
    /// It is to name a snapshot, and has no `@`.
    #[error("{0:?} names no snapshot: write VOLUME@NAME")]
    NoSnapshot(String),
    /// It is to name a second, and does not.
    #[error("{0:?} is no second: write it in UTC, as 2026-11-24T03:15:07Z")]
    NoSecond(String),
}

/// The tenant whose names have no prefix: the provider's own.
const DEFAULT_TENANT: &str = "default";

impl Name {
    /// The default tenant's.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self(DEFAULT_TENANT.to_owned())
    }

    /// Whether it is the default tenant's.
    #[must_use]
    pub fn is_default_tenant(&self) -> bool {
        self.0 == DEFAULT_TENANT
    }

    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl VolumeName {
    /// The volume `name` of `tenant`.
    #[must_use]
    pub fn new(tenant: Name, name: &Name) -> Self {
        let text = if tenant.is_default_tenant() { name.to_string() } else { format!("{tenant}/{name}") };
        Self { text, tenant }
    }

    /// What a text means to who speaks of a tenant: without a prefix, a volume of that one.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn parse_in(tenant: &Name, text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((tenant, name)) => Ok(Self::new(tenant.parse()?, &name.parse()?)),
            None => Ok(Self::new(tenant.clone(), &text.parse()?)),
        }
    }

    /// The volume that a tenant calls so.
    #[must_use]
    pub fn within(&self, tenant: &Name) -> Self {
        let name = self.text.split_once('/').map_or(self.text.as_str(), |(_, name)| name);
        Self::new(tenant.clone(), &Name(name.to_owned()))
    }

    /// It as one part of a URL's path.
    #[must_use]
    pub fn in_path(&self) -> String {
        self.text.replace('/', "%2F")
    }

    /// It as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    #[must_use]
    pub const fn tenant(&self) -> &Name {
        &self.tenant
    }
}

impl FromStr for VolumeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse_in(&Name::default_tenant(), text)
    }
}

impl FromStr for Name {
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

impl SnapshotName {
    /// The snapshot `name` of `volume`.
    #[must_use]
    pub const fn new(volume: VolumeName, name: Name) -> Self {
        Self { volume, name }
    }

    /// What a text means to who speaks of a tenant.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn parse_in(tenant: &Name, text: &str) -> Result<Self, InvalidName> {
        let (volume, name) = text.split_once('@').ok_or_else(|| InvalidName::NoSnapshot(text.to_owned()))?;
        Ok(Self { volume: VolumeName::parse_in(tenant, volume)?, name: name.parse()? })
    }

    /// The volume's name.
    #[must_use]
    pub const fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// It as one part of a URL's path.
    #[must_use]
    pub fn in_path(&self) -> String {
        format!("{}@{}", self.volume.in_path(), self.name)
    }

    /// Its own name, which no other snapshot of the volume has.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }
}

impl MomentName {
    /// A second of `volume`.
    #[must_use]
    pub const fn new(volume: VolumeName, at: Second) -> Self {
        Self { volume, at }
    }

    /// The volume's name.
    #[must_use]
    pub const fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// The second.
    #[must_use]
    pub const fn at(&self) -> Second {
        self.at
    }
}

impl Second {
    /// It in milliseconds since 1970.
    #[must_use]
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }
}

impl FromStr for Second {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refused = || InvalidName::NoSecond(text.to_owned());
        // As long as a second is: no fraction, no offset.
        if text.len() != "2026-11-24T03:15:07Z".len() || !text.ends_with('Z') {
            return Err(refused());
        }
        text.parse().map(Self).map_err(|_| refused())
    }
}

impl FromStr for MomentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (volume, at) = text.split_once('@').ok_or_else(|| InvalidName::NoSnapshot(text.to_owned()))?;
        Ok(Self { volume: volume.parse()?, at: at.parse()? })
    }
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for MomentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.at)
    }
}

impl FromStr for SnapshotName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse_in(&Name::default_tenant(), text)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

impl ExportName {
    /// What a text means to who speaks of a tenant.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn parse_in(tenant: &Name, text: &str) -> Result<Self, InvalidName> {
        if text.contains('@') {
            SnapshotName::parse_in(tenant, text).map(Self::Snapshot)
        } else {
            VolumeName::parse_in(tenant, text).map(Self::Volume)
        }
    }

    /// The volume's name.
    #[must_use]
    pub const fn volume(&self) -> &VolumeName {
        match self {
            Self::Volume(name) => name,
            Self::Snapshot(name) => name.volume(),
        }
    }
}

impl FromStr for ExportName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse_in(&Name::default_tenant(), text)
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(name) => name.fmt(f),
            Self::Snapshot(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Name {
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

    #[test]
    fn a_snapshot_is_named_behind_its_volume() {
        let name: SnapshotName = "vm-1@monday".parse().unwrap();
        assert_eq!((name.volume().as_str(), name.name().as_str()), ("vm-1", "monday"));
        assert_eq!(name.to_string(), "vm-1@monday");
        let refusal = |name: &str| name.parse::<SnapshotName>().unwrap_err();
        assert_eq!(refusal("vm-1"), InvalidName::NoSnapshot("vm-1".into()));
        assert_eq!(refusal("vm-1@"), InvalidName::Empty);
        assert_eq!(refusal("vm-1@a@b"), InvalidName::BadCharacter("a@b".into(), '@'));
    }

    #[test]
    fn what_can_be_read_is_a_volume_or_a_snapshot_of_one() {
        let name = |text: &str| text.parse::<ExportName>().unwrap();
        assert_eq!(name("vm-1"), ExportName::Volume("vm-1".parse().unwrap()));
        assert!(matches!(name("vm-1@monday"), ExportName::Snapshot(_)));
        assert_eq!((name("vm-1").to_string(), name("vm-1@a").to_string()), ("vm-1".into(), "vm-1@a".into()));
        assert_eq!("vm-1@".parse::<ExportName>(), Err(InvalidName::Empty));
    }

    #[test]
    fn a_second_is_written_in_one_way() {
        let name: MomentName = "vm-1@2026-11-24T03:15:07Z".parse().unwrap();
        assert_eq!((name.volume().as_str(), name.at().milliseconds()), ("vm-1", 1_795_490_107_000));
        assert_eq!(name.to_string(), "vm-1@2026-11-24T03:15:07Z");
        for text in
            ["2026-11-24T03:15:07.5Z", "2026-11-24T03:15:07+01:00", "2026-11-24T03:15Z", "2026-13-24T03:15:07Z", ""]
        {
            assert_eq!(text.parse::<Second>(), Err(InvalidName::NoSecond(text.into())));
        }
        assert!("vm-1@2026-11-24T03:15:07Z".parse::<SnapshotName>().is_err(), "no snapshot is called so");
    }

    /// P8. A name without a prefix is the speaker's tenant's; one with a prefix is what it says; and each volume has one name.
    #[test]
    fn a_volume_is_named_behind_its_tenant() {
        let acme: Name = "acme".parse().unwrap();
        let read =
            |text: &str| VolumeName::parse_in(&acme, text).map(|name| (name.to_string(), name.tenant().to_string()));
        let is = |name: &str, tenant: &str| Ok((name.to_owned(), tenant.to_owned()));
        assert_eq!(read("vm"), is("acme/vm", "acme"));
        assert_eq!(read("acme/vm"), is("acme/vm", "acme"));
        assert_eq!(read("beta/vm"), is("beta/vm", "beta"));
        assert_eq!(read("default/vm"), is("vm", "default"));
        assert_eq!("default/vm".parse::<VolumeName>().unwrap(), "vm".parse().unwrap());
        for (text, bad) in [("a/b/c", '/'), ("a/b@c", '@'), ("a b/c", ' ')] {
            assert!(matches!(read(text), Err(InvalidName::BadCharacter(_, found)) if found == bad), "{text}");
        }
        assert_eq!((read("/vm"), read("acme/")), (Err(InvalidName::Empty), Err(InvalidName::Empty)));
        assert_eq!(SnapshotName::parse_in(&acme, "vm@a").unwrap().to_string(), "acme/vm@a");
        assert!(SnapshotName::parse_in(&acme, "vm@beta/a").is_err());
        assert_eq!(ExportName::parse_in(&acme, "vm").unwrap().volume().as_str(), "acme/vm");
    }

    /// P8. A name cannot leave the place it is looked up in.
    #[test]
    fn names_with_other_meanings_are_refused() {
        let refusal = |name: &str| name.parse::<Name>().unwrap_err();
        assert_eq!(refusal(""), InvalidName::Empty);
        assert_eq!(refusal(&"x".repeat(129)), InvalidName::TooLong(129));
        assert_eq!(refusal(".."), InvalidName::BadStart("..".into(), '.'));
        assert_eq!(refusal("-rf"), InvalidName::BadStart("-rf".into(), '-'));
        for (name, bad) in [("a/b", '/'), ("a@b", '@'), ("a b", ' '), ("a\0", '\0'), ("caf\u{e9}", '\u{e9}')] {
            assert_eq!(refusal(name), InvalidName::BadCharacter(name.into(), bad));
        }
    }
}
