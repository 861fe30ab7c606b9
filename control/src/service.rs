//! The one way from the API to the shards.

use crate::books::Books;
use crate::class::{Class, SetClass};
use crate::diff::SnapshotDiff;
use crate::error::ServiceError;
use crate::image::{Image, ImageSharing};
use crate::metrics;
use crate::mirror::Mirror;
use crate::model::{KeepHistory, Pool, RolledBack, SetQos, Snapshot, Volume};
use crate::name::{ExportName, MomentName, Name, SnapshotName, VolumeName};
use crate::operation::Operation;
use crate::page::Page;
use crate::scrub::Scrub;
use crate::size::VolumeSize;
use crate::target::{Chap, Target, TargetLun};
use crate::tenant::{Quota, SetAccess, SetTenantQos, Tenant};
use crate::token::{KnownToken, NewToken, Token};
use std::pin::Pin;
use std::sync::Arc;

/// What a [`Service`] answers, in its own time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ServiceError>> + Send + 'a>>;

/// A change that is to be tried out, in its own time.
pub type Trial<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What the API can ask for.
///
/// Each call is atomic towards the others and durable when answered. The API runs a change to its end even when its
/// client has gone.
pub trait Service: Send + Sync + 'static {
    /// Makes a volume, of the default class where none is told; what is not told of its history is as its class says. Fails
    /// with `volume_exists`, naming the size it has, `class_not_found`, or `no_space`.
    fn create_volume(
        &self,
        name: VolumeName,
        size: VolumeSize,
        history: KeepHistory,
        class: Option<Name>,
    ) -> Answer<'_, Volume>;

    /// A page of every volume, or of those of one tenant, by name.
    fn list_volumes(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Volume>>;

    /// One volume. Fails with `volume_not_found`.
    fn show_volume(&self, name: VolumeName) -> Answer<'_, Volume>;

    /// Changes a volume's size while it serves. Fails with `shrink_refused` when data lies beyond it, unless
    /// `discard_tail`.
    fn resize_volume(&self, name: VolumeName, size: VolumeSize, discard_tail: bool) -> Answer<'_, Volume>;

    /// Deletes a volume and all its data. Fails with `volume_in_use` while clients are attached, unless `force`, which
    /// cuts them off first.
    fn delete_volume(&self, name: VolumeName, force: bool) -> Answer<'_, ()>;

    /// Begins an import, or goes on with one of the same source and its state. Fails with `volume_exists` when the name is
    /// taken, `image_importing` when the source is another, `volume_in_use` while somebody copies.
    fn import_image(&self, name: VolumeName, size: VolumeSize, source: (String, String)) -> Answer<'_, Image>;

    /// Notes how far an import is. Fails with `import_superseded` when that of the claim is over.
    fn mark_image(&self, name: VolumeName, claim: Option<u64>, copied_bytes: u64) -> Answer<'_, Image>;

    /// Seals an image. Fails with `image_importing` unless it is copied whole, `import_superseded` when the import of the
    /// claim is over.
    fn seal_image(&self, name: VolumeName, claim: Option<u64>) -> Answer<'_, Image>;

    /// A page of every image, or of those of one tenant and those that are shared with it, by name.
    fn list_images(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Image>>;

    /// One image. Fails with `image_not_found`.
    fn show_image(&self, name: VolumeName) -> Answer<'_, Image>;

    /// Deletes an image and its data, as [`Service::delete_volume`] does a volume. Fails with `import_superseded` when the
    /// import of the claim is over.
    fn delete_image(&self, name: VolumeName, claim: Option<u64>, force: bool) -> Answer<'_, ()>;

    /// Says which tenants may make volumes of an image of the default one. Fails with `image_not_found`, `tenant_not_found`.
    fn share_image(&self, name: VolumeName, sharing: ImageSharing) -> Answer<'_, Image>;

    /// Makes a volume that begins as the first of some images that is there and may be used by its tenant, as large as that or larger. Fails with `image_not_found`, `image_importing`,
    /// `volume_exists`.
    fn clone_image(
        &self,
        images: Vec<VolumeName>,
        name: VolumeName,
        size: Option<VolumeSize>,
        class: Option<Name>,
    ) -> Answer<'_, Volume>;

    /// Gives a volume another class, from this moment on. Fails with `class_not_found`.
    fn set_volume_class(&self, name: VolumeName, class: Name) -> Answer<'_, Volume>;

    /// A page of every mirrored volume, or of those of one tenant, by name.
    fn list_mirrors(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Mirror>>;

    /// How a mirrored volume is at this site. Fails with `volume_not_mirrored`.
    fn show_mirror(&self, name: VolumeName) -> Answer<'_, Mirror>;

    /// Has a volume mirrored to another site, of which this one is the first primary. Fails with `mirror_refused`, saying why.
    fn begin_mirror(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror>;

    /// Ends the mirroring of a volume at this site. Fails with `volume_not_mirrored`, `mirror_refused`.
    fn end_mirror(&self, name: VolumeName) -> Answer<'_, ()>;

    /// Has a site be the primary of a volume from now on, without a write lost or refused. Fails with `volume_not_mirrored`,
    /// `mirror_refused`.
    fn move_volume(&self, name: VolumeName, to: u8) -> Answer<'_, Mirror>;

    /// Makes this site the primary of a volume, whatever the other one may hold that this one does not. Fails with
    /// `volume_not_mirrored`, `mirror_refused`.
    fn fail_over(&self, name: VolumeName) -> Answer<'_, Mirror>;

    /// Every class, in any order.
    fn list_classes(&self) -> Answer<'_, Vec<Class>>;

    /// One class. Fails with `class_not_found`.
    fn show_class(&self, name: Name) -> Answer<'_, Class>;

    /// Makes a class. Fails with `class_exists`.
    fn create_class(&self, name: Name, qos: SetQos, history: KeepHistory) -> Answer<'_, Class>;

    /// Changes what a class gives its volumes.
    fn set_class(&self, name: Name, wanted: SetClass) -> Answer<'_, Class>;

    /// Deletes a class. Fails with `class_in_use` while volumes are of it.
    fn delete_class(&self, name: Name) -> Answer<'_, ()>;

    /// A page of every iSCSI target, or of those of one tenant, by name.
    fn list_targets(&self, tenant: Option<Name>, page: Page) -> Answer<'_, Vec<Target>>;

    /// One target. Fails with `target_not_found`.
    fn show_target(&self, name: VolumeName) -> Answer<'_, Target>;

    /// Makes a target. Fails with `target_exists`.
    fn create_target(&self, name: VolumeName) -> Answer<'_, Target>;

    /// Deletes a target. Fails with `target_in_use` while it has sessions, unless `force`.
    fn delete_target(&self, name: VolumeName, force: bool) -> Answer<'_, ()>;

    /// Has a target show a volume. Fails with `lun_in_use` where the LUN is another volume's, or the volume has another one.
    fn map_lun(&self, target: VolumeName, volume: VolumeName, lun: Option<u16>) -> Answer<'_, TargetLun>;

    /// Has a target show a LUN no more. Fails with `lun_not_found`.
    fn unmap_lun(&self, target: VolumeName, lun: u16) -> Answer<'_, Target>;

    /// Lets an initiator enter a target, in place of what was said of it before.
    fn allow_initiator(&self, target: VolumeName, initiator: String, chap: Option<Chap>) -> Answer<'_, Target>;

    /// Takes back what was said of an initiator. Fails with `initiator_not_found`.
    fn deny_initiator(&self, target: VolumeName, initiator: String) -> Answer<'_, Target>;

    /// The ledger's books.
    fn books(&self) -> Arc<dyn Books>;

    /// Takes snapshots at one point, all or none; `group` is what that is called. Fails with `snapshot_exists`.
    fn create_snapshots(&self, names: Vec<SnapshotName>, group: Option<Name>) -> Answer<'_, Vec<Snapshot>>;

    /// A page of every snapshot, or of those of one volume or one tenant, by [`Snapshot::place`]; with what each alone holds when that
    /// is asked for, which takes a look at every change between them.
    fn list_snapshots(
        &self,
        of: (Option<VolumeName>, Option<Name>),
        with_space: bool,
        page: Page,
    ) -> Answer<'_, Vec<Snapshot>>;

    /// One snapshot. Fails with `snapshot_not_found`.
    fn show_snapshot(&self, name: SnapshotName) -> Answer<'_, Snapshot>;

    /// Deletes a snapshot. Fails with `snapshot_in_use` while a volume that began as it is there.
    fn delete_snapshot(&self, name: SnapshotName) -> Answer<'_, ()>;

    /// What `to` has from an offset on that the snapshot has not, or a part of it. Fails with `snapshots_unrelated` when the
    /// snapshot does not come before it.
    fn diff_snapshot(&self, since: SnapshotName, to: ExportName, from: u64) -> Answer<'_, SnapshotDiff>;

    /// What the deletion of snapshots would give back, in bytes.
    fn reclaim_snapshots(&self, names: Vec<SnapshotName>) -> Answer<'_, u64>;

    /// Makes a volume that begins as a snapshot. Fails with `volume_exists`.
    fn clone_snapshot(&self, snapshot: SnapshotName, name: VolumeName) -> Answer<'_, Volume>;

    /// Makes a volume that begins as another one was at a second. Fails with `history_not_found`, `volume_exists`.
    fn clone_moment(&self, moment: MomentName, name: VolumeName) -> Answer<'_, Volume>;

    /// Says for how long a volume's past is to be kept.
    fn keep_history(&self, name: VolumeName, wanted: KeepHistory) -> Answer<'_, Volume>;

    /// Says what may be asked of a volume from now on.
    fn set_qos(&self, name: VolumeName, wanted: SetQos) -> Answer<'_, Volume>;

    /// Makes a volume what it was at a snapshot, after a snapshot of what it is. Fails with `volume_in_use` while clients
    /// are attached, unless `force`, which cuts them off first.
    fn rollback_volume(&self, snapshot: SnapshotName, force: bool) -> Answer<'_, RolledBack>;

    /// Runs a trial: what `change` asks for is checked as for real and answered as it would be, with 0 for numbers that are given
    /// when something is made, and nothing is changed.
    fn in_trial<'a>(&'a self, change: Trial<'a>) -> Trial<'a>;

    /// Every tenant, in any order.
    fn list_tenants(&self) -> Answer<'_, Vec<Tenant>>;

    /// One tenant. Fails with `tenant_not_found`.
    fn show_tenant(&self, name: Name) -> Answer<'_, Tenant>;

    /// Makes a tenant. Fails with `tenant_exists`.
    fn create_tenant(&self, name: Name, quota: Quota) -> Answer<'_, Tenant>;

    /// Says what a tenant may have.
    fn set_quota(&self, name: Name, quota: Quota) -> Answer<'_, Tenant>;

    /// Says what may be asked of a tenant's volumes together from now on.
    fn set_tenant_qos(&self, name: Name, wanted: SetTenantQos) -> Answer<'_, Tenant>;

    /// Says who may enter a tenant's exports.
    fn set_access(&self, name: Name, wanted: SetAccess) -> Answer<'_, Tenant>;

    /// Suspends a tenant, and cuts its clients off.
    fn suspend_tenant(&self, name: Name) -> Answer<'_, Tenant>;

    /// Lets a suspended tenant go on.
    fn resume_tenant(&self, name: Name) -> Answer<'_, Tenant>;

    /// Deletes a tenant and its tokens. Fails with `tenant_in_use` while it has volumes or images.
    fn delete_tenant(&self, name: Name) -> Answer<'_, ()>;

    /// Every token, or those of one tenant, in any order.
    fn list_tokens(&self, tenant: Option<Name>) -> Answer<'_, Vec<Token>>;

    /// Makes a token. Fails with `tenant_not_found`.
    fn create_token(&self, token: NewToken) -> Answer<'_, Token>;

    /// Revokes a token, where a tenant is given one of that. Fails with `token_not_found`.
    fn revoke_token(&self, id: u64, tenant: Option<Name>) -> Answer<'_, ()>;

    /// The token of that number, from memory. One whose tenant is gone is none.
    fn find_token(&self, id: u64) -> Option<KnownToken>;

    /// Somebody asked by a token. To be kept now and then, without a wait.
    fn note_token_used(&self, id: u64);

    /// Every job that takes long, in any order: those under way, and the last scrub.
    fn list_operations(&self) -> Answer<'_, Vec<Operation>>;

    /// Cancels an operation that was listed. Fails with `operation_not_cancellable` where it has ended meanwhile.
    fn cancel_operation(&self, operation: Operation) -> Answer<'_, Operation>;

    /// The pool.
    fn show_pool(&self) -> Answer<'_, Pool>;

    /// Begins a scrub of the pool unless one is under way; without pace, also that one is as fast as it can be.
    fn begin_scrub(&self, is_paced: bool) -> Answer<'_, Scrub>;

    /// How far the scrub is, or the last one was.
    fn show_scrub(&self) -> Answer<'_, Scrub>;

    /// Whether every shard answers. Fails with `unavailable` or `shutting_down`, saying which does not.
    fn check_ready(&self) -> Answer<'_, ()>;

    /// The figures of every shard and volume at about this moment.
    fn metrics(&self) -> Answer<'_, metrics::Snapshot>;
}
