//! iSCSI targets over a real pool: what each shows to whom, what stays through restarts, and what is kept of reservations.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a surprise is a failed test")]

use blockd::catalogue::{
    Catalogue, CatalogueError, ChapSecrets, KeptNexus, KeptReservations, Quota, SnapshotName, TargetRefusal, trial,
};
use blockd::listener::{Client, Entrance};
use running::Running;
use std::net::IpAddr;
use units::VolumeId;

mod running;
mod support;

const MIB: u64 = 1 << 20;

const HOST: &str = "iqn.2004-10.com.example:host";

const DEFAULT_IQN: &str = "iqn.2026-11.io.aljibe:default";

fn from(address: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    let entrance = Entrance::Network(address);
    Client { peer: address.to_string(), entrance, is_tls: false, certificate: None }
}

fn chap(user: &str, secret: &str) -> Option<ChapSecrets> {
    let mutual = Some(("target".to_owned(), b"the target's secret".to_vec()));
    Some(ChapSecrets { user: user.to_owned(), secret: secret.as_bytes().to_vec(), mutual })
}

/// What the default target shows.
fn by_default(catalogue: &Catalogue) -> Vec<(u16, String)> {
    let target = catalogue.show_target("default").unwrap();
    target.luns.into_iter().map(|lun| (lun.lun, lun.volume)).collect()
}

fn served(catalogue: &Catalogue, iqn: &str) -> Vec<(u16, String)> {
    let access = catalogue.find_target(iqn, HOST, &from("127.0.0.1")).unwrap();
    catalogue.luns_of(access.target).into_iter().map(|lun| (lun.lun, lun.name)).collect()
}

fn numbered(expected: &[(u16, &str)]) -> Vec<(u16, String)> {
    expected.iter().map(|(lun, name)| (*lun, (*name).to_owned())).collect()
}

fn reservations(count: u64) -> KeptReservations {
    let nexus = |number| KeptNexus {
        initiator: format!("iqn.2004-10.com.example:{number}:{}", "x".repeat(150)),
        isid: "00023d000001".to_owned(),
        port: 2,
        key: u64::MAX - number,
        is_holder: number == 0,
    };
    KeptReservations { generation: 7, kind: Some(5), registrations: (0..count).map(nexus).collect() }
}

/// P2. The default target's volumes keep their numbers through deletions, rollbacks and restarts, also behind a time in which
/// another target was there; nobody from elsewhere sees it.
#[tokio::test(flavor = "multi_thread")]
async fn the_default_targets_numbers_stay() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    catalogue.create("a", MIB).await.unwrap();
    assert!(catalogue.list_targets().is_empty(), "before it is served there is none");
    assert_eq!(catalogue.find_target(DEFAULT_IQN, HOST, &from("127.0.0.1")).unwrap_err(), TargetRefusal::Unknown);
    catalogue.serve_targets().await.unwrap();
    for name in ["b", "c"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    catalogue.import_image("image", MIB, ("source".to_owned(), "1".to_owned())).await.unwrap();
    catalogue.create_tenant("acme", Quota::default()).await.unwrap();
    catalogue.create("acme/vm", MIB).await.unwrap();
    assert_eq!(by_default(&catalogue), numbered(&[(0, "a"), (1, "b"), (2, "c")]));
    catalogue.delete("a", false).await.unwrap();
    catalogue.create("a", MIB).await.unwrap();
    let snapshot = SnapshotName { volume: "b".to_owned(), snapshot: "s".to_owned() };
    catalogue.create_snapshots(std::slice::from_ref(&snapshot), None).await.unwrap();
    catalogue.rollback(&snapshot, "before", false).await.unwrap();
    catalogue.clone_snapshot(&snapshot, "clone").await.unwrap();
    let expected = numbered(&[(1, "b"), (2, "c"), (3, "a"), (4, "clone")]);
    assert_eq!(by_default(&catalogue), expected);
    assert_eq!(served(&catalogue, DEFAULT_IQN), expected);
    let refused = |address| catalogue.find_target(DEFAULT_IQN, HOST, &from(address)).unwrap_err();
    assert_eq!(refused("10.0.0.1"), TargetRefusal::NotAllowed);
    assert_eq!(catalogue.targets_for(HOST, &from("::1")), [DEFAULT_IQN]);
    assert!(catalogue.targets_for(HOST, &from("10.0.0.1")).is_empty());

    catalogue.create_target("db").await.unwrap();
    assert!(matches!(catalogue.show_target("default"), Err(CatalogueError::NoTarget { .. })));
    assert_eq!(refused("127.0.0.1"), TargetRefusal::Unknown);
    catalogue.create("late", MIB).await.unwrap();
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    catalogue.create("later", MIB).await.unwrap();
    catalogue.delete("c", false).await.unwrap();
    catalogue.serve_targets().await.unwrap();
    catalogue.delete_target("db", false).await.unwrap();
    let expected = numbered(&[(1, "b"), (3, "a"), (4, "clone"), (5, "late"), (6, "later")]);
    assert_eq!(by_default(&catalogue), expected);
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    catalogue.serve_targets().await.unwrap();
    assert_eq!(by_default(&catalogue), expected);
    assert!(matches!(catalogue.delete_target("default", true).await, Err(CatalogueError::Request(_))));
    assert!(matches!(catalogue.create_target("default").await, Err(CatalogueError::TargetExists { .. })));
}

/// P2, P8. A restart forgets nothing of a target: its port, volumes, initiators and secrets; what is shown has no secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_of_a_target() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    for name in ["a", "b", "c"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    let (first, second) =
        (catalogue.create_target("one").await.unwrap(), catalogue.create_target("two").await.unwrap());
    assert_eq!((first.port, second.port), (2, 3), "1 is the default target's");
    assert_eq!(catalogue.map_lun("one", "a", None).await.unwrap().lun, 0);
    assert_eq!(catalogue.map_lun("one", "b", Some(7)).await.unwrap().lun, 7);
    assert_eq!(catalogue.map_lun("one", "b", Some(7)).await.unwrap().lun, 7, "asked for again");
    assert_eq!(catalogue.map_lun("two", "b", None).await.unwrap().lun, 0, "in several targets");
    for (volume, lun, taken) in [("c", Some(7), 7), ("a", Some(3), 0), ("a", None, 0)] {
        let refused = catalogue.map_lun("one", volume, lun).await;
        assert!(matches!(&refused, Err(CatalogueError::LunInUse { lun, .. }) if *lun == taken), "{refused:?}");
    }
    assert!(matches!(catalogue.map_lun("one", "c", Some(256)).await, Err(CatalogueError::Request(_))));
    catalogue.allow_initiator("one", HOST, None).await.unwrap();
    let secrets = chap("host", "a secret of 96 bits");
    let shown = catalogue.allow_initiator("one", &HOST.to_uppercase(), secrets.clone()).await.unwrap();
    assert!(!format!("{shown:?}").contains("of 96 bits"), "{shown:?}");
    assert_eq!(shown.initiators.len(), 1, "it replaces what was said before: {shown:?}");
    assert_eq!(shown.initiators[0].mutual_user.as_deref(), Some("target"));
    let before = catalogue.list_targets();
    drop(catalogue);

    let running = running.restart().await;
    let catalogue = running.catalogue();
    assert_eq!(catalogue.list_targets(), before);
    let access = catalogue.find_target(&first.iqn, HOST, &from("10.0.0.1")).unwrap();
    assert_eq!((&access.chap, access.port, access.target), (&secrets, 2, first.id));
    drop(access);
    assert_eq!(served(&catalogue, &first.iqn), numbered(&[(0, "a"), (7, "b")]));
    let other = catalogue.find_target(&first.iqn, "iqn.2004-10.com.example:other", &from("127.0.0.1"));
    assert_eq!(other.unwrap_err(), TargetRefusal::Unknown);
    assert_eq!(catalogue.find_target(&second.iqn, HOST, &from("::1")).unwrap_err(), TargetRefusal::Unknown);
    catalogue.allow_initiator("two", "*", None).await.unwrap();
    assert_eq!(catalogue.targets_for(HOST, &from("::1")), [first.iqn.clone(), second.iqn.clone()]);
    catalogue.deny_initiator("one", HOST).await.unwrap();
    assert!(matches!(catalogue.deny_initiator("one", HOST).await, Err(CatalogueError::NoInitiator { .. })));
    assert_eq!(catalogue.targets_for(HOST, &from("::1")), [second.iqn]);
    catalogue.delete("b", false).await.unwrap();
    let left: Vec<usize> = catalogue.list_targets().iter().map(|target| target.luns.len()).collect();
    assert_eq!(left, [1, 0], "a deleted volume leaves all of them");
    let unmapped = catalogue.unmap_lun("one", 0).await.unwrap();
    assert!(unmapped.luns.is_empty());
    assert!(matches!(catalogue.unmap_lun("one", 0).await, Err(CatalogueError::NoLun { lun: 0, .. })));
    let freed = catalogue.create_target("three").await.unwrap();
    assert_eq!(freed.port, 4);
    catalogue.delete_target("one", false).await.unwrap();
    assert_eq!(catalogue.create_target("four").await.unwrap().port, 2, "the smallest free one");
}

/// P8. A target shows volumes of its own tenant, and no images; a suspended tenant's is not entered, and one that is gone has none.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_targets_are_apart() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    for name in ["acme", "beta"] {
        catalogue.create_tenant(name, Quota::default()).await.unwrap();
    }
    for name in ["vm", "acme/vm", "beta/vm"] {
        catalogue.create(name, MIB).await.unwrap();
    }
    catalogue.import_image("acme/image", MIB, ("source".to_owned(), "1".to_owned())).await.unwrap();
    let target = catalogue.create_target("acme/db").await.unwrap();
    assert_eq!(target.iqn, "iqn.2026-11.io.aljibe:acme:db");
    assert!(matches!(catalogue.create_target("none/db").await, Err(CatalogueError::NoTenant { .. })));
    for volume in ["vm", "beta/vm"] {
        let refused = catalogue.map_lun("acme/db", volume, None).await;
        assert!(matches!(refused, Err(CatalogueError::Request(_))), "{volume}");
    }
    assert!(matches!(catalogue.map_lun("acme/db", "acme/image", None).await, Err(CatalogueError::NotFound { .. })));
    catalogue.map_lun("acme/db", "acme/vm", None).await.unwrap();
    catalogue.allow_initiator("acme/db", HOST, None).await.unwrap();
    let mut changed = catalogue.targets_changed();
    let enter = || catalogue.find_target(&target.iqn, HOST, &from("10.0.0.1"));
    let access = enter().unwrap();
    let mapped = catalogue.luns_of(access.target);
    assert_eq!(mapped.len(), 1);
    assert!(matches!(catalogue.delete("acme/vm", false).await, Err(CatalogueError::InUse { connections: 1, .. })));
    let refused = catalogue.delete_target("acme/db", false).await;
    assert!(matches!(refused, Err(CatalogueError::TargetInUse { sessions: 1, .. })), "{refused:?}");
    changed.borrow_and_update();
    catalogue.suspend_tenant("acme").await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(enter().unwrap_err(), TargetRefusal::Suspended);
    assert!(catalogue.luns_of(access.target).is_empty());
    assert!(matches!(catalogue.map_lun("acme/db", "acme/vm", None).await, Err(CatalogueError::Suspended { .. })));
    catalogue.resume_tenant("acme").await.unwrap();
    drop(mapped);
    trial(catalogue.delete_target("acme/db", true)).await.unwrap();
    assert!(enter().is_ok(), "a trial deletes nothing");
    catalogue.delete("acme/vm", false).await.unwrap();
    catalogue.delete_image("acme/image", None, false).await.unwrap();
    drop(access);
    catalogue.delete_tenant("acme").await.unwrap();
    assert!(catalogue.list_targets().is_empty());
    catalogue.stop();
    assert_eq!(enter().unwrap_err(), TargetRefusal::Stopping);
}

/// P2. Reservations are there after a restart as they were kept last, in however many parts, and belong to the volume that has the name
/// after a rollback; a deletion takes them away.
#[tokio::test(flavor = "multi_thread")]
async fn reservations_outlive_a_restart() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    let volume = catalogue.create("vm", MIB).await.unwrap().volume;
    let missing = catalogue.keep_reservations(VolumeId(999), Some(reservations(1))).await;
    assert!(matches!(missing, Err(CatalogueError::NotFound { .. })), "{missing:?}");
    for count in [1, 200, 199, 0, 40] {
        catalogue.keep_reservations(volume, Some(reservations(count))).await.unwrap();
        assert_eq!(catalogue.reservations_of(volume), Some(reservations(count)));
    }
    drop(catalogue);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    assert_eq!(catalogue.reservations_of(volume), Some(reservations(40)));
    let snapshot = SnapshotName { volume: "vm".to_owned(), snapshot: "s".to_owned() };
    catalogue.create_snapshots(std::slice::from_ref(&snapshot), None).await.unwrap();
    let (now, _) = catalogue.rollback(&snapshot, "before", false).await.unwrap();
    assert_eq!(catalogue.reservations_of(now.volume), Some(reservations(40)));
    catalogue.keep_reservations(now.volume, None).await.unwrap();
    assert_eq!(catalogue.reservations_of(now.volume), None);
    catalogue.keep_reservations(now.volume, Some(reservations(3))).await.unwrap();
    catalogue.delete("vm", false).await.unwrap();
    assert_eq!(catalogue.reservations_of(now.volume), None);
    assert!(catalogue.keep_reservations(now.volume, Some(reservations(3))).await.is_err());
    drop(catalogue);
    let running = running.restart().await;
    assert_eq!(running.catalogue().reservations_of(now.volume), None);
}
