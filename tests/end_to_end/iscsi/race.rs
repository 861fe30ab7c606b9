//! COMPARE AND WRITE is atomic: against itself, and against writes of NBD clients to the rest of the same block.

use super::session::{Session, can_run};
use super::{daemon_with, url};

const SESSIONS: usize = 8;
const TIMES: usize = 250;

/// The sectors of a block, the first of which is the counter.
const SECTOR: usize = 512;
const SECTORS: usize = 8;

/// P2, P3. Eight initiators count in the first sector of a block by COMPARE AND WRITE while NBD clients write its other
/// sectors: no step is lost, and each of the others holds its last write.
#[test]
fn a_counter_is_exact_beside_nbd_clients_of_the_same_block() {
    if !can_run("a_counter_is_exact_beside_nbd_clients_of_the_same_block") {
        return;
    }
    let mut daemon = daemon_with(&[("counter", "16M")]);
    let mut neighbours: Vec<Session> = (1..SECTORS).map(|_| Session::nbd(&daemon, "counter")).collect();
    for (sector, neighbour) in (1..).zip(&mut neighbours) {
        neighbour.tell(&format!("neighbour {}", sector * SECTOR));
    }
    let names = (0..SESSIONS).map(|session| format!("iqn.2004-10.com.example:counter-{session}"));
    let mut counters: Vec<Session> = names.map(|name| Session::iscsi(&name, &url(&daemon, 0))).collect();
    for counter in &mut counters {
        counter.tell(&format!("count 0 {TIMES}"));
    }
    let late: Vec<u64> = counters.iter_mut().map(|counter| number(&counter.hear())).collect();
    assert!(late.iter().sum::<u64>() > 0, "nobody was ever in another's way");
    let last: Vec<u64> = neighbours.iter_mut().map(|neighbour| number(&neighbour.ask("stop"))).collect();
    assert!(last.iter().all(|number| *number > 10), "{last:?}");
    let mut reader = Session::iscsi(super::FIRST, &url(&daemon, 0));
    reader.expect("number 0", &format!("good {}", SESSIONS * TIMES));
    for (sector, number) in (1..).zip(&last) {
        reader.expect(&format!("number {sector}"), &format!("good {number}"));
    }
    drop((neighbours, counters, reader));
    daemon.stop_without_complaint();
    daemon.check_pool();
}

fn number(answer: &str) -> u64 {
    let number = answer.strip_prefix("good ").unwrap_or_else(|| panic!("unexpected answer: {answer}"));
    number.parse().unwrap()
}
