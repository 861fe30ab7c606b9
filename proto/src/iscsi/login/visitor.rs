//! The keys of a login request, sorted by what they are about, and who the initiator says it is.

use super::outcome::SessionKind;
use crate::iscsi::chap::ChapKeys;
use crate::iscsi::constants::NAME_BYTES_MAX;
use crate::iscsi::parameters::{Key, NOT_UNDERSTOOD, REJECT};
use crate::iscsi::reply::LoginStatus;
use crate::iscsi::text::push_pair;

/// The keys of one request. What is of no use at all is answered while sorting.
#[derive(Debug, Default)]
pub(super) struct Sorted<'a> {
    pub(super) initiator: Option<&'a str>,
    pub(super) target: Option<&'a str>,
    pub(super) session_type: Option<&'a str>,
    pub(super) alias: Option<&'a str>,
    pub(super) methods: Option<&'a str>,
    pub(super) chap: ChapKeys<'a>,
    pub(super) operational: Vec<(Key, &'a str, &'a str)>,
}

impl<'a> Sorted<'a> {
    /// Sorts the pairs of a request. A key that comes twice is the initiator's error, RFC 7143 6.3.
    pub(super) fn sort(pairs: &[(&'a str, &'a str)], answer: &mut Vec<u8>) -> Result<Self, LoginStatus> {
        let mut sorted = Self::default();
        for (key, value) in pairs {
            if let Some(key_known) = Key::parse(key) {
                sorted.operational.push((key_known, key, value));
            } else if let Some(place) = sorted.place(key) {
                if place.replace(value).is_some() {
                    return Err(LoginStatus::INITIATOR_ERROR);
                }
            } else if FOR_TARGETS.contains(key) {
                push_pair(answer, key, &REJECT);
            } else if **value != *NOT_UNDERSTOOD {
                push_pair(answer, key, &NOT_UNDERSTOOD);
            }
        }
        Ok(sorted)
    }

    fn place(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "InitiatorName" => &mut self.initiator,
            "TargetName" => &mut self.target,
            "SessionType" => &mut self.session_type,
            "InitiatorAlias" => &mut self.alias,
            "AuthMethod" => &mut self.methods,
            _ => return self.chap.place(key),
        })
    }

    pub(super) const fn has_names(&self) -> bool {
        self.initiator.is_some() || self.target.is_some() || self.session_type.is_some()
    }

    pub(super) fn has_security(&self) -> bool {
        self.methods.is_some() || self.chap != ChapKeys::default()
    }
}

/// Who logs in to what.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) initiator: String,
    pub(super) kind: SessionKind,
    /// Of a normal session only.
    pub(super) target: Option<String>,
    pub(super) alias: Option<String>,
}

impl Visitor {
    /// Reads what the first request must tell.
    pub(super) fn introduced(keys: &Sorted<'_>) -> Result<Self, LoginStatus> {
        let initiator = name(keys.initiator)?;
        let (kind, target) = match keys.session_type {
            None | Some("Normal") => (SessionKind::Normal, Some(name(keys.target)?)),
            Some("Discovery") => (SessionKind::Discovery, None),
            Some(_) => return Err(LoginStatus::SESSION_TYPE_UNSUPPORTED),
        };
        Ok(Self { initiator, kind, target, alias: None })
    }
}

/// RFC 7143 4.2.7.1: at most 223 bytes, without blanks and control characters.
fn name(name: Option<&str>) -> Result<String, LoginStatus> {
    let name = name.ok_or(LoginStatus::MISSING_PARAMETER)?;
    let is_name = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|character| character.is_control() || character.is_whitespace());
    if is_name { Ok(name.to_owned()) } else { Err(LoginStatus::INITIATOR_ERROR) }
}

/// Keys that only a target sends, or that are asked after login.
const FOR_TARGETS: [&str; 4] = ["SendTargets", "TargetAddress", "TargetAlias", "TargetPortalGroupTag"];
