//! What PERSISTENT RESERVE OUT does: one state and a command in, the next state and whom to tell of it out.
//! Spec: SPC-4 6.16 (the parameter lists), 5.13.5 to 5.13.11 (what each service action does).
//!
//! Nothing changes in place, so a command that is refused or that cannot be made durable leaves no trace.

use super::super::sense::{FieldPointer, Sense};
use super::kind::{Kind, Reach};
use super::{Changed, Held, Nexus, OutCommand, REGISTRATIONS_MAX, Refused, Reservations, transport_id};
use crate::wire::{take, take_u16, take_u32, take_u64};

/// The service actions that have the basic parameter list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Register,
    Reserve,
    Release,
    Clear,
    Preempt,
    PreemptAndAbort,
    RegisterAndIgnore,
}

impl Action {
    const fn from_wire(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Register,
            1 => Self::Reserve,
            2 => Self::Release,
            3 => Self::Clear,
            4 => Self::Preempt,
            5 => Self::PreemptAndAbort,
            6 => Self::RegisterAndIgnore,
            _ => return None,
        })
    }
}

/// The one that has a list of its own.
const REGISTER_AND_MOVE: u8 = 7;

/// Length of the basic parameter list, and of what precedes the TransportID in that of REGISTER AND MOVE.
const LIST_BYTES: usize = 24;
const APTPL: u8 = 0x01;
/// In byte 17 of the list of REGISTER AND MOVE.
const UNREG: u8 = 0x02;

/// The basic parameter list. SPEC_I_PT and ALL_TG_PT are not supported and not in it.
struct List {
    key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    action_key: u64,
    is_kept: bool,
}

impl List {
    fn decode(mut bytes: &[u8], action: Action) -> Result<Self, Sense> {
        let len_bytes = bytes.len();
        let mut take_fields = || {
            let (key, action_key) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?);
            let [_, _, _, _, flags, _, _, _] = take::<8>(&mut bytes)?;
            Some((key, action_key, flags))
        };
        let (key, action_key, flags) = take_fields().ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        // SPEC_I_PT first: a list that has it is longer, and its length is not what is wrong with it.
        if flags & 0x08 != 0 {
            return Err(parameter(20, Some(3)));
        }
        // ALL_TG_PT is ignored where nothing is registered.
        if flags & 0x04 != 0 && matches!(action, Action::Register | Action::RegisterAndIgnore) {
            return Err(parameter(20, Some(2)));
        }
        if len_bytes != LIST_BYTES {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        Ok(Self { key, action_key, is_kept: flags & APTPL != 0 })
    }
}

/// The parameter list of REGISTER AND MOVE.
struct MoveList<'a> {
    key: u64,
    action_key: u64,
    is_kept: bool,
    /// Whether the sender is to be unregistered.
    unregisters: bool,
    port: u16,
    transport_id: &'a [u8],
}

impl<'a> MoveList<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, Sense> {
        Self::take(bytes).ok_or(Sense::PARAMETER_LIST_LENGTH)
    }

    fn take(mut bytes: &'a [u8]) -> Option<Self> {
        let (key, action_key) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?);
        let [_reserved, flags] = take(&mut bytes)?;
        let port = take_u16(&mut bytes)?;
        let transport_id_bytes = usize::try_from(take_u32(&mut bytes)?).ok()?;
        (bytes.len() == transport_id_bytes).then_some(Self {
            key,
            action_key,
            is_kept: flags & APTPL != 0,
            unregisters: flags & UNREG != 0,
            port,
            transport_id: bytes,
        })
    }

    /// The nexus that is to hold the reservation.
    fn destination(&self) -> Result<Nexus, Sense> {
        if self.port == 0 {
            return Err(parameter(18, None));
        }
        let (initiator, isid) = transport_id::decode(self.transport_id).ok_or(parameter(24, None))?;
        Ok(Nexus { initiator, isid, port: self.port })
    }
}

impl Reservations {
    /// Judges a PERSISTENT RESERVE OUT that `nexus` sent, and tells what it brings about.
    ///
    /// REGISTER AND MOVE may name any target port but 0: a registration at one that nobody can reach is preempted like
    /// any other.
    ///
    /// # Errors
    /// [`Refused`] is the status to answer with; the state stays.
    pub fn change(&self, nexus: &Nexus, out: &OutCommand, parameters: &[u8]) -> Result<Changed, Refused> {
        if self.legacy.is_some() {
            return Err(Refused::Conflict);
        }
        if out.action == REGISTER_AND_MOVE {
            return self.register_and_move(nexus, &MoveList::decode(parameters)?);
        }
        let action = Action::from_wire(out.action).ok_or(cdb(1, 4))?;
        let list = List::decode(parameters, action)?;
        self.check_key(nexus, action, list.key)?;
        match action {
            Action::Register | Action::RegisterAndIgnore => self.register(nexus, &list),
            Action::Reserve => self.reserve(nexus, out),
            Action::Release => self.release(nexus, out),
            Action::Clear => Ok(self.clear(nexus)),
            Action::Preempt => self.preempt(nexus, out, list.action_key),
            Action::PreemptAndAbort => self.preempt_and_abort(nexus, out, list.action_key),
        }
    }

    /// The RESERVATION KEY must be that of the sender's registration.
    fn check_key(&self, nexus: &Nexus, action: Action, key: u64) -> Result<(), Refused> {
        let is_right = match (self.registrations.get(nexus), action) {
            (_, Action::RegisterAndIgnore) => true,
            // Who is not registered yet shows the key that nobody has.
            (None, Action::Register) => key == 0,
            (registered, _) => registered == Some(&key),
        };
        if is_right { Ok(()) } else { Err(Refused::Conflict) }
    }

    /// Registers, changes the key, or with key 0 unregisters.
    fn register(&self, nexus: &Nexus, list: &List) -> Result<Changed, Refused> {
        if list.action_key == 0 && !self.registrations.contains_key(nexus) {
            return Ok(self.unchanged());
        }
        let mut next = self.next_generation();
        next.is_kept = list.is_kept;
        if list.action_key == 0 {
            let attentions = next.unregister(nexus);
            return Ok(self.changed(next, attentions));
        }
        next.registrations.insert(nexus.clone(), list.action_key);
        next.fits()?;
        Ok(self.changed(next, Vec::new()))
    }

    /// Removes a registration, with it the reservation that nobody else holds (SPC-4 5.13.11.1.3).
    fn unregister(&mut self, nexus: &Nexus) -> Vec<(Nexus, Sense)> {
        self.registrations.remove(nexus);
        let is_released = self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => holder == nexus,
            None => self.registrations.is_empty(),
        });
        if !is_released {
            return Vec::new();
        }
        self.end_reservation(nexus)
    }

    /// Ends the reservation. Others who had access by it are told; of one that let its holder alone in, nobody is.
    fn end_reservation(&mut self, by: &Nexus) -> Vec<(Nexus, Sense)> {
        let Some(held) = self.held.take() else { return Vec::new() };
        match held.kind.reach {
            Reach::Holder => Vec::new(),
            Reach::RegistrantsOnly | Reach::AllRegistrants => self.tell_others(by, Sense::RESERVATIONS_RELEASED),
        }
    }

    fn reserve(&self, nexus: &Nexus, out: &OutCommand) -> Result<Changed, Refused> {
        let kind = wanted_kind(out)?;
        match &self.held {
            None => {
                let next = Self { held: Some(Held::new(kind, nexus)), ..self.clone() };
                Ok(self.changed(next, Vec::new()))
            }
            Some(held) if held.kind == kind && self.is_holder(nexus) => Ok(self.unchanged()),
            Some(_) => Err(Refused::Conflict),
        }
    }

    fn release(&self, nexus: &Nexus, out: &OutCommand) -> Result<Changed, Refused> {
        let Some(held) = self.held.as_ref().filter(|_| self.is_holder(nexus)) else {
            return Ok(self.unchanged());
        };
        if out.scope != 0 || out.kind != held.kind.to_wire() {
            return Err(Sense::INVALID_RELEASE.into());
        }
        let mut next = self.clone();
        let attentions = next.end_reservation(nexus);
        Ok(self.changed(next, attentions))
    }

    fn clear(&self, nexus: &Nexus) -> Changed {
        let mut next = self.next_generation();
        next.registrations.clear();
        next.held = None;
        self.changed(next, self.tell_others(nexus, Sense::RESERVATIONS_PREEMPTED))
    }

    /// Takes over the reservation if `action_key` is its holder's (0: all registrants'), else removes registrations only.
    fn preempt(&self, nexus: &Nexus, out: &OutCommand, action_key: u64) -> Result<Changed, Refused> {
        let takes_over = self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => self.registrations.get(holder) == Some(&action_key),
            None => action_key == 0,
        });
        if takes_over {
            let kind = wanted_kind(out)?;
            return Ok(self.take_over(nexus, kind, action_key));
        }
        if action_key == 0 {
            return Err(parameter(8, None).into());
        }
        let mut next = self.next_generation();
        // The sender's own goes too if it has that key. SCOPE and TYPE are ignored.
        next.registrations.retain(|_, key| *key != action_key);
        if next.registrations.len() == self.registrations.len() {
            return Err(Refused::Conflict);
        }
        if next.registrations.is_empty() {
            next.held = None;
        }
        let attentions = self.tell_preempted(&next, nexus);
        Ok(self.changed(next, attentions))
    }

    fn preempt_and_abort(&self, nexus: &Nexus, out: &OutCommand, action_key: u64) -> Result<Changed, Refused> {
        let mut changed = self.preempt(nexus, out, action_key)?;
        let lost = changed.attentions.iter().filter(|(_, sense)| *sense == Sense::REGISTRATIONS_PREEMPTED);
        changed.aborted = lost.map(|(other, _)| other.clone()).collect();
        Ok(changed)
    }

    fn take_over(&self, nexus: &Nexus, kind: Kind, action_key: u64) -> Changed {
        let mut next = self.next_generation();
        next.registrations.retain(|other, key| other == nexus || (action_key != 0 && *key != action_key));
        next.held = Some(Held::new(kind, nexus));
        let mut attentions = self.tell_preempted(&next, nexus);
        if self.held.as_ref().is_some_and(|held| held.kind != kind) {
            attentions.extend(next.tell_others(nexus, Sense::RESERVATIONS_RELEASED));
        }
        self.changed(next, attentions)
    }

    /// Registers another nexus and has it hold the reservation (SPC-4 5.13.8).
    fn register_and_move(&self, nexus: &Nexus, list: &MoveList<'_>) -> Result<Changed, Refused> {
        let Some(held) = self.held.as_ref().filter(|held| held.holder.as_ref() == Some(nexus)) else {
            return Err(Refused::Conflict);
        };
        if self.registrations.get(nexus) != Some(&list.key) {
            return Err(Refused::Conflict);
        }
        if list.action_key == 0 {
            return Err(parameter(8, None).into());
        }
        let destination = list.destination()?;
        if destination == *nexus {
            return Err(parameter(24, None).into());
        }
        let mut next = self.next_generation();
        next.is_kept = list.is_kept;
        next.held = Some(Held::new(held.kind, &destination));
        next.registrations.insert(destination, list.action_key);
        if list.unregisters {
            next.registrations.remove(nexus);
        }
        next.fits()?;
        Ok(self.changed(next, Vec::new()))
    }

    fn fits(&self) -> Result<(), Sense> {
        if self.registrations.len() > REGISTRATIONS_MAX {
            return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES);
        }
        Ok(())
    }

    /// A copy one PRGENERATION on.
    fn next_generation(&self) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self.clone() }
    }

    fn tell_others(&self, sender: &Nexus, sense: Sense) -> Vec<(Nexus, Sense)> {
        self.registrations.keys().filter(|other| *other != sender).map(|other| (other.clone(), sense)).collect()
    }

    /// Tells whoever is registered but not so in `next`.
    fn tell_preempted(&self, next: &Self, sender: &Nexus) -> Vec<(Nexus, Sense)> {
        let mut attentions = self.tell_others(sender, Sense::REGISTRATIONS_PREEMPTED);
        attentions.retain(|(other, _)| !next.registrations.contains_key(other));
        attentions
    }

    fn unchanged(&self) -> Changed {
        self.changed(self.clone(), Vec::new())
    }

    const fn changed(&self, next: Self, attentions: Vec<(Nexus, Sense)>) -> Changed {
        let is_kept = self.is_kept || next.is_kept;
        Changed { next, attentions, aborted: Vec::new(), is_kept }
    }
}

/// The type to be reserved.
fn wanted_kind(out: &OutCommand) -> Result<Kind, Sense> {
    if out.scope != 0 {
        return Err(cdb(2, 7));
    }
    Kind::from_wire(out.kind).ok_or(cdb(2, 3))
}

const fn cdb(byte: u16, bit: u8) -> Sense {
    Sense::INVALID_FIELD_IN_CDB.with_field(FieldPointer { in_cdb: true, byte, bit: Some(bit) })
}

const fn parameter(byte: u16, bit: Option<u8>) -> Sense {
    Sense::INVALID_FIELD_IN_PARAMETERS.with_field(FieldPointer { in_cdb: false, byte, bit })
}
