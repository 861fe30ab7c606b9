//! `aljibe snapshot`.

use super::diff;
use crate::cli::{SnapshotCommand, SnapshotVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, rounded, sized, table};
use control::{
    CreateSnapshots, ExportName, Name, ReclaimSnapshots, Reclaimed, Size, Snapshot, SnapshotList, SnapshotName,
};
use serde_json::json;

pub(crate) fn run(command: SnapshotCommand, output: Output) -> Result<(), Failure> {
    let target = command.target;
    let client = Client::of(&target)?;
    let meant =
        |names: Vec<SnapshotName>| -> Vec<SnapshotName> { names.iter().map(|name| target.snapshot(name)).collect() };
    match command.verb {
        SnapshotVerb::Create { names, group } => create(&client, output, &meant(names), group.as_ref()),
        SnapshotVerb::List { volume, space } => {
            let of = volume.map(|volume| format!("&volume={}", target.volume(volume))).unwrap_or_default();
            let tenant = target.tenant.as_ref().map(|tenant| format!("&tenant={tenant}")).unwrap_or_default();
            let list: SnapshotList = client.list(&format!("/v1/snapshots?space={space}{of}{tenant}"))?;
            output.show(&list, || listed(&list))
        }
        SnapshotVerb::Show { name } => {
            let snapshot: Snapshot = client.get(&path_of(&target.snapshot(&name)))?;
            output.show(&snapshot, || described(&snapshot))
        }
        SnapshotVerb::Diff { since, to } => {
            let to = match to {
                ExportName::Volume(name) => ExportName::Volume(target.volume(name)),
                ExportName::Snapshot(name) => ExportName::Snapshot(target.snapshot(&name)),
            };
            diff::run(&client, output, &target.snapshot(&since), &to)
        }
        SnapshotVerb::Reclaim { names, dry_run: _ } => {
            let wanted = ReclaimSnapshots { snapshots: meant(names).iter().map(ToString::to_string).collect() };
            let found: Reclaimed = client.post_long("/v1/snapshots/reclaim", &wanted)?;
            output.show(&found, || format!("would give back {}", sized(found.reclaim_bytes)))
        }
        SnapshotVerb::Delete { names } => delete(&client, output, &meant(names)),
    }
}

fn create(client: &Client, output: Output, names: &[SnapshotName], group: Option<&Name>) -> Result<(), Failure> {
    let wanted = CreateSnapshots {
        snapshots: names.iter().map(ToString::to_string).collect(),
        group: group.map(ToString::to_string),
    };
    let taken: SnapshotList = client.post("/v1/snapshots", &wanted)?;
    output.show(&taken, || match taken.snapshots.as_slice() {
        [snapshot] => described(snapshot),
        _ => listed(&taken),
    })
}

/// Deletes one after the other; the first that cannot be deleted ends it, and those before it are gone.
fn delete(client: &Client, output: Output, names: &[SnapshotName]) -> Result<(), Failure> {
    let mut deleted: Vec<String> = Vec::with_capacity(names.len());
    let result = names.iter().try_for_each(|name| {
        client.delete(&path_of(name))?;
        deleted.push(name.to_string());
        Ok(())
    });
    if !deleted.is_empty() {
        output.show(&json!({ "deleted": deleted }), || format!("deleted {}", deleted.join(", ")))?;
    }
    result
}

fn listed(list: &SnapshotList) -> String {
    let rows: Vec<_> = list.snapshots.iter().map(row).collect();
    table(&["NAME", "SIZE", "UNIQUE", "TAKEN", "GROUP", "CLONES"], &rows)
}

fn row(snapshot: &Snapshot) -> Vec<String> {
    vec![
        snapshot.name.clone(),
        Size::from_bytes(snapshot.size_bytes).rounded(),
        rounded(snapshot.unique_bytes),
        snapshot.taken_at.to_string(),
        snapshot.group.clone().unwrap_or_else(|| "-".to_owned()),
        snapshot.clones.len().to_string(),
    ]
}

fn described(snapshot: &Snapshot) -> String {
    let clones = (!snapshot.clones.is_empty()).then(|| snapshot.clones.join(", "));
    fields(&[
        ("name", Some(snapshot.name.clone())),
        ("id", Some(snapshot.id.to_string())),
        ("size", Some(sized(snapshot.size_bytes))),
        ("unique", snapshot.unique_bytes.map(sized)),
        ("taken", Some(snapshot.taken_at.to_string())),
        ("group", snapshot.group.clone()),
        ("clones", clones),
        ("reason", snapshot.state_reason.clone()),
        ("nbd", (!snapshot.nbd_uris.is_empty()).then(|| snapshot.nbd_uris.join(" "))),
    ])
}

fn path_of(name: &SnapshotName) -> String {
    format!("/v1/snapshots/{}", name.in_path())
}
