//! The management plane's words and its REST API: names, sizes, volumes, pools, problems, metrics.
//!
//! It knows no engine. What it offers is reached through one trait, [`Service`], that the program implements over its
//! shards. Every answer that is not a success is a problem document (RFC 9457) with a stable code.

#![forbid(unsafe_code)]

pub mod api;
mod audit;
mod billing;
mod books;
mod class;
mod diff;
mod error;
mod image;
mod journals;
mod kept;
pub mod listener;
pub mod metrics;
mod mirror;
mod model;
mod name;
mod object;
mod operation;
mod page;
mod rate;
mod refusals;
mod scrub;
mod service;
mod size;
mod target;
mod tenant;
mod token;
mod trial;

pub use audit::{AuditEntry, AuditList, Outcome};
pub use billing::{
    Basis, Budget, BudgetAlert, BudgetStatus, BudgetWatch, CorrectInvoice, CorrectionPreview, DueAlert, InvoiceList,
    InvoiceSummary, IssueInvoice, LedgerHead, LedgerHeadList, LedgerKey, OrderedCorrection, RateCardEntry,
    RateCardList, SetTenantBilling, TenantBilling, UsageReport, UsedRow,
};
pub use books::{Books, NewAccountEntry, Pieces};
pub use class::{Class, ClassList, CreateClass, SetClass, SetVolumeClass};
pub use diff::{DiffExtent, DiffKind, SnapshotDiff};
pub use error::{ErrorCode, Problem, ServiceError};
pub use image::{Image, ImageList, ImageSharing, ImageState, ImportImage, MarkImage};
pub use journals::Journals;
pub use mirror::{LinkState, Mirror, MirrorEvidence, MirrorList, MirrorRole, ToSite};
pub use model::{
    ApiVersion, CeilingStatus, CloneMoment, CloneSnapshot, Compaction, CreateSnapshots, CreateVolume, KeepHistory,
    Pool, PoolState, ReclaimSnapshots, Reclaimed, ResizeVolume, RollbackVolume, RolledBack, SetQos, Slots, Snapshot,
    SnapshotList, Status, Versions, Volume, VolumeHistory, VolumeList, VolumeQos, VolumeState,
};
pub use name::{ExportName, InvalidName, MomentName, Name, Second, SnapshotName, VolumeName};
pub use operation::{Operation, OperationKind, OperationList, OperationState};
pub use page::{Page, Place};
pub use scrub::{BeginScrub, Scrub, ScrubFinding};
pub use service::{Answer, Service, Trial};
pub use size::{InvalidSize, Size, VolumeSize};
pub use target::{
    AllowInitiator, Chap, CreateTarget, MapLun, MapVolume, MutualChap, Target, TargetInitiator, TargetList, TargetLun,
};
pub use tenant::{
    Access, CreateTenant, Quota, SetAccess, SetTenantQos, SocketAccess, Tenant, TenantList, TenantQos, Usage,
};
pub use token::{CreateToken, KnownToken, MadeToken, NewToken, Role, Secret, Token, TokenList};
pub use trial::{ChangePrice, DryRun, VolumePrice};
