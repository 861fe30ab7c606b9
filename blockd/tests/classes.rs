//! Storage classes over a real pool: what a volume gets of its class, and what of it stays its own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a surprise is a failed test")]

use blockd::catalogue::{CatalogueError, ClassPolicy, Entry, History, NewVolume, SnapshotName};
use blockd::qos::{Ceiling, QosLimits};
use running::Running;
use std::time::Duration;
use units::{ClassId, TenantId};

mod running;
mod support;

const MIB: u64 = 1 << 20;

fn limits(rate: u64) -> Option<QosLimits> {
    Some(QosLimits { iops: Some(Ceiling { rate, burst: rate }), ..QosLimits::default() })
}

fn policy(rate: u64, seconds: u64) -> ClassPolicy {
    ClassPolicy { qos: limits(rate), history: Some(History { seconds, limit_bytes: None }) }
}

fn of(class: &str) -> NewVolume<'_> {
    NewVolume { size_bytes: MIB, class: Some(class), history: None }
}

fn got(entry: &Entry) -> (ClassId, Option<u64>, Option<u64>) {
    let rate = entry.qos.and_then(|qos| qos.iops).map(|ceiling| ceiling.rate);
    (entry.class, rate, entry.history.map(|history| history.seconds))
}

/// P7. A volume has what its class gives until it is told its own; a class's change reaches its volumes, and a restart forgets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_has_what_its_class_gives_unless_told() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    let gold = catalogue.create_class("gold", policy(5000, 3600)).await.unwrap();
    assert!(matches!(catalogue.create_class("gold", policy(1, 1)).await, Err(CatalogueError::Request(_))));
    let again = catalogue.create_class("gold", policy(50, 1)).await;
    assert!(matches!(again, Err(CatalogueError::ClassExists { .. })));
    assert!(matches!(catalogue.create_with("vm", of("none")).await, Err(CatalogueError::NoClass { .. })));
    assert_eq!(got(&catalogue.create("plain", MIB).await.unwrap()), (ClassId::DEFAULT, None, None));
    assert_eq!(got(&catalogue.create_with("vm", of("gold")).await.unwrap()), (gold.id, Some(5000), Some(3600)));
    catalogue.create_with("own", NewVolume { history: Some(None), ..of("gold") }).await.unwrap();
    catalogue.set_qos("own", limits(70).unwrap()).await.unwrap();
    // A clone is of its parent's class.
    let snapshot = SnapshotName { volume: "vm".to_owned(), snapshot: "a".to_owned() };
    catalogue.create_snapshots(std::slice::from_ref(&snapshot), None).await.unwrap();
    assert_eq!(got(&catalogue.clone_snapshot(&snapshot, "clone").await.unwrap()), (gold.id, Some(5000), Some(3600)));
    assert_eq!(catalogue.set_class("gold", policy(9000, 7200)).await.unwrap().volumes, 3);
    let running = running.restart().await;
    let catalogue = running.catalogue();
    assert_eq!(got(&catalogue.show("vm").unwrap()), (gold.id, Some(9000), Some(7200)));
    assert_eq!(got(&catalogue.show("clone").unwrap()), (gold.id, Some(9000), Some(7200)));
    assert_eq!(got(&catalogue.show("own").unwrap()), (gold.id, Some(70), None));
    assert_eq!(catalogue.show_class("gold").unwrap().policy, policy(9000, 7200));
    let (undone, _) = catalogue.rollback(&snapshot, "before", false).await.unwrap();
    assert_eq!(got(&undone), (gold.id, Some(9000), Some(7200)));
    running.serving.stop().await.unwrap();
}

/// P7. A change of class is in the ledger with its moment, once each, over a restart too.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_class_is_read_with_its_moment() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    let gold = catalogue.create_class("gold", policy(5000, 3600)).await.unwrap().id;
    let volume = catalogue.create("vm", MIB).await.unwrap().volume;
    let changed = catalogue.set_volume_class("vm", "gold").await.unwrap();
    assert_eq!(got(&changed), (gold, Some(5000), Some(3600)));
    // What it is already changes nothing.
    catalogue.set_volume_class("vm", "gold").await.unwrap();
    catalogue.set_volume_class("vm", "default").await.unwrap();
    catalogue.set_volume_class("vm", "gold").await.unwrap();
    let running = running.restart().await;
    let catalogue = running.catalogue();
    let told = async || {
        let now = catalogue.readings_now(TenantId::DEFAULT).await.unwrap();
        let mut all = catalogue.readings(TenantId::DEFAULT, 0..u64::MAX, &[]).await.unwrap();
        all.extend(now.into_iter().filter(|reading| reading.resource == volume));
        all.into_iter().map(|reading| (reading.changes, reading.class)).collect::<Vec<_>>()
    };
    // What the second in which it changed is not over for is read later.
    while told().await.last() != Some(&(3, gold)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut told = told().await;
    told.dedup();
    assert!(told.is_sorted() && told.contains(&(0, ClassId::DEFAULT)), "{told:?}");
    let of = |(changes, class): &(u64, ClassId)| *class == if changes % 2 == 1 { gold } else { ClassId::DEFAULT };
    assert!(told.iter().all(of), "{told:?}");
    let refused = async |volume: &str, class: &str| catalogue.set_volume_class(volume, class).await.unwrap_err();
    assert!(matches!(refused("vm", "none").await, CatalogueError::NoClass { .. }));
    assert!(matches!(refused("none", "gold").await, CatalogueError::NotFound { .. }));
    running.serving.stop().await.unwrap();
}

/// P7. A class goes when nothing is of it any more, and the default one never.
#[tokio::test(flavor = "multi_thread")]
async fn a_class_in_use_stays() {
    let running = Running::start().await;
    let catalogue = running.catalogue();
    catalogue.create_class("gold", ClassPolicy::default()).await.unwrap();
    catalogue.create_with("vm", of("gold")).await.unwrap();
    let refused = catalogue.delete_class("gold").await;
    assert!(matches!(refused, Err(CatalogueError::ClassInUse { volumes: 1, .. })), "{refused:?}");
    catalogue.delete("vm", false).await.unwrap();
    catalogue.delete_class("gold").await.unwrap();
    assert!(matches!(catalogue.show_class("gold"), Err(CatalogueError::NoClass { .. })));
    assert!(matches!(catalogue.delete_class("default").await, Err(CatalogueError::Request(_))));
    assert!(matches!(catalogue.set_class("default", policy(90, 1)).await, Err(CatalogueError::Request(_))));
    let names: Vec<String> = catalogue.list_classes().into_iter().map(|class| class.name).collect();
    assert_eq!(names, ["default"]);
    running.serving.stop().await.unwrap();
}
