//! What a rebuild has to know of the records: who began as what, and which snapshots there are. Read from the system volume
//! at rest, once its part of the index is made.

use super::SYSTEM_BYTES;
use super::record::{CATALOGUE_FORMATS, Head, Record, SnapshotState, decode};
use std::collections::BTreeMap;
use units::{BlockIndex, Lsn, VolumeId};
use volume::pool::{Boundary, Index};
use volume::rebuild::Families;
use volume::rest::AtRest;
use volume::store::{PoolReader, Store};

/// Reads the families; what cannot be read makes for a rebuild that keeps more.
pub(crate) fn families<S: Store>(index: &Index<S>, reader: &dyn PoolReader) -> Families {
    let mut system = match AtRest::find(index, reader, &index.known(VolumeId::SYSTEM, SYSTEM_BYTES)) {
        Ok(system) => system,
        Err(damage) => {
            tracing::error!(%damage, "the catalogue cannot be read: every snapshot is kept, and no clone has what it began as");
            return Families::unknown();
        }
    };
    match read::<_, Head>(&mut system, 0) {
        Ok(Some(head)) if CATALOGUE_FORMATS.contains(&head.format) => {}
        // Nothing was ever made in it.
        Ok(None) => return Families::new(BTreeMap::new(), Vec::new()),
        Ok(Some(Head { format, .. })) => {
            tracing::error!(format, "the catalogue is of another version: every snapshot is kept");
            return Families::unknown();
        }
        Err(reason) => {
            tracing::error!(reason, "the catalogue cannot be read: every snapshot is kept");
            return Families::unknown();
        }
    }
    let (mut parents, mut boundaries, mut rotten) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut from = 1;
    loop {
        let id = match system.next_written(BlockIndex(from)) {
            Ok(Some(block)) => block.0,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the catalogue cannot be read: every snapshot is kept");
                return Families::unknown();
            }
        };
        from = id + 1;
        match read::<_, Record>(&mut system, id) {
            Ok(Some(Record::Volume(record))) => {
                parents.extend(record.parent.map(|parent| (VolumeId(id), parent.into())));
            }
            Ok(Some(Record::Snapshot(record))) if record.state != SnapshotState::Deleting => {
                let (generation, lsn) = (record.generation, Lsn(record.lsn));
                let (size_bytes, wall_ms) = (record.size_bytes, record.at_ms);
                boundaries.push((VolumeId(record.of), Boundary { generation, lsn, size_bytes, wall_ms }));
            }
            Ok(
                Some(
                    Record::Snapshot(_)
                    | Record::Group(_)
                    | Record::Tenant(_)
                    | Record::Token(_)
                    | Record::Class(_)
                    | Record::Target(_)
                    | Record::Initiator(_)
                    | Record::Reservation(_)
                    | Record::Meter(_),
                )
                | None,
            ) => {}
            Err(reason) => {
                tracing::error!(id, reason, "a record of the catalogue cannot be read: every snapshot is kept");
                rotten.push(VolumeId(id));
            }
        }
    }
    if rotten.is_empty() {
        Families::new(parents, boundaries)
    } else {
        Families::with_unknown_boundaries(parents).with_unreadable(rotten)
    }
}

fn read<S: Store, T: serde::de::DeserializeOwned>(system: &mut AtRest<'_, S>, block: u64) -> Result<Option<T>, String> {
    let bytes = system.read(BlockIndex(block)).map_err(|error| error.to_string())?;
    decode(&bytes).map_err(|error| error.to_string())
}
