//! The catalogue's blocks in the system volume: block 0 tells the next id, block N is the record that has id N: of a
//! volume, a snapshot, a group of snapshots, a tenant, a token, a class, an iSCSI target, one of its initiators or reservations. A record that
//! does not say what it is of is a volume's.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJCAT\0\0` |
//! | 8 | 4 | bytes of the text, little-endian |
//! | 12 | 4 | CRC-32C of the text, little-endian |
//! | 16 | | JSON text, then zeros |
//!
//! A block of zeros is no record. Spec: `docs/format.md`, "The system volume".

use super::targets::records::{InitiatorRecord, ReservationRecord, TargetRecord};
use super::{Access, History, Image, Quota, TenantQos};
use crate::qos::QosLimits;
use metering::Registers;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use units::{BLOCK_LEN, ClassId, TenantId, VolumeId};
use volume::buffer::Buffer;
use volume::pool::Parent;

const MAGIC: [u8; 8] = *b"ALJCAT\0\0";
const HEADER_BYTES: usize = 16;

/// Most snapshots of one group: so many ids fit in its record.
pub(super) const GROUP_MEMBERS_MAX: usize = 64;

/// The version of the catalogue that this code writes. A program that knows no mirrors would serve a mirrored volume as if nobody else did.
pub(super) const CATALOGUE_FORMAT: u32 = 4;

/// The versions that it reads: before the second one there were no tenants, before the third one no
/// targets, before the fourth one no mirrors.
pub(super) const CATALOGUE_FORMATS: RangeInclusive<u32> = 1..=CATALOGUE_FORMAT;

/// Block 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// [`CATALOGUE_FORMAT`].
    pub(super) format: u32,
    /// The id of the next record; above every id given out.
    pub(super) next_id: u64,
}

/// A record, by what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most records are volumes'")]
pub(super) enum Record {
    Volume(VolumeRecord),
    Snapshot(SnapshotRecord),
    Group(GroupRecord),
    Tenant(TenantRecord),
    Token(TokenRecord),
    Meter(MeterRecord),
    Class(ClassRecord),
    Target(TargetRecord),
    Initiator(InitiatorRecord),
    Reservation(ReservationRecord),
}

/// The record of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub(super) name: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) tenant: u64,
    /// Its size when it was made; later sizes are told by its log.
    pub(super) size_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// Whether it is still there.
    pub(super) state: VolumeState,
    /// What it showed when it was made, when it was not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<ParentRecord>,
    /// The first volume of those that had its name one after the other by rollbacks, when it is not the first itself. Of
    /// the live ones of a line, the one with the highest id is the volume; the others are ghosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// What makes it an image, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Image>,
    /// For how long its history is kept, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<History>,
    /// Its ceilings, when it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) qos: Option<QosLimits>,
    /// From when to when it is metered.
    #[serde(default, skip_serializing_if = "is_unmarked")]
    pub(super) metered: Metered,
    /// Its class's number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) class: u64,
    /// Changes of its class that no reading tells yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) meter_changes: Vec<MeterChange>,
    /// What it is in a mirror, when it is mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mirror: Option<MirrorRecord>,
}

/// What a volume is in a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MirrorRecord {
    /// Its group: another one each time that a volume begins to be mirrored, so that nothing of before counts.
    pub(super) group: u64,
    /// The other site.
    pub(super) peer: u8,
    /// Whether it was made at the other site, which meters it.
    pub(super) is_copy: bool,
}

/// From when on what a volume uses is of another class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterChange {
    /// When, on the meter's clock.
    pub at: u64,
    /// The class's number, from then on.
    pub class: u64,
    /// That of the class before.
    pub before: u64,
}

/// From when to when a volume is metered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Metered {
    /// When it was made, on the meter's clock; nothing where that was before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<u64>,
    /// What its registers said in the end, until that is in the ledger. It counts once the volume has no name any more: a
    /// deletion or rollback that was not carried out leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<MeterEnd>,
}

/// What the registers of a volume said in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MeterEnd {
    /// When, on the meter's clock.
    pub(super) at: u64,
    /// When, milliseconds since 1970.
    pub(super) wall_ms: u64,
    /// As readings have them; nothing where they could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registers: Option<Registers>,
}

fn is_unmarked(metered: &Metered) -> bool {
    *metered == Metered::default()
}

/// The record of the meter: its clock, and the ledger, whose volume has the record's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MeterRecord {
    /// Its id, which is also the block's number, and that of the ledger's volume.
    pub(super) id: u64,
    /// What the ledger is known by, in hexadecimal digits.
    pub(super) ledger: String,
    /// The seed of the key that signs its heads, in hexadecimal digits.
    pub(super) seed: String,
    /// Which boot the clock was read in, in hexadecimal digits.
    pub(super) boot: String,
    /// What the clock since that boot said, in milliseconds.
    pub(super) since_boot_ms: u64,
    /// What the wall clock said, in milliseconds since 1970.
    pub(super) wall_ms: u64,
    /// What the meter's clock said.
    pub(super) at_ms: u64,
    /// How much of that was an estimate.
    pub(super) estimated_ms: u64,
}

/// The end of a generation of another volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct ParentRecord {
    pub(super) volume: u64,
    pub(super) generation: u64,
}

impl From<ParentRecord> for Parent {
    fn from(record: ParentRecord) -> Self {
        Self { volume: VolumeId(record.volume), generation: record.generation }
    }
}

/// How far a volume's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VolumeState {
    /// It is there.
    Live,
    /// It is being deleted: its name is free, its slots may be.
    Deleting,
    /// It has no name, and lives on for its snapshots or clones.
    Ghost,
}

/// The record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// The volume that it was taken of.
    pub(super) of: u64,
    /// Its name, unlike that of any other snapshot of the volume's line.
    pub(super) name: String,
    /// The generation that it ends.
    pub(super) generation: u64,
    /// Its place in the log.
    pub(super) lsn: u64,
    /// The volume's size there.
    pub(super) size_bytes: u64,
    /// When it was taken, milliseconds since 1970.
    pub(super) at_ms: u64,
    /// The group that it was taken with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<u64>,
    /// Whether it is still there.
    pub(super) state: SnapshotState,
    /// Whether it is a base of history: without a name, taken and deleted by the daemon. Behind the oldest live one of a
    /// volume the log is whole.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_base: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
const fn is_default(number: &u64) -> bool {
    *number == TenantId::DEFAULT.0 && *number == ClassId::DEFAULT.0
}

/// How far a snapshot's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SnapshotState {
    /// It is there.
    Live,
    /// Its name is gone, and it is kept for its clones.
    Pin,
    /// It is being deleted.
    Deleting,
}

/// The record of snapshots that were taken at one point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// Its name, when it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The snapshots that were taken with it; since then some may have been deleted.
    pub(super) members: Vec<u64>,
}

/// The record of a tenant. The default one has none. That of one that was deleted stays: its bills name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TenantRecord {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// What it is known by: the first is 1, the next 2, and none is given twice.
    pub(super) number: u64,
    /// Its name, which no other tenant has that is there.
    pub(super) name: String,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// When it was deleted, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted_ms: Option<u64>,
    /// Whether nobody may use or change what it has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_suspended: bool,
    /// What it may have.
    #[serde(default)]
    pub(super) quota: Quota,
    /// Its ceilings, when it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) qos: Option<TenantQos>,
    /// Who may enter its exports.
    #[serde(default)]
    pub(super) access: Access,
}

/// The record of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// Its id, which is also the block's number.
    pub(super) id: u64,
    /// What it is called, for people.
    pub(super) name: String,
    /// What its holder is.
    pub(super) role: String,
    /// The tenant that it is for, when it is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<u64>,
    /// The SHA-256 of its secret, in hexadecimal digits.
    pub(super) hash: String,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_ms: Option<u64>,
    /// When it was used last, to about an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used_ms: Option<u64>,
}

/// The record of a storage class. The default one has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClassRecord {
    /// Its id, which is also the block's number, and the class's.
    pub(super) id: u64,
    /// Its name, which no other class has.
    pub(super) name: String,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// The ceilings of its volumes, when they have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) qos: Option<QosLimits>,
    /// For how long the history of its volumes is kept, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<History>,
}

impl Record {
    /// Its id, which is also the block's number.
    pub(super) const fn id(&self) -> u64 {
        match self {
            Self::Volume(record) => record.id,
            Self::Snapshot(record) => record.id,
            Self::Group(record) => record.id,
            Self::Tenant(record) => record.id,
            Self::Token(record) => record.id,
            Self::Meter(record) => record.id,
            Self::Class(record) => record.id,
            Self::Target(record) => record.id,
            Self::Initiator(record) => record.id,
            Self::Reservation(record) => record.id,
        }
    }
}

impl VolumeRecord {
    /// The first volume of its line.
    pub(super) fn line(&self) -> u64 {
        self.line.unwrap_or(self.id)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        // There were volumes only, once.
        let kind = fields.remove("kind").unwrap_or_else(|| "volume".into());
        let fields = serde_json::Value::Object(fields);
        let record = match kind.as_str() {
            Some("volume") => VolumeRecord::deserialize(fields).map(Self::Volume),
            Some("snapshot") => SnapshotRecord::deserialize(fields).map(Self::Snapshot),
            Some("group") => GroupRecord::deserialize(fields).map(Self::Group),
            Some("tenant") => TenantRecord::deserialize(fields).map(Self::Tenant),
            Some("token") => TokenRecord::deserialize(fields).map(Self::Token),
            Some("meter") => MeterRecord::deserialize(fields).map(Self::Meter),
            Some("class") => ClassRecord::deserialize(fields).map(Self::Class),
            Some("target") => TargetRecord::deserialize(fields).map(Self::Target),
            Some("initiator") => InitiatorRecord::deserialize(fields).map(Self::Initiator),
            Some("reservation") => ReservationRecord::deserialize(fields).map(Self::Reservation),
            _ => return Err(D::Error::custom(format!("unknown kind {kind}"))),
        };
        record.map_err(D::Error::custom)
    }
}

/// Why a block is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordError {
    Magic,
    Length,
    Checksum,
    Text(String),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("wrong magic number"),
            Self::Length => f.write_str("impossible length"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Text(reason) => write!(f, "cannot be read: {reason}"),
        }
    }
}

/// Encodes one block.
///
/// # Panics
/// When the text is longer than a block, which names of bounded length rule out.
pub(super) fn encode(record: &impl Serialize) -> Buffer {
    let text = serde_json::to_vec(record).expect("a record has only texts and numbers");
    let len = u32::try_from(text.len()).expect("a record is short");
    let mut block = Buffer::zeroed(BLOCK_LEN);
    let fields = [&MAGIC[..], &len.to_le_bytes(), &crc_fast::crc32_iscsi(&text).to_le_bytes(), &text];
    let bytes = fields.concat();
    block.as_mut_slice().get_mut(..bytes.len()).expect("a record fits in a block").copy_from_slice(&bytes);
    block
}

/// Decodes one block; `None` when it holds only zeros.
pub(super) fn decode<T: DeserializeOwned>(block: &[u8]) -> Result<Option<T>, RecordError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (header, rest) = block.split_at_checked(HEADER_BYTES).ok_or(RecordError::Length)?;
    let (magic, numbers) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(RecordError::Magic);
    }
    let (len, crc) = numbers.split_at(4);
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| RecordError::Length);
    let len = usize::try_from(number(len)?).map_err(|_| RecordError::Length)?;
    let text = rest.get(..len).ok_or(RecordError::Length)?;
    if crc_fast::crc32_iscsi(text) != number(crc)? {
        return Err(RecordError::Checksum);
    }
    serde_json::from_slice(text).map(Some).map_err(|error| RecordError::Text(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::targets::{CHAP_SECRET_BYTES, CHAP_USER_BYTES_MAX, ChapSecrets, LUN_MAX};
    use super::super::{ACCESS_RULES_MAX, Fingerprint, ISCSI_NAME_BYTES_MAX, SYSTEM_BYTES, Sharing, SocketAccess};
    use super::*;
    use crate::qos::Ceiling;

    /// Of characters that take the most room in a record's text.
    fn longest_image() -> Image {
        let source = "\\".repeat(super::super::IMAGE_SOURCE_BYTES_MAX);
        let shared = Sharing::With((0..super::super::IMAGE_TENANTS_MAX as u64).map(|id| u64::MAX - id).collect());
        let source_state = "9".repeat(100);
        Image { is_ready: false, source, source_state, copied_bytes: 1 << 62, claim: u64::MAX, shared }
    }

    fn longest_access() -> Access {
        let network = "abcd:abcd:abcd:abcd:abcd:abcd:abcd:abcd/128".parse().unwrap();
        Access {
            certificates: vec![Fingerprint::of(b"a certificate"); ACCESS_RULES_MAX],
            networks: vec![network; ACCESS_RULES_MAX],
            socket: Some(SocketAccess { gid: Some(u32::MAX) }),
        }
    }

    /// Of a target with as many volumes as there are LUNs, and of an initiator: no id is beyond the blocks of the system volume.
    fn target_records() -> [Record; 2] {
        let line = SYSTEM_BYTES / BLOCK_LEN as u64 - 1;
        let target = TargetRecord {
            id: 13,
            name: "x".repeat(ISCSI_NAME_BYTES_MAX),
            tenant: u64::MAX,
            port: u16::MAX,
            luns: (0..=LUN_MAX).map(|lun| (lun, line)).collect(),
            created_ms: u64::MAX,
            is_default: true,
        };
        let (user, secret) = ("\\".repeat(CHAP_USER_BYTES_MAX), vec![0xff; *CHAP_SECRET_BYTES.end()]);
        let chap = ChapSecrets { user: user.clone(), secret: secret.clone(), mutual: Some((user, secret)) };
        let name = "x".repeat(ISCSI_NAME_BYTES_MAX);
        let initiator = InitiatorRecord { id: 14, target: u64::MAX, name, chap: Some(chap.into()) };
        [Record::Target(target), Record::Initiator(initiator)]
    }

    fn records() -> [Record; 7] {
        let name = || "x".repeat(128);
        let parent = Some(ParentRecord { volume: u64::MAX, generation: u64::MAX });
        let ceiling = Some(Ceiling { rate: u64::MAX, burst: u64::MAX });
        let qos = Some(QosLimits { iops: ceiling, bandwidth: ceiling, operation_bytes: Some(u64::MAX) });
        let history = Some(History { seconds: u64::MAX, limit_bytes: Some(u64::MAX) });
        let volume = VolumeRecord {
            id: 7,
            name: format!("{0}/{0}", name()),
            tenant: u64::MAX,
            size_bytes: 1 << 63,
            created_ms: u64::MAX,
            state: VolumeState::Deleting,
            parent,
            line: Some(u64::MAX),
            image: Some(longest_image()),
            history,
            qos,
            class: u64::MAX,
            meter_changes: Vec::new(),
            mirror: None,
            metered: Metered {
                from: Some(u64::MAX),
                end: Some(MeterEnd {
                    at: u64::MAX,
                    wall_ms: u64::MAX,
                    registers: Some(Registers::default().with(metering::Dimension::Written, u128::MAX)),
                }),
            },
        };
        let change = MeterChange { at: u64::MAX, class: u64::MAX, before: u64::MAX };
        let changed = VolumeRecord {
            image: None,
            meter_changes: vec![change; super::super::classes::METER_CHANGES_MAX],
            ..volume.clone()
        };
        let snapshot = SnapshotRecord {
            id: 8,
            of: u64::MAX,
            name: name(),
            generation: u64::MAX,
            lsn: u64::MAX,
            size_bytes: 1 << 63,
            at_ms: u64::MAX,
            group: Some(u64::MAX),
            state: SnapshotState::Pin,
            is_base: true,
        };
        let group = GroupRecord { id: 9, name: Some(name()), members: vec![u64::MAX; GROUP_MEMBERS_MAX] };
        let quota = Quota { bytes: Some(u64::MAX), volumes: Some(u64::MAX), snapshots: Some(u64::MAX) };
        let limits = QosLimits { iops: ceiling, bandwidth: ceiling, operation_bytes: Some(u64::MAX) };
        let qos = Some(TenantQos { limits, weight: u64::MAX });
        let access = longest_access();
        let (created_ms, deleted_ms, number, is_suspended) = (u64::MAX, Some(u64::MAX), 3, true);
        let tenant =
            TenantRecord { id: 10, number, name: name(), created_ms, deleted_ms, is_suspended, quota, qos, access };
        let token = TokenRecord {
            id: 11,
            name: name(),
            role: name(),
            tenant: Some(u64::MAX),
            hash: "f".repeat(64),
            created_ms: u64::MAX,
            expires_ms: Some(u64::MAX),
            used_ms: Some(u64::MAX),
        };
        let class = ClassRecord { id: 12, name: name(), created_ms: u64::MAX, qos: Some(limits), history };
        let (snapshot, group) = (Record::Snapshot(snapshot), Record::Group(group));
        let (volume, changed) = (Record::Volume(volume), Record::Volume(changed));
        [volume, changed, snapshot, group, Record::Tenant(tenant), Record::Token(token), Record::Class(class)]
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in records().into_iter().chain(target_records()) {
            let block = encode(&record);
            assert_eq!(block.len(), BLOCK_LEN);
            assert_eq!(decode(block.as_slice()), Ok(Some(record)));
        }
        assert_eq!(decode::<Record>(&[0; BLOCK_LEN]), Ok(None));
    }

    #[test]
    fn a_record_from_before_there_were_kinds_is_a_volume() {
        let text = r#"{"id":3,"name":"vm","size_bytes":4096,"created_ms":5,"state":"live"}"#;
        let Record::Volume(volume) = serde_json::from_str(text).unwrap() else { panic!("no volume") };
        assert_eq!((volume.id, volume.line(), volume.parent, volume.tenant), (3, 3, None, 0));
        assert!(serde_json::from_str::<Record>(r#"{"kind":"ghoul","id":3}"#).is_err());
    }

    /// P2. No wrong byte makes another record.
    #[test]
    fn a_damaged_record_is_refused() {
        let block = encode(&records()[0]);
        for (at, error) in [(0, RecordError::Magic), (9, RecordError::Length), (20, RecordError::Checksum)] {
            let mut bad = block.as_slice().to_vec();
            bad[at] ^= 0x40;
            assert_eq!(decode::<Record>(&bad), Err(error), "{at}");
        }
        assert_eq!(decode::<Record>(&block.as_slice()[..12]), Err(RecordError::Length));
        assert!(matches!(decode::<Head>(block.as_slice()), Err(RecordError::Text(_))));
    }
}
