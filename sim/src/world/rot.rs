//! What goes wrong beside the requests: bits rot, in any structure, and kinds of request fail for a while.

use super::driver::Outage;
use super::{Happening, MS, World};
use crate::census::Fault;
use units::{BLOCK_BYTES, BLOCK_LEN, SlotIndex};
use volume::format::{FormatError, POOL_DATA_OFFSET, SlotHeader, SlotUse, decode_batch, decode_footer_trailer};

/// Blocks that are looked at for one to rot.
const TRIES: u32 = 40;

/// What can rot in the pool, each as likely as the others: most blocks are payload.
const STRUCTURES: [Fault; 7] = [
    Fault::SuperblockRot,
    Fault::SlotHeaderRot,
    Fault::VoidHeaderRot,
    Fault::BatchHeaderRot,
    Fault::PayloadRot,
    Fault::PayloadRot,
    Fault::FooterRot,
];

impl World {
    /// Draws what goes wrong beside the requests: rot, and outages.
    pub(super) fn draw_mishaps(&mut self) {
        if self.random.chance(self.rates.rot) {
            let structure = *self.random.pick(&STRUCTURES);
            self.rot(structure);
        }
        if self.random.chance(self.rates.map_page) && self.store.rot_page(&mut self.random) {
            self.trace.tell(|| "a page of the stored map is none any more".to_owned());
            self.injected.map_pages += 1;
            self.note(Fault::MapPageRot);
        }
        if self.outage.is_none() && self.random.chance(self.rates.outage) {
            self.begin_outage();
        }
    }

    fn begin_outage(&mut self) {
        let outage = *self.random.pick(&[
            Outage::Appends,
            Outage::Appends,
            Outage::HostSpace,
            Outage::Fetches,
            Outage::Syncs,
            Outage::Store,
        ]);
        self.outage = Some(outage);
        if outage == Outage::Store {
            self.store.set_faults(1000, 1000);
        }
        let is_lasting = self.random.chance(300);
        self.trace.tell(|| format!("outage: {outage:?}, until the next start: {is_lasting}"));
        self.note(if is_lasting { Fault::LastingOutage } else { Fault::PassingOutage });
        if !is_lasting {
            let length = self.random.within(MS, 3000 * MS);
            self.after(length, Happening::OutageEnds);
        }
    }

    pub(super) fn end_outage(&mut self) {
        self.outage = None;
        self.apply_rates(self.rates);
    }

    /// A block that holds `structure`, and is not about to be written, rots.
    fn rot(&mut self, structure: Fault) {
        for _ in 0..TRIES {
            let block = self.draw_block(structure);
            let offset = block * BLOCK_BYTES;
            if self.structure_at(offset) == Some(structure) && !self.disk.is_unsynced(offset, BLOCK_LEN) {
                self.trace.tell(|| format!("{structure:?}: block at {offset:#x}"));
                self.disk.rot(block, &mut self.random);
                self.injected.lies += 1;
                self.note(structure);
                return;
            }
        }
    }

    /// A block where `structure` may be.
    fn draw_block(&mut self, structure: Fault) -> u64 {
        let geometry = self.plan.geometry;
        let slot = SlotIndex(self.random.below(u64::from(geometry.slot_count)) as u32);
        let last = geometry.slot_blocks() - 1;
        let within = if structure == Fault::SuperblockRot {
            // The older of the two or the newer, never both.
            return self.superblock.offset() / BLOCK_BYTES;
        } else if structure == Fault::SlotHeaderRot || structure == Fault::VoidHeaderRot {
            0
        } else if structure == Fault::FooterRot {
            last - self.random.below(3) as u32
        } else {
            self.random.within(1, u64::from(last)) as u32
        };
        geometry.block_offset(slot, within) / BLOCK_BYTES
    }

    /// What a block of the pool holds.
    fn structure_at(&self, offset: u64) -> Option<Fault> {
        let bytes = self.disk.bytes(offset, BLOCK_LEN);
        if bytes.iter().all(|byte| *byte == 0) {
            return None;
        }
        if offset < POOL_DATA_OFFSET {
            return Some(Fault::SuperblockRot);
        }
        let slot_bytes = self.plan.geometry.slot_bytes;
        let within = (offset - POOL_DATA_OFFSET) % slot_bytes;
        if within == 0 {
            return match SlotHeader::decode(bytes).ok()?.slot_use {
                SlotUse::Segment | SlotUse::Pack => Some(Fault::SlotHeaderRot),
                SlotUse::Void => Some(Fault::VoidHeaderRot),
            };
        }
        let slot_offset = offset - within;
        let trailer = self.disk.bytes(slot_offset + slot_bytes - BLOCK_BYTES, BLOCK_LEN);
        let footer_blocks = decode_footer_trailer(trailer).map_or(0, |trailer| u64::from(trailer.index_blocks) + 1);
        if within >= slot_bytes.saturating_sub(footer_blocks * BLOCK_BYTES) {
            return Some(Fault::FooterRot);
        }
        // A header of several blocks is cut short here.
        let is_batch = matches!(decode_batch(bytes), Ok(_) | Err(FormatError::Short));
        Some(if is_batch { Fault::BatchHeaderRot } else { Fault::PayloadRot })
    }
}
