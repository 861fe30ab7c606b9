//! Questions to shards and the store as futures.

use super::CatalogueError;
use crate::mirror::MirrorView;
use crate::open::Notes;
use crate::qos::{Credits, QosLimits};
use crate::shard::{
    Callback, Message, MirrorMessage, Retiring, SeatSettings, ShardHandle, ShardQos, ShardStats, SharedLog, VolumeStats,
};
use crate::store::{RocksStore, StoreEnded, StoreHandle};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;
use units::{Lsn, MeterTime, TenantId, VolumeId};
use volume::compact::{EraseError, is_short_of_slots};
use volume::error::{DiskFault, Error, ErrorKind};
use volume::pool::{
    Boundary, DeletionError, Index, LineageError, Measured, MeterReading, MeterStart, Parent, PoolFigures,
    RequestCounts, ScrubTarget, SegmentRow, VolumeSpace,
};
use volume::recover::Known;
use volume::request::{ChangedExtent, Completion, Request};

/// A callback and the future of what it is called with.
fn callback<T: Send + 'static>() -> (Callback<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    // Whoever asked may have gone.
    (Box::new(move |value| drop(sender.send(value))), receiver)
}

async fn of_shard<T>(shard: &ShardHandle, message: Message, answer: oneshot::Receiver<T>) -> Result<T, CatalogueError> {
    let ended = || CatalogueError::Ended("a shard");
    shard.send(message).map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}

async fn of_store<T>(sent: Result<(), StoreEnded>, answer: oneshot::Receiver<T>) -> Result<T, CatalogueError> {
    let ended = || CatalogueError::Ended("the index");
    sent.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}

/// Has a volume carry out a request.
pub(super) async fn submit(
    shard: &ShardHandle,
    volume: VolumeId,
    request: Request,
) -> Result<Completion, CatalogueError> {
    begin(shard, volume, request)?.end().await
}

/// A request that a volume has.
pub(super) struct Begun(oneshot::Receiver<Result<Completion, Error>>);

/// Hands a volume a request. It is carried out behind all that the shard was handed before.
pub(super) fn begin(shard: &ShardHandle, volume: VolumeId, request: Request) -> Result<Begun, CatalogueError> {
    let (done, answer) = callback();
    shard.send(Message::Submit { volume, request, done }).map_err(|_| CatalogueError::Ended("a shard"))?;
    Ok(Begun(answer))
}

impl Begun {
    /// Waits for its answer.
    pub(super) async fn end(self) -> Result<Completion, CatalogueError> {
        Ok(self.0.await.map_err(|_| CatalogueError::Ended("a shard"))??)
    }
}

/// The answer to a snapshot.
#[expect(clippy::needless_pass_by_value, reason = "the shape of and_then's argument")]
pub(super) fn boundary(completion: Completion) -> Result<Boundary, CatalogueError> {
    match completion {
        Completion::Snapshot(boundary) => Ok(boundary),
        Completion::Read { .. }
        | Completion::Done
        | Completion::Miscompare { .. }
        | Completion::Metered(_)
        | Completion::Lent(_)
        | Completion::Extents(_)
        | Completion::Changed(_) => {
            Err(Error::new(ErrorKind::Unavailable, "the volume answered a snapshot with something else").into())
        }
    }
}

/// The answer to what has changed.
pub(super) fn changed(completion: Completion) -> Result<Vec<ChangedExtent>, CatalogueError> {
    match completion {
        Completion::Changed(extents) => Ok(extents),
        Completion::Read { .. }
        | Completion::Done
        | Completion::Miscompare { .. }
        | Completion::Metered(_)
        | Completion::Lent(_)
        | Completion::Extents(_)
        | Completion::Snapshot(_) => {
            Err(Error::new(ErrorKind::Unavailable, "the volume told something else than what has changed").into())
        }
    }
}

/// Closes a volume.
pub(super) async fn close(shard: &ShardHandle, volume: VolumeId) -> Result<Result<(), Error>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::CloseVolume { volume, done }, answer).await
}

/// Cuts off a volume's clients and checkpoints it; it stays open.
pub(super) async fn detach(shard: &ShardHandle, volume: VolumeId) -> Result<Result<(), Error>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::DetachClients { volume, done }, answer).await
}

/// Has an open volume mirrored.
pub(super) async fn begin_mirror(
    shard: &ShardHandle,
    volume: VolumeId,
    settings: SeatSettings,
) -> Result<Result<(), Error>, CatalogueError> {
    let (done, answer) = callback();
    let message = Box::new(MirrorMessage::Begin { settings: Box::new(settings), done });
    of_shard(shard, Message::Mirror { volume, message }, answer).await
}

/// Has the seat of a mirrored volume do nothing any more; tells whether that may be.
pub(super) async fn retire_seat(
    shard: &ShardHandle,
    volume: VolumeId,
    retiring: Retiring,
) -> Result<bool, CatalogueError> {
    let (done, answer) = callback();
    let message = Box::new(MirrorMessage::Retire(retiring, done));
    of_shard(shard, Message::Mirror { volume, message }, answer).await
}

/// How a mirrored volume is; nothing of one that has no seat.
pub(super) async fn mirror_view(shard: &ShardHandle, volume: VolumeId) -> Result<Option<MirrorView>, CatalogueError> {
    let (done, answer) = callback();
    let message = Box::new(MirrorMessage::View(done));
    // Of a volume that is not open nobody answers.
    match of_shard(shard, Message::Mirror { volume, message }, answer).await {
        Ok(view) => Ok(view),
        Err(_) => Ok(None),
    }
}

/// How far the other site surely is with the logs of a shard.
pub(super) async fn shared(shard: &ShardHandle) -> Result<Vec<SharedLog>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::Shared(done), answer).await
}

/// What the index knows of a volume that was `created_bytes` long when it was made.
pub(crate) async fn known(store: &StoreHandle, volume: VolumeId, created_bytes: u64) -> Result<Known, CatalogueError> {
    begin_with_index(store, move |index| index.known(volume, created_bytes))?.end().await
}

/// The segments of a volume, as the index has them now.
pub(crate) async fn segments(store: &StoreHandle, volume: VolumeId) -> Result<Vec<SegmentRow>, CatalogueError> {
    begin_with_index(store, move |index| index.segments(volume))?.end().await
}

/// A shard's counters.
pub(super) async fn stats(shard: &ShardHandle) -> Result<ShardStats, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::Stats(done), answer).await
}

/// A volume's counters; nothing of one that is not open.
pub(super) async fn volume_stats(shard: &ShardHandle, volume: VolumeId) -> Result<Option<VolumeStats>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::VolumeStats { volume, done }, answer).await
}

/// What is left of a shard's ceilings.
pub(super) async fn qos(shard: &ShardHandle) -> Result<ShardQos, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::Qos(done), answer).await
}

/// Holds a volume to other ceilings; tells whether it is open.
pub(super) async fn set_volume_qos(
    shard: &ShardHandle,
    volume: VolumeId,
    limits: QosLimits,
) -> Result<bool, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::SetVolumeQos { volume, limits, done }, answer).await
}

/// Changes a shard's part of a tenant's ceilings; tells the credits that found no room.
pub(super) async fn set_tenant_qos(
    shard: &ShardHandle,
    tenant: TenantId,
    (limits, credits): (QosLimits, Credits),
) -> Result<Credits, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::SetTenantQos { tenant, limits, credits, done }, answer).await
}

/// Gives a tenant another share of a shard.
pub(super) fn set_tenant_weight(shard: &ShardHandle, tenant: TenantId, weight: u64) -> Result<(), CatalogueError> {
    let sent = shard.send(Message::SetTenantWeight { tenant, weight });
    sent.map_err(|_| CatalogueError::Ended("a shard"))
}

/// Keeps what is left of credits for the next start.
pub(super) async fn note_credits(store: &StoreHandle, note: Vec<u8>) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.note_credits(note))?.end().await
}

/// Begins the meters of volumes that have none, durably.
pub(super) async fn begin_meters(
    store: &StoreHandle,
    starts: Vec<(VolumeId, MeterStart)>,
) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.begin_meters(&starts))?.end().await
}

/// From when on readings of a volume can be had.
pub(super) async fn meter_since(store: &StoreHandle, volume: VolumeId) -> Result<Option<MeterTime>, CatalogueError> {
    begin_with_index(store, move |index| index.meter_since(volume))?.end().await
}

/// What the registers of a volume said at each of some moments.
pub(super) async fn meter_readings(
    store: &StoreHandle,
    volume: VolumeId,
    moments: Vec<MeterTime>,
) -> Result<Vec<MeterReading>, CatalogueError> {
    begin_with_index(store, move |index| index.meter_readings(volume, &moments))?.end().await
}

/// Readings up to some moments are kept, and are not asked for again.
pub(super) async fn forget_readings(
    store: &StoreHandle,
    taken: Vec<(VolumeId, MeterTime)>,
) -> Result<(), CatalogueError> {
    let forget = move |index: &mut Index<RocksStore>| {
        taken.into_iter().for_each(|(volume, to)| index.forget_readings(volume, to));
    };
    begin_with_index(store, forget)?.end().await
}

/// Keeps what was measured.
pub(super) async fn note_measured(
    store: &StoreHandle,
    measured: Vec<(VolumeId, Measured)>,
    now: MeterTime,
) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.note_measured(&measured, now))?.end().await
}

/// How often registers did not say what the map has.
pub(super) async fn meter_differences(store: &StoreHandle) -> Result<u64, CatalogueError> {
    begin_with_index(store, |index| index.meter_differences())?.end().await
}

/// What was noted of requests.
pub(super) async fn noted_requests(
    store: &StoreHandle,
) -> Result<Result<Vec<(VolumeId, RequestCounts)>, DiskFault>, CatalogueError> {
    begin_with_index(store, |index| index.noted_requests())?.end().await
}

/// Notes what was asked of volumes.
pub(super) async fn note_requests(
    store: &StoreHandle,
    all: Vec<(VolumeId, RequestCounts)>,
) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.note_requests(&all))?.end().await
}

/// What a shard carried out for clients, of each volume.
pub(super) async fn requests(shard: &ShardHandle) -> Result<Vec<(VolumeId, RequestCounts)>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::Requests(done), answer).await
}

/// The store did not do something.
pub(super) fn store_failed(what: &str, fault: DiskFault) -> CatalogueError {
    Error::new(ErrorKind::Unavailable, format!("{what}: the index store failed: {fault}")).into()
}

/// The pool's figures.
pub(super) async fn figures(store: &StoreHandle) -> Result<PoolFigures, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.figures(done), answer).await
}

/// Forgets a volume that no shard serves.
pub(super) async fn erase(store: &StoreHandle, volume: VolumeId) -> Result<Result<(), EraseError>, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.erase(volume, done), answer).await
}

/// Deletes the end of a generation that nobody needs any more, with all that it alone holds.
pub(super) async fn delete_boundary(
    store: &StoreHandle,
    volume: VolumeId,
    generation: u64,
) -> Result<Result<(), DeletionError>, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.delete_snapshot(volume, generation, done), answer).await
}

/// How many blocks the deletion of each of some sets of a volume's snapshots gives back.
pub(super) async fn reclaim(
    store: &StoreHandle,
    volume: VolumeId,
    sets: Vec<BTreeSet<u64>>,
) -> Result<Result<Vec<u64>, DiskFault>, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.reclaim(volume, sets, done), answer).await
}

/// A question that the index has.
pub(super) struct Asked<T>(oneshot::Receiver<T>);

/// Hands the index a question, which it answers on its thread behind what it was handed before.
fn begin_with_index<T: Send + 'static>(
    store: &StoreHandle,
    question: impl FnOnce(&mut Index<RocksStore>) -> T + Send + 'static,
) -> Result<Asked<T>, CatalogueError> {
    let (done, answer) = callback();
    let sent = store.with_index(Box::new(move |index| done(question(index))));
    sent.map_err(|_| CatalogueError::Ended("the index"))?;
    Ok(Asked(answer))
}

impl<T> Asked<T> {
    /// Waits for its answer.
    pub(super) async fn end(self) -> Result<T, CatalogueError> {
        self.0.await.map_err(|_| CatalogueError::Ended("the index"))
    }
}

/// The ends of generations that are needed.
pub(super) async fn boundaries(store: &StoreHandle) -> Result<Vec<(VolumeId, Boundary)>, CatalogueError> {
    let question = |index: &mut Index<RocksStore>| {
        let of = |volume| index.boundaries(volume).map(move |row| (volume, row.boundary));
        index.volumes().into_iter().flat_map(of).collect()
    };
    begin_with_index(store, question)?.end().await
}

/// Asks what a volume takes.
pub(super) fn begin_volume_space(store: &StoreHandle, volume: VolumeId) -> Result<Asked<VolumeSpace>, CatalogueError> {
    begin_with_index(store, move |index| index.volume_space(volume))
}

/// Notes that `heir`, a new clone or a view, inherits from `parent`: before it is opened, and after its record is durable.
pub(super) async fn note_parent(
    store: &StoreHandle,
    heir: VolumeId,
    parent: Parent,
) -> Result<Result<(), LineageError>, CatalogueError> {
    begin_with_index(store, move |index| index.note_parent(heir, parent))?.end().await
}

/// Forgets that a view inherits, once it is closed. A clone is forgotten by [`erase`].
pub(super) async fn forget_parent(
    store: &StoreHandle,
    heir: VolumeId,
) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.forget_parent(heir))?.end().await
}

/// Notes that these are all heirs that there are, as the records say at a start: before any volume but the system volume is
/// recovered. Tells which of them must not be served.
pub(super) async fn note_families(
    store: &StoreHandle,
    parents: BTreeMap<VolumeId, Parent>,
) -> Result<Result<Vec<VolumeId>, DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| index.note_families(&parents))?.end().await
}

/// Keeps from now on all that comes to the log of a volume.
pub(super) async fn begin_history(store: &StoreHandle, volume: VolumeId) -> Result<(), CatalogueError> {
    begin_with_index(store, move |index| index.begin_history(volume))?.end().await
}

/// Keeps the logs of volumes whole behind these operations, and of no other; `ends_beginning` when that is
/// said of the volume whose history was begun last. What is kept no more is given back.
pub(super) fn begin_keep_history(
    store: &StoreHandle,
    history: BTreeMap<VolumeId, Lsn>,
    ends_beginning: bool,
) -> Result<Asked<()>, CatalogueError> {
    let (done, answer) = callback();
    let sent = store.keep_history((history, ends_beginning), done);
    sent.map_err(|_| CatalogueError::Ended("the index"))?;
    Ok(Asked(answer))
}

/// Whether writers are about to find no slot.
pub(super) async fn is_short(store: &StoreHandle) -> Result<bool, CatalogueError> {
    begin_with_index(store, |index| is_short_of_slots(index))?.end().await
}

/// Blocks that are kept of a volume and that no page names.
pub(super) async fn history_blocks(store: &StoreHandle, volume: VolumeId) -> Result<u64, CatalogueError> {
    begin_with_index(store, move |index| index.history_blocks(volume))?.end().await
}

/// The segments of a volume with operations behind `from`.
pub(super) async fn history_targets(
    store: &StoreHandle,
    (volume, from): (VolumeId, Lsn),
) -> Result<Vec<ScrubTarget>, CatalogueError> {
    begin_with_index(store, move |index| index.history_targets(volume, from))?.end().await
}

/// Notes what recovery found, once it is durable in the pool.
pub(super) async fn note_recovered(store: &StoreHandle, notes: Notes) -> Result<Result<(), DiskFault>, CatalogueError> {
    begin_with_index(store, move |index| notes.note_in(index))?.end().await
}
