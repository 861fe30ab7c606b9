//! What is answered is so: reads, changes, races, lists. And what the other tests ask by.

use crate::asking::{self, PATIENCE, listed, lost};
use crate::cluster::{Cluster, are_here};
use replication::{Record, Revision, Seen, SwapAnswer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use units::{Epoch, GroupId, SiteId};
use witness::{Etcd, Witness};

pub(crate) const GROUP: GroupId = GroupId(7);

pub(crate) fn record(epoch: u64, primary: u8) -> Record {
    Record {
        epoch: Epoch(epoch),
        primary: SiteId(primary),
        partner: Some(SiteId(primary + 1)),
        is_sole: false,
        lineage: 1,
        fork: None,
    }
}

async fn told(etcd: &Etcd, group: GroupId) -> (Option<Seen>, bool) {
    asking::told(|| etcd.read(group)).await
}

pub(crate) async fn seen(etcd: &Etcd, group: GroupId) -> Option<Seen> {
    told(etcd, group).await.0
}

/// Waits until reads tell that the witness is frail, or is not.
pub(crate) async fn wait_for_frailty(etcd: &Etcd, is_frail: bool) {
    let until = Instant::now() + PATIENCE;
    while told(etcd, GROUP).await.1 != is_frail {
        assert!(Instant::now() < until, "never frail={is_frail}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Puts a record as a role machine does that tries until it is there.
pub(crate) async fn put(etcd: &Etcd, group: GroupId, record: &Record) -> Seen {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = seen(etcd, group).await;
        if let Some(found) = found.filter(|found| found.record == *record) {
            return found;
        }
        if let SwapAnswer::Won { revision } = etcd.swap(group, found.map(|seen| seen.revision), record).await {
            return Seen { revision, record: *record };
        }
        assert!(Instant::now() < until, "the record is never put");
    }
}

/// P4. A change names what it replaces. Who loses is told what is there, also when that is the very record that it wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_names_what_it_replaces() {
    if !are_here("a_change_names_what_it_replaces", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(3);
    let etcd = cluster.client();
    assert_eq!(seen(&etcd, GROUP).await, None);
    let wanted = record(1, 1);
    assert_eq!(lost(|| etcd.swap(GROUP, Some(Revision(5)), &wanted)).await, None);
    let first = put(&etcd, GROUP, &wanted).await;
    assert_eq!(seen(&etcd, GROUP).await, Some(first));
    for wanted in [record(1, 1), record(2, 2)] {
        assert_eq!(lost(|| etcd.swap(GROUP, None, &wanted)).await, Some(first));
    }
    let second = put(&etcd, GROUP, &record(2, 2)).await;
    assert!(second.revision > first.revision);
    let late = record(3, 1);
    assert_eq!(lost(|| etcd.swap(GROUP, Some(first.revision), &late)).await, Some(second));
    assert_eq!(seen(&etcd, GroupId(8)).await, None);
    // What is there is what another client sees, and the text that docs/mirror.md shows.
    let range = cluster.post(0, "/v3/kv/range", r#"{"key":"dGVzdC9taXJyb3IvZ3JvdXAvNy9yZWNvcmQ="}"#);
    assert_eq!(range["kvs"][0]["mod_revision"], second.revision.0.to_string());
    assert_eq!(range["kvs"][0]["version"], "2");
    wait_for_frailty(&etcd, false).await;
    // One that knows a single member finds the others at the addresses that they tell.
    let by_one = cluster.client_by(vec![cluster.endpoints()[2].clone()], None);
    wait_for_frailty(&by_one, false).await;
    // A member without a vote that is down does not count: of four voters three would be no more than a quorum.
    cluster.add_learner();
    wait_for_frailty(&cluster.client(), false).await;
}

/// P4. Of two sites that change one revision at once exactly one wins, and the other one is told who.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_race_one_wins() {
    if !are_here("of_two_that_race_one_wins", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(3);
    let mut endpoints = cluster.endpoints();
    let one = cluster.client();
    endpoints.rotate_left(1);
    let other = cluster.client_by(endpoints, None);
    let (mut expected, mut known, mut round) = (None, 0, 0);
    let until = Instant::now() + PATIENCE;
    // A test in which nothing is known shows nothing.
    while known < 150 {
        assert!(Instant::now() < until, "only {known} outcomes of {round} rounds were known");
        round += 1;
        let records = [record(round, 1), record(round, 2)];
        let (a, b) = tokio::join!(one.swap(GROUP, expected, &records[0]), other.swap(GROUP, expected, &records[1]));
        let there = match seen(&one, GROUP).await {
            Some(seen) if Some(seen.revision) != expected => seen,
            // Both are unknown, and neither has come into force: then one is put as a site would.
            _ => put(&one, GROUP, &records[0]).await,
        };
        let mut wins = 0;
        for (answer, record) in [(a, records[0]), (b, records[1])] {
            match answer {
                SwapAnswer::Won { revision } => {
                    wins += 1;
                    assert_eq!(Seen { revision, record }, there, "round {round}");
                }
                SwapAnswer::Lost { found } => {
                    assert_eq!(found, Some(there), "round {round}");
                    assert_ne!(there.record, record, "round {round}");
                }
                SwapAnswer::Unknown => continue,
            }
            known += 1;
        }
        assert!(wins <= 1, "round {round}: {a:?} {b:?}");
        let are_known = a != SwapAnswer::Unknown && b != SwapAnswer::Unknown;
        assert!(wins == 1 || !are_known, "round {round}: {a:?} {b:?}");
        expected = Some(there.revision);
    }
}

/// P4. All groups are listed, page by page, and no other key.
#[tokio::test(flavor = "multi_thread")]
async fn all_groups_are_listed() {
    if !are_here("all_groups_are_listed", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(1);
    let witness = Witness::Etcd(cluster.client());
    assert_eq!(listed(|| witness.list()).await, []);
    let Witness::Etcd(etcd) = &witness else { unreachable!() };
    // More than two pages of 64.
    for group in 1..=150 {
        put(etcd, GroupId(group), &record(group, 1)).await;
    }
    // "test/mirror/group/7/other", and a neighbour of all groups.
    for key in ["dGVzdC9taXJyb3IvZ3JvdXAvNy9vdGhlcg==", "dGVzdC9taXJyb3IvZ3JvdXBz"] {
        cluster.post(0, "/v3/kv/put", &format!(r#"{{"key":"{key}","value":"eA=="}}"#));
    }
    let listed = listed(|| witness.list()).await;
    let found: Vec<_> = listed.iter().map(|listed| (listed.group, listed.seen.as_ref().unwrap().record)).collect();
    let wanted: Vec<_> = (1..=150).map(|group| (GroupId(group), record(group, 1))).collect();
    assert_eq!(found, wanted);
}

/// P4. Many questions at once are all answered: those beyond the bound wait for their turn.
#[tokio::test(flavor = "multi_thread")]
async fn many_questions_at_once_are_answered() {
    if !are_here("many_questions_at_once_are_answered", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(1);
    let etcd = Arc::new(cluster.client());
    let there = put(&etcd, GROUP, &record(1, 1)).await;
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let etcd = Arc::clone(&etcd);
        asks.spawn(async move { seen(&etcd, GROUP).await });
    }
    assert!(asks.join_all().await.into_iter().all(|seen| seen == Some(there)));
}
