use super::super::sense::FieldPointer;
use super::*;

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const REGISTER_AND_MOVE: u8 = 7;

const KINDS: [u8; 6] = [1, 3, 5, 6, 7, 8];
const ALL_REGISTRANTS: [u8; 2] = [7, 8];

/// The nexus `n`, which registers by key `n` unless a test says otherwise.
pub(super) fn nexus(n: u8) -> Nexus {
    Nexus { initiator: format!("iqn.2024-01.example:{n}"), isid: [0x80, 0, 0, 0, 0, n], port: 1 }
}

pub(super) fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    let mut bytes = [key.to_be_bytes(), action_key.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 0, flags, 0, 0, 0]);
    bytes
}

pub(super) fn move_list(key: u64, action_key: u64, flags: u8, to: &Nexus) -> Vec<u8> {
    let id = transport_id::encode(&to.initiator, to.isid);
    let mut bytes = [key.to_be_bytes(), action_key.to_be_bytes()].concat();
    bytes.extend([0, flags]);
    bytes.extend(to.port.to_be_bytes());
    bytes.extend(u32::try_from(id.len()).unwrap().to_be_bytes());
    bytes.extend(id);
    bytes
}

const fn out(action: u8, kind: u8) -> OutCommand {
    OutCommand { action, scope: 0, kind }
}

fn parameter(byte: u16, bit: Option<u8>) -> Refused {
    Sense::INVALID_FIELD_IN_PARAMETERS.with_field(FieldPointer { in_cdb: false, byte, bit }).into()
}

fn cdb(byte: u16, bit: u8) -> Refused {
    Sense::INVALID_FIELD_IN_CDB.with_field(FieldPointer { in_cdb: true, byte, bit: Some(bit) }).into()
}

impl Reservations {
    /// Sends a command with the basic list, by its sender's number.
    fn send(&self, sender: u8, command: OutCommand, key: u64, action_key: u64) -> Result<Changed, Refused> {
        self.change(&nexus(sender), &command, &list(key, action_key, 0))
    }

    fn sent(self, sender: u8, command: OutCommand, key: u64, action_key: u64) -> Self {
        self.send(sender, command, key, action_key).unwrap().next
    }

    fn keys_of(&self) -> Vec<(u8, u64)> {
        self.registrations.iter().map(|(nexus, key)| (nexus.isid[5], *key)).collect()
    }

    fn type_of(&self) -> Option<u8> {
        self.held.as_ref().map(|held| held.kind.to_wire())
    }
}

/// All of `registered` are, each by its own number as key, and the first of them has reserved as `kind`.
fn reserved(kind: u8, registered: &[u8]) -> Reservations {
    registered_only(registered).sent(registered[0], out(RESERVE, kind), u64::from(registered[0]), 0)
}

fn registered_only(registered: &[u8]) -> Reservations {
    registered.iter().fold(Reservations::default(), |state, n| state.sent(*n, out(REGISTER, 0), 0, u64::from(*n)))
}

fn told(changed: &Changed) -> Vec<(u8, Sense)> {
    changed.attentions.iter().map(|(nexus, sense)| (nexus.isid[5], *sense)).collect()
}

#[test]
fn each_type_lets_in_whom_spc_lets_in() {
    // (type, others read, registrants read, registrants write); holders read and write, others never write.
    let table = [
        (1, true, true, false),
        (3, false, false, false),
        (5, true, true, true),
        (6, false, true, true),
        (7, true, true, true),
        (8, false, true, true),
    ];
    for (kind, other_reads, registrant_reads, registrant_writes) in table {
        let state = reserved(kind, &[1, 2]);
        let (holder, registrant, other) = (nexus(1), nexus(2), nexus(3));
        let expected = [
            (Some(&holder), true, true),
            (Some(&registrant), registrant_reads, registrant_writes),
            (Some(&other), other_reads, false),
            (None, other_reads, false),
        ];
        for (who, reads, writes) in expected {
            assert_eq!(state.check(who, Access::Read), reads, "type {kind}, {who:?} reads");
            assert_eq!(state.check(who, Access::Write), writes, "type {kind}, {who:?} writes");
            assert!(state.check(who, Access::Always), "type {kind}, {who:?}");
            assert!(state.check(who, Access::Reservation), "type {kind}, {who:?}");
            assert!(!state.check(who, Access::Legacy), "type {kind}, {who:?}");
        }
    }
}

#[test]
fn without_a_reservation_everyone_has_access() {
    let state = registered_only(&[1]);
    for who in [Some(&nexus(1)), Some(&nexus(2)), None] {
        assert!(state.check(who, Access::Read) && state.check(who, Access::Write));
    }
}

#[test]
fn register_follows_its_table() {
    let state = Reservations::default();
    assert_eq!(state.send(1, out(REGISTER, 0), 9, 1), Err(Refused::Conflict));
    assert_eq!(state.send(1, out(REGISTER, 0), 0, 0).unwrap().next, state);
    let state = state.sent(1, out(REGISTER, 0), 0, 1);
    assert_eq!((state.keys_of(), state.generation), (vec![(1, 1)], 1));
    assert_eq!(state.send(1, out(REGISTER, 0), 0, 5), Err(Refused::Conflict));
    assert_eq!(state.send(1, out(REGISTER, 0), 2, 0), Err(Refused::Conflict));
    let state = state.sent(1, out(REGISTER, 0), 1, 5);
    assert_eq!((state.keys_of(), state.generation), (vec![(1, 5)], 2));
    let state = state.sent(1, out(REGISTER, 0), 5, 0);
    assert_eq!((state.keys_of(), state.generation), (vec![], 3));
}

#[test]
fn register_and_ignore_looks_at_no_key() {
    let state = Reservations::default();
    assert_eq!(state.send(1, out(REGISTER_AND_IGNORE, 0), 77, 0).unwrap().next, state);
    let state = state.sent(1, out(REGISTER_AND_IGNORE, 0), 77, 1).sent(1, out(REGISTER_AND_IGNORE, 0), 77, 2);
    assert_eq!((state.keys_of(), state.generation), (vec![(1, 2)], 2));
    let state = state.sent(1, out(REGISTER_AND_IGNORE, 0), 77, 0);
    assert_eq!((state.keys_of(), state.generation), (vec![], 3));
}

#[test]
fn a_holder_that_changes_its_key_keeps_the_reservation() {
    for kind in KINDS {
        let changed = reserved(kind, &[1, 2]).send(1, out(REGISTER, 0), 1, 9).unwrap();
        assert!(changed.next.is_holder(&nexus(1)) && changed.next.type_of() == Some(kind));
        assert_eq!(told(&changed), []);
    }
}

#[test]
fn a_holder_that_unregisters_ends_the_reservation_unless_others_hold_it() {
    for kind in KINDS {
        let changed = reserved(kind, &[1, 2, 3]).send(1, out(REGISTER, 0), 1, 0).unwrap();
        let released = Sense::RESERVATIONS_RELEASED;
        let (still, attentions) = match kind {
            5 | 6 => (None, vec![(2, released), (3, released)]),
            7 | 8 => (Some(kind), vec![]),
            _ => (None, vec![]),
        };
        assert_eq!((changed.next.type_of(), told(&changed)), (still, attentions), "type {kind}");
        assert_eq!(changed.next.keys_of(), [(2, 2), (3, 3)]);
    }
    for kind in ALL_REGISTRANTS {
        let last = reserved(kind, &[1]).sent(1, out(REGISTER, 0), 1, 0);
        assert_eq!(last.type_of(), None);
    }
}

#[test]
fn a_registrant_that_is_not_the_holder_leaves_without_a_trace() {
    for kind in KINDS {
        let changed = reserved(kind, &[1, 2]).send(2, out(REGISTER, 0), 2, 0).unwrap();
        assert_eq!((changed.next.type_of(), told(&changed)), (Some(kind), vec![]));
    }
}

#[test]
fn who_is_not_registered_or_shows_a_wrong_key_is_refused() {
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        let state = reserved(1, &[1, 2]);
        for (sender, key) in [(3, 0), (3, 1), (2, 1), (1, 0)] {
            assert_eq!(state.send(sender, out(action, 1), key, 1), Err(Refused::Conflict), "action {action}");
        }
    }
}

#[test]
fn only_the_holder_may_reserve_again_and_only_the_same() {
    for kind in KINDS {
        let state = reserved(kind, &[1, 2]);
        assert_eq!(state.send(1, out(RESERVE, kind), 1, 0).unwrap().next, state);
        assert_eq!(state.send(2, out(RESERVE, kind), 2, 0).is_ok(), ALL_REGISTRANTS.contains(&kind));
        for another in KINDS.into_iter().filter(|another| *another != kind) {
            assert_eq!(state.send(1, out(RESERVE, another), 1, 0), Err(Refused::Conflict));
            assert_eq!(state.send(2, out(RESERVE, another), 2, 0), Err(Refused::Conflict));
        }
        assert_eq!(state.generation, 2, "RESERVE does not count");
    }
}

#[test]
fn a_release_tells_those_who_had_access_by_it() {
    for kind in KINDS {
        let state = reserved(kind, &[1, 2]);
        let changed = state.send(1, out(RELEASE, kind), 1, 0).unwrap();
        let attentions = if kind < 5 { vec![] } else { vec![(2, Sense::RESERVATIONS_RELEASED)] };
        assert_eq!((changed.next.type_of(), told(&changed)), (None, attentions), "type {kind}");
        assert_eq!((changed.next.keys_of(), changed.next.generation), (state.keys_of(), state.generation));
    }
}

#[test]
fn a_release_must_name_what_is_held() {
    for kind in KINDS {
        let state = reserved(kind, &[1, 2]);
        let invalid = Err(Sense::INVALID_RELEASE.into());
        for another in (0..16).filter(|another| *another != kind) {
            assert_eq!(state.send(1, out(RELEASE, another), 1, 0), invalid);
        }
        assert_eq!(state.send(1, OutCommand { scope: 1, ..out(RELEASE, kind) }, 1, 0), invalid);
        // Who does not hold it releases nothing, and that is no error.
        if !ALL_REGISTRANTS.contains(&kind) {
            assert_eq!(state.send(2, out(RELEASE, 1), 2, 0).unwrap().next, state);
        }
    }
    let state = registered_only(&[1]);
    assert_eq!(state.send(1, out(RELEASE, 1), 1, 0).unwrap().next, state);
}

#[test]
fn clear_ends_everything_and_tells_all_others() {
    for state in [reserved(1, &[1, 2, 3]), reserved(8, &[1, 2, 3]), registered_only(&[1, 2, 3])] {
        let changed = state.send(2, out(CLEAR, 0), 2, 0).unwrap();
        let preempted = Sense::RESERVATIONS_PREEMPTED;
        assert_eq!(told(&changed), [(1, preempted), (3, preempted)]);
        assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![], None));
        assert_eq!(changed.next.generation, state.generation + 1);
    }
}

#[test]
fn preempting_the_holder_takes_the_reservation_over() {
    for (kind, wanted) in KINDS.into_iter().flat_map(|kind| KINDS.map(|wanted| (kind, wanted))) {
        if ALL_REGISTRANTS.contains(&kind) {
            continue;
        }
        let state = reserved(kind, &[1, 2, 3]);
        let changed = state.send(2, out(PREEMPT, wanted), 2, 1).unwrap();
        assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![(2, 2), (3, 3)], Some(wanted)));
        assert!(changed.next.is_holder(&nexus(2)));
        assert_eq!(changed.next.is_holder(&nexus(3)), ALL_REGISTRANTS.contains(&wanted));
        assert_eq!(changed.next.generation, state.generation + 1);
        let mut attentions = vec![(1, Sense::REGISTRATIONS_PREEMPTED)];
        if wanted != kind {
            attentions.push((3, Sense::RESERVATIONS_RELEASED));
        }
        assert_eq!((told(&changed), changed.aborted.len()), (attentions, 0), "type {kind} by {wanted}");
    }
}

#[test]
fn a_holder_may_preempt_itself_to_change_the_type() {
    let changed = reserved(1, &[1, 2]).send(1, out(PREEMPT_AND_ABORT, 6), 1, 1).unwrap();
    assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![(1, 1), (2, 2)], Some(6)));
    assert_eq!(told(&changed), [(2, Sense::RESERVATIONS_RELEASED)]);
    assert_eq!(changed.aborted, []);
}

#[test]
fn preempting_a_shared_key_spares_the_sender() {
    let state = reserved(5, &[1, 2]).sent(2, out(REGISTER, 0), 2, 1).sent(3, out(REGISTER, 0), 0, 1);
    let changed = state.send(2, out(PREEMPT, 5), 1, 1).unwrap();
    assert_eq!((changed.next.keys_of(), changed.next.is_holder(&nexus(2))), (vec![(2, 1)], true));
    let preempted = Sense::REGISTRATIONS_PREEMPTED;
    assert_eq!(told(&changed), [(1, preempted), (3, preempted)]);
}

#[test]
fn preempting_whoever_holds_nothing_removes_registrations_only() {
    for state in [reserved(1, &[1, 2, 3]), reserved(7, &[1, 2, 3]), registered_only(&[1, 2, 3])] {
        // SCOPE and TYPE are not looked at.
        let changed = state.send(2, OutCommand { scope: 3, ..out(PREEMPT, 15) }, 2, 3).unwrap();
        assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![(1, 1), (2, 2)], state.type_of()));
        assert_eq!(told(&changed), [(3, Sense::REGISTRATIONS_PREEMPTED)]);
        assert_eq!(changed.next.generation, state.generation + 1);
        assert_eq!(state.send(2, out(PREEMPT, 1), 2, 99), Err(Refused::Conflict));
        // Its own too, of which it needs no telling.
        let changed = state.send(2, out(PREEMPT, 1), 2, 2).unwrap();
        assert_eq!((changed.next.keys_of(), told(&changed)), (vec![(1, 1), (3, 3)], vec![]));
    }
}

#[test]
fn key_zero_preempts_all_registrants_and_nobody_else() {
    for state in [reserved(1, &[1, 2]), reserved(6, &[1, 2]), registered_only(&[1, 2])] {
        assert_eq!(state.send(2, out(PREEMPT, 1), 2, 0), Err(parameter(8, None)));
    }
    for kind in ALL_REGISTRANTS {
        let changed = reserved(kind, &[1, 2, 3]).send(2, out(PREEMPT_AND_ABORT, 3), 2, 0).unwrap();
        assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![(2, 2)], Some(3)));
        let preempted = Sense::REGISTRATIONS_PREEMPTED;
        assert_eq!(told(&changed), [(1, preempted), (3, preempted)]);
        assert_eq!(changed.aborted, [nexus(1), nexus(3)]);
    }
}

#[test]
fn all_registrants_preempted_by_their_shared_key_leave_no_reservation() {
    for kind in ALL_REGISTRANTS {
        let state = reserved(kind, &[1]).sent(2, out(REGISTER, 0), 0, 1);
        let changed = state.send(1, out(PREEMPT, kind), 1, 1).unwrap();
        assert_eq!((changed.next.keys_of(), changed.next.type_of()), (vec![], None));
        assert_eq!(told(&changed), [(2, Sense::REGISTRATIONS_PREEMPTED)]);
    }
}

#[test]
fn preempt_and_abort_aborts_those_who_lost_their_registration() {
    let changed = reserved(1, &[1, 2, 3]).send(2, out(PREEMPT_AND_ABORT, 5), 2, 1).unwrap();
    assert_eq!(changed.aborted, [nexus(1)]);
    let changed = reserved(1, &[1, 2, 3]).send(2, out(PREEMPT_AND_ABORT, 1), 2, 3).unwrap();
    assert_eq!(changed.aborted, [nexus(3)]);
}

#[test]
fn types_and_scopes_that_do_not_exist_are_refused() {
    let state = registered_only(&[1, 2]);
    for kind in (0..16).filter(|kind| !KINDS.contains(kind)) {
        assert_eq!(state.send(1, out(RESERVE, kind), 1, 0), Err(cdb(2, 3)));
        assert_eq!(reserved(1, &[1, 2]).send(2, out(PREEMPT, kind), 2, 1), Err(cdb(2, 3)));
    }
    assert_eq!(state.send(1, OutCommand { scope: 1, ..out(RESERVE, 1) }, 1, 0), Err(cdb(2, 7)));
    for action in 8..32 {
        assert_eq!(state.send(1, out(action, 1), 1, 0), Err(cdb(1, 4)));
        assert!(state.read(action).is_err());
    }
}

#[test]
fn lists_of_a_wrong_length_or_with_what_is_not_supported_are_refused() {
    let state = registered_only(&[1]);
    let length = Err(Sense::PARAMETER_LIST_LENGTH.into());
    for action in 0..=7 {
        for len in (0..24).chain(25..28) {
            assert_eq!(state.change(&nexus(1), &out(action, 1), &vec![0; len]), length, "action {action}, {len} bytes");
        }
    }
    let with_ports = [list(1, 2, 0x08), vec![0; 28]].concat();
    assert_eq!(state.change(&nexus(1), &out(REGISTER, 0), &with_ports), Err(parameter(20, Some(3))));
    for action in [REGISTER, REGISTER_AND_IGNORE] {
        assert_eq!(state.change(&nexus(1), &out(action, 0), &list(1, 2, 0x04)), Err(parameter(20, Some(2))));
    }
    assert!(state.change(&nexus(1), &out(RESERVE, 1), &list(1, 0, 0x05)).is_ok());
}

#[test]
fn a_reservation_moves_to_another_nexus() {
    for kind in [1, 3, 5, 6] {
        let state = reserved(kind, &[1, 2]);
        let elsewhere = Nexus { port: 2, ..nexus(3) };
        for (to, unregisters) in [(nexus(2), false), (elsewhere, true)] {
            let flags = if unregisters { 0x03 } else { 0x01 };
            let bytes = move_list(1, 9, flags, &to);
            let changed = state.change(&nexus(1), &out(REGISTER_AND_MOVE, 0), &bytes).unwrap();
            let Changed { next, attentions, aborted, is_kept } = changed;
            assert_eq!((next.type_of(), next.is_holder(&to)), (Some(kind), true));
            assert_eq!(next.registrations.get(&to), Some(&9));
            assert_eq!(next.registrations.contains_key(&nexus(1)), !unregisters);
            assert_eq!((next.generation, next.is_kept, is_kept), (state.generation + 1, true, true));
            assert!(attentions.is_empty() && aborted.is_empty());
        }
    }
}

#[test]
fn a_move_is_refused_to_whoever_does_not_hold_or_names_no_other_port() {
    let bytes = move_list(1, 9, 0, &nexus(2));
    let moved = |state: &Reservations, sender: u8, bytes: &[u8]| {
        state.change(&nexus(sender), &out(REGISTER_AND_MOVE, 0), bytes).unwrap_err()
    };
    for state in [registered_only(&[1, 2]), reserved(7, &[1, 2]), reserved(8, &[1, 2]), reserved(1, &[2, 1])] {
        assert_eq!(moved(&state, 1, &bytes), Refused::Conflict);
    }
    let state = reserved(1, &[1, 2]);
    assert_eq!(moved(&state, 3, &bytes), Refused::Conflict);
    assert_eq!(moved(&state, 1, &move_list(2, 9, 0, &nexus(2))), Refused::Conflict);
    assert_eq!(moved(&state, 1, &move_list(1, 0, 0, &nexus(2))), parameter(8, None));
    assert_eq!(moved(&state, 1, &move_list(1, 9, 0, &nexus(1))), parameter(24, None));
    assert_eq!(moved(&state, 1, &move_list(1, 9, 0, &Nexus { port: 0, ..nexus(2) })), parameter(18, None));
    let mut device = bytes.clone();
    device[24] = 0x05;
    assert_eq!(moved(&state, 1, &device), parameter(24, None));
    assert_eq!(moved(&state, 1, &bytes[..bytes.len() - 1]), Sense::PARAMETER_LIST_LENGTH.into());
}

#[test]
fn registrations_are_bounded() {
    let ports = u16::try_from(REGISTRATIONS_MAX).unwrap();
    let mut state = reserved(1, &[1]);
    for port in 2..=ports {
        let other = Nexus { port, ..nexus(1) };
        state = state.change(&other, &out(REGISTER, 0), &list(0, 7, 0)).unwrap().next;
    }
    let full: Result<Changed, Refused> = Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
    for action in [REGISTER, REGISTER_AND_IGNORE] {
        assert_eq!(state.send(2, out(action, 0), 0, 7), full);
    }
    assert_eq!(state.change(&nexus(1), &out(REGISTER_AND_MOVE, 0), &move_list(1, 7, 0, &nexus(2))), full);
    // Those who are registered change their keys, and a move that leaves its sender unregistered needs no more room.
    assert!(state.send(1, out(REGISTER, 0), 1, 7).is_ok());
    assert!(state.change(&nexus(1), &out(REGISTER_AND_MOVE, 0), &move_list(1, 7, 2, &nexus(2))).is_ok());
    assert_eq!(state.read(0).unwrap().len(), 8 + 8 * REGISTRATIONS_MAX);
}

#[test]
fn keys_and_reservation_are_told() {
    let state = reserved(5, &[1, 2]);
    let keys = [&[0, 0, 0, 2, 0, 0, 0, 16][..], &1_u64.to_be_bytes(), &2_u64.to_be_bytes()].concat();
    assert_eq!(state.read(0).unwrap(), keys);
    let reservation = [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0];
    assert_eq!(state.read(1).unwrap(), reservation);
    assert_eq!(registered_only(&[1]).read(1).unwrap(), [0, 0, 0, 1, 0, 0, 0, 0]);
    let all = [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    assert_eq!(reserved(8, &[1, 2]).read(1).unwrap(), all);
}

#[test]
fn capabilities_tell_whether_state_survives_power_loss() {
    let state = registered_only(&[1]);
    assert_eq!(state.read(2).unwrap(), [0, 8, 0x01, 0x90, 0xea, 0x01, 0, 0]);
    let state = state.change(&nexus(1), &out(REGISTER, 0), &list(1, 1, 1)).unwrap().next;
    assert_eq!(state.read(2).unwrap(), [0, 8, 0x01, 0x91, 0xea, 0x01, 0, 0]);
}

#[test]
fn full_status_tells_each_registration_with_its_port() {
    let state = reserved(6, &[1, 2]);
    let data = state.read(3).unwrap();
    let id = |n: u8| transport_id::encode(&nexus(n).initiator, nexus(n).isid);
    assert_eq!(id(1).len(), 44);
    let mut expected = vec![0, 0, 0, 2, 0, 0, 0, 136];
    for (n, holder, kind) in [(1, 1, 6), (2, 0, 0)] {
        expected.extend([0, 0, 0, 0, 0, 0, 0, n, 0, 0, 0, 0, holder, kind, 0, 0, 0, 0, 0, 1, 0, 0, 0, 44]);
        expected.extend(id(n));
    }
    assert_eq!(data, expected);
    let all = reserved(7, &[1, 2]).read(3).unwrap();
    assert_eq!((&all[20..22], &all[88..90]), (&[1, 7][..], &[1, 7][..]));
}

#[test]
fn only_what_is_to_survive_power_loss_is_persisted() {
    let state = reserved(3, &[1, 2]);
    assert_eq!(state.persisted(), None);
    let changed = state.change(&nexus(2), &out(REGISTER, 0), &list(2, 2, 1)).unwrap();
    assert!(changed.is_kept);
    let kept = changed.next.persisted().unwrap();
    assert_eq!((kept.generation, kept.kind, kept.registrations.len()), (3, Some(3), 2));
    assert_eq!(Reservations::restore(kept), changed.next);
    // Turning it off must reach the disk too, and then nothing needs to.
    let off = changed.next.change(&nexus(2), &out(REGISTER, 0), &list(2, 2, 0)).unwrap();
    assert_eq!((off.is_kept, off.next.persisted()), (true, None));
    assert!(!off.next.send(1, out(CLEAR, 0), 1, 0).unwrap().is_kept);
}

#[test]
fn restoring_leaves_out_what_nobody_could_end() {
    let kept = |kind, key, is_holder| {
        let Nexus { initiator, isid, port } = nexus(1);
        let registrations = vec![KeptRegistration { initiator, isid, port, key, is_holder }];
        Reservations::restore(Kept { generation: 4, kind, registrations })
    };
    assert_eq!(kept(Some(1), 1, true).type_of(), Some(1));
    assert_eq!(kept(Some(1), 1, false).type_of(), None);
    assert_eq!(kept(Some(2), 1, true).type_of(), None);
    let keyless = kept(Some(1), 0, true);
    assert_eq!((keyless.type_of(), keyless.keys_of(), keyless.generation), (None, vec![], 4));
}

#[test]
fn a_reserve6_keeps_all_others_out_until_it_ends() {
    let mut state = Reservations::default();
    assert!(state.reserve6(&nexus(1)) && state.reserve6(&nexus(1)));
    assert!(!state.reserve6(&nexus(2)));
    assert!(state.release6(&nexus(2)), "who holds nothing releases nothing");
    for access in [Access::Read, Access::Write] {
        assert!(state.check(Some(&nexus(1)), access));
        assert!(!state.check(Some(&nexus(2)), access) && !state.check(None, access));
    }
    assert!(state.check(Some(&nexus(2)), Access::Always) && state.check(Some(&nexus(2)), Access::Legacy));
    let ends: [fn(&mut Reservations); 3] =
        [|state| assert!(state.release6(&nexus(1))), Reservations::reset, |state| state.forget_legacy(&nexus(1))];
    for end in ends {
        let mut ended = state.clone();
        ended.forget_legacy(&nexus(2));
        assert!(!ended.check(None, Access::Read));
        end(&mut ended);
        assert_eq!(ended, Reservations::default());
    }
}

#[test]
fn the_two_ways_of_reserving_exclude_each_other() {
    let mut state = Reservations::default();
    assert!(state.reserve6(&nexus(1)));
    for sender in [1, 2] {
        assert!(!state.check(Some(&nexus(sender)), Access::Reservation));
        for action in [REGISTER, REGISTER_AND_IGNORE, REGISTER_AND_MOVE] {
            assert_eq!(state.send(sender, out(action, 0), 0, 1), Err(Refused::Conflict));
        }
    }
    let mut state = registered_only(&[1]);
    for sender in [1, 2] {
        assert!(!state.reserve6(&nexus(sender)) && !state.release6(&nexus(sender)));
    }
    state.reset();
    state.forget_legacy(&nexus(1));
    assert_eq!(state.keys_of(), [(1, 1)], "neither a reset nor the loss of a nexus unregisters");
}

#[test]
fn the_generation_wraps() {
    let state = Reservations { generation: u32::MAX, ..Reservations::default() };
    assert_eq!(state.sent(1, out(REGISTER, 0), 0, 1).generation, 0);
}
