//! What the API shows and takes of tenants. Members are only ever added within v1.

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
}

/// A tenant to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(example = "acme", max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// What it may have.
    #[serde(default)]
    pub quota: Quota,
}
