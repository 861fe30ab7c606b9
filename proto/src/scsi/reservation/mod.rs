//! Who may use a logical unit: persistent reservations and, where nobody is registered, RESERVE(6).
//! Spec: SPC-4 5.13 (reservations), 6.15 and 6.16 (PERSISTENT RESERVE IN and OUT); SPC-2 7.17 and 7.21 (RESERVE, RELEASE).
//!
//! Each nexus registers a key; one registered nexus then holds the reservation, or all of them do. `change.rs` turns one
//! state into the next, `report.rs` tells it, this file keeps it and judges other commands by it.
//!
//! The two ways exclude each other, as CRH = 0 has it: whoever registers shuts RESERVE(6) out, and the reverse.

mod change;
mod kind;
mod report;
mod transport_id;

use self::kind::{Kind, Reach};
use super::cdb::Access;
use super::sense::Sense;
use std::collections::BTreeMap;

/// Most registrations one logical unit keeps; a cluster has a few per node.
pub const REGISTRATIONS_MAX: usize = 256;

/// An initiator port at a target port, to which registrations and reservations belong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexus {
    /// The initiator's iSCSI name.
    pub initiator: String,
    /// Tells the initiator's ports apart.
    pub isid: [u8; 6],
    /// Relative target port.
    pub port: u16,
}

/// A PERSISTENT RESERVE OUT command without its parameter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutCommand {
    /// SERVICE ACTION.
    pub action: u8,
    /// SCOPE; only 0, the logical unit, is known.
    pub scope: u8,
    /// TYPE.
    pub kind: u8,
}

/// What a PERSISTENT RESERVE OUT brings about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The state from now on.
    pub next: Reservations,
    /// Unit attentions to establish; never for the sender.
    pub attentions: Vec<(Nexus, Sense)>,
    /// Whose commands to abort, before the command is answered; never the sender.
    pub aborted: Vec<Nexus>,
    /// Whether `next`, or the state before, survives power loss, so that the former's [`Reservations::persisted`]
    /// must be durable (or its absence be) before the command is answered.
    pub is_kept: bool,
}

/// Why a PERSISTENT RESERVE OUT changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// RESERVATION CONFLICT status.
    Conflict,
    /// CHECK CONDITION status.
    Check(Sense),
}

impl From<Sense> for Refused {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// The persistent reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    kind: Kind,
    /// A registered nexus, and `None` just if `kind` has all registrants hold it.
    holder: Option<Nexus>,
}

impl Held {
    fn new(kind: Kind, nexus: &Nexus) -> Self {
        let holder = match kind.reach {
            Reach::Holder | Reach::RegistrantsOnly => Some(nexus.clone()),
            Reach::AllRegistrants => None,
        };
        Self { kind, holder }
    }
}

/// The reservations of one logical unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reservations {
    /// PRGENERATION.
    generation: u32,
    /// Keys, never 0.
    registrations: BTreeMap<Nexus, u64>,
    /// `None` whenever nobody is registered.
    held: Option<Held>,
    /// The last APTPL: whether registrations and reservation survive power loss.
    is_kept: bool,
    /// Who holds a RESERVE(6); `None` whenever somebody is registered.
    legacy: Option<Nexus>,
}

impl Reservations {
    /// Whether a command may go on. `nexus` is `None` for a client that is no nexus (NBD): it is never registered.
    ///
    /// [`Access::Reservation`] and [`Access::Legacy`] are only refused here where the other way of reserving is in use, as
    /// [`Self::change`] and [`Self::reserve6`] refuse them too; PERSISTENT RESERVE IN may ask by the former.
    #[must_use]
    pub fn check(&self, nexus: Option<&Nexus>, access: Access) -> bool {
        match access {
            Access::Always => true,
            Access::Reservation => self.legacy.is_none(),
            Access::Legacy => self.registrations.is_empty(),
            Access::Read => self.admits(nexus, false),
            Access::Write => self.admits(nexus, true),
        }
    }

    fn admits(&self, nexus: Option<&Nexus>, is_write: bool) -> bool {
        if self.legacy.is_some() {
            return self.legacy.as_ref() == nexus;
        }
        let Some(held) = &self.held else { return true };
        if !is_write && !held.kind.keeps_reads_out {
            return true;
        }
        nexus.is_some_and(|nexus| match held.kind.reach {
            Reach::Holder => self.is_holder(nexus),
            Reach::RegistrantsOnly | Reach::AllRegistrants => self.registrations.contains_key(nexus),
        })
    }

    /// Whether `nexus` holds the persistent reservation, alone or as one of all registrants.
    fn is_holder(&self, nexus: &Nexus) -> bool {
        self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => holder == nexus,
            None => self.registrations.contains_key(nexus),
        })
    }

    /// RESERVE(6); `false` is a RESERVATION CONFLICT. Who holds it may reserve again.
    #[must_use]
    pub fn reserve6(&mut self, nexus: &Nexus) -> bool {
        let is_free = self.legacy.as_ref().is_none_or(|holder| holder == nexus);
        if !is_free || !self.registrations.is_empty() {
            return false;
        }
        if self.legacy.is_none() {
            self.legacy = Some(nexus.clone());
        }
        true
    }

    /// RELEASE(6); `false` is a RESERVATION CONFLICT. Who holds nothing releases nothing, and that is good.
    #[must_use]
    pub fn release6(&mut self, nexus: &Nexus) -> bool {
        self.forget_legacy(nexus);
        self.registrations.is_empty()
    }

    /// A reset of the logical unit: drops the RESERVE(6). Persistent reservations stay.
    pub fn reset(&mut self) {
        self.legacy = None;
    }

    /// The loss of a nexus: drops its RESERVE(6). Its registration stays.
    pub fn forget_legacy(&mut self, nexus: &Nexus) {
        self.legacy.take_if(|holder| holder == nexus);
    }

    /// What is to survive power loss; `None` if nothing is, and what was persisted before must go.
    #[must_use]
    pub fn persisted(&self) -> Option<Kept> {
        if !self.is_kept {
            return None;
        }
        let keep = |(nexus, key): (&Nexus, &u64)| KeptRegistration {
            initiator: nexus.initiator.clone(),
            isid: nexus.isid,
            port: nexus.port,
            key: *key,
            is_holder: self.is_holder(nexus),
        };
        Some(Kept {
            generation: self.generation,
            kind: self.held.as_ref().map(|held| held.kind.to_wire()),
            registrations: self.registrations.iter().map(keep).collect(),
        })
    }

    /// The state after power loss.
    ///
    /// A registration without key and a reservation without holder or of an unknown type are left out, since no command
    /// could ever end them.
    #[must_use]
    pub fn restore(kept: Kept) -> Self {
        let mut restored = Self { generation: kept.generation, is_kept: true, ..Self::default() };
        let kind = kept.kind.and_then(Kind::from_wire);
        for registration in kept.registrations.into_iter().filter(|registration| registration.key != 0) {
            let KeptRegistration { initiator, isid, port, key, is_holder } = registration;
            let nexus = Nexus { initiator, isid, port };
            if let Some(kind) = kind.filter(|_| is_holder && restored.held.is_none()) {
                restored.held = Some(Held::new(kind, &nexus));
            }
            restored.registrations.insert(nexus, key);
        }
        restored
    }
}

/// What survives power loss, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// PRGENERATION.
    pub generation: u32,
    /// TYPE of the reservation, if there is one.
    pub kind: Option<u8>,
    /// All registrations.
    pub registrations: Vec<KeptRegistration>,
}

/// One registration that survives power loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRegistration {
    /// The initiator's iSCSI name.
    pub initiator: String,
    /// Tells the initiator's ports apart.
    pub isid: [u8; 6],
    /// Relative target port.
    pub port: u16,
    /// Reservation key.
    pub key: u64,
    /// Whether it holds the reservation.
    pub is_holder: bool,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
