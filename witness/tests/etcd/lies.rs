//! Answers that are none: what is there is no record, or the other side is no etcd, or a broken one.

use crate::answers::{GROUP, put, record, seen};
use crate::asking::{PATIENCE, listed, told};
use crate::cluster::{Cluster, are_here};
use crate::relay::Relay;
use replication::{ReadAnswer, RecordError, Revision, Seen, SwapAnswer};
use tokio::time::Instant;
use units::GroupId;
use witness::{Etcd, EtcdConfig};

/// `test/mirror/group/7/record`
const KEY: &str = "dGVzdC9taXJyb3IvZ3JvdXAvNy9yZWNvcmQ=";

/// P4. What is no record is not taken for "nothing there": no site may found a group over it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_is_not_read() {
    if !are_here("what_is_no_record_is_not_read", &["etcd"]) {
        return;
    }
    let cluster = Cluster::start(1);
    let etcd = cluster.client();
    let other = put(&etcd, GroupId(8), &record(1, 1)).await;
    // "garbage", and 100 KiB of it: more than an answer may have.
    for value in ["Z2FyYmFnZQ==".to_owned(), "Z2Fy".repeat(25 << 10)] {
        cluster.post(0, "/v3/kv/put", &format!(r#"{{"key":"{KEY}","value":"{value}"}}"#));
        assert_eq!(etcd.read(GROUP).await, ReadAnswer::Unreachable);
        assert_eq!(etcd.swap(GROUP, None, &record(1, 1)).await, SwapAnswer::Unknown);
        assert_eq!(seen(&etcd, GroupId(8)).await, Some(other), "another group is none the worse");
        if value.len() < 100 {
            let listed = listed(|| etcd.list()).await;
            assert_eq!(listed[0].seen, Err(RecordError::Missing { name: "aljibe-mirror" }));
            assert_eq!((listed[1].group, listed[1].seen.clone()), (GroupId(8), Ok(other)));
        } else {
            etcd.list().await.unwrap_err();
        }
    }
    cluster.post(0, "/v3/kv/deleterange", &format!(r#"{{"key":"{KEY}"}}"#));
    assert_eq!(seen(&etcd, GROUP).await, None);
    put(&etcd, GROUP, &record(1, 1)).await;
}

/// What a healthy member of cluster 9 answers to a read, and to a change that is won.
fn good(rest: &str) -> String {
    format!(r#"{{"header":{{"cluster_id":"9","member_id":"1","revision":"4"}}{rest}}}"#)
}

/// A client that knows nothing yet of which members are well.
fn client(relays: &[&Relay]) -> Etcd {
    let endpoints = relays.iter().map(|relay| relay.at.clone()).collect();
    Etcd::new(EtcdConfig { endpoints, prefix: "p".to_owned(), tls: None }, None).unwrap()
}

/// P4, F6. A change that was sent is unknown, whatever comes back that is not its outcome; and it is sent to nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_outcome_leaves_a_change_unknown() {
    let refusal = |code: u32, message: &str| format!(r#"{{"error":"{message}","message":"{message}","code":{code}}}"#);
    let lies = [
        ("503 Service Unavailable", refusal(14, "etcdserver: leader changed")),
        ("503 Service Unavailable", refusal(14, "etcdserver: request timed out")),
        ("504 Gateway Timeout", refusal(4, "context deadline exceeded")),
        ("500 Internal Server Error", refusal(2, "unknown")),
        ("502 Bad Gateway", "<html>".to_owned()),
        ("400 Bad Request", refusal(3, "etcdserver: duplicate key given in txn request")),
        ("429 Too Many Requests", refusal(8, "etcdserver: too many requests")),
        ("200 OK", String::new()),
        ("200 OK", "[]".to_owned()),
        ("200 OK", good("")),
        ("200 OK", good(r#","succeeded":false"#)),
        ("200 OK", good(r#","responses":[{"response_range":{"kvs":[{"key":"b3RoZXI=","mod_revision":"3"}]}}]"#)),
        // Another cluster than the one that the connection began with.
        ("200 OK", good(r#","succeeded":true"#).replace(r#""9""#, r#""8""#)),
        ("200 OK", good(&format!(r#","succeeded":true,"x":"{}""#, "x".repeat(65 << 10)))),
    ];
    for (status, body) in lies {
        let until = Instant::now() + PATIENCE;
        loop {
            let liar = Relay::answering(9, status, body.clone());
            let honest = Relay::answering(9, "200 OK", good(r#","succeeded":true"#));
            let answer = client(&[&liar, &honest]).swap(GROUP, Some(Revision(3)), &record(2, 1)).await;
            if liar.changes() == 0 {
                // A machine so busy that no connection was had in time: then it goes to the next member.
                assert!(Instant::now() < until, "{status}: it was never sent");
                continue;
            }
            assert_eq!(answer, SwapAnswer::Unknown, "{status} {}", &body[..body.len().min(200)]);
            assert_eq!(honest.changes(), 0, "{status}: it was sent twice");
            break;
        }
    }
    let honest = Relay::answering(9, "200 OK", good(r#","succeeded":true"#));
    let until = Instant::now() + PATIENCE;
    loop {
        match client(&[&honest]).swap(GROUP, Some(Revision(3)), &record(2, 1)).await {
            SwapAnswer::Won { revision } => break assert_eq!(revision, Revision(4)),
            SwapAnswer::Unknown => assert!(Instant::now() < until, "it is never won"),
            SwapAnswer::Lost { found } => panic!("lost to {found:?}"),
        }
    }
}

/// What a read of a client tells that is new each time.
async fn told_new(client: impl Fn() -> Etcd) -> Option<Seen> {
    told(|| async { client().read(GROUP).await }).await.0
}

/// P4. A read goes on to the next member when one tells nothing, is silent or is of another cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_asked_of_the_next_member() {
    let honest = || Relay::answering(9, "200 OK", good(""));
    let unavailable = r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#;
    for liar in [
        Relay::answering(9, "503 Service Unavailable", unavailable.to_owned()),
        Relay::answering(9, "200 OK", "{}".to_owned()),
        Relay::answering(9, "200 OK", "x".repeat(65 << 10)),
        Relay::silent(),
    ] {
        let honest = honest();
        assert_eq!(told_new(|| client(&[&liar, &honest])).await, None);
        assert_eq!(told_new(|| client(&[&honest, &liar])).await, None);
    }
    let (stranger, honest) = (Relay::answering(8, "200 OK", good("").replace(r#""9""#, r#""8""#)), honest());
    let endpoints = vec![stranger.at.clone(), honest.at.clone()];
    let config = EtcdConfig { endpoints, prefix: "p".to_owned(), tls: None };
    let expected = Some("9".parse().unwrap());
    assert_eq!(told_new(|| Etcd::new(config.clone(), expected).unwrap()).await, None);
}

/// P4, P8. A list in which keys do not ascend, or are others than those that were asked for, is none: it might never end.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_ascends() {
    // "p/group/1/record", "p/group/2/record", "foo"
    let keys = ["cC9ncm91cC8xL3JlY29yZA==", "cC9ncm91cC8yL3JlY29yZA==", "Zm9v"];
    for order in [&[0][..], &[1, 0], &[0, 0], &[2]] {
        let kvs: Vec<String> =
            order.iter().map(|key| format!(r#"{{"key":"{}","mod_revision":"1"}}"#, keys[*key])).collect();
        let liar = Relay::answering(9, "200 OK", good(&format!(r#","kvs":[{}],"more":true"#, kvs.join(","))));
        let until = Instant::now() + PATIENCE;
        loop {
            let told = client(&[&liar]).list().await.unwrap_err().to_string();
            if told.contains("order") {
                break;
            }
            assert!(told.contains("in time") && Instant::now() < until, "{told}");
        }
    }
}

/// P4. Nothing is sent on a connection that has told of another cluster since; and who knows no leader does not decide which cluster
/// is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_told_another_cluster_is_dropped() {
    let liar = Relay::answering(9, "200 OK", good("").replace(r#""9""#, r#""8""#));
    let etcd = client(&[&liar]);
    for _ in 0..3 {
        let before = liar.connections();
        let until = Instant::now() + PATIENCE;
        while liar.connections() == before {
            assert!(Instant::now() < until, "a connection is used again");
            assert_eq!(etcd.read(GROUP).await, ReadAnswer::Unreachable);
            assert_eq!(etcd.read(GROUP).await, ReadAnswer::Unreachable);
        }
    }
    let lost = Relay::answering_all("200 OK", &good("").replace(r#""9""#, r#""8""#));
    let etcd = client(&[&lost]);
    assert_eq!(etcd.read(GROUP).await, ReadAnswer::Unreachable);
    assert_eq!(etcd.cluster(), None);
}
