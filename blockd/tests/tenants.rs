//! Tenants over a real pool: what is whose, what each may have, and what becomes of one that is suspended.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a surprise is a failed test")]

use blockd::catalogue::{
    ACCESS_RULES_MAX, Access, Catalogue, CatalogueError, Fingerprint, NewToken, Quota, SnapshotName, SocketAccess,
    Usage,
};
use blockd::listener::{Client, Entrance, Exports};
use proto::nbd::Refusal;
use running::Running;

mod running;
mod support;

const MIB: u64 = 1 << 20;

async fn with_tenants(quota: Quota) -> Running {
    let running = Running::start().await;
    for name in ["acme", "beta"] {
        running.catalogue().create_tenant(name, quota).await.unwrap();
    }
    running
}

/// Makes an image that is whole.
async fn make_image(catalogue: &Catalogue, name: &str) {
    catalogue.import_image(name, MIB, ("source".to_owned(), "1".to_owned())).await.unwrap();
    catalogue.mark_image(name, None, MIB).await.unwrap();
    catalogue.seal_image(name, None).await.unwrap();
}

fn client() -> Client {
    Client {
        peer: "test".to_owned(),
        entrance: Entrance::Socket { is_own_user: true },
        is_tls: false,
        certificate: None,
    }
}

fn named(volume: &str, snapshot: &str) -> SnapshotName {
    SnapshotName { volume: volume.to_owned(), snapshot: snapshot.to_owned() }
}

fn exceeded(error: &CatalogueError) -> Option<(&str, u64, u64, u64)> {
    let CatalogueError::QuotaExceeded { what, used, asked, limit, .. } = error else { return None };
    Some((what, *used, *asked, *limit))
}

/// P8. Two tenants have volumes of one name, each its own, and a restart forgets none of it; a tenant goes when it has nothing.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_per_tenant_and_survive_a_restart() {
    let running = with_tenants(Quota::default()).await;
    let catalogue = running.catalogue();
    for name in ["vm", "acme/vm", "beta/vm"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    assert!(matches!(catalogue.create("acme/vm", MIB).await, Err(CatalogueError::Exists { .. })));
    assert!(matches!(catalogue.create("none/vm", MIB).await, Err(CatalogueError::NoTenant { .. })));
    let again = catalogue.create_tenant("acme", Quota::default()).await;
    assert!(matches!(again, Err(CatalogueError::TenantExists { .. })));
    catalogue.create_snapshots(&[named("acme/vm", "a")], None).await.unwrap();
    assert!(catalogue.show_snapshot(&named("beta/vm", "a")).is_err());
    drop(catalogue);

    let running = running.restart().await;
    let catalogue = running.catalogue();
    let ids: Vec<u64> = ["vm", "acme/vm", "beta/vm"].map(|name| catalogue.show(name).unwrap().volume.0).to_vec();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let names: Vec<String> = catalogue.list_tenants().into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names, ["acme", "beta", "default"]);
    let acme = catalogue.show_tenant("acme").unwrap();
    assert_eq!(acme.usage, Usage { bytes: MIB, volumes: 1, snapshots: 1 });
    assert_eq!(catalogue.show("acme/vm").unwrap().tenant, acme.id);
    assert!(matches!(catalogue.delete_tenant("acme").await, Err(CatalogueError::TenantInUse { volumes: 1, .. })));
    catalogue.delete("acme/vm", false).await.unwrap();
    catalogue.delete_tenant("acme").await.unwrap();
    assert!(matches!(catalogue.delete_tenant("default").await, Err(CatalogueError::Request(_))));
    drop(catalogue);
    let running = running.restart().await;
    assert!(matches!(running.catalogue().show_tenant("acme"), Err(CatalogueError::NoTenant { .. })));
    assert!(running.catalogue().show("beta/vm").is_ok());
    running.serving.stop().await.unwrap();
}

/// P8. Nothing of one tenant becomes another's by a clone or a group.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_nothing_by_snapshots() {
    let running = with_tenants(Quota::default()).await;
    let catalogue = running.catalogue();
    for name in ["vm", "acme/vm"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    catalogue.create_snapshots(&[named("acme/vm", "a")], None).await.unwrap();
    for name in ["beta/stolen", "stolen"] {
        let cloned = catalogue.clone_snapshot(&named("acme/vm", "a"), name).await;
        assert!(matches!(cloned, Err(CatalogueError::Request(_))), "{name}");
        let cloned = catalogue.clone_moment("acme/vm", 1, name).await;
        assert!(matches!(cloned, Err(CatalogueError::Request(_))), "{name}");
    }
    let both = [named("vm", "b"), named("acme/vm", "b")];
    assert!(matches!(catalogue.create_snapshots(&both, None).await, Err(CatalogueError::Request(_))));
    catalogue.clone_snapshot(&named("acme/vm", "a"), "acme/own").await.unwrap();
    running.serving.stop().await.unwrap();
}

/// P8. A tenant gets no more than it may have, on whatever way, and what is given back counts no more.
#[tokio::test(flavor = "multi_thread")]
async fn quotas_bound_what_a_tenant_has() {
    let quota = Quota { bytes: Some(4 * MIB), volumes: Some(3), snapshots: Some(2) };
    let running = with_tenants(quota).await;
    let catalogue = running.catalogue();
    catalogue.create("acme/a", 2 * MIB).await.unwrap();
    let error = catalogue.create("acme/b", 3 * MIB).await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("bytes", 2 * MIB, 3 * MIB, 4 * MIB)), "{error}");
    let error = catalogue.resize("acme/a", 5 * MIB, false).await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("bytes", 2 * MIB, 3 * MIB, 4 * MIB)), "{error}");
    let error = catalogue.import_image("acme/i", 3 * MIB, ("s".to_owned(), String::new())).await.unwrap_err();
    assert_eq!(exceeded(&error).map(|(what, ..)| what), Some("bytes"), "{error}");
    catalogue.create("beta/b", 4 * MIB).await.unwrap();
    catalogue.create("b", 1 << 40).await.unwrap();

    catalogue.create_snapshots(&[named("acme/a", "1")], None).await.unwrap();
    catalogue.clone_snapshot(&named("acme/a", "1"), "acme/clone").await.unwrap();
    let error = catalogue.clone_snapshot(&named("acme/a", "1"), "acme/more").await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("bytes", 4 * MIB, 2 * MIB, 4 * MIB)), "{error}");
    catalogue.delete("acme/clone", false).await.unwrap();
    catalogue.rollback(&named("acme/a", "1"), "undo", false).await.unwrap();
    let error = catalogue.rollback(&named("acme/a", "1"), "again", false).await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("snapshots", 2, 1, 2)), "{error}");
    let error = catalogue.create_snapshots(&[named("acme/a", "2")], None).await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("snapshots", 2, 1, 2)), "{error}");
    catalogue.delete_snapshot(&named("acme/a", "undo")).await.unwrap();
    catalogue.create_snapshots(&[named("acme/a", "2")], None).await.unwrap();
    for name in ["acme/c", "acme/d"] {
        catalogue.create(name, 4096).await.unwrap();
    }
    let error = catalogue.create("acme/e", 4096).await.unwrap_err();
    assert_eq!(exceeded(&error), Some(("volumes", 3, 1, 3)), "{error}");
    // One that is lower takes nothing away, and what makes less is no question.
    let low = Quota { bytes: Some(4096), ..quota };
    assert_eq!(catalogue.set_quota("acme", low).await.unwrap().usage.volumes, 3);
    catalogue.resize("acme/a", MIB, false).await.unwrap();
    assert!(catalogue.resize("acme/a", 2 * MIB, false).await.is_err());
    running.serving.stop().await.unwrap();
}

/// P8. However many ask at once, the quota is never exceeded.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_against_all_at_once() {
    let running = with_tenants(Quota { volumes: Some(5), ..Quota::default() }).await;
    let creating = (0..20).map(|number| {
        let catalogue = running.catalogue();
        tokio::spawn(async move { catalogue.create(&format!("acme/vm-{number}"), 4096).await.is_ok() })
    });
    let mut made = 0;
    for creating in creating.collect::<Vec<_>>() {
        made += u64::from(creating.await.unwrap());
    }
    assert_eq!((made, running.catalogue().show_tenant("acme").unwrap().usage.volumes), (5, 5));
    running.serving.stop().await.unwrap();
}

/// P8. A suspended tenant's volumes let nobody in and take no changes, also after a restart; nothing is lost, the provider may
/// delete, and it goes on as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_loses_nothing_and_serves_nobody() {
    let running = with_tenants(Quota::default()).await;
    let catalogue = running.catalogue();
    for name in ["acme/vm", "acme/old", "beta/vm"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    catalogue.create_snapshots(&[named("acme/vm", "a")], None).await.unwrap();
    let snapshot = catalogue.find("acme/vm@a", &client()).unwrap();
    let found = catalogue.find("acme/vm", &client()).unwrap();
    assert!(catalogue.suspend_tenant("acme").await.unwrap().is_suspended);
    // Who had found it before, and comes to it only now, is let in no more.
    assert_eq!(catalogue.open(snapshot).await.map(drop), Err(Refusal::Unknown));
    drop(found);
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    for export in ["acme/vm", "acme/vm@a"] {
        assert_eq!(catalogue.find(export, &client()).map(drop), Err(Refusal::Policy), "{export}");
    }
    assert!(catalogue.find("beta/vm", &client()).is_ok());
    let refused = [
        catalogue.create("acme/new", MIB).await.map(drop),
        catalogue.resize("acme/vm", 2 * MIB, false).await.map(drop),
        catalogue.create_snapshots(&[named("acme/vm", "b")], None).await.map(drop),
        catalogue.clone_snapshot(&named("acme/vm", "a"), "acme/new").await.map(drop),
        catalogue.rollback(&named("acme/vm", "a"), "undo", true).await.map(drop),
        catalogue.keep_history("acme/vm", None).await.map(drop),
        catalogue.import_image("acme/i", MIB, ("s".to_owned(), String::new())).await.map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(CatalogueError::Suspended { .. })), "{result:?}");
    }
    catalogue.delete("acme/old", false).await.unwrap();
    assert!(!catalogue.resume_tenant("acme").await.unwrap().is_suspended);
    let found = catalogue.find("acme/vm@a", &client()).unwrap();
    assert!(catalogue.open(found).await.is_ok());
    assert!(catalogue.find("acme/vm", &client()).is_ok());
    running.serving.stop().await.unwrap();
}

/// P8. An image is used by those whom it is shared with; for others it is as if it were not there, and a tenant's own comes first.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_used_by_whom_it_is_shared_with() {
    let running = with_tenants(Quota { bytes: Some(4 * MIB), ..Quota::default() }).await;
    make_image(&running.catalogue(), "os").await;
    let catalogue = running.catalogue();
    let none = |result: Result<_, CatalogueError>| assert!(matches!(result, Err(CatalogueError::NoImage { .. })));
    none(catalogue.clone_image(&["os"], "acme/vm", None, None).await);
    none(catalogue.clone_image(&["none"], "acme/vm", None, None).await);
    catalogue.share_image("os", Some(&["acme".to_owned()])).await.unwrap();
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    let made = catalogue.clone_image(&["acme/os", "os"], "acme/vm", None, None).await.unwrap();
    assert_eq!(catalogue.parent_of(made.volume), Some(named("os", "image")));
    none(catalogue.clone_image(&["os"], "beta/vm", None, None).await);
    let error = catalogue.clone_image(&["os"], "acme/large", Some(8 * MIB), None).await.unwrap_err();
    assert!(exceeded(&error).is_some(), "{error}");
    catalogue.share_image("os", None).await.unwrap();
    catalogue.clone_image(&["os"], "beta/vm", None, None).await.unwrap();
    make_image(&running.catalogue(), "acme/os").await;
    let own = catalogue.clone_image(&["acme/os", "os"], "acme/own", None, None).await.unwrap();
    assert_eq!(catalogue.parent_of(own.volume), Some(named("acme/os", "image")));
    none(catalogue.clone_image(&["acme/os"], "beta/stolen", None, None).await);
    assert!(matches!(catalogue.share_image("acme/os", None).await, Err(CatalogueError::Request(_))));
    catalogue.share_image("os", Some(&[])).await.unwrap();
    none(catalogue.clone_image(&["os"], "beta/more", None, None).await);
    assert_eq!(catalogue.parent_of(made.volume), None, "whether it is still there is not told");
    running.serving.stop().await.unwrap();
}

/// P8. A token is there after a restart, and one that was revoked, or whose tenant is gone, is not; its use is noted.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_survive_a_restart_and_revoked_ones_do_not() {
    let running = with_tenants(Quota::default()).await;
    let catalogue = running.catalogue();
    let new = |tenant: Option<&str>| NewToken {
        name: "t".to_owned(),
        role: "auditor".to_owned(),
        tenant: tenant.map(str::to_owned),
        expires_ms: Some(7),
        hash: [0xA7; 32],
    };
    let kept = catalogue.create_token(new(Some("acme"))).await.unwrap();
    let revoked = catalogue.create_token(new(None)).await.unwrap();
    let beta = catalogue.create_token(new(Some("beta"))).await.unwrap();
    assert!(matches!(catalogue.create_token(new(Some("none"))).await, Err(CatalogueError::NoTenant { .. })));
    catalogue.revoke_token(revoked.id).await.unwrap();
    assert!(matches!(catalogue.revoke_token(revoked.id).await, Err(CatalogueError::NoToken { .. })));
    catalogue.delete_tenant("beta").await.unwrap();
    catalogue.note_token_used(kept.id);
    catalogue.note_token_used(revoked.id);
    assert!(catalogue.find_token(kept.id).unwrap().used_ms.is_some());
    // Behind the write that tells of the use.
    catalogue.suspend_tenant("acme").await.unwrap();
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    let found = catalogue.find_token(kept.id).unwrap();
    assert!(found.is_suspended && found.used_ms.is_some());
    assert_eq!(found.token, new(Some("acme")));
    assert_eq!(catalogue.list_tokens(), [found]);
    assert_eq!((catalogue.find_token(revoked.id), catalogue.find_token(beta.id)), (None, None));
    running.serving.stop().await.unwrap();
}

/// P8. Whoever is not let into a tenant's exports is told what is told of those that do not exist, by volume, snapshot and list;
/// rules survive a restart.
#[tokio::test(flavor = "multi_thread")]
async fn exports_are_there_for_who_may_enter() {
    let running = with_tenants(Quota::default()).await;
    let catalogue = running.catalogue();
    for name in ["vm", "acme/vm", "beta/vm"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    catalogue.create_snapshots(&[named("acme/vm", "a")], None).await.unwrap();
    let acme = catalogue.show_tenant("acme").unwrap().id;
    let beta = catalogue.show_tenant("beta").unwrap().id;
    let certificate = Some(vec![7_u8; 300].into());
    let of = |entrance| Client { entrance, ..client() };
    let clients = [
        of(Entrance::Socket { is_own_user: true }),
        of(Entrance::Socket { is_own_user: false }),
        of(Entrance::Network([10, 0, 0, 1].into())),
        Client { is_tls: true, certificate, ..of(Entrance::Network([11, 0, 0, 1].into())) },
        of(Entrance::TenantSocket(acme)),
        of(Entrance::TenantSocket(beta)),
    ];
    let entering = |catalogue: &Catalogue| {
        let enters = |client: &Client| {
            let found = ["acme/vm", "acme/vm@a"].map(|name| {
                let (found, told) = (catalogue.find(name, client), catalogue.describe(name, client));
                assert_eq!(found.as_ref().err(), told.as_ref().err());
                let found = found.map(drop);
                assert!(matches!(found, Ok(()) | Err(Refusal::Unknown)), "{found:?}");
                found.is_ok()
            });
            let listed = Exports::list(catalogue, client).unwrap();
            let is_listed = listed.iter().any(|listing| listing.name.starts_with("acme/vm"));
            assert_eq!(found, [is_listed; 2]);
            is_listed
        };
        clients.iter().map(|client| if enters(client) { 'y' } else { '-' }).collect::<String>()
    };
    assert_eq!(entering(&catalogue), "y-----");
    let network = Access { networks: vec!["10.0.0.0/24".parse().unwrap()], ..Access::default() };
    let certified = Access { certificates: vec![Fingerprint::of(&[7; 300])], ..Access::default() };
    let socket = Access { socket: Some(SocketAccess::default()), ..Access::default() };
    let sockets = catalogue.tenant_sockets();
    for (access, expected, socket_count) in [
        (socket.clone(), "y---y-", 1),
        (network.clone(), "y-y---", 0),
        (certified.clone(), "y--y--", 0),
        (Access { socket: socket.socket, networks: network.networks, ..certified }, "y-yyy-", 1),
    ] {
        catalogue.set_access("acme", access, false).await.unwrap();
        assert_eq!(entering(&catalogue), expected);
        assert_eq!(sockets.borrow().len(), socket_count);
    }
    // The default tenant's are there for all but those who come by a tenant's own socket.
    let default = clients.iter().map(|client| catalogue.find("vm", client).is_ok());
    assert_eq!(default.collect::<Vec<_>>(), [true, true, true, true, false, false]);
    let many = Access { networks: vec!["10.0.0.1".parse().unwrap(); ACCESS_RULES_MAX + 1], ..Access::default() };
    assert!(matches!(catalogue.set_access("acme", many, false).await, Err(CatalogueError::Request(_))));
    assert!(matches!(catalogue.set_access("default", Access::default(), false).await, Err(CatalogueError::Request(_))));
    drop((catalogue, sockets));

    let running = running.restart().await;
    let catalogue = running.catalogue();
    assert_eq!(entering(&catalogue), "y-yyy-");
    assert_eq!(catalogue.tenant_sockets().borrow().keys().copied().collect::<Vec<_>>(), [acme]);
    catalogue.suspend_tenant("acme").await.unwrap();
    assert_eq!(catalogue.find("acme/vm", &clients[0]).err(), Some(Refusal::Policy));
    assert_eq!(catalogue.find("acme/vm", &clients[1]).err(), Some(Refusal::Unknown));
    drop(catalogue);
    running.serving.stop().await.unwrap();
}
