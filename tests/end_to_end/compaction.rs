//! Small pools that fill with what is overwritten and trimmed: space comes back, and a kill in the midst loses nothing.

use crate::daemon::Daemon;
use crate::tool::{announce, are_here, python, succeed};

/// Rounds of writing, each ended by a kill.
const ROUNDS: u32 = 8;

/// The number before `words` in what `pool show` says.
fn shown(daemon: &Daemon, words: &str) -> u64 {
    let said = succeed(&mut daemon.aljibe(&["pool", "show"]));
    let before = said.split(words).next().and_then(|before| before.split_whitespace().next_back());
    before
        .and_then(|number| number.trim_start_matches('(').parse().ok())
        .unwrap_or_else(|| panic!("no {words} in {said}"))
}

/// P1, P2. Five eighths of a pool are live and overwritten all the time, so that compaction never rests. What was acknowledged is
/// there after each kill, with writes past the page cache too.
#[test]
fn a_kill_while_slots_are_compacted_loses_nothing() {
    if !are_here("a_kill_while_slots_are_compacted_loses_nothing", &["python3-libnbd"]) {
        return;
    }
    for more in [&[][..], &["--direct"]] {
        let arguments = [&["--pool-size", "96M", "--slot-size", "1M"], more].concat();
        let mut daemon = Daemon::start_with(&arguments);
        daemon.create_volume("tight", "60M");
        let state = daemon.folder().join("state");
        let mut packs = 0;
        for round in 0..ROUNDS {
            let mut writer = python("verifying_writer.py");
            writer.arg("write").arg(daemon.uri("tight")).arg(&state);
            // The first one goes over all of it; what follows is overwritten.
            let operations = if round == 0 { 40_000 } else { 9000 + 1700 * round };
            succeed(writer.args(["--operations", &operations.to_string()]));
            packs += shown(&daemon, " packs written");
            let mut writer = python("verifying_writer.py");
            writer.arg("write").arg(daemon.uri("tight")).arg(&state);
            let after = (2000 + 337 * round).to_string();
            succeed(writer.args(["--kill", &daemon.pid().to_string(), "--after", &after]));
            daemon.was_killed();
            daemon.restart();
            succeed(python("verifying_writer.py").arg("check").arg(daemon.uri("tight")).arg(&state));
        }
        assert!(packs > 0, "nothing was ever compacted");
        announce(&format!("compaction under kills {more:?}: {packs} packs written\n"));
        daemon.stop_without_complaint();
        daemon.check_pool();
    }
}

/// P5, P6. A full pool refuses writes and takes reads and trims; once half of it is trimmed, in pieces that leave something
/// alive in every slot, writing goes on by itself.
#[test]
fn a_full_pool_takes_writes_again_after_a_trim() {
    if !are_here("a_full_pool_takes_writes_again_after_a_trim", &["python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start_with(&["--pool-size", "128M", "--slot-size", "1M"]);
    daemon.create_volume("full", "1G");
    let said = succeed(python("full_pool.py").arg(daemon.uri("full")));
    assert_eq!(said, "as promised\n");
    assert!(shown(&daemon, " packs written") > 0);
    assert_eq!(shown(&daemon, " suspect"), 0);
    // In a full pool there is no room for the meter's readings either, should one be due.
    daemon.stop_complaining_of_nothing_but(&["readings are not taken now"]);
    daemon.check_pool();
}

/// P1, P6. More volumes than the pool has slots, with a block in each: those that rest give their slots up, a kill loses
/// nothing, and after it each goes on.
#[test]
fn a_small_pool_holds_more_volumes_than_it_has_slots() {
    if !are_here("a_small_pool_holds_more_volumes_than_it_has_slots", &["python3-libnbd"]) {
        return;
    }
    const COUNT: u32 = 100;
    let mut daemon = Daemon::start_with(&["--pool-size", "33M", "--slot-size", "1M"]);
    let little = |daemon: &Daemon, act: &str| {
        let mut script = python("little_volumes.py");
        succeed(script.arg(act).arg(daemon.socket()).arg(COUNT.to_string()));
    };
    (0..COUNT).for_each(|number| daemon.create_volume(&format!("little-{number}"), "1M"));
    little(&daemon, "write");
    daemon.kill9();
    daemon.restart();
    little(&daemon, "check");
    little(&daemon, "write");
    little(&daemon, "check");
    assert!(shown(&daemon, " packs written") > 0);
    daemon.stop_without_complaint();
    daemon.check_pool();
}
