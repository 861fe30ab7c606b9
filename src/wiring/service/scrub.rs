//! Scrubs in the API's words.

use super::{PoolService, timestamp};
use blockd::scrub::ScrubReport;
use control::{Scrub, ScrubFinding};
use std::collections::BTreeMap;
use std::time::Duration;
use units::BLOCK_BYTES;

impl PoolService {
    pub(super) fn scrub(&self, report: ScrubReport) -> Scrub {
        let entries = self.catalogue.list().into_iter().chain(self.catalogue.list_images());
        let names: BTreeMap<u64, String> = entries.map(|entry| (entry.volume.0, entry.name)).collect();
        let findings = report.findings.into_iter().map(|found| ScrubFinding {
            volume: names.get(&found.volume).cloned(),
            volume_id: found.volume,
            segment: found.segment,
            slot: found.slot,
            block: found.block,
            part: found.part,
            is_unreadable: found.is_unreadable,
            offset_bytes: found.volume_block.map(|block| block.saturating_mul(BLOCK_BYTES)),
            is_live: found.is_live,
        });
        Scrub {
            is_running: report.is_running,
            is_paced: report.is_paced,
            begun_at: report.begun_ms.map(timestamp),
            ended_at: report.ended_ms.map(timestamp),
            seconds: Duration::from_millis(report.active_ms).as_secs_f64(),
            slots_total: report.slots_total,
            slots_done: report.slots_done,
            segments: report.segments,
            blocks: report.blocks,
            rotten_blocks: report.rotten_count,
            unreadable_blocks: report.unreadable_count,
            findings: findings.collect(),
        }
    }
}
