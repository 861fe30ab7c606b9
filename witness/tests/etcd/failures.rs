//! Members that are killed or stopped, answers that are lost, clusters that are made anew.

use crate::answers::{GROUP, put, record, seen, wait_for_frailty};
use crate::asking::PATIENCE;
use crate::cluster::{Cluster, are_here, free_addresses, host_port};
use crate::relay::Relay;
use replication::{ReadAnswer, Seen, SwapAnswer};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, timeout};
use units::Epoch;
use witness::{Etcd, EtcdConfig};

/// P4, F7, F8. Without one of three members everything goes on, and the witness is frail; without two nothing is known; when they
/// are back, what was decided is there.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_killed() {
    if !are_here("members_that_are_killed", &["etcd"]) {
        return;
    }
    let mut cluster = Cluster::start(3);
    let etcd = cluster.client();
    put(&etcd, GROUP, &record(1, 1)).await;
    wait_for_frailty(&etcd, false).await;
    // The one that is asked first.
    cluster.kill(0);
    let second = put(&etcd, GROUP, &record(2, 2)).await;
    assert_eq!(seen(&etcd, GROUP).await, Some(second));
    wait_for_frailty(&etcd, true).await;
    cluster.restart(0);
    wait_for_frailty(&etcd, false).await;
    cluster.kill(0);
    cluster.kill(1);
    let asked = async {
        // A leader that has lost its members goes on to say so for a while; a read that was under way may still be answered.
        while etcd.read(GROUP).await != ReadAnswer::Unreachable {}
        (etcd.read(GROUP).await, etcd.swap(GROUP, Some(second.revision), &record(3, 1)).await)
    };
    let answers = timeout(PATIENCE, asked).await.expect("an answer comes whether or not the witness does");
    assert_eq!(answers, (ReadAnswer::Unreachable, SwapAnswer::Unknown));
    cluster.restart(0);
    cluster.restart(1);
    // The last change was asked for, and may have come into force or not.
    let there = seen(&etcd, GROUP).await.unwrap();
    assert!(there == second || there.record == record(3, 1), "{there:?}");
    wait_for_frailty(&etcd, false).await;
}

/// P4, F6, F9. A leader that stalls: changes are won, lost or unknown, and never wrongly so. What was won, and what was unknown
/// and was found in force, is all that ever changed. A change that it had taken goes on when it does, and lands late or never.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stalls() {
    if !are_here("a_leader_that_stalls", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(3);
    let mut judge = Judge::default();
    for stall in 0..6 {
        let leader = cluster.leader();
        // The leader is asked itself, or a member that asks it.
        let mut endpoints = cluster.endpoints();
        endpoints.rotate_left((leader + stall / 2) % 3);
        let etcd = cluster.client_by(endpoints, None);
        judge.change_until_won(&etcd, 5).await;
        cluster.signal(leader, Signal::STOP);
        judge.change(&etcd).await;
        if stall % 2 == 0 {
            // Answers come again: the others elect another leader.
            judge.change_until_won(&etcd, 5).await;
        }
        cluster.signal(leader, Signal::CONT);
        judge.change_until_won(&etcd, 5).await;
    }
    assert!(judge.unknown > 0, "no change was under way when a leader stalled");
    let etcd = cluster.client();
    let last = judge.look(&etcd).await;
    let range = cluster.post(cluster.leader(), "/v3/kv/range", r#"{"key":"dGVzdC9taXJyb3IvZ3JvdXAvNy9yZWNvcmQ="}"#);
    assert_eq!(range["kvs"][0]["version"], judge.in_force.len().to_string(), "each change was seen, and seen once");
    assert_eq!(range["kvs"][0]["mod_revision"], last.to_string());
}

/// Keeps what answers tell, and holds each against all before.
#[derive(Debug, Default)]
struct Judge {
    epoch: u64,
    won: usize,
    unknown: usize,
    /// What became of the last change is not known.
    is_unsure: bool,
    known: Option<Seen>,
    /// The epoch of each record that was in force, with its revision.
    in_force: BTreeMap<u64, u64>,
}

impl Judge {
    /// Asks for changes until so many more have been won.
    async fn change_until_won(&mut self, etcd: &Etcd, count: usize) {
        let until = Instant::now() + PATIENCE;
        let wanted = self.won + count;
        while self.won < wanted {
            assert!(Instant::now() < until, "{} of {wanted} changes were won", self.won);
            self.change(etcd).await;
        }
    }

    /// Asks for a change to a record of its own, as a role machine does: after one of which nobody knows, a read tells first.
    async fn change(&mut self, etcd: &Etcd) {
        if std::mem::take(&mut self.is_unsure) {
            self.look(etcd).await;
        }
        let known = self.known;
        self.epoch += 1;
        let change = record(self.epoch, 1);
        match etcd.swap(GROUP, known.map(|seen| seen.revision), &change).await {
            SwapAnswer::Won { revision } => {
                self.won += 1;
                self.note(Some(Seen { revision, record: change }));
            }
            SwapAnswer::Lost { found } => {
                // Nobody else changes anything: it lost to a change of which nobody knew, and to no earlier one.
                assert!(self.unknown > 0 && found != known, "{change:?} lost to {found:?}");
                self.note(found);
            }
            SwapAnswer::Unknown => {
                self.unknown += 1;
                self.is_unsure = true;
            }
        }
    }

    /// What is in force; its revision.
    async fn look(&mut self, etcd: &Etcd) -> u64 {
        let found = seen(etcd, GROUP).await;
        self.note(found);
        found.map_or(0, |seen| seen.revision.0)
    }

    fn note(&mut self, found: Option<Seen>) {
        self.known = found;
        let Some(Seen { revision, record }) = found else {
            assert_eq!(self.in_force, BTreeMap::new(), "what was in force is gone");
            return;
        };
        let newest = self.in_force.values().max().copied().unwrap_or(0);
        assert!(revision.0 >= newest, "{found:?} is older than revision {newest}");
        let before = self.in_force.insert(record.epoch.0, revision.0);
        assert!(before.is_none_or(|before| before == revision.0), "{found:?} was in force at revision {before:?}");
    }
}

/// P4, F6. The answer to a change is lost on the way: it is unknown, it is sent nowhere else, and a read tells.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost() {
    if !are_here("an_answer_that_is_lost", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(3);
    let relays: Vec<Relay> = (0..2).map(|index| Relay::to(cluster.client_address(index))).collect();
    let etcd = cluster.client_by(relays.iter().map(|relay| relay.at.clone()).collect(), None);
    let first = put(&etcd, GROUP, &record(1, 1)).await;
    relays.iter().for_each(|relay| relay.orders.cuts.store(true, Ordering::SeqCst));
    let until = Instant::now() + PATIENCE;
    let (mut epoch, mut sent) = (1, 0);
    while sent < 9 {
        assert!(Instant::now() < until, "only {sent} changes were sent");
        epoch += 1;
        let before = seen(&etcd, GROUP).await.unwrap();
        let changes = relays.iter().map(Relay::changes).sum::<usize>();
        let answer = etcd.swap(GROUP, Some(before.revision), &record(epoch, 2)).await;
        assert_eq!(answer, SwapAnswer::Unknown);
        // It is sent to nobody where the machine is so busy that no connection is had in time.
        let more = relays.iter().map(Relay::changes).sum::<usize>() - changes;
        assert!(more <= 1, "a change is sent once");
        sent += more;
        // The member took it, or was without a leader; a read tells which.
        let there = seen(&etcd, GROUP).await.unwrap();
        assert!(there == before || there.record == record(epoch, 2), "{there:?}");
    }
    let there = seen(&etcd, GROUP).await.unwrap();
    assert!(there.revision > first.revision, "no change has come into force of which the answer was lost");
    relays.iter().for_each(|relay| relay.orders.cuts.store(false, Ordering::SeqCst));
    put(&etcd, GROUP, &record(epoch + 1, 1)).await;
}

/// P4. A member that cannot be connected to, or that says nothing on a new connection, has got nothing of a change: that goes to
/// the next one, and is won there.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_on_to_the_next_member_while_nothing_was_sent() {
    if !are_here("a_change_goes_on_to_the_next_member_while_nothing_was_sent", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(1);
    let silent = Relay::silent();
    let relay = Relay::to(cluster.client_address(0));
    let endpoints = vec![host_port(free_addresses(1)[0]), silent.at.clone(), relay.at.clone()];
    let until = Instant::now() + PATIENCE;
    loop {
        // A client that knows nothing yet of which members are well.
        let etcd = cluster.client_by(endpoints.clone(), None);
        let expected = seen(&cluster.client(), GROUP).await.map(|seen| seen.revision);
        match etcd.swap(GROUP, expected, &record(1, 1)).await {
            SwapAnswer::Won { .. } => break,
            // A machine so busy that the last member did not answer in time either.
            SwapAnswer::Unknown => assert!(Instant::now() < until),
            SwapAnswer::Lost { found } => assert_eq!(found.map(|seen| seen.record), Some(record(1, 1))),
        }
    }
    assert_eq!(silent.changes(), 0);
    assert!(relay.changes() > 0);
}

/// P4. Another cluster at the same addresses is not believed, whatever it says, and gets no change; once it is confirmed it is.
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_not_believed() {
    if !are_here("another_cluster_is_not_believed", &["etcd"]) {
        return;
    }
    let mut cluster = Cluster::start(3);
    let etcd = cluster.client();
    let there = put(&etcd, GROUP, &record(5, 1)).await;
    let known = etcd.cluster().unwrap();
    cluster.make_anew();
    let config = EtcdConfig { endpoints: cluster.endpoints(), prefix: crate::cluster::PREFIX.to_owned(), tls: None };
    let restarted = Etcd::new(config.clone(), Some(known)).unwrap();
    for etcd in [&etcd, &restarted] {
        for _ in 0..3 {
            assert_eq!(etcd.read(GROUP).await, ReadAnswer::Unreachable);
            assert_eq!(etcd.swap(GROUP, None, &record(6, 2)).await, SwapAnswer::Unknown);
            assert_eq!(etcd.swap(GROUP, Some(there.revision), &record(6, 2)).await, SwapAnswer::Unknown);
        }
        etcd.list().await.unwrap_err();
        assert_eq!(etcd.cluster(), Some(known));
    }
    let range = cluster.post(0, "/v3/kv/range", r#"{"key":"AA==","range_end":"AA=="}"#);
    assert_eq!(range["kvs"], serde_json::Value::Null, "a change was put into a cluster that is not believed");
    let confirmed = Etcd::new(config, None).unwrap();
    assert_eq!(seen(&confirmed, GROUP).await, None);
    assert_ne!(confirmed.cluster().unwrap(), known);
    assert_eq!(put(&confirmed, GROUP, &record(6, 2)).await.record.epoch, Epoch(6));
}

/// P4. A client whose cluster is nowhere says so and ends; it does not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_is_unreachable() {
    let endpoints: Vec<_> = free_addresses(3).into_iter().map(host_port).collect();
    let silent = [Relay::silent(), Relay::silent()];
    let silent: Vec<_> = silent.iter().map(|relay| relay.at.clone()).collect();
    for endpoints in [endpoints, silent] {
        let etcd = Etcd::new(EtcdConfig { endpoints, prefix: "p".to_owned(), tls: None }, None).unwrap();
        let asked = async { (etcd.read(GROUP).await, etcd.swap(GROUP, None, &record(1, 1)).await, etcd.list().await) };
        let (read, swapped, listed) = timeout(PATIENCE, asked).await.unwrap();
        assert_eq!((read, swapped), (ReadAnswer::Unreachable, SwapAnswer::Unknown));
        listed.unwrap_err();
        assert_eq!(etcd.cluster(), None);
    }
}
