//! What the role machines say, as bytes. The epoch is in the frame's header.
//!
//! | offset | size | body |
//! | --- | --- | --- |
//! | 0 | 8 + 8 + 8 | life, heard life, number |
//! | 24 | 1 | which |
//! | 25 | | 1 heartbeat: flags (1 leads, 2 asks for the word, 4 knows a record), disk, end; of the record its revision and text |
//! | | | 2 word: number; 3 hand-over: position; 4 ready: number |

use super::bytes::{Fields, put_position};
use super::error::WireError;
use crate::io::{DiskState, Seen};
use crate::message::{Body, Message};
use crate::promise::Life;
use crate::record::{RECORD_BYTES_MAX, Record, Revision};
use units::Epoch;

/// Bytes before what differs between the bodies.
const HEAD_BYTES: usize = 25;

/// The shortest body: a number.
pub(super) const SAY_BYTES_MIN: usize = HEAD_BYTES + 8;

/// The longest one: a heartbeat with a record.
pub(super) const SAY_BYTES_MAX: usize = HEAD_BYTES + 34 + RECORD_BYTES_MAX;

const HEARTBEAT: u8 = 1;
const WORD: u8 = 2;
const HAND_OVER: u8 = 3;
const READY: u8 = 4;

const LEADS: u8 = 1;
const ASKS_WORD: u8 = 2;
const KNOWS_RECORD: u8 = 4;

pub(super) fn encode_message(message: &Message, out: &mut Vec<u8>) {
    let Message { life, heard, number, body, epoch: _ } = message;
    for word in [life.0, heard.0, *number] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let word = |out: &mut Vec<u8>, which, number: u64| {
        out.push(which);
        out.extend_from_slice(&number.to_le_bytes());
    };
    match body {
        Body::Heartbeat { seen, end, leads, asks_word, disk } => {
            let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
            let knows = flag(seen.is_some(), KNOWS_RECORD);
            out.extend_from_slice(&[HEARTBEAT, flag(*leads, LEADS) | flag(*asks_word, ASKS_WORD) | knows]);
            out.push(disk_code(*disk));
            put_position(out, *end);
            if let Some(Seen { revision, record }) = seen {
                out.extend_from_slice(&revision.0.to_le_bytes());
                out.extend_from_slice(record.encode().as_bytes());
            }
        }
        Body::Word { of } => word(out, WORD, *of),
        Body::HandOver { end } => {
            out.push(HAND_OVER);
            put_position(out, *end);
        }
        Body::Ready { of } => word(out, READY, *of),
    }
}

pub(super) fn decode_message(epoch: Epoch, fields: &mut Fields<'_>) -> Result<Message, WireError> {
    let (life, heard, number) = (decode_life(fields)?, decode_life(fields)?, fields.u64()?);
    let body = match fields.u8()? {
        HEARTBEAT => decode_heartbeat(fields)?,
        WORD => Body::Word { of: fields.u64()? },
        HAND_OVER => Body::HandOver { end: fields.position()? },
        READY => Body::Ready { of: fields.u64()? },
        _ => return Err(WireError::Value { field: "message" }),
    };
    Ok(Message { life, heard, number, epoch, body })
}

fn decode_life(fields: &mut Fields<'_>) -> Result<Life, WireError> {
    Some(Life(fields.u64()?)).filter(|life| *life <= Life::MAX).ok_or(WireError::Value { field: "life" })
}

fn decode_heartbeat(fields: &mut Fields<'_>) -> Result<Body, WireError> {
    let flags = fields.u8()?;
    if flags & !(LEADS | ASKS_WORD | KNOWS_RECORD) != 0 {
        return Err(WireError::Value { field: "flags" });
    }
    let code = fields.u8()?;
    let disk = DISKS.into_iter().find(|disk| disk_code(*disk) == code).ok_or(WireError::Value { field: "disk" })?;
    let end = fields.position()?;
    let seen = if flags & KNOWS_RECORD == 0 {
        None
    } else {
        let revision = Revision(fields.u64()?);
        let record = Record::decode(fields.rest()).map_err(|_| WireError::Value { field: "record" })?;
        Some(Seen { revision, record })
    };
    Ok(Body::Heartbeat { seen, end, leads: flags & LEADS != 0, asks_word: flags & ASKS_WORD != 0, disk })
}

const DISKS: [DiskState; 4] = [DiskState::Good, DiskState::Slow, DiskState::Full, DiskState::Failing];

const fn disk_code(disk: DiskState) -> u8 {
    match disk {
        DiskState::Good => 0,
        DiskState::Slow => 1,
        DiskState::Full => 2,
        DiskState::Failing => 3,
    }
}
