//! What a register is asked and what it answers, as bytes. Pure; big-endian throughout.
//!
//! A message is a length of two bytes and so many bytes behind it, the first of which is its kind:
//!
//! | kind | message | behind it |
//! | --- | --- | --- |
//! | 1 | read | group 8 |
//! | 2 | swap | group 8, is there an expected revision 1, that revision 8, record |
//! | 3 | page | is there a group before it 1, that group 8, most groups 2 |
//! | 129 | nothing there | |
//! | 130 | found | revision 8, record |
//! | 131 | won | revision 8 |
//! | 132 | lost to nothing | |
//! | 133 | lost | revision 8, record |
//! | 134 | groups | are there more 1, then of each: group 8, revision 8, length of the record 2, record |
//! | 135 | failed | why, as text |
//!
//! A record is the text of it, to the end of the message where no length is given. What is absent is a zero with zeros behind it.

use replication::{RECORD_BYTES_MAX, Record, RecordError, Revision, Seen};
use thiserror::Error;
use units::GroupId;

/// Length of what tells a message's length.
pub(super) const LENGTH_BYTES: usize = 2;

/// Most groups of an answer.
pub(super) const PAGE_LEN_MAX: u16 = 128;

/// Longest request and longest answer, without their lengths.
pub(super) const REQUEST_BYTES_MAX: usize = 18 + RECORD_BYTES_MAX;
pub(super) const ANSWER_BYTES_MAX: usize = 2 + PAGE_LEN_MAX as usize * (18 + RECORD_BYTES_MAX);

const _: () = assert!(ANSWER_BYTES_MAX <= u16::MAX as usize);

const READ: u8 = 1;
const SWAP: u8 = 2;
const PAGE: u8 = 3;
const NOTHING: u8 = 129;
const FOUND: u8 = 130;
const WON: u8 = 131;
const LOST_TO_NOTHING: u8 = 132;
const LOST: u8 = 133;
const GROUPS: u8 = 134;
const FAILED: u8 = 135;

/// Longest reason that is told.
const REASON_BYTES_MAX: usize = 512;

/// What a register is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A group's record.
    Read {
        /// Which.
        group: GroupId,
    },
    /// A change.
    Swap {
        /// Of which group.
        group: GroupId,
        /// What is replaced.
        expected: Option<Revision>,
        /// What is to be there.
        record: Record,
    },
    /// What there is of groups.
    Page {
        /// Behind which.
        after: Option<GroupId>,
        /// Of how many at most.
        limit: u16,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is there, to a read.
    Read(Option<Seen>),
    /// The change is in force.
    Won(Revision),
    /// The change is not and never will be; what is there.
    Lost(Option<Seen>),
    /// Groups, and whether there are more behind them.
    Page {
        /// By their numbers.
        groups: Vec<(GroupId, Seen)>,
        /// Whether there are more.
        has_more: bool,
    },
    /// It could not answer. Of a change nobody knows.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// There is no such kind.
    #[error("a register's message has no kind {found:?}")]
    Kind {
        /// Which; nothing when it is empty.
        found: Option<u8>,
    },
    /// It is longer or shorter than its kind is.
    #[error("a register's message is longer or shorter than its kind")]
    Length,
    /// A field says what cannot be.
    #[error("a register's message says of \"{name}\" what cannot be")]
    Value {
        /// The field's name.
        name: &'static str,
    },
    /// What stands for a record is none.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Request {
    /// The message, with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(REQUEST_BYTES_MAX);
        match self {
            Self::Read { group } => {
                body.push(READ);
                body.extend(group.0.to_be_bytes());
            }
            Self::Swap { group, expected, record } => {
                body.push(SWAP);
                body.extend(group.0.to_be_bytes());
                put_option(&mut body, expected.map(|revision| revision.0));
                body.extend(record.encode().into_bytes());
            }
            Self::Page { after, limit } => {
                body.push(PAGE);
                put_option(&mut body, after.map(|group| group.0));
                body.extend(limit.to_be_bytes());
            }
        }
        with_length(&body)
    }

    /// Reads a message without its length.
    ///
    /// # Errors
    /// [`MessageError`] ends the connection: the other side is another program.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let (kind, mut rest) = kind_of(body)?;
        let rest = &mut rest;
        let request = match kind {
            READ => Self::Read { group: GroupId(take_number(rest)?) },
            SWAP => {
                let group = GroupId(take_number(rest)?);
                let expected = take_option("expected revision", rest)?.map(Revision);
                Self::Swap { group, expected, record: Record::decode(std::mem::take(rest))? }
            }
            PAGE => Self::Page {
                after: take_option("group before the page", rest)?.map(GroupId),
                limit: u16::from_be_bytes(take(rest)?),
            },
            other => return Err(MessageError::Kind { found: Some(other) }),
        };
        if rest.is_empty() { Ok(request) } else { Err(MessageError::Length) }
    }
}

impl Answer {
    /// The message, with its length in front.
    ///
    /// # Panics
    /// When there are more groups than a page has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Read(None) => body.push(NOTHING),
            Self::Read(Some(seen)) => put_seen(&mut body, FOUND, seen),
            Self::Won(revision) => {
                body.push(WON);
                body.extend(revision.0.to_be_bytes());
            }
            Self::Lost(None) => body.push(LOST_TO_NOTHING),
            Self::Lost(Some(seen)) => put_seen(&mut body, LOST, seen),
            Self::Page { groups, has_more } => {
                assert!(groups.len() <= usize::from(PAGE_LEN_MAX), "a page of {} groups", groups.len());
                body.extend([GROUPS, u8::from(*has_more)]);
                for (group, seen) in groups {
                    let record = seen.record.encode();
                    body.extend(group.0.to_be_bytes());
                    body.extend(seen.revision.0.to_be_bytes());
                    body.extend(length_of(record.as_bytes()).to_be_bytes());
                    body.extend(record.into_bytes());
                }
            }
            Self::Failed { reason } => {
                body.push(FAILED);
                body.extend(reason.bytes().take(REASON_BYTES_MAX));
            }
        }
        with_length(&body)
    }

    /// Reads a message without its length.
    ///
    /// # Errors
    /// [`MessageError`] is no answer.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let (kind, mut rest) = kind_of(body)?;
        let rest = &mut rest;
        let answer = match kind {
            NOTHING => Self::Read(None),
            FOUND => Self::Read(Some(take_seen(rest)?)),
            WON => Self::Won(take_revision(rest)?),
            LOST_TO_NOTHING => Self::Lost(None),
            LOST => Self::Lost(Some(take_seen(rest)?)),
            GROUPS => {
                let has_more = take_flag("more", rest)?;
                let mut groups = Vec::new();
                while !rest.is_empty() {
                    groups.push(take_group(rest)?);
                }
                if groups.len() > usize::from(PAGE_LEN_MAX) {
                    return Err(MessageError::Length);
                }
                Self::Page { groups, has_more }
            }
            FAILED => Self::Failed { reason: String::from_utf8_lossy(std::mem::take(rest)).into_owned() },
            other => return Err(MessageError::Kind { found: Some(other) }),
        };
        if rest.is_empty() { Ok(answer) } else { Err(MessageError::Length) }
    }
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(LENGTH_BYTES + body.len());
    message.extend(length_of(body).to_be_bytes());
    message.extend(body);
    message
}

fn length_of(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("the longest message has less than 64 KiB")
}

fn put_option(body: &mut Vec<u8>, number: Option<u64>) {
    body.push(u8::from(number.is_some()));
    body.extend(number.unwrap_or(0).to_be_bytes());
}

fn put_seen(body: &mut Vec<u8>, kind: u8, seen: &Seen) {
    body.push(kind);
    body.extend(seen.revision.0.to_be_bytes());
    body.extend(seen.record.encode().into_bytes());
}

fn kind_of(body: &[u8]) -> Result<(u8, &[u8]), MessageError> {
    body.split_first().map(|(kind, rest)| (*kind, rest)).ok_or(MessageError::Kind { found: None })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(MessageError::Length)?;
    *rest = left;
    Ok(*taken)
}

fn take_number(rest: &mut &[u8]) -> Result<u64, MessageError> {
    take(rest).map(u64::from_be_bytes)
}

fn take_flag(name: &'static str, rest: &mut &[u8]) -> Result<bool, MessageError> {
    match take(rest)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(MessageError::Value { name }),
    }
}

fn take_option(name: &'static str, rest: &mut &[u8]) -> Result<Option<u64>, MessageError> {
    match (take_flag(name, rest)?, take_number(rest)?) {
        (true, number) => Ok(Some(number)),
        (false, 0) => Ok(None),
        (false, _) => Err(MessageError::Value { name }),
    }
}

fn take_revision(rest: &mut &[u8]) -> Result<Revision, MessageError> {
    match take_number(rest)? {
        0 => Err(MessageError::Value { name: "revision" }),
        revision => Ok(Revision(revision)),
    }
}

/// A revision and the record, to the end.
fn take_seen(rest: &mut &[u8]) -> Result<Seen, MessageError> {
    let revision = take_revision(rest)?;
    Ok(Seen { revision, record: Record::decode(std::mem::take(rest))? })
}

fn take_group(rest: &mut &[u8]) -> Result<(GroupId, Seen), MessageError> {
    let (group, revision) = (GroupId(take_number(rest)?), take_revision(rest)?);
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (record, left) = rest.split_at_checked(length).ok_or(MessageError::Length)?;
    *rest = left;
    Ok((group, Seen { revision, record: Record::decode(record)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::{Epoch, SiteId};

    fn records() -> impl Strategy<Value = Record> {
        (1..=replication::EPOCH_MAX.0, any::<u8>(), any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
            |(epoch, primary, has_partner, is_sole, lineage)| Record {
                epoch: Epoch(epoch),
                primary: SiteId(primary),
                partner: has_partner.then_some(SiteId(primary.wrapping_add(1))),
                is_sole,
                lineage,
                fork: None,
            },
        )
    }

    fn seens() -> impl Strategy<Value = Seen> {
        (1..=u64::MAX, records()).prop_map(|(revision, record)| Seen { revision: Revision(revision), record })
    }

    fn requests() -> impl Strategy<Value = Request> {
        let swap = (any::<u64>(), prop::option::of(any::<u64>()), records());
        prop_oneof![
            any::<u64>().prop_map(|group| Request::Read { group: GroupId(group) }),
            swap.prop_map(|(group, expected, record)| Request::Swap {
                group: GroupId(group),
                expected: expected.map(Revision),
                record,
            }),
            (prop::option::of(any::<u64>()), any::<u16>())
                .prop_map(|(after, limit)| Request::Page { after: after.map(GroupId), limit }),
        ]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let groups = prop::collection::vec((any::<u64>().prop_map(GroupId), seens()), 0..=128);
        prop_oneof![
            prop::option::of(seens()).prop_map(Answer::Read),
            (1..=u64::MAX).prop_map(|revision| Answer::Won(Revision(revision))),
            prop::option::of(seens()).prop_map(Answer::Lost),
            (groups, any::<bool>()).prop_map(|(groups, has_more)| Answer::Page { groups, has_more }),
            "[ -~]{0,80}".prop_map(|reason| Answer::Failed { reason }),
        ]
    }

    fn body_of(message: &[u8]) -> &[u8] {
        let (length, body) = message.split_first_chunk().unwrap();
        assert_eq!(usize::from(u16::from_be_bytes(*length)), body.len());
        body
    }

    /// P4. Each kind of wrong message is refused for what it is.
    #[test]
    fn what_is_wrong_is_refused() {
        let kind = |found| Err(MessageError::Kind { found });
        assert_eq!(Request::decode(&[]), kind(None));
        assert_eq!(Request::decode(&[NOTHING]), kind(Some(NOTHING)));
        assert_eq!(Request::decode(&[READ, 0, 0, 0, 0, 0, 0, 0]), Err(MessageError::Length));
        assert_eq!(Request::decode(&[READ, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Err(MessageError::Length));
        let page = |flag, low| Request::decode(&[PAGE, flag, 0, 0, 0, 0, 0, 0, 0, low, 0, 9]);
        assert_eq!(page(0, 0), Ok(Request::Page { after: None, limit: 9 }));
        assert_eq!(page(1, 5), Ok(Request::Page { after: Some(GroupId(5)), limit: 9 }));
        let refused = Err(MessageError::Value { name: "group before the page" });
        assert_eq!((page(2, 0), page(0, 5)), (refused.clone(), refused));
        assert_eq!(Answer::decode(&[READ]).unwrap_err(), MessageError::Kind { found: Some(READ) });
        assert_eq!(Answer::decode(&[WON, 0, 0, 0, 0, 0, 0, 0, 0]), Err(MessageError::Value { name: "revision" }));
        assert_eq!(Answer::decode(&[GROUPS, 0, 1]), Err(MessageError::Length));
        assert!(matches!(Answer::decode(&[FOUND, 0, 0, 0, 0, 0, 0, 0, 1, b'x']), Err(MessageError::Record(_))));
    }

    proptest! {
        /// P4. A request is read as it was written, within its bound, and not when a byte is missing or too many.
        #[test]
        fn a_request_is_read_as_it_was_written(request in requests()) {
            let message = request.encode();
            let body = body_of(&message);
            prop_assert!(body.len() <= REQUEST_BYTES_MAX);
            prop_assert_eq!(Request::decode(body), Ok(request));
            prop_assert!(Request::decode(&body[..body.len() - 1]).is_err());
            prop_assert!(Request::decode(&[body, b"x"].concat()).is_err());
        }

        /// P4. So is an answer.
        #[test]
        fn an_answer_is_read_as_it_was_written(answer in answers()) {
            let message = answer.encode();
            let body = body_of(&message);
            prop_assert!(body.len() <= ANSWER_BYTES_MAX);
            prop_assert_eq!(Answer::decode(body), Ok(answer));
        }

        /// P4. Of bytes of any kind, those alone are read that a message is written as.
        #[test]
        fn nothing_else_is_read(request in requests(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut message = request.encode();
            let at = at.index(message.len() - LENGTH_BYTES) + LENGTH_BYTES;
            message[at] = byte;
            if let Ok(read) = Request::decode(&message[LENGTH_BYTES..]) {
                prop_assert_eq!(read.encode(), message);
            }
        }

        /// P4. Bytes of any kind do no harm.
        #[test]
        fn any_bytes_are_read_or_refused(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let body = [&[kind], bytes.as_slice()].concat();
            let _ = (Request::decode(&body), Answer::decode(&body));
        }
    }
}
