//! `aljibe tenant`.

use crate::cli::{QuotaOptions, TenantCommand, TenantVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, sized, table};
use control::{CreateTenant, Name, Quota, Size, Tenant, TenantList};
use serde_json::json;

pub(crate) fn run(command: TenantCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    match command.verb {
        TenantVerb::Create { name, quota } => {
            let wanted = CreateTenant { name: name.to_string(), quota: changed(Quota::default(), quota) };
            show(&client.post("/v1/tenants", &wanted)?, output)
        }
        TenantVerb::List => {
            let list: TenantList = client.get("/v1/tenants")?;
            output.show(&list, || {
                let rows: Vec<_> = list.tenants.iter().map(row).collect();
                table(&["NAME", "STATE", "VOLUMES", "SIZE", "SNAPSHOTS", "CREATED"], &rows)
            })
        }
        TenantVerb::Show { name } => show(&client.get(&path_of(&name))?, output),
        TenantVerb::Set { name, quota } => {
            let known: Tenant = client.get(&path_of(&name))?;
            show(&client.post(&format!("{}/quota", path_of(&name)), &changed(known.quota, quota))?, output)
        }
        TenantVerb::Suspend { name } => show(&client.post(&format!("{}/suspend", path_of(&name)), &json!({}))?, output),
        TenantVerb::Resume { name } => show(&client.post(&format!("{}/resume", path_of(&name)), &json!({}))?, output),
        TenantVerb::Delete { name } => {
            client.delete(&path_of(&name))?;
            output.show(&json!({ "deleted": name.as_str() }), || format!("deleted {name}"))
        }
    }
}

/// A quota with what is asked for in it; 0 ends a limit.
fn changed(known: Quota, wanted: QuotaOptions) -> Quota {
    let one = |known: Option<u64>, wanted: Option<u64>| wanted.or(known).filter(|limit| *limit > 0);
    Quota {
        bytes: one(known.bytes, wanted.quota.map(Size::bytes)),
        volumes: one(known.volumes, wanted.max_volumes),
        snapshots: one(known.snapshots, wanted.max_snapshots),
    }
}

fn show(tenant: &Tenant, output: Output) -> Result<(), Failure> {
    output.show(tenant, || described(tenant))
}

fn state_of(tenant: &Tenant) -> String {
    if tenant.is_suspended { "suspended" } else { "active" }.to_owned()
}

fn row(tenant: &Tenant) -> Vec<String> {
    let of =
        |used: String, limit: Option<String>| limit.map_or_else(|| used.clone(), |limit| format!("{used}/{limit}"));
    let rounded = |bytes| Size::from_bytes(bytes).rounded();
    let (quota, usage) = (tenant.quota, tenant.usage);
    vec![
        tenant.name.clone(),
        state_of(tenant),
        of(usage.volumes.to_string(), quota.volumes.map(|limit| limit.to_string())),
        of(rounded(usage.bytes), quota.bytes.map(rounded)),
        of(usage.snapshots.to_string(), quota.snapshots.map(|limit| limit.to_string())),
        tenant.created_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
    ]
}

fn described(tenant: &Tenant) -> String {
    let of = |used: String, limit: Option<String>| {
        Some(limit.map_or_else(|| used.clone(), |limit| format!("{used} of at most {limit}")))
    };
    let (quota, usage) = (tenant.quota, tenant.usage);
    fields(&[
        ("name", Some(tenant.name.clone())),
        ("id", Some(tenant.id.to_string())),
        ("state", Some(state_of(tenant))),
        ("volumes", of(usage.volumes.to_string(), quota.volumes.map(|limit| limit.to_string()))),
        ("size", of(sized(usage.bytes), quota.bytes.map(sized))),
        ("snapshots", of(usage.snapshots.to_string(), quota.snapshots.map(|limit| limit.to_string()))),
        ("created", tenant.created_at.map(|at| at.to_string())),
    ])
}

fn path_of(name: &Name) -> String {
    format!("/v1/tenants/{name}")
}
