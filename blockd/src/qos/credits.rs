//! Credits as they are kept over a restart: one row of the index, in these words.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 26 each | 0 volume or 1 tenant, its id 8, flags 1 (bit 0 operations, 1 bytes), credits of operations 8, of bytes 8 |
//!
//! Little-endian. It is written every few seconds, so that a kill forgets what was spent since; whatever it says, a bucket is
//! never fuller than full. While the daemon is down no credits come.

use std::collections::BTreeMap;
use units::{TenantId, VolumeId};

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 26;
const VOLUME: u8 = 0;
const TENANT: u8 = 1;

/// What is left in the buckets of a volume, or a tenant; nothing where there is no bucket, or nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credits {
    /// Operations; below 0 what is owed.
    pub operations: Option<i64>,
    /// Bytes; below 0 what is owed.
    pub bytes: Option<i64>,
}

/// The credits of all that have ceilings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeptCredits {
    pub(crate) volumes: BTreeMap<VolumeId, Credits>,
    pub(crate) tenants: BTreeMap<TenantId, Credits>,
}

pub(crate) fn encode(kept: &KeptCredits) -> Vec<u8> {
    let mut out = vec![VERSION];
    let volumes = kept.volumes.iter().map(|(volume, credits)| (VOLUME, volume.0, credits));
    let tenants = kept.tenants.iter().map(|(tenant, credits)| (TENANT, tenant.0, credits));
    for (kind, id, credits) in volumes.chain(tenants) {
        out.push(kind);
        out.extend_from_slice(&id.to_le_bytes());
        out.push(u8::from(credits.operations.is_some()) | u8::from(credits.bytes.is_some()) << 1);
        out.extend_from_slice(&credits.operations.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&credits.bytes.unwrap_or(0).to_le_bytes());
    }
    out
}

/// `None` for what is not in these words.
pub(crate) fn decode(note: &[u8]) -> Option<KeptCredits> {
    let (version, entries) = note.split_first()?;
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if *version != VERSION || !rest.is_empty() {
        return None;
    }
    let mut kept = KeptCredits::default();
    for entry in entries {
        let (kind, entry) = entry.split_first()?;
        let (id, entry) = entry.split_first_chunk::<8>()?;
        let (flags, entry) = entry.split_first()?;
        let (operations, bytes) = entry.split_first_chunk::<8>()?;
        let number = |bit: u8, bytes: &[u8]| {
            let number = i64::from_le_bytes(bytes.try_into().ok()?);
            Some((flags & bit != 0).then_some(number))
        };
        let credits = Credits { operations: number(1, operations)?, bytes: number(2, bytes)? };
        let id = u64::from_le_bytes(*id);
        match *kind {
            VOLUME => drop(kept.volumes.insert(VolumeId(id), credits)),
            TENANT => drop(kept.tenants.insert(TenantId(id), credits)),
            _ => return None,
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credits() -> impl Strategy<Value = Credits> {
        any::<(Option<i64>, Option<i64>)>().prop_map(|(operations, bytes)| Credits { operations, bytes })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_as_it_was_written(
            volumes in prop::collection::btree_map(any::<u64>().prop_map(VolumeId), credits(), 0..9),
            tenants in prop::collection::btree_map(any::<u64>().prop_map(TenantId), credits(), 0..9),
        ) {
            let kept = KeptCredits { volumes, tenants };
            prop_assert_eq!(decode(&encode(&kept)), Some(kept));
        }

        #[test]
        fn any_bytes_are_read_or_refused(note: Vec<u8>) {
            let _ = decode(&note);
        }
    }

    #[test]
    fn another_version_or_a_torn_row_is_none() {
        let kept = KeptCredits { volumes: [(VolumeId(3), Credits::default())].into(), ..KeptCredits::default() };
        let note = encode(&kept);
        assert_eq!(decode(&note[..note.len() - 1]), None);
        assert_eq!(decode(&[2]), None);
        assert_eq!(decode(&[]), None);
    }
}
