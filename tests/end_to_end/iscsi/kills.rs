//! The daemon is killed under iSCSI initiators, which connect again by themselves and go on.

use super::session::{Session, can_run};
use super::{FIRST, SECOND, THIRD, daemon_with, url};
use crate::daemon::Daemon;

const ROUNDS: u64 = 8;
const RECORDS: u64 = 2000;

/// P1, P3. A writer by FUA and by SYNCHRONIZE CACHE in turn whose server is killed and comes back goes on by itself to
/// its end; each record is there, whole, after each kill, by either protocol.
#[test]
fn an_initiator_goes_on_after_kills_and_nothing_is_lost() {
    if !can_run("an_initiator_goes_on_after_kills_and_nothing_is_lost") {
        return;
    }
    let mut daemon = daemon_with(&[("killed", "64M")]);
    let mut writer = Session::steady(FIRST, &url(&daemon, 0));
    let mut interrupted = 0;
    for (round, until) in (0..ROUNDS).zip([3, 377, 1, 640].into_iter().cycle()) {
        let end = (round + 1) * RECORDS;
        writer.tell(&format!("records {} {RECORDS}", round * RECORDS));
        let mut acknowledged = 0;
        while acknowledged < round * RECORDS + until {
            acknowledged = number(&writer.hear());
        }
        daemon.kill9();
        let late = writer.heard();
        acknowledged =
            late.iter().filter(|answer| *answer != "good").map(|answer| number(answer)).fold(acknowledged, u64::max);
        interrupted += u32::from(acknowledged + 1 < end);
        daemon.restart();
        // What it had an answer for is there before it goes on.
        verify(&daemon, acknowledged + 1);
        if !late.iter().any(|answer| answer == "good") {
            while number_or_end(&writer.hear()).is_some() {}
        }
        verify(&daemon, end);
    }
    assert!(interrupted > 4, "the writer was done before all but {interrupted} kills");
    drop(writer);
    daemon.kill9();
    daemon.restart();
    verify(&daemon, ROUNDS * RECORDS);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

fn number(answer: &str) -> u64 {
    number_or_end(answer).expect("it is not at its end")
}

/// Which record is acknowledged; none at the end of all.
fn number_or_end(answer: &str) -> Option<u64> {
    let number = answer.strip_prefix("acked ");
    assert!(number.is_some() || answer == "good", "a record was refused: {answer}");
    Some(number?.parse().unwrap())
}

fn verify(daemon: &Daemon, count: u64) {
    let order = format!("verify 0 {count}");
    Session::iscsi(SECOND, &url(daemon, 0)).expect(&order, "good");
    Session::nbd(daemon, "killed").expect(&order, "good");
}

/// P1. Registrations and the reservation that are to outlive a loss of power do, and still keep NBD out; others do not.
#[test]
fn reservations_outlive_a_kill_when_they_are_to() {
    if !can_run("reservations_outlive_a_kill_when_they_are_to") {
        return;
    }
    let mut daemon = daemon_with(&[("kept", "16M"), ("lost", "16M")]);
    // Of two names: sessions of one name and ISID would be one nexus, and the later one end the other.
    let again = |daemon: &Daemon| {
        let enter = |name, lun| Session::of_one_port(name, &url(daemon, lun));
        (enter(FIRST, 0), enter(THIRD, 1))
    };
    let (mut keeper, mut loser) = again(&daemon);
    for (session, aptpl) in [(&mut keeper, 1), (&mut loser, 0)] {
        session.expect(&format!("register 0 a1 {aptpl}"), "good");
        session.expect("reserve a1 3", "good");
        session.expect("write 0 8 11 fua", "good");
    }
    for round in 0..3 {
        daemon.kill9();
        daemon.restart();
        let mut second = Session::iscsi(SECOND, &url(&daemon, 0));
        second.expect("keys", "good a1");
        second.expect("holder", "good a1 3");
        second.expect("read 0 8", "conflict");
        Session::nbd(&daemon, "kept").expect("read 0 4096", "error EPERM");
        // Who comes back by the same port is the nexus that has it.
        (keeper, loser) = again(&daemon);
        keeper.expect("read 0 8", "good 11");
        keeper.expect("write 0 8 11", "good");
        let mut second = Session::iscsi(SECOND, &url(&daemon, 1));
        second.expect("keys", "good");
        second.expect("holder", "good none");
        second.expect(&format!("write 0 8 2{round} fua"), "good");
        loser.expect("read 0 8", &format!("good 2{round}"));
    }
    // Said last without it, nothing of it is kept, the reservation neither.
    keeper.expect("register a1 a2 0", "good");
    daemon.kill9();
    daemon.restart();
    let mut second = Session::iscsi(SECOND, &url(&daemon, 0));
    second.expect("keys", "good");
    second.expect("write 0 8 33", "good");
    drop((keeper, loser, second));
    daemon.stop_without_complaint();
}
