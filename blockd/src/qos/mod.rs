//! Quality of service on a shard: ceilings of volumes and tenants, and fair shares between tenants.
//!
//! Everything here is integers, and time is an argument: `bucket` counts credits, `gate` decides which request may pass and
//! who waits for what. `limits` are the settings, `credits` what of them is kept over a restart, `division` how a tenant's
//! ceiling is divided among shards. A request is judged by its header, before room is made for its payload: while it waits,
//! its connection is not read, so that order stays and memory is bounded by the sockets.

mod bucket;
mod credits;
mod division;
mod gate;
mod limits;

pub use credits::Credits;
pub(crate) use credits::{KeptCredits, decode, encode};
pub(crate) use division::Division;
pub use division::TenantUse;
pub(crate) use gate::{Ask, Gate, Queue, Standing, work_of};
pub use gate::{CreditStatus, FairShares, QosStatus};
pub use limits::{
    BANDWIDTH_MIN, CEILING_MAX, Ceiling, IOPS_MIN, InvalidLimits, OPERATION_BYTES_MIN, QosLimits, SIZED_IOPS_MIN,
};

use units::TenantId;

/// What the opening of a volume brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeQos {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its ceilings.
    pub limits: QosLimits,
    /// What is left of its credits; where nothing is known, its buckets are full.
    pub credits: Credits,
}
