//! `aljibe class`.

use super::volume::{wanted_history, wanted_qos};
use crate::cli::{ClassCommand, ClassVerb, HistoryOptions, QosOptions};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, sized, table};
use control::{Class, ClassList, CreateClass, KeepHistory, Name, SetClass, SetQos};
use serde_json::json;

pub(crate) fn run(command: ClassCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    match command.verb {
        ClassVerb::List => {
            let list: ClassList = client.get("/v1/classes")?;
            output.show(&list, || {
                let rows: Vec<_> = list.classes.iter().map(row).collect();
                table(&["NAME", "NUMBER", "VOLUMES", "IOPS", "BANDWIDTH", "HISTORY"], &rows)
            })
        }
        ClassVerb::Create { name, history, qos } => {
            let (qos, history) = (wanted_qos(qos), wanted_history(history));
            show(&client.post("/v1/classes", &CreateClass { name: name.to_string(), qos, history })?, output)
        }
        ClassVerb::Show { name } => show(&client.get(&path_of(&name))?, output),
        ClassVerb::Set { name, history, qos } => set(&client, output, &name, (history, qos)),
        ClassVerb::Delete { name } => {
            client.delete(&path_of(&name))?;
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
    }
}

fn set(
    client: &Client,
    output: Output,
    name: &Name,
    (history, qos): (HistoryOptions, QosOptions),
) -> Result<(), Failure> {
    let history = Some(wanted_history(history)).filter(|wanted| *wanted != KeepHistory::default());
    let qos = Some(wanted_qos(qos)).filter(|wanted| *wanted != SetQos::default());
    if history.is_none() && qos.is_none() {
        return Err(Failure::usage("say what is to be set: see aljibe class set --help"));
    }
    show(&client.put(&path_of(name), &SetClass { qos, history })?, output)
}

fn show(class: &Class, output: Output) -> Result<(), Failure> {
    output.show(class, || {
        fields(&[
            ("name", Some(class.name.clone())),
            ("number", Some(class.id.to_string())),
            ("volumes", class.volumes.map(|count| count.to_string())),
            ("iops", rate(class.qos.iops, class.qos.iops_burst, |number| number.to_string())),
            ("bandwidth", rate(class.qos.bandwidth_bytes, class.qos.bandwidth_burst_bytes, sized)),
            ("operation", class.qos.operation_bytes.map(sized)),
            ("history", class.history.seconds.map(|seconds| format!("{seconds} s"))),
            ("limit", class.history.limit_bytes.map(sized)),
            ("created", class.created_at.map(|at| at.to_string())),
        ])
    })
}

fn rate(rate: Option<u64>, burst: Option<u64>, shown: impl Fn(u64) -> String) -> Option<String> {
    let burst = burst.map(|burst| format!(", burst {}", shown(burst))).unwrap_or_default();
    rate.map(|rate| format!("{}{burst}", shown(rate)))
}

fn row(class: &Class) -> Vec<String> {
    let or_none = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    vec![
        class.name.clone(),
        class.id.to_string(),
        or_none(class.volumes),
        or_none(class.qos.iops),
        crate::output::rounded(class.qos.bandwidth_bytes),
        or_none(class.history.seconds),
    ]
}

fn path_of(name: &Name) -> String {
    format!("/v1/classes/{name}")
}
