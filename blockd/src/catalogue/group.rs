//! Snapshots of several volumes at one point: all are held still, have their snapshots, and are let go.
//!
//! No change that is not in its volume's snapshot has been answered before the last of the snapshots was taken. A hold that
//! ended early breaks that, and whoever lets go is told: then the snapshots are given up, and taken once more.

use super::record::ParentRecord;
use super::{Catalogue, CatalogueError, ask};
use units::{SnapshotId, VolumeId};
use volume::error::ErrorKind;
use volume::pool::Boundary;
use volume::request::{Completion, Request};

/// Tries, each of which a volume that stalls makes fail.
const TRIES_MAX: u32 = 2;

impl Catalogue {
    pub(super) async fn mark_together(
        &self,
        members: &[(VolumeId, SnapshotId)],
    ) -> Result<Vec<Boundary>, CatalogueError> {
        let mut tries = 1;
        loop {
            match self.try_to_mark(members).await {
                Err(CatalogueError::Volume(error)) if error.kind == ErrorKind::Unavailable && tries < TRIES_MAX => {
                    tracing::info!(%error, "snapshots of a group are tried again");
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_to_mark(&self, members: &[(VolumeId, SnapshotId)]) -> Result<Vec<Boundary>, CatalogueError> {
        let held = self.ask_all(members, |_| Request::Hold).await;
        let is_held = held.iter().all(Result::is_ok);
        let marked = if is_held { self.ask_all(members, |id| Request::Snapshot { id }).await } else { Vec::new() };
        // Each is let go, whatever became of the others.
        let released = self.ask_all(members, |_| Request::Release).await;
        let marked: Vec<_> = marked.into_iter().map(|answer| answer.and_then(ask::boundary)).collect();
        let taken: Vec<(u64, Boundary)> = members
            .iter()
            .zip(&marked)
            .filter_map(|((volume, _), result)| Some((volume.0, *result.as_ref().ok()?)))
            .collect();
        let others = held.into_iter().chain(released).map(|answer| answer.map(drop));
        let failed = marked.into_iter().map(|answer| answer.map(drop)).chain(others).find_map(Result::err);
        match failed {
            None => Ok(taken.into_iter().map(|(_, boundary)| boundary).collect()),
            Some(error) => {
                let left =
                    |(volume, boundary): (u64, Boundary)| ParentRecord { volume, generation: boundary.generation };
                self.give_up(taken.into_iter().map(left));
                Err(error)
            }
        }
    }

    /// Asks every member, then waits for every answer.
    async fn ask_all(
        &self,
        members: &[(VolumeId, SnapshotId)],
        request: impl Fn(SnapshotId) -> Request,
    ) -> Vec<Result<Completion, CatalogueError>> {
        let begin = |(volume, id): &(VolumeId, SnapshotId)| ask::begin(self.shard_of(*volume).1, *volume, request(*id));
        let begun: Vec<_> = members.iter().map(begin).collect();
        let mut answers = Vec::with_capacity(begun.len());
        for begun in begun {
            answers.push(match begun {
                Ok(begun) => begun.end().await,
                Err(error) => Err(error),
            });
        }
        answers
    }
}
