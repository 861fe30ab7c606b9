//! What was seen, what was decided, when: `aljibe why` prints it for every change of roles.

use crate::io::{Command, Role};
use crate::position::Position;
use crate::record::Record;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use units::{Lsn, Monotonic};

/// How much evidence a site keeps in memory.
const KEPT_MAX: usize = 256;

/// One decision and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When.
    pub at: Monotonic,
    /// What was seen.
    pub sight: Sight,
    /// What was decided.
    pub decision: Decision,
}

/// What a site saw when it decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The newest record that it knew.
    pub record: Option<Record>,
    /// How long the other site had been silent.
    pub peer_silent: Duration,
    /// How long the witness had not answered.
    pub witness_silent: Duration,
    /// The end of its log.
    pub end: Position,
    /// The end of the other site's, when last heard.
    pub peer_end: Position,
    /// Whether its log surely had all that was acknowledged while it was in sync.
    pub is_certain: bool,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The log got a role.
    Role(Role),
    /// The witness was asked for this record.
    Ask(Record),
    /// The outcome of that is not known.
    Unknown(Record),
    /// This record is in force.
    Learn(Record),
    /// An operator said this.
    Hear(Command),
    /// It is begun.
    Begin(Command),
    /// It cannot be.
    Refuse(Command),
    /// A planned switch was called off.
    CallOff,
    /// S8. The witness has gone back: nothing changes by itself until it is rebuilt.
    RolledBack,
    /// What the log has behind `from` is a branch.
    Branch {
        /// The last operation that stays.
        from: Lsn,
        /// The end of the branch.
        to: Position,
    },
    /// The other site is out of sync, or lost, and the group's policy has this one wait for it.
    Hold,
}

/// The last of what a site told.
#[derive(Debug, Default)]
pub(crate) struct Kept(VecDeque<Evidence>);

impl Kept {
    pub(crate) fn add(&mut self, evidence: Evidence) {
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(evidence);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Evidence> {
        self.0.iter()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision {
            Decision::Role(role) => write!(f, "{role}")?,
            Decision::Ask(record) => write!(f, "asks the witness for {}", Short(record))?,
            Decision::Unknown(record) => write!(f, "does not know whether the witness has {}", Short(record))?,
            Decision::Learn(record) => write!(f, "learns {}", Short(record))?,
            Decision::Hear(command) => write!(f, "is told to {command:?}")?,
            Decision::Begin(command) => write!(f, "begins {command:?}")?,
            Decision::Refuse(command) => write!(f, "refuses {command:?}")?,
            Decision::CallOff => f.write_str("calls the switch off")?,
            Decision::RolledBack => f.write_str("finds that the witness has gone back")?,
            Decision::Branch { from, to } => write!(f, "keeps what is behind {from} up to {to} as a branch")?,
            Decision::Hold => f.write_str("holds writes")?,
        }
        let sight = &self.sight;
        write!(f, " (saw ")?;
        match &sight.record {
            Some(record) => write!(f, "{}", Short(record))?,
            None => f.write_str("no record")?,
        }
        let certain = if sight.is_certain { "" } else { ", uncertain" };
        write!(
            f,
            ", other site silent {} ms, witness {} ms, log ends {}{certain}, other's {})",
            sight.peer_silent.as_millis(),
            sight.witness_silent.as_millis(),
            sight.end,
            sight.peer_end
        )
    }
}

/// A record on one line.
struct Short<'a>(&'a Record);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        write!(f, "epoch {} of site {}", record.epoch, record.primary)?;
        match record.partner {
            Some(partner) => write!(f, " with {partner}")?,
            None => f.write_str(" alone")?,
        }
        f.write_str(if record.is_sole { ", sole" } else { "" })
    }
}
