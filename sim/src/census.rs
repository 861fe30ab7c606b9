//! What went wrong, and what is to be met while it does, counted by kind, so that a test can tell that nothing of what it is about was left out.

use std::collections::BTreeMap;
use std::fmt;

/// Something that goes wrong in a world, or that other things are to go wrong around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process was killed.
    Kill,
    /// The power was cut.
    PowerCut,
    /// A crash while an append was under way.
    CrashInAppend,
    /// A crash while a sync was under way.
    CrashInSync,
    /// A crash while the store had something to do.
    CrashInStore,
    /// A crash during a start: recovery, rebuild, or what they write.
    CrashInStart,
    /// A write that a power cut took whole.
    WriteDropped,
    /// A write of which a power cut kept some sectors.
    WriteTorn,
    /// A write that a power cut kept, though it took one that was made before.
    WriteReordered,
    /// The store lost its last commits in a power cut.
    StoreTailLost,
    /// The index was made anew.
    Rebuild,
    /// Bits of a superblock flipped.
    SuperblockRot,
    /// Bits of a segment's slot header flipped.
    SlotHeaderRot,
    /// Bits of a void slot header flipped.
    VoidHeaderRot,
    /// Bits of a batch's header flipped.
    BatchHeaderRot,
    /// Bits of data flipped.
    PayloadRot,
    /// Bits of a footer flipped.
    FooterRot,
    /// A page of the stored map turned into something that is none.
    MapPageRot,
    /// A write was acknowledged and not done.
    WriteLost,
    /// A write was done elsewhere.
    WriteMisdirected,
    /// An append failed.
    AppendIo,
    /// An append found no room below the pool.
    AppendNoSpace,
    /// A slot found no room below the pool when it was to be leased.
    SlotNoSpace,
    /// A lease found no slot.
    PoolFull,
    /// A fetch failed.
    FetchIo,
    /// A sync failed.
    SyncIo,
    /// A read of a start failed.
    StartReadIo,
    /// A write or sync of a start failed.
    StartWriteIo,
    /// A commit or a read of the store failed.
    StoreIo,
    /// A kind of request failed every time for a while.
    PassingOutage,
    /// A kind of request failed every time until the next start.
    LastingOutage,
    /// A request of the disk or the store took seconds.
    Slow,
    /// A read of a volume that lasts.
    SlowFetch,
    /// The process ended with a snapshot that was answered and not recorded.
    SnapshotUnrecorded,
    /// A snapshot was deleted, and its boundary with it.
    SnapshotDeleted,
    /// A volume that was deleted, or rolled back, was erased.
    VolumeErased,
    /// A volume was made of a snapshot of another, whose name it took.
    RolledBack,
    /// What a volume without a name had beyond its snapshots was thrown away.
    GhostEmptied,
    /// Snapshots of several volumes were taken at one point.
    GroupTaken,
    /// Such snapshots were given up.
    GroupGivenUp,
    /// A crash while such were being taken, or recorded.
    CrashInGroup,
    /// A crash while a clone was being made.
    CrashInClone,
    /// A crash while a volume was being rolled back.
    CrashInRollback,
    /// A crash while the deletion of a snapshot or a volume was being recorded.
    CrashInDeletion,
    /// A crash while a volume was being erased.
    CrashInErasing,
    /// A crash while something else was being done for what is on its way out.
    CrashInCleaning,
    /// A clone or a view was opened before its parent had written back what it shows.
    HeirEarly,
    /// Segments were moved to a pack.
    PackWritten,
    /// A round of compaction was given up.
    RoundGivenUp,
    /// A segment was found not to be what it ought to be, and is not moved.
    SegmentSuspect,
    /// A crash while segments were being moved.
    CrashInCompaction,
    /// Volumes were asked for the slots that they keep open.
    SlotsFew,
    /// Somebody set the wall clock.
    WallClockSet,
    /// A compare-and-write found what it expected.
    Compared,
    /// A compare-and-write found something else.
    Miscompared,
    /// An or-write set bits.
    BitsSet,
    /// A copy was made within a volume, or of what another one has lent.
    Copied,
    /// A volume has lent something to another one.
    Lent,
    /// The class of a volume changed.
    ClassChanged,
    /// A month with a leap day had a bill.
    LeapDayBilled,
    /// A month in which the clocks go forward or back had one.
    ClockChangeBilled,
}

/// How often each fault came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census(BTreeMap<Fault, u64>);

impl Census {
    /// Counts one.
    pub fn note(&mut self, fault: Fault) {
        self.note_many(fault, 1);
    }

    /// Counts several.
    pub fn note_many(&mut self, fault: Fault, count: u64) {
        if count > 0 {
            *self.0.entry(fault).or_default() += count;
        }
    }

    /// Adds what another world counted.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(fault, count)| self.note_many(*fault, *count));
    }

    /// How often a fault came.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (fault, count) in &self.0 {
            write!(f, "{separator}{fault:?} {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}
