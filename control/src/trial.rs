//! What a dry run is answered.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What a change would be answered. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// Always true.
    pub dry_run: bool,
    /// The HTTP status that it would be answered with.
    #[schema(example = 201)]
    pub status: u16,
    /// The body that it would be answered with, in which numbers that are given when something is made are 0; absent where that has
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub answer: Option<Value>,
    /// What the volume costs that it is about; absent where it is about none, or its class has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<ChangePrice>,
}

/// What a volume costs before and after a change, each for all of the month that goes on, by the rate card that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePrice {
    /// Which month, in the tenant's time zone.
    #[schema(example = "2026-11")]
    pub month: String,
    /// ISO 4217.
    #[schema(example = "EUR")]
    pub currency: String,
    /// As it is; absent of one that is made, or while its class has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VolumePrice>,
    /// As it would be.
    pub after: VolumePrice,
}

/// What a volume alone costs in a month: without requests, snapshots and history, what is free and minimums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumePrice {
    /// While nothing is written.
    #[schema(example = "4.10")]
    pub least: String,
    /// When all of it is, and takes as much of the pool.
    #[schema(example = "41.00")]
    pub most: String,
}
