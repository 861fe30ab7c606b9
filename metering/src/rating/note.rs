//! Notes: what whoever reads a bill should know about the readings behind it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use units::VolumeId;

use crate::reading::number;

/// A clock that was set by more may have moved use out of its month, or into it.
const STEP_MAX: SignedDuration = SignedDuration::from_hours(1);

/// Something about the readings of a resource. Nothing is billed by a guess: what a gap hides is not on the bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// What it is.
    pub kind: NoteKind,
    /// Whose readings.
    #[serde(with = "number")]
    pub resource: VolumeId,
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
}

/// What a note is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// A stretch between two readings lies on both sides of a border of time, and was split there, by time.
    Split {
        /// The border.
        at: Timestamp,
    },
    /// Nothing was metered between two epochs: nothing is billed.
    Gap,
    /// Its first reading is not the first that there was: what it used before is not billed.
    BeginsLate,
    /// Its last reading says that it was deleted then, or went to another tenant.
    Ends,
    /// Its last reading is before the period's end and does not say so: later ones are missing, or to come.
    EndsEarly,
    /// Its class or tenant has changed, and the reading that said so is missing: all until then went to the former.
    UnseenChange,
    /// Of the meter's time so much was what the wall clock said to have passed over a reboot.
    Estimated {
        /// How much.
        milliseconds: u64,
    },
    /// The wall clock was set: by the meter's clock it would have been another time.
    ClockStep {
        /// What it was set to.
        clock: Timestamp,
    },
}

impl Note {
    /// Whether use may be missing from the bill, or be on the wrong line.
    #[must_use]
    pub fn is_doubt(&self) -> bool {
        match self.kind {
            NoteKind::Gap | NoteKind::BeginsLate | NoteKind::EndsEarly | NoteKind::UnseenChange => true,
            // What was used meanwhile may be on the bill of another month, or what was not used on this one.
            NoteKind::ClockStep { clock } => clock.duration_since(self.from).abs() > STEP_MAX,
            NoteKind::Split { .. } | NoteKind::Ends | NoteKind::Estimated { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, resource, from, to } = self;
        match kind {
            NoteKind::Split { at } => {
                write!(f, "volume {resource}: use from {from} to {to} was split at {at}, by time")
            }
            NoteKind::Gap => write!(f, "volume {resource}: not metered from {from} to {to}, and not billed"),
            NoteKind::BeginsLate => {
                write!(f, "volume {resource}: readings before {to} are missing, nothing before is billed")
            }
            NoteKind::Ends => write!(f, "volume {resource}: its last reading, of {from}, says that it ended then"),
            NoteKind::EndsEarly => write!(f, "volume {resource}: not read after {from}, nothing after is billed"),
            NoteKind::UnseenChange => {
                write!(
                    f,
                    "volume {resource}: a change between {from} and {to} was not read, all until then went to the former"
                )
            }
            NoteKind::Estimated { milliseconds } => {
                write!(
                    f,
                    "volume {resource}: from {from} to {to} {milliseconds} ms are an estimate, by the wall clock over a reboot"
                )
            }
            NoteKind::ClockStep { clock } => write!(f, "volume {resource}: the clock was set from {from} to {clock}"),
        }
    }
}
