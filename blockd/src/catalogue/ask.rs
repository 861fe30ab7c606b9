//! Questions to shards and the store as futures.

use super::CatalogueError;
use crate::open::Notes;
use crate::shard::{Callback, Message, ShardHandle, ShardStats};
use crate::store::{StoreEnded, StoreHandle};
use tokio::sync::oneshot;
use units::VolumeId;
use volume::error::{DiskFault, Error};
use volume::pool::PoolFigures;
use volume::request::{Completion, Request};

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
    let (done, answer) = callback::<Result<Completion, Error>>();
    Ok(of_shard(shard, Message::Submit { volume, request, done }, answer).await??)
}

/// Closes a volume.
pub(super) async fn close(shard: &ShardHandle, volume: VolumeId) -> Result<Result<(), Error>, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::CloseVolume { volume, done }, answer).await
}

/// A shard's counters.
pub(super) async fn stats(shard: &ShardHandle) -> Result<ShardStats, CatalogueError> {
    let (done, answer) = callback();
    of_shard(shard, Message::Stats(done), answer).await
}

/// The pool's figures.
pub(super) async fn figures(store: &StoreHandle) -> Result<PoolFigures, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.figures(done), answer).await
}

/// Forgets a volume that no shard serves.
pub(super) async fn erase(store: &StoreHandle, volume: VolumeId) -> Result<Result<(), DiskFault>, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.erase(volume, done), answer).await
}

/// Notes what recovery found.
pub(super) async fn note_recovered(store: &StoreHandle, notes: Notes) -> Result<Result<(), DiskFault>, CatalogueError> {
    let (done, answer) = callback();
    of_store(store.note_recovered(notes, done), answer).await
}
