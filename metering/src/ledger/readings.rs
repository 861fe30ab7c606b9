//! Readings as the payload of an entry: what a tenant's registers said, in few bytes.
//!
//! `[{"epoch":1,"at":300000,"estimated_ms":0,"wall_ms":1795824000000,"of":[[7,0,3,0,1,"81920 4096 0 0 8192 12"],...]},...]`: a
//! group for each run of the same epoch and moment; in it, of each resource, its number, class, sequence, mark (0 usual, 1 begins,
//! 2 ends) and changes, and its registers in the order of [`Dimension::ALL`], without the zeros at the end.

use super::entry::PAYLOAD_BYTES_MAX;
use crate::{Dimension, Mark, Reading, Registers};
use std::fmt::Write as _;
use units::{ClassId, Epoch, MeterTime, TenantId, VolumeId};

/// Writes `readings`, which are one tenant's, as payloads of entries: one, or as many as are needed.
#[must_use]
pub fn encode_readings(readings: &[Reading]) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = String::new();
    let mut before: Option<&Reading> = None;
    for reading in readings {
        let row = row(reading);
        let head = group_head(reading);
        if payload.len() + head.len() + row.len() + "]},]}]".len() > PAYLOAD_BYTES_MAX {
            payload.push_str("]}]");
            payloads.push(std::mem::take(&mut payload));
            before = None;
        }
        let is_same_moment = before.is_some_and(|before| group_head(before) == head);
        payload.push_str(match (before, is_same_moment) {
            (None, _) => "[",
            (Some(_), true) => ",",
            (Some(_), false) => "]},",
        });
        if !is_same_moment {
            payload.push_str(&head);
        }
        payload.push_str(&row);
        before = Some(reading);
    }
    if before.is_some() {
        payload.push_str("]}]");
        payloads.push(payload);
    }
    payloads
}

fn group_head(reading: &Reading) -> String {
    let Reading { epoch, at, estimated_ms, wall_ms, .. } = reading;
    format!("{{\"epoch\":{epoch},\"at\":{},\"estimated_ms\":{estimated_ms},\"wall_ms\":{wall_ms},\"of\":[", at.0)
}

fn row(reading: &Reading) -> String {
    let Reading { resource, class, sequence, mark, changes, registers, .. } = reading;
    let mut row = format!("[{resource},{class},{sequence},{},{changes},\"", *mark as u8);
    let told = Dimension::ALL.iter().rposition(|dimension| registers.value(*dimension) != 0).map_or(0, |last| last + 1);
    for (place, dimension) in Dimension::ALL.iter().take(told).enumerate() {
        let space = if place == 0 { "" } else { " " };
        write!(row, "{space}{}", registers.value(*dimension)).expect("a text takes all that is written");
    }
    row.push_str("\"]");
    row
}

/// A group, as JSON.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    epoch: u64,
    at: u64,
    estimated_ms: u64,
    wall_ms: u64,
    of: Vec<(u64, u64, u64, usize, u64, String)>,
}

/// Reads what [`encode_readings`] wrote of `tenant`; `None` of anything else.
#[must_use]
pub fn decode_readings(tenant: TenantId, payload: &str) -> Option<Vec<Reading>> {
    let groups: Vec<Group> = serde_json::from_str(payload).ok()?;
    let mut readings = Vec::new();
    for Group { epoch, at, estimated_ms, wall_ms, of } in groups {
        for (resource, class, sequence, mark, changes, registers) in of {
            readings.push(Reading {
                resource: VolumeId(resource),
                tenant,
                class: ClassId(class),
                epoch: Epoch(epoch),
                sequence,
                mark: *Mark::ALL.get(mark)?,
                changes,
                at: MeterTime(at),
                estimated_ms,
                wall_ms,
                registers: parse_registers(&registers)?,
            });
        }
    }
    // One payload has one meaning, and one meaning one payload.
    (encode_readings(&readings) == [payload]).then_some(readings)
}

fn parse_registers(text: &str) -> Option<Registers> {
    let mut dimensions = Dimension::ALL.into_iter();
    let mut told = text.split_terminator(' ');
    told.try_fold(Registers::default(), |registers, value| {
        Some(registers.with(dimensions.next()?, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Ledger, LedgerId, NewEntry};
    use super::*;

    fn reading(resource: u64, at: u64) -> Reading {
        let registers = Registers::default()
            .with(Dimension::Provisioned, 2_900_000_000_000_000_000_000)
            .with(Dimension::Written, 1_450_000_000_000_000_000_000 + u128::from(resource))
            .with(Dimension::Physical, 1_600_000_000_000_000_000_000)
            .with(Dimension::Reads, 80_000_000)
            .with(Dimension::Writes, 40_000_000)
            .with(Dimension::ReadBytes, 640_000_000_000)
            .with(Dimension::WriteBytes, 320_000_000_000);
        Reading {
            resource: VolumeId(resource),
            tenant: TenantId(2),
            class: ClassId(1),
            epoch: Epoch(4),
            sequence: 8000,
            mark: Mark::Usual,
            changes: 1,
            estimated_ms: 60_000,
            at: MeterTime(at),
            wall_ms: 1_795_824_000_000 + at,
            registers,
        }
    }

    /// P7. Readings come back from the ledger to the last unit, however many, of whatever moments.
    #[test]
    fn readings_come_back_whole() {
        let moments = |count| (0..count).map(|resource| reading(resource, resource / 3)).collect::<Vec<_>>();
        let idle = Reading { registers: Registers::default(), ..reading(1, 2) };
        let full = Dimension::ALL.into_iter().fold(Registers::default(), |all, each| all.with(each, u128::MAX));
        let full = Reading { registers: full, resource: VolumeId(u64::MAX), ..reading(1, u64::MAX / 2) };
        let marked = Mark::ALL.into_iter().zip(0..).map(|(mark, changes)| Reading { mark, changes, ..reading(1, 2) });
        let marked: Vec<Reading> = marked.chain([Reading { estimated_ms: 70_000, ..reading(1, 2) }]).collect();
        for readings in [marked, moments(1), moments(10), moments(2000), vec![idle.clone(), full, idle], Vec::new()] {
            let payloads = encode_readings(&readings);
            let again = payloads.iter().flat_map(|payload| {
                assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{}", payload.len());
                decode_readings(TenantId(2), payload).expect("readings")
            });
            assert!(again.eq(readings));
        }
    }

    /// P7. What means the same written otherwise is refused, so that nobody can hash one text and show another.
    #[test]
    fn another_spelling_is_no_reading() {
        let payload = encode_readings(&[reading(7, 300_000)]).pop().expect("a payload");
        for (from, to) in [
            ("\"epoch\":4", "\"epoch\": 4"),
            ("\"epoch\":4,\"at\":300000", "\"at\":300000,\"epoch\":4"),
            (" 320000000000\"", " 0320000000000\""),
            (" 320000000000\"", " 320000000000 \""),
            (" 320000000000\"", " 320000000000 0\""),
            (" 320000000000\"", " 320000000000 5\""),
            (" 320000000000\"", " -1\""),
            ("[7,", "[7.0,"),
            (",0,1,\"", ",3,1,\""),
        ] {
            let wrong = payload.replacen(from, to, 1);
            assert_ne!(wrong, payload);
            assert_eq!(decode_readings(TenantId(2), &wrong), None, "{wrong}");
        }
    }

    /// P7. What readings take is what `docs/metering.md` says: 1,000 volumes of 20 tenants, 288 times a day.
    #[test]
    fn readings_are_small() {
        let (mut ledger, _) = Ledger::create(1 << 20, LedgerId([1; 16]));
        ledger.on_durable();
        let payloads: Vec<(u64, String)> = (1..=20)
            .flat_map(|tenant| {
                let readings: Vec<Reading> = (1..=50).map(|volume| reading(100 * tenant + volume, 300_000)).collect();
                encode_readings(&readings).into_iter().map(move |payload| (tenant, payload))
            })
            .collect();
        let entries: Vec<NewEntry<'_>> = payloads
            .iter()
            .map(|(tenant, payload)| (TenantId(*tenant), payload))
            .map(|(tenant, payload)| NewEntry { tenant, kind: Kind::Readings, time_ms: 1_795_824_000_000, payload })
            .collect();
        assert_eq!(entries.len(), 20);
        let payload_bytes: usize = payloads.iter().map(|(_, payload)| payload.len()).sum();
        assert!((135_000..140_000).contains(&payload_bytes), "{payload_bytes} bytes of 1,000 readings");
        assert_eq!(ledger.append(&entries).expect("entries").bytes.len(), 36 * 4096);
    }
}
