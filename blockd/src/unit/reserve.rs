//! Reservations: commands that read and change them, and how those that are to survive a restart are kept.
//!
//! A change that is to be kept (APTPL, SPC-4 5.13.5) counts once its record is durable; until then no other task of the unit
//! begins, so that none is judged by what may not come.

use super::begin::{Begun, first_bytes};
use super::task::{Outcome, UnitTask};
use super::{LogicalUnit, SessionKey};
use crate::catalogue::{KeptNexus, KeptReservations};
use crate::shard::Callback;
use proto::scsi::{Changed, Kept, KeptRegistration, Nexus, OutCommand, Refused, Reservations, Sense, Status};
use tokio::sync::mpsc;
use units::VolumeId;

/// A change of reservations that waits for its record.
#[derive(Debug)]
pub(crate) struct Reserving {
    pub(crate) session: SessionKey,
    pub(crate) tag: u64,
    pub(crate) kept: Option<KeptReservations>,
    changed: Changed,
}

/// Reservations that are to be made durable.
pub(crate) struct KeepReservations {
    pub(crate) volume: VolumeId,
    /// `None` when nothing is to be kept.
    pub(crate) kept: Option<KeptReservations>,
    /// Told whether it is done.
    pub(crate) done: Callback<bool>,
}

/// Takes reservations that are to be made durable, for whoever keeps the catalogue.
#[derive(Debug, Clone)]
pub struct Registrar(mpsc::UnboundedSender<KeepReservations>);

impl Registrar {
    /// Makes one, and where what it takes comes out.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<KeepReservations>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// For shards behind which there is no catalogue: nothing is kept.
    #[must_use]
    pub fn none() -> Self {
        Self::new().0
    }

    /// Hands some over; they come back when there is nobody to take them.
    pub(crate) fn keep(&self, keep: KeepReservations) -> Result<(), ()> {
        self.0.send(keep).map_err(drop)
    }
}

impl LogicalUnit {
    pub(super) fn reserve6(&mut self, task: &UnitTask) -> Begun {
        self.legacy(task, Reservations::reserve6)
    }

    pub(super) fn release6(&mut self, task: &UnitTask) -> Begun {
        self.legacy(task, Reservations::release6)
    }

    fn legacy(&mut self, task: &UnitTask, change: impl FnOnce(&mut Reservations, &Nexus) -> bool) -> Begun {
        let Some(state) = self.nexuses.get(&task.session) else { return Begun::Ended(Outcome::Aborted) };
        let is_done = change(&mut self.reservations, &state.nexus);
        Begun::Ended(Outcome::status(if is_done { Status::Good } else { Status::ReservationConflict }))
    }

    pub(super) fn reserve_in(&self, action: u8, allocation: u16) -> Begun {
        match self.reservations.read(action) {
            Ok(told) => Begun::Ended(Outcome::parameters(told, allocation)),
            Err(sense) => self.refuse(&sense),
        }
    }

    pub(super) fn reserve_out(&mut self, task: &UnitTask, (action, scope, kind): (u8, u8, u8), length: u32) -> Begun {
        let Some(state) = self.nexuses.get(&task.session) else { return Begun::Ended(Outcome::Aborted) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(bytes) = first_bytes(&task.payload).get(..length) else {
            return self.refuse(&Sense::PARAMETER_LIST_LENGTH);
        };
        match self.reservations.change(&state.nexus, &OutCommand { action, scope, kind }, bytes) {
            Err(Refused::Conflict) => Begun::Ended(Outcome::status(Status::ReservationConflict)),
            Err(Refused::Check(sense)) => self.refuse(&sense),
            Ok(changed) => self.begin_change(task, changed),
        }
    }

    fn begin_change(&mut self, task: &UnitTask, changed: Changed) -> Begun {
        let kept = changed.next.persisted().map(|kept| kept_of(&kept));
        let reserving = Reserving { session: task.session, tag: task.tag, kept, changed };
        self.is_reserving = true;
        Begun::Reserving(Box::new(reserving))
    }

    /// Whether a change has to be kept before it counts.
    pub(crate) const fn must_be_kept(reserving: &Reserving) -> bool {
        reserving.changed.is_kept
    }

    /// A change is durable, or could not be made so; returns how its command ends, and the sessions whose tasks it aborts.
    pub(crate) fn end_reserving(&mut self, reserving: Reserving, is_kept: bool) -> (Outcome, Vec<SessionKey>) {
        self.is_reserving = false;
        if !is_kept {
            return (self.check(&Sense::INSUFFICIENT_REGISTRATION_RESOURCES), Vec::new());
        }
        let Changed { next, attentions, aborted, .. } = reserving.changed;
        self.reservations = next;
        for (nexus, sense) in attentions {
            self.attend_nexus(&nexus, sense);
        }
        let sessions = aborted.iter().flat_map(|nexus| self.sessions_of(nexus));
        (Outcome::good(), sessions.filter(|session| *session != reserving.session).collect())
    }
}

/// As the catalogue keeps them.
pub(crate) fn kept_of(kept: &Kept) -> KeptReservations {
    let registrations = kept.registrations.iter().map(|registration| KeptNexus {
        initiator: registration.initiator.clone(),
        isid: registration.isid.iter().map(|byte| format!("{byte:02x}")).collect(),
        port: registration.port,
        key: registration.key,
        is_holder: registration.is_holder,
    });
    KeptReservations { generation: kept.generation, kind: kept.kind, registrations: registrations.collect() }
}

/// As a unit has them. What is no registration is none.
pub(crate) fn reservations_of(kept: &KeptReservations) -> Reservations {
    let registrations = kept.registrations.iter().filter_map(|kept| {
        Some(KeptRegistration {
            initiator: kept.initiator.clone(),
            isid: isid_of(&kept.isid)?,
            port: kept.port,
            key: kept.key,
            is_holder: kept.is_holder,
        })
    });
    let registrations = registrations.collect();
    Reservations::restore(Kept { generation: kept.generation, kind: kept.kind, registrations })
}

fn isid_of(digits: &str) -> Option<[u8; 6]> {
    let mut isid = [0; 6];
    if digits.len() != 2 * isid.len() {
        return None;
    }
    for (byte, at) in isid.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(isid)
}
