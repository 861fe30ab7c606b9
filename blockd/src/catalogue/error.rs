//! Why the catalogue cannot do what it is asked.

use volume::error::Error;

/// A request to the catalogue failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// A volume has that name.
    #[error("volume {name} exists, with {size_bytes} bytes")]
    Exists {
        /// The name.
        name: String,
        /// The size it has.
        size_bytes: u64,
    },
    /// No volume has that name.
    #[error("there is no volume {name}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// No image has that name.
    #[error("there is no image {name}")]
    NoImage {
        /// The name.
        name: String,
    },
    /// An image is not as far as it would have to be.
    #[error("image {name} is not ready: {reason}")]
    Importing {
        /// The name.
        name: String,
        /// What it lacks.
        reason: String,
    },
    /// The import that is meant is over: the image was deleted since, or another import has gone on with it.
    #[error("another import of image {name} has begun since")]
    Superseded {
        /// The name.
        name: String,
    },
    /// Clients are attached.
    #[error("volume {name} has {connections} connections")]
    InUse {
        /// The name.
        name: String,
        /// How many.
        connections: u64,
    },
    /// The volume is damaged and not served.
    #[error("volume {name} is quarantined: {reason}")]
    Quarantined {
        /// The name.
        name: String,
        /// What is damaged.
        reason: String,
    },
    /// Data lies beyond the smaller size.
    #[error("volume {name} holds data beyond the smaller size")]
    ShrinkRefused {
        /// The name.
        name: String,
    },
    /// The volume has a snapshot of that name.
    #[error("snapshot {snapshot} exists")]
    SnapshotExists {
        /// As `VOLUME@NAME`.
        snapshot: String,
    },
    /// The volume has no snapshot of that name.
    #[error("there is no snapshot {snapshot}")]
    SnapshotNotFound {
        /// As `VOLUME@NAME`.
        snapshot: String,
    },
    /// A snapshot is no earlier state of what it is compared with.
    #[error("snapshot {snapshot} does not come before {to}: they are in the wrong order, or a rollback lies between")]
    Unrelated {
        /// As `VOLUME@NAME`.
        snapshot: String,
        /// The snapshot or volume.
        to: String,
    },
    /// Volumes began as the snapshot, and need it.
    #[error("snapshot {snapshot} is what these volumes began as: {}", clones.join(", "))]
    HasClones {
        /// As `VOLUME@NAME`.
        snapshot: String,
        /// Their names.
        clones: Vec<String>,
    },
    /// Clients read the snapshot.
    #[error("clients read snapshot {snapshot}")]
    SnapshotInUse {
        /// Its name.
        snapshot: String,
    },
    /// A volume's history does not reach to a moment.
    #[error("the history of volume {name} does not reach to that moment")]
    NoHistory {
        /// The volume's.
        name: String,
        /// The first second that it reaches to, milliseconds since 1970, when there is one.
        since_ms: Option<u64>,
    },
    /// No tenant has that name.
    #[error("there is no tenant {name}")]
    NoTenant {
        /// The name.
        name: String,
    },
    /// A tenant has that name.
    #[error("tenant {name} exists")]
    TenantExists {
        /// The name.
        name: String,
    },
    /// A tenant has volumes or images.
    #[error("tenant {name} has {volumes} volumes and images")]
    TenantInUse {
        /// Its name.
        name: String,
        /// How many.
        volumes: u64,
    },
    /// The tenant is suspended.
    #[error("tenant {tenant} is suspended")]
    Suspended {
        /// Its name.
        tenant: String,
    },
    /// A tenant would have more than it may.
    #[error("tenant {tenant} may have {limit} {what}: it has {used}, and {asked} more are asked for")]
    QuotaExceeded {
        /// Its name.
        tenant: String,
        /// `bytes`, `volumes`, `snapshots`, `tokens` or `targets`.
        what: &'static str,
        /// What it has.
        used: u64,
        /// What is to be added.
        asked: u64,
        /// What it may have.
        limit: u64,
    },
    /// No class has that name.
    #[error("there is no class {name}")]
    NoClass {
        /// The name.
        name: String,
    },
    /// A class has that name.
    #[error("class {name} exists")]
    ClassExists {
        /// The name.
        name: String,
    },
    /// Volumes are of a class.
    #[error("class {name} has {volumes} volumes and images")]
    ClassInUse {
        /// Its name.
        name: String,
        /// How many.
        volumes: u64,
    },
    /// So many changes of a volume's class wait for the meter's next reading that no more fit in its record.
    #[error("the last changes of volume {name}'s class wait for the meter's ledger")]
    ManyChanges {
        /// Its name.
        name: String,
    },
    /// No target has that name.
    #[error("there is no target {name}")]
    NoTarget {
        /// The name.
        name: String,
    },
    /// A target has that name.
    #[error("target {name} exists")]
    TargetExists {
        /// The name.
        name: String,
    },
    /// A target has sessions.
    #[error("target {name} has {sessions} sessions")]
    TargetInUse {
        /// Its name.
        name: String,
        /// How many.
        sessions: u64,
    },
    /// A LUN of a target is a volume's.
    #[error("LUN {lun} of target {target} is volume {volume}")]
    LunInUse {
        /// The target's name.
        target: String,
        /// The LUN.
        lun: u16,
        /// The volume's name.
        volume: String,
    },
    /// A target has no such LUN.
    #[error("target {target} has no LUN {lun}")]
    NoLun {
        /// The target's name.
        target: String,
        /// The LUN.
        lun: u16,
    },
    /// Nothing is said of an initiator by that name.
    #[error("nothing is said of initiator {initiator} at target {target}")]
    NoInitiator {
        /// The target's name.
        target: String,
        /// The initiator's.
        initiator: String,
    },
    /// No token has that id.
    #[error("there is no token {id}")]
    NoToken {
        /// The id.
        id: u64,
    },
    /// No head of the ledger has ended any of the days.
    #[error("none of these days is signed yet: the ledger is signed when a day, UTC, has ended")]
    NotSigned,
    /// A record could not be read that may need what would be deleted.
    #[error("a record of the catalogue is damaged, and may need it")]
    Unsure,
    /// Readings of that time are kept no more.
    #[error("readings of that time are kept no more")]
    ReadingsGone,
    /// It cannot be done as it is asked.
    #[error("{0}")]
    Request(String),
    /// The volume is not mirrored.
    #[error("volume {name} is not mirrored")]
    NotMirrored {
        /// The name.
        name: String,
    },
    /// What is asked of a mirror cannot be done now, or with this volume.
    #[error("{0}")]
    Mirror(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// A volume, or the system volume, failed the request.
    #[error(transparent)]
    Volume(#[from] Error),
    /// A thread that was asked has ended.
    #[error("{0} has ended: the daemon must be started anew")]
    Ended(&'static str),
    /// The records are not what this program writes.
    #[error("{0}")]
    Damaged(String),
}
