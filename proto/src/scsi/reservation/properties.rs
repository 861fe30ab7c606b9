//! Random sequences of commands by a few nexuses with a few keys.

use super::tests::{list, move_list, nexus};
use super::*;
use proptest::prelude::*;

const NEXUSES: u8 = 4;

#[derive(Debug, Clone, Copy)]
struct Keys {
    /// `None` is the right one, without which sequences get nowhere.
    own: Option<u64>,
    action: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Out { sender: u8, command: OutCommand, keys: Keys, flags: u8, to: u8 },
    Noise { sender: u8, command: OutCommand, parameters: Vec<u8> },
    Reserve6(u8),
    Release6(u8),
    Lose(u8),
    Reset,
    PowerLoss,
}

fn out_command() -> impl Strategy<Value = OutCommand> {
    let scope = prop_oneof![9 => Just(0_u8), 1 => Just(1_u8)];
    (0..9_u8, scope, 0..9_u8).prop_map(|(action, scope, kind)| OutCommand { action, scope, kind })
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, so that they are often shared.
    let own = prop_oneof![4 => Just(None), 1 => (0..3_u64).prop_map(Some)];
    let keys = (own, 0..3_u64).prop_map(|(own, action)| Keys { own, action });
    let out = (0..NEXUSES, out_command(), keys, 0..4_u8, 0..NEXUSES)
        .prop_map(|(sender, command, keys, flags, to)| Step::Out { sender, command, keys, flags, to });
    let noise = (0..NEXUSES, out_command(), proptest::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(sender, command, parameters)| Step::Noise { sender, command, parameters });
    prop_oneof![
        40 => out,
        1 => noise,
        1 => (0..NEXUSES).prop_map(Step::Reserve6),
        3 => (0..NEXUSES).prop_map(Step::Release6),
        1 => (0..NEXUSES).prop_map(Step::Lose),
        1 => Just(Step::Reset),
        1 => Just(Step::PowerLoss),
    ]
}

fn check_invariants(state: &Reservations) {
    assert!(state.registrations.len() <= REGISTRATIONS_MAX);
    assert!(state.registrations.values().all(|key| *key != 0), "a key of 0");
    assert!(state.legacy.is_none() || state.registrations.is_empty(), "both ways of reserving at once");
    if let Some(held) = &state.held {
        assert!(!state.registrations.is_empty(), "a reservation that nobody can end");
        assert_eq!(held.holder.is_none(), held.kind.reach == Reach::AllRegistrants);
        assert!(held.holder.as_ref().is_none_or(|holder| state.registrations.contains_key(holder)));
        let holders = state.registrations.keys().filter(|nexus| state.is_holder(nexus)).count();
        assert_eq!(holders, if held.holder.is_none() { state.registrations.len() } else { 1 });
    }
    for action in 0..4 {
        assert!(state.read(action).is_ok());
    }
    for nexus in (0..NEXUSES).map(nexus) {
        // Whoever may write may read, and who is no nexus may do no more than a stranger.
        assert!(!state.check(Some(&nexus), Access::Write) || state.check(Some(&nexus), Access::Read));
        for access in [Access::Read, Access::Write] {
            assert!(!state.check(None, access) || state.check(Some(&nexus), access));
            assert!(!state.is_holder(&nexus) || state.check(Some(&nexus), access));
        }
    }
    if let Some(kept) = state.persisted() {
        let restored = Reservations::restore(kept.clone());
        assert_eq!(restored, Reservations { legacy: None, ..state.clone() });
        assert_eq!(restored.persisted(), Some(kept));
    }
}

fn check_change(before: &Reservations, sender: &Nexus, changed: &Changed) {
    let Changed { next, attentions, aborted, is_kept } = changed;
    assert!(next.generation == before.generation || next.generation == before.generation + 1);
    assert!(next.generation > before.generation || next.registrations == before.registrations);
    assert_eq!(*is_kept, before.persisted().is_some() || next.persisted().is_some());
    for (told, sense) in attentions {
        assert!(told != sender && before.registrations.contains_key(told));
        let is_gone = !next.registrations.contains_key(told);
        assert_eq!(is_gone, *sense != Sense::RESERVATIONS_RELEASED, "{sense:?}");
    }
    for lost in before.registrations.keys().filter(|nexus| *nexus != sender && !next.registrations.contains_key(nexus))
    {
        assert_eq!(attentions.iter().filter(|(told, _)| told == lost).count(), 1, "nobody loses a key untold");
    }
    assert!(aborted.iter().all(|nexus| nexus != sender && !next.registrations.contains_key(nexus)));
}

fn parameters(key: u64, action: u8, keys: Keys, flags: u8, to: u8) -> Vec<u8> {
    match action {
        7 => move_list(key, keys.action, flags, &nexus(to)),
        _ => list(key, keys.action, flags & 1),
    }
}

fn send(state: &Reservations, sender: u8, command: &OutCommand, parameters: &[u8]) -> Reservations {
    let Ok(changed) = state.change(&nexus(sender), command, parameters) else { return state.clone() };
    check_change(state, &nexus(sender), &changed);
    changed.next
}

fn apply(state: &Reservations, step: Step) -> Reservations {
    let mut next = state.clone();
    match step {
        Step::Out { sender, command, keys, flags, to } => {
            let right = state.registrations.get(&nexus(sender)).copied().unwrap_or(0);
            let parameters = parameters(keys.own.unwrap_or(right), command.action, keys, flags, to);
            next = send(state, sender, &command, &parameters);
        }
        Step::Noise { sender, command, parameters } => next = send(state, sender, &command, &parameters),
        Step::Reserve6(sender) => assert!(next.reserve6(&nexus(sender)) || next == *state),
        Step::Release6(sender) => assert!(next.release6(&nexus(sender)) || next == *state),
        Step::Lose(sender) => next.forget_legacy(&nexus(sender)),
        Step::Reset => next.reset(),
        Step::PowerLoss => next = state.persisted().map_or_else(Reservations::default, Reservations::restore),
    }
    next
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_sequence_of_commands_breaks_the_invariants(steps in proptest::collection::vec(step(), 1..80)) {
        let mut state = Reservations::default();
        for step in steps {
            state = apply(&state, step);
            check_invariants(&state);
        }
    }
}
