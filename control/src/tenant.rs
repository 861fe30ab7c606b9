//! What the API shows and takes of tenants. Members are only ever added within v1.

use crate::model::{CeilingStatus, SetQos};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tenant: whose volumes, snapshots and images are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its name, which stands before those of its volumes and images.
    pub name: String,
    /// Its number, never used again; 0 is the default tenant, which is the provider's own.
    pub id: u64,
    /// When it was made, RFC 3339; absent of the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// Whether it is suspended: its exports let nobody in, and nothing that it has is changed but by the provider's deletion.
    pub is_suspended: bool,
    /// What it may have.
    pub quota: Quota,
    /// What it has.
    pub usage: Usage,
    /// What may be asked of its volumes together; absent where nothing holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<TenantQos>,
    /// Who may enter its exports. Those of the default tenant are for everybody who reaches the daemon.
    #[serde(default)]
    pub access: Access,
}

/// What may be asked of the volumes of a tenant together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantQos {
    /// Of operations; absent without such a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<CeilingStatus>,
    /// Of bytes read and written; absent without such a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<CeilingStatus>,
    /// An operation counts once for each so many bytes that it reads or writes; absent where it always counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<u64>,
    /// How large its share of a busy shard is, where those of others are 1.
    pub weight: u64,
}

/// What may be asked of the volumes of a tenant together from now on. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTenantQos {
    /// Operations a second, 10 at least; 0 for no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Operations that are saved at most while fewer are asked for; where none is told with a new `iops`, those of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops_burst: Option<u64>,
    /// Bytes a second, read and written, 1 MiB at least; 0 for no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bytes: Option<u64>,
    /// Bytes that are saved at most; where none is told with a new `bandwidth_bytes`, those of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_burst_bytes: Option<u64>,
    /// Has an operation count once for each so many bytes that it reads or writes; 0 for once, whatever its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<u64>,
    /// How large its share of a busy shard is to be, where those of others are 1: 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub weight: Option<u64>,
}

impl SetTenantQos {
    /// What it says of ceilings.
    #[must_use]
    pub const fn ceilings(&self) -> SetQos {
        SetQos {
            iops: self.iops,
            iops_burst: self.iops_burst,
            bandwidth_bytes: self.bandwidth_bytes,
            bandwidth_burst_bytes: self.bandwidth_burst_bytes,
            operation_bytes: self.operation_bytes,
        }
    }
}

/// Who may enter a tenant's exports: whom any of these rules lets in. Without any it is nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Whoever has one of these client certificates: the SHA-256 of each, 64 hexadecimal digits; at most 24.
    #[serde(default)]
    #[schema(max_items = 24)]
    pub certificates: Vec<String>,
    /// Whoever comes from one of these networks or addresses; at most 24.
    #[serde(default)]
    #[schema(max_items = 24, example = json!(["10.0.0.0/8", "2001:db8::/32"]))]
    pub networks: Vec<String>,
    /// Whoever may open the tenant's own Unix socket, when it is to have one; it is in the folder that the daemon was started
    /// with.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketAccess>,
}

/// A tenant's own Unix socket, which its user and one group may open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SocketAccess {
    /// The number of that group; absent for the one that the folder gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4_294_967_294_u32)]
    pub gid: Option<u32>,
}

/// Who may enter a tenant's exports from now on, in place of what was said before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAccess {
    /// Who.
    #[serde(deserialize_with = "crate::object::object")]
    pub access: Access,
    /// Whether all clients of the tenant that are attached now are cut off: those who may enter can come anew. Without it,
    /// whoever is attached stays.
    #[serde(default)]
    pub cut_off: bool,
}

/// What a tenant may have. Absent members have no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes of the sizes of its volumes and images together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Volumes and images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// Snapshots of volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
}

/// What a tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Bytes of the sizes of its volumes and images together.
    pub bytes: u64,
    /// Volumes and images.
    pub volumes: u64,
    /// Snapshots of volumes.
    pub snapshots: u64,
}

/// Every tenant, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantList {
    /// In the order of their names.
    pub tenants: Vec<Tenant>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A tenant to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(example = "acme", max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// What it may have.
    #[serde(default, deserialize_with = "crate::object::object")]
    pub quota: Quota,
}
