//! Trials over a real pool: checked as for real, answered as it would be, and nothing is changed.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a surprise is a failed test")]

use blockd::catalogue::{Catalogue, CatalogueError, History, NewToken, Quota, SnapshotName, trial};
use blockd::qos::{Ceiling, QosLimits};
use std::fmt::Debug;
use std::sync::Arc;

mod support;

const MIB: u64 = 1 << 20;

fn named(volume: &str, snapshot: &str) -> SnapshotName {
    SnapshotName { volume: volume.to_owned(), snapshot: snapshot.to_owned() }
}

fn token() -> NewToken {
    NewToken { name: "t".into(), role: "operator".into(), tenant: None, expires_ms: None, hash: [7; 32] }
}

fn limits() -> QosLimits {
    QosLimits { iops: Some(Ceiling::new(100, None)), bandwidth: None, operation_bytes: None }
}

fn state(catalogue: &Catalogue) -> String {
    let lists = (catalogue.list(), catalogue.list_images(), catalogue.list_snapshots(None).unwrap());
    format!("{lists:?} {:?} {:?}", catalogue.list_tenants(), catalogue.list_tokens())
}

/// Tries a change out, and sees to it that nothing is other than before.
async fn tried<T: Debug>(
    catalogue: &Catalogue,
    change: impl Future<Output = Result<T, CatalogueError>>,
) -> Result<T, CatalogueError> {
    let before = state(catalogue);
    let result = trial(change).await;
    assert!(!matches!(&result, Err(CatalogueError::Damaged(_))), "{result:?}");
    assert_eq!(state(catalogue), before, "{result:?}");
    result
}

async fn with_things(catalogue: &Catalogue) {
    catalogue.create_tenant("acme", Quota { volumes: Some(2), ..Quota::default() }).await.unwrap();
    catalogue.create_tenant("empty", Quota::default()).await.unwrap();
    catalogue.create("acme/vm", 4 * MIB).await.unwrap();
    catalogue.create_snapshots(&[named("acme/vm", "a")], None).await.unwrap();
    for image in ["os", "part"] {
        catalogue.import_image(image, MIB, ("source".to_owned(), "1".to_owned())).await.unwrap();
        catalogue.mark_image(image, None, MIB).await.unwrap();
    }
    catalogue.seal_image("os", None).await.unwrap();
    catalogue.create_token(token()).await.unwrap();
}

/// P8. What would be done is told as it would be, and is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_tells_what_would_be_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let serving = support::serve(folder.path()).await;
    let catalogue: Arc<Catalogue> = serving.catalogue();
    let c = catalogue.as_ref();
    with_things(c).await;
    let id = c.list_tokens().first().unwrap().id;
    let made = tried(c, c.create("acme/new", MIB)).await.unwrap();
    assert_eq!((made.volume.0, made.name.as_str(), made.size_bytes), (0, "acme/new", MIB));
    assert_eq!(tried(c, c.resize("acme/vm", 8 * MIB, false)).await.unwrap().size_bytes, 8 * MIB);
    assert_eq!(tried(c, c.resize("acme/vm", MIB, false)).await.unwrap().size_bytes, MIB);
    assert_eq!(
        tried(c, Box::pin(c.clone_image(&["os"], "new", Some(2 * MIB), None))).await.unwrap().size_bytes,
        2 * MIB
    );
    assert_eq!(tried(c, c.clone_snapshot(&named("acme/vm", "a"), "acme/new")).await.unwrap().size_bytes, 4 * MIB);
    let taken = tried(c, c.create_snapshots(&[named("acme/vm", "b")], Some("g"))).await.unwrap();
    assert_eq!(taken.first().unwrap().group.as_deref(), Some("g"));
    let history = Some(History { seconds: 60, limit_bytes: None });
    assert_eq!(tried(c, c.keep_history("acme/vm", history)).await.unwrap().history, history);
    assert_eq!(tried(c, c.set_qos("acme/vm", limits())).await.unwrap().qos, Some(limits()));
    let (_, undo) = tried(c, c.rollback(&named("acme/vm", "a"), "undo", true)).await.unwrap();
    assert_eq!(undo.name, named("acme/vm", "undo"));
    tried(c, Box::pin(c.delete("acme/vm", true))).await.unwrap();
    tried(c, c.delete_snapshot(&named("acme/vm", "a"))).await.unwrap();
    tried(c, Box::pin(c.delete_image("os", None, true))).await.unwrap();
    assert!(tried(c, c.seal_image("part", None)).await.unwrap().image.unwrap().is_ready);
    tried(c, c.import_image("part", MIB, ("source".to_owned(), "1".to_owned()))).await.unwrap();
    tried(c, c.import_image("other", MIB, ("source".to_owned(), "1".to_owned()))).await.unwrap();
    tried(c, c.share_image("os", None)).await.unwrap();
    tried(c, c.create_tenant("new", Quota::default())).await.unwrap();
    let quota = Quota { volumes: Some(9), ..Quota::default() };
    assert_eq!(tried(c, c.set_quota("acme", quota)).await.unwrap().quota, quota);
    assert!(tried(c, c.suspend_tenant("acme")).await.unwrap().is_suspended);
    assert!(!tried(c, c.resume_tenant("acme")).await.unwrap().is_suspended);
    tried(c, c.delete_tenant("empty")).await.unwrap();
    assert_eq!(tried(c, c.create_token(token())).await.unwrap().id, 0);
    tried(c, c.revoke_token(id)).await.unwrap();
    // And for real: no id was used up, and no client was kept out.
    c.create("acme/new", MIB).await.unwrap();
    c.rollback(&named("acme/vm", "a"), "undo", false).await.unwrap();
    serving.stop().await.unwrap();
}

/// P8. What would be refused is refused by the same words.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_refused_as_the_change_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let serving = support::serve(folder.path()).await;
    let catalogue: Arc<Catalogue> = serving.catalogue();
    let c = catalogue.as_ref();
    with_things(c).await;
    c.create("acme/second", MIB).await.unwrap();
    c.clone_snapshot(&named("acme/vm", "a"), "acme/late").await.unwrap_err();
    macro_rules! refused_alike {
        ($change:expr) => {{
            let tried = tried(c, $change).await.map(drop).unwrap_err();
            let real = $change.await.map(drop).unwrap_err();
            assert_eq!(tried.to_string(), real.to_string());
        }};
    }
    refused_alike!(c.create("acme/vm", MIB));
    refused_alike!(c.create("acme/third", MIB));
    refused_alike!(c.create("nobody/vm", MIB));
    refused_alike!(c.resize("acme/vm", 4097, false));
    refused_alike!(c.resize("none", MIB, false));
    refused_alike!(c.clone_image(&["os"], "new", Some(4096), None));
    refused_alike!(c.clone_image(&["os"], "new", Some(MIB + 512), None));
    refused_alike!(c.clone_image(&["part"], "new", None, None));
    refused_alike!(c.clone_snapshot(&named("acme/vm", "a"), "beta/new"));
    refused_alike!(c.create_snapshots(&[named("acme/vm", "a")], None));
    refused_alike!(c.clone_moment("acme/vm", 1000, "acme/new"));
    refused_alike!(c.rollback(&named("acme/vm", "none"), "undo", true));
    refused_alike!(c.delete("none", true));
    refused_alike!(c.delete_snapshot(&named("acme/vm", "none")));
    refused_alike!(c.create_tenant("acme", Quota::default()));
    refused_alike!(c.delete_tenant("acme"));
    refused_alike!(c.set_quota("default", Quota::default()));
    refused_alike!(c.revoke_token(9999));
    serving.stop().await.unwrap();
}
