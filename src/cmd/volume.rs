//! `aljibe volume`.

use super::mirror;
use crate::cli::{CloneSource, HistoryOptions, QosOptions, Trial, VolumeCommand, VolumeVerb};
use crate::client::{Client, decoded};
use crate::failure::Failure;
use crate::output::{Output, fields, rounded, sized, table};
use control::{
    CeilingStatus, ChangePrice, CloneMoment, CloneSnapshot, CreateVolume, DryRun, KeepHistory, ResizeVolume,
    RollbackVolume, RolledBack, SetQos, SetVolumeClass, Size, Volume, VolumeHistory, VolumeList, VolumeName,
    VolumePrice, VolumeQos, VolumeSize,
};
use serde_json::json;

pub(crate) fn run(command: VolumeCommand, output: Output) -> Result<(), Failure> {
    let target = command.target;
    let client = Client::of(&target)?;
    let path_of = |name: &VolumeName| format!("/v1/volumes/{}", target.volume(name.clone()).in_path());
    match command.verb {
        VolumeVerb::Create { name, size, image, class, history, trial } => {
            let history = Some(wanted_history(history)).filter(|wanted| *wanted != KeepHistory::default());
            let (name, class) = (target.volume(name).to_string(), class.map(|class| class.to_string()));
            let size_bytes = size.map(VolumeSize::bytes);
            let wanted = CreateVolume { name, size_bytes, size: None, image, history, class };
            change(output, trial, |query| client.post(&format!("/v1/volumes{query}"), &wanted))
        }
        VolumeVerb::SetClass { name, class, trial } => {
            let (path, wanted) = (path_of(&name), SetVolumeClass { class: class.to_string() });
            change(output, trial, |query| client.put(&format!("{path}/class{query}"), &wanted))
        }
        VolumeVerb::List => list(&client, output, &target.query()),
        VolumeVerb::Show { name } => {
            let volume: Volume = client.get(&path_of(&name))?;
            output.show(&volume, || described(&volume))
        }
        VolumeVerb::Resize { name, size, discard_tail, trial } => {
            let (path, size_bytes) = (path_of(&name), Some(size.bytes()));
            let wanted = ResizeVolume { size_bytes, size: None, discard_tail };
            change(output, trial, |query| client.post(&format!("{path}/resize{query}"), &wanted))
        }
        VolumeVerb::Set { name, history, qos } => set(&client, output, &path_of(&name), (wanted_history(history), qos)),
        VolumeVerb::Clone { source, name } => {
            let name = target.volume(name).to_string();
            let volume: Volume = match source {
                CloneSource::Snapshot(snapshot) => {
                    let path = target.snapshot(&snapshot).in_path();
                    client.post(&format!("/v1/snapshots/{path}/clone"), &CloneSnapshot { name })?
                }
                CloneSource::Moment(moment) => {
                    let wanted = CloneMoment { name, at: moment.at().to_string() };
                    client.post_long(&format!("{}/clone", path_of(moment.volume())), &wanted)?
                }
            };
            output.show(&volume, || described(&volume))
        }
        VolumeVerb::Rollback { snapshot, force } => {
            let wanted = RollbackVolume { snapshot: snapshot.name().to_string(), force };
            let rolled: RolledBack = client.post_long(&format!("{}/rollback", path_of(snapshot.volume())), &wanted)?;
            output.show(&rolled, || {
                let undo = format!("undo  aljibe volume rollback {}\n", rolled.undo.name);
                format!("{}{undo}", described(&rolled.volume))
            })
        }
        VolumeVerb::Mirror { name, to } => mirror::begin(&client, output, &path_of(&name), to),
        VolumeVerb::Unmirror { name } => mirror::end(&client, output, &path_of(&name), &target.volume(name)),
        VolumeVerb::Move { name, to } => mirror::switch(&client, output, &path_of(&name), to),
        VolumeVerb::Delete { name, force } => {
            client.delete(&format!("{}?force={force}", path_of(&name)))?;
            let name = target.volume(name);
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
    }
}

/// Changes a volume, or tries that out, by what `ask` asks for with a query; and shows it.
fn change(
    output: Output,
    trial: Trial,
    ask: impl FnOnce(&'static str) -> Result<serde_json::Value, Failure>,
) -> Result<(), Failure> {
    if !trial.dry_run {
        let volume: Volume = decoded(ask("")?)?;
        return output.show(&volume, || described(&volume));
    }
    let tried: DryRun = decoded(ask("?dry_run=true")?)?;
    let volume: Option<Volume> = tried.answer.clone().map(decoded).transpose()?;
    output.show(&tried, || {
        let priced = tried.price.as_ref().map(described_price).unwrap_or_default();
        let described = volume.as_ref().map(described).unwrap_or_default();
        format!("nothing has changed: it would be\n{described}{priced}")
    })
}

fn described_price(ChangePrice { month, currency, before, after }: &ChangePrice) -> String {
    let of = |VolumePrice { least, most }: &VolumePrice| {
        format!("{least} {currency} while empty, {most} {currency} when full, in {month}")
    };
    fields(&[("price now", before.as_ref().map(of)), ("price then", Some(of(after)))])
}

fn set(client: &Client, output: Output, path: &str, (history, qos): (KeepHistory, QosOptions)) -> Result<(), Failure> {
    if history == KeepHistory::default() && qos == QosOptions::default() {
        return Err(Failure::usage("say what is to be set: see aljibe volume set --help"));
    }
    let mut volume: Option<Volume> = None;
    if history != KeepHistory::default() {
        volume = Some(client.post(&format!("{path}/history"), &history)?);
    }
    if qos != QosOptions::default() {
        volume = Some(client.post(&format!("{path}/qos"), &wanted_qos(qos))?);
    }
    volume.map_or(Ok(()), |volume| output.show(&volume, || described(&volume)))
}

fn list(client: &Client, output: Output, query: &str) -> Result<(), Failure> {
    let list: VolumeList = client.list(&format!("/v1/volumes{query}"))?;
    output.show(&list, || {
        let rows: Vec<_> = list.volumes.iter().map(row).collect();
        table(&["NAME", "SIZE", "WRITTEN", "STATE", "CLIENTS", "SHARD", "CREATED"], &rows)
    })
}

fn row(volume: &Volume) -> Vec<String> {
    vec![
        volume.name.clone(),
        Size::from_bytes(volume.size_bytes).rounded(),
        rounded(volume.written_bytes),
        volume.state.to_string(),
        volume.connections.to_string(),
        volume.shard.to_string(),
        volume.created_at.to_string(),
    ]
}

fn described(volume: &Volume) -> String {
    let held = volume.snapshot_bytes.map(|bytes| format!(", hold {}", sized(bytes))).unwrap_or_default();
    let snapshots = (volume.snapshots > 0).then(|| format!("{}{held}", volume.snapshots));
    fields(&[
        ("name", Some(volume.name.clone())),
        ("id", Some(volume.id.to_string())),
        ("size", Some(sized(volume.size_bytes))),
        ("parent", volume.parent.clone()),
        ("written", volume.written_bytes.map(sized)),
        ("snapshots", snapshots),
        ("on disk", volume.pool_bytes.map(sized)),
        ("class", Some(volume.class.clone())),
        ("history", volume.history.as_ref().map(described_history)),
        ("ceilings", volume.qos.as_ref().map(described_qos)),
        ("state", Some(volume.state.to_string())),
        ("reason", volume.state_reason.clone()),
        ("clients", Some(volume.connections.to_string())),
        ("shard", Some(volume.shard.to_string())),
        ("created", Some(volume.created_at.to_string())),
        ("nbd", Some(volume.nbd_uris.join("\n")).filter(|uris| !uris.is_empty())),
    ])
}

pub(super) fn wanted_history(options: HistoryOptions) -> KeepHistory {
    KeepHistory {
        seconds: options.history.map(|period| period.seconds),
        limit_bytes: options.history_limit.map(Size::bytes),
    }
}

fn described_history(history: &VolumeHistory) -> String {
    let limit = history.limit_bytes.map(|bytes| format!(" of at most {}", sized(bytes))).unwrap_or_default();
    let since = history.since.map_or_else(|| "nothing yet".to_owned(), |since| format!("since {since}"));
    format!("{} s, {since}, holds {}{limit}", history.seconds, sized(history.bytes))
}

pub(super) fn wanted_qos(options: QosOptions) -> SetQos {
    SetQos {
        iops: options.iops,
        iops_burst: options.iops_burst,
        bandwidth_bytes: options.bandwidth.map(Size::bytes),
        bandwidth_burst_bytes: options.bandwidth_burst.map(Size::bytes),
        operation_bytes: options.operation_size.map(Size::bytes),
    }
}

fn described_qos(qos: &VolumeQos) -> String {
    let mut lines = described_ceilings((qos.iops.as_ref(), qos.bandwidth.as_ref()), qos.operation_bytes);
    lines.push(format!("{} requests waited, {} ms together", qos.throttled_requests, qos.throttled_ms));
    lines.join("\n")
}

/// Ceilings of operations and of bytes, a line each.
pub(super) fn described_ceilings(
    (iops, bandwidth): (Option<&CeilingStatus>, Option<&CeilingStatus>),
    operation_bytes: Option<u64>,
) -> Vec<String> {
    let count = |count: u64| count.to_string();
    let rounded = |bytes: u64| Size::from_bytes(bytes).rounded();
    let line = |ceiling: &CeilingStatus, shown: &dyn Fn(u64) -> String, what: &str| {
        let left = ceiling.left.map(|left| match u64::try_from(left) {
            Ok(left) => format!(", {} left", shown(left)),
            Err(_) => format!(", {} owed", shown(left.unsigned_abs())),
        });
        let lasts = ceiling.lasts_seconds.map(|seconds| format!(", {seconds} s at twice the rate"));
        let (left, lasts) = (left.unwrap_or_default(), lasts.unwrap_or_default());
        format!("{} {what}/s, saves {}{left}{lasts}", shown(ceiling.rate), shown(ceiling.burst))
    };
    let operations = iops.map(|ceiling| line(ceiling, &count, "operations"));
    let size = operation_bytes.map(|bytes| format!("an operation counts once each {}", rounded(bytes)));
    let bandwidth = bandwidth.map(|ceiling| line(ceiling, &rounded, "bytes"));
    operations.into_iter().chain(size).chain(bandwidth).collect()
}
