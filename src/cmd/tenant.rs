//! `aljibe tenant`.

use super::volume::{described_ceilings, wanted_qos};
use crate::cli::{AccessOptions, BillingOptions, QosOptions, QuotaOptions, TenantCommand, TenantVerb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, fields, sized, table};
use control::{
    Access, CreateTenant, Name, Quota, SetAccess, SetQos, SetTenantBilling, SetTenantQos, Size, SocketAccess, Tenant,
    TenantBilling, TenantList, TenantQos,
};
use serde_json::json;

pub(crate) fn run(command: TenantCommand, output: Output) -> Result<(), Failure> {
    let client = Client::of(&command.target)?;
    match command.verb {
        TenantVerb::Create { name, quota } => {
            let wanted = CreateTenant { name: name.to_string(), quota: changed(Quota::default(), quota) };
            show(&client.post("/v1/tenants", &wanted)?, output)
        }
        TenantVerb::List => {
            let list: TenantList = client.list("/v1/tenants")?;
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
        TenantVerb::Qos { name, qos, weight } => {
            if qos == QosOptions::default() && weight.is_none() {
                return Err(Failure::usage("say what is to be set: see aljibe tenant qos --help"));
            }
            show(&client.post(&format!("{}/qos", path_of(&name)), &of_tenant(wanted_qos(qos), weight))?, output)
        }
        TenantVerb::Access { name, access } => {
            show(&client.put(&format!("{}/access", path_of(&name)), &wanted_access(access))?, output)
        }
        TenantVerb::Billing { name, billing } => billed(&client, output, &name, billing),
        TenantVerb::Suspend { name } => show(&client.post(&format!("{}/suspend", path_of(&name)), &json!({}))?, output),
        TenantVerb::Resume { name } => show(&client.post(&format!("{}/resume", path_of(&name)), &json!({}))?, output),
        TenantVerb::Delete { name, force } => {
            client.delete(&format!("{}?force={force}", path_of(&name)))?;
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

const fn of_tenant(wanted: SetQos, weight: Option<u64>) -> SetTenantQos {
    SetTenantQos {
        iops: wanted.iops,
        iops_burst: wanted.iops_burst,
        bandwidth_bytes: wanted.bandwidth_bytes,
        bandwidth_burst_bytes: wanted.bandwidth_burst_bytes,
        operation_bytes: wanted.operation_bytes,
        weight,
    }
}

fn wanted_access(options: AccessOptions) -> SetAccess {
    let AccessOptions { allow_cidr, certificate, socket, socket_group, nobody: _, cut_off } = options;
    let socket = socket.then_some(SocketAccess { gid: socket_group });
    SetAccess { access: Access { certificates: certificate, networks: allow_cidr, socket }, cut_off }
}

fn described_qos(qos: &TenantQos) -> String {
    let mut lines = described_ceilings((qos.iops.as_ref(), qos.bandwidth.as_ref()), qos.operation_bytes);
    lines.push(format!("a share of {}", qos.weight));
    lines.join("\n")
}

/// Who may enter; everybody may enter the default tenant's.
fn described_access(tenant: &Tenant) -> Option<String> {
    let Access { certificates, networks, socket } = &tenant.access;
    let group = |socket: &SocketAccess| socket.gid.map(|gid| format!(", group {gid}")).unwrap_or_default();
    let socket = socket.as_ref().map(|socket| format!("its own socket{}", group(socket)));
    let certificates = certificates.iter().map(|certificate| format!("certificate {certificate}"));
    let lines: Vec<String> = networks.iter().cloned().chain(socket).chain(certificates).collect();
    let nobody = if tenant.id == 0 { None } else { Some("nobody".to_owned()) };
    if lines.is_empty() { nobody } else { Some(lines.join("\n")) }
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
        ("ceilings", tenant.qos.as_ref().map(described_qos)),
        ("clients of", described_access(tenant)),
        ("created", tenant.created_at.map(|at| at.to_string())),
    ])
}

fn billed(client: &Client, output: Output, name: &Name, options: BillingOptions) -> Result<(), Failure> {
    let BillingOptions { invoice_name, zone, prefix } = options;
    let wanted = SetTenantBilling { name: invoice_name, zone, prefix };
    let path = format!("{}/billing", path_of(name));
    let billing: TenantBilling =
        if wanted == SetTenantBilling::default() { client.get(&path)? } else { client.put(&path, &wanted)? };
    output.show(&billing, || {
        fields(&[
            ("tenant", Some(billing.tenant.clone())),
            ("name", Some(billing.name.clone())),
            ("zone", Some(billing.zone.clone())),
            ("prefix", Some(billing.prefix.clone())),
        ])
    })
}

fn path_of(name: &Name) -> String {
    format!("/v1/tenants/{name}")
}
