//! `aljibe pool scrub`.

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields};
use crate::progress::StepBar;
use control::{BeginScrub, Scrub, ScrubFinding};
use std::thread::sleep;
use std::time::Duration;

const PATH: &str = "/v1/pool/scrub";

/// How often it is asked how far it is.
const ASK_PERIOD: Duration = Duration::from_millis(200);

pub(super) fn run(client: &Client, output: Output, now: bool, only_status: bool) -> Result<(), Failure> {
    let mut scrub: Scrub = if only_status { client.get(PATH)? } else { client.post(PATH, &BeginScrub { now })? };
    let mut bar = StepBar::new(output);
    while now && scrub.is_running {
        bar.show(scrub.slots_done, scrub.slots_total, "slots");
        sleep(ASK_PERIOD);
        scrub = client.get(PATH)?;
    }
    drop(bar);
    output.show(&scrub, || described(&scrub))?;
    let bad_count = scrub.rotten_blocks + scrub.unreadable_blocks;
    if !scrub.is_running && bad_count > 0 {
        let detail =
            format!("the scrub found {bad_count} bad blocks: restore what is live from a copy, and look at the disk");
        return Err(Failure::new(Exit::Damage, "damage_found", detail));
    }
    Ok(())
}

fn described(scrub: &Scrub) -> String {
    let state = match (scrub.is_running, scrub.is_paced, scrub.begun_at) {
        (true, true, _) => "under way",
        (true, false, _) => "under way, as fast as the disk gives",
        (false, _, Some(_)) => "ended",
        (false, _, None) => "there was none yet",
    };
    let counted = fields(&[
        ("scrub", Some(state.to_owned())),
        ("begun", scrub.begun_at.map(|at| at.to_string())),
        ("ended", scrub.ended_at.map(|at| at.to_string())),
        ("seconds", Some(format!("{:.1}", scrub.seconds))),
        ("slots", Some(format!("{} of {}", scrub.slots_done, scrub.slots_total))),
        ("segments", Some(scrub.segments.to_string())),
        ("blocks", Some(scrub.blocks.to_string())),
        ("rotten", Some(scrub.rotten_blocks.to_string())),
        ("unreadable", Some(scrub.unreadable_blocks.to_string())),
    ]);
    scrub.findings.iter().fold(counted, |shown, found| format!("{shown}{}\n", line_of(found)))
}

fn line_of(found: &ScrubFinding) -> String {
    let ScrubFinding { volume_id, segment, slot, block, part, .. } = found;
    let volume = found.volume.as_ref().map_or_else(|| format!("number {volume_id}"), Clone::clone);
    let how = if found.is_unreadable { "cannot be read" } else { "is not what was written" };
    let what = match (found.offset_bytes, found.is_live) {
        (None, _) => String::new(),
        (Some(offset), Some(true)) => format!(", live data at byte {offset}"),
        (Some(offset), Some(false)) => format!(", dead data, once at byte {offset}"),
        (Some(offset), None) => format!(", data at byte {offset}"),
    };
    format!("volume {volume}: block {block} of slot {slot} ({part} of segment {segment}) {how}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_it_is_and_whether_anybody_misses_it() {
        let found = ScrubFinding {
            volume: Some("vm-1".to_owned()),
            volume_id: 3,
            segment: 9,
            slot: 4,
            block: 17,
            part: "payload".to_owned(),
            is_unreadable: false,
            offset_bytes: Some(8192),
            is_live: Some(true),
        };
        let line = line_of(&found);
        assert_eq!(
            line,
            "volume vm-1: block 17 of slot 4 (payload of segment 9) is not what was written, live data at byte 8192"
        );
        let dead = line_of(&ScrubFinding { volume: None, is_live: Some(false), is_unreadable: true, ..found });
        assert!(dead.starts_with("volume number 3:") && dead.ends_with("cannot be read, dead data, once at byte 8192"));
    }
}
