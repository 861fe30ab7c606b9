//! What the API shows and takes of storage classes. Members are only ever added within v1.

use crate::model::{KeepHistory, SetQos};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A storage class: what its volumes may be asked for, how long their past is kept, and by which prices they are billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its number, by which rate cards know it; never used again. 0 is the default class, which is always there.
    pub id: u64,
    /// What may be asked of its volumes, unless they are told their own.
    pub qos: SetQos,
    /// For how long their past is kept, unless they are told their own.
    pub history: KeepHistory,
    /// How many volumes and images are of it; absent for who has a token of one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// When it was made, RFC 3339; absent of the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
}

/// Every class, the default one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassList {
    /// In the order of their names.
    pub classes: Vec<Class>,
}

/// A class to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateClass {
    /// 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(example = "gold", max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// What may be asked of its volumes; without ceilings where nothing is told.
    #[serde(default, deserialize_with = "crate::object::object")]
    pub qos: SetQos,
    /// For how long their past is kept; not at all where nothing is told.
    #[serde(default, deserialize_with = "crate::object::object")]
    pub history: KeepHistory,
}

/// What a class is to be from now on. What is absent stays as it is; what is there replaces all of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetClass {
    /// What may be asked of its volumes.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub qos: Option<SetQos>,
    /// For how long their past is kept.
    #[serde(default, deserialize_with = "crate::object::optional", skip_serializing_if = "Option::is_none")]
    pub history: Option<KeepHistory>,
}

/// The class that a volume is to be of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVolumeClass {
    /// Its name.
    #[schema(example = "gold")]
    pub class: String,
}
