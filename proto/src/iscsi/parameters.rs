//! What is negotiated for a session and its connections: every operational key of RFC 7143 section 13.
//!
//! The initiator offers, we answer; what is not offered keeps the default of the specification. We offer nothing of our
//! own but declare what we take, so that a login never waits for an answer of the initiator's.

use super::constants::DATA_SEGMENT_BYTES_MAX;
use super::frame::Framing;
use super::text::{boolean, number, push_pair};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The longest data segment we take after login: our `MaxRecvDataSegmentLength`.
pub const TARGET_DATA_BYTES_MAX: u32 = 256 * 1024;

/// What a session and one of its connections agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Headers carry a CRC32C. Of the connection.
    pub header_digest: bool,
    /// Data segments carry a CRC32C. Of the connection.
    pub data_digest: bool,
    /// The longest data segment the initiator takes. Of the connection.
    pub initiator_data_bytes_max: u32,
    /// Connections a session may have.
    pub max_connections: u16,
    /// The initiator waits for an R2T before it sends data behind a command.
    pub initial_r2t: bool,
    /// The initiator may send data with a command.
    pub immediate_data: bool,
    /// The longest sequence of data, solicited or in; at least `first_burst`.
    pub max_burst: u32,
    /// The most unsolicited data of a command, immediate data included.
    pub first_burst: u32,
    /// Seconds before the initiator may come back.
    pub time2wait: u16,
    /// Seconds that tasks are kept for it.
    pub time2retain: u16,
    /// R2Ts that may be outstanding for one command.
    pub max_outstanding_r2t: u16,
    /// What can be recovered: 0, a session begins anew.
    pub error_recovery_level: u8,
    /// The version of features: 1 is RFC 7143.
    pub protocol_level: u8,
}

impl Default for Parameters {
    /// The defaults of the specification.
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initiator_data_bytes_max: 8192,
            max_connections: 1,
            initial_r2t: true,
            immediate_data: true,
            max_burst: 262_144,
            first_burst: 65_536,
            time2wait: 2,
            time2retain: 20,
            max_outstanding_r2t: 1,
            error_recovery_level: 0,
            protocol_level: 1,
        }
    }
}

impl Parameters {
    /// How PDUs are framed after login.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        Framing { header_digest: self.header_digest, data_digest: self.data_digest }
    }

    /// These for a further connection of a session: what is the connection's own is kept, the rest is the session's.
    #[must_use]
    pub const fn within(self, session: Self) -> Self {
        Self {
            header_digest: self.header_digest,
            data_digest: self.data_digest,
            initiator_data_bytes_max: self.initiator_data_bytes_max,
            ..session
        }
    }

    /// Takes a key that came in a Text Request after login, and appends the answer to it, if it gets one.
    ///
    /// Only the length of data segments may be declared anew then; other keys that are known are rejected.
    pub fn declare_after_login(&mut self, key: &str, value: &str, answer: &mut Vec<u8>) {
        let answered = match Key::parse(key) {
            Some(Key::MaxRecvDataSegmentLength) => self.declare_data_bytes_max(value),
            Some(_) => Some(REJECT),
            None => Some(NOT_UNDERSTOOD),
        };
        if let Some(answered) = answered {
            push_pair(answer, key, &answered);
        }
    }

    fn declare_data_bytes_max(&mut self, value: &str) -> Answer {
        match within(value, SEGMENT_LENGTHS) {
            Some(bytes) => {
                self.initiator_data_bytes_max = bytes;
                None
            }
            None => Some(REJECT),
        }
    }
}

/// The operational keys that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    HeaderDigest,
    DataDigest,
    MaxRecvDataSegmentLength,
    MaxConnections,
    InitialR2t,
    ImmediateData,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2t,
    DataPduInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    ProtocolLevel,
    TaskReporting,
    IfMarker,
    OfMarker,
    IfMarkInt,
    OfMarkInt,
}

impl Key {
    pub(super) fn parse(key: &str) -> Option<Self> {
        Some(match key {
            "HeaderDigest" => Self::HeaderDigest,
            "DataDigest" => Self::DataDigest,
            "MaxRecvDataSegmentLength" => Self::MaxRecvDataSegmentLength,
            "MaxConnections" => Self::MaxConnections,
            "InitialR2T" => Self::InitialR2t,
            "ImmediateData" => Self::ImmediateData,
            "MaxBurstLength" => Self::MaxBurstLength,
            "FirstBurstLength" => Self::FirstBurstLength,
            "DefaultTime2Wait" => Self::DefaultTime2Wait,
            "DefaultTime2Retain" => Self::DefaultTime2Retain,
            "MaxOutstandingR2T" => Self::MaxOutstandingR2t,
            "DataPDUInOrder" => Self::DataPduInOrder,
            "DataSequenceInOrder" => Self::DataSequenceInOrder,
            "ErrorRecoveryLevel" => Self::ErrorRecoveryLevel,
            "iSCSIProtocolLevel" => Self::ProtocolLevel,
            "TaskReporting" => Self::TaskReporting,
            "IFMarker" => Self::IfMarker,
            "OFMarker" => Self::OfMarker,
            "IFMarkInt" => Self::IfMarkInt,
            "OFMarkInt" => Self::OfMarkInt,
            _ => return None,
        })
    }

    /// Whether it says nothing in a discovery session: "Irrelevant when: SessionType=Discovery".
    const fn is_for_commands(self) -> bool {
        matches!(
            self,
            Self::MaxConnections
                | Self::InitialR2t
                | Self::ImmediateData
                | Self::MaxBurstLength
                | Self::FirstBurstLength
                | Self::MaxOutstandingR2t
                | Self::DataPduInOrder
                | Self::DataSequenceInOrder
                | Self::ProtocolLevel
                | Self::TaskReporting
        )
    }

    /// Whether only the first connection of a session settles it: "Use: LO".
    const fn is_leading_only(self) -> bool {
        self.is_for_commands()
            || matches!(self, Self::DefaultTime2Wait | Self::DefaultTime2Retain | Self::ErrorRecoveryLevel)
    }
}

/// What a key is answered with; a declaration that is taken is not answered.
type Answer = Option<Cow<'static, str>>;

/// The initiator settled a key that it had settled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeated;

/// The operational negotiation of one login.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    parameters: Parameters,
    settled: BTreeSet<Key>,
    /// Of a discovery session.
    pub(super) is_discovery: bool,
    /// Of a connection that joins a session.
    pub(super) is_joining: bool,
}

impl Negotiation {
    /// Takes keys in the order they came, and appends the answers.
    pub(super) fn settle(&mut self, offers: &[(Key, &str, &str)], answer: &mut Vec<u8>) -> Result<(), Repeated> {
        // What may be sent first is bounded by what may be sent at all, whichever was offered first.
        let is_last = |offer: &&(Key, &str, &str)| offer.0 == Key::FirstBurstLength;
        let ordered = offers.iter().filter(|offer| !is_last(offer)).chain(offers.iter().filter(is_last));
        for (key, name, value) in ordered {
            // RFC 7143 6.3: renegotiating must be detected, and ends the login.
            if !self.settled.insert(*key) {
                return Err(Repeated);
            }
            if let Some(value) = self.answer(*key, value) {
                push_pair(answer, name, &value);
            }
        }
        Ok(())
    }

    /// What was settled.
    pub(super) fn parameters(&self) -> Parameters {
        let parameters = self.parameters;
        // An initiator that offers one length only gets the other's default, and the defaults bound nothing.
        Parameters { first_burst: parameters.first_burst.min(parameters.max_burst), ..parameters }
    }

    fn answer(&mut self, key: Key, value: &str) -> Answer {
        // Answers to what we said; we offer nothing that would need one.
        if matches!(value, "NotUnderstood" | "Irrelevant" | "Reject") {
            return None;
        }
        let is_irrelevant = self.is_discovery && key.is_for_commands() || self.is_joining && key.is_leading_only();
        if is_irrelevant { Some(IRRELEVANT) } else { self.agree(key, value) }
    }

    fn agree(&mut self, key: Key, value: &str) -> Answer {
        let parameters = &mut self.parameters;
        match key {
            Key::HeaderDigest => digest(&mut parameters.header_digest, value),
            Key::DataDigest => digest(&mut parameters.data_digest, value),
            Key::MaxRecvDataSegmentLength => parameters.declare_data_bytes_max(value),
            Key::MaxConnections => smaller(&mut parameters.max_connections, value, 1..=65535, MAX_CONNECTIONS),
            // Either may insist on it; we do not.
            Key::InitialR2t => same(&mut parameters.initial_r2t, value),
            // Both must want it; we do.
            Key::ImmediateData => same(&mut parameters.immediate_data, value),
            Key::MaxBurstLength => smaller(&mut parameters.max_burst, value, SEGMENT_LENGTHS, MAX_BURST_BYTES),
            Key::FirstBurstLength if parameters.initial_r2t && !parameters.immediate_data => Some(IRRELEVANT),
            Key::FirstBurstLength => {
                let bytes_max = FIRST_BURST_BYTES.min(parameters.max_burst);
                smaller(&mut parameters.first_burst, value, SEGMENT_LENGTHS, bytes_max)
            }
            Key::DefaultTime2Wait => greater(&mut parameters.time2wait, value, SECONDS, TIME2WAIT_SECONDS),
            Key::DefaultTime2Retain => smaller(&mut parameters.time2retain, value, SECONDS, TIME2RETAIN_SECONDS),
            Key::MaxOutstandingR2t => smaller(&mut parameters.max_outstanding_r2t, value, 1..=65535, OUTSTANDING_R2T),
            // Either may insist on it; we do.
            Key::DataPduInOrder | Key::DataSequenceInOrder => Some(boolean(value).map_or(REJECT, |_| YES)),
            Key::ErrorRecoveryLevel => smaller(&mut parameters.error_recovery_level, value, 0..=2, 0),
            Key::ProtocolLevel => smaller(&mut parameters.protocol_level, value, 0..=31, PROTOCOL_LEVEL),
            Key::TaskReporting => Some(chosen(value, &[TASK_REPORTING]).map_or(REJECT, Cow::Borrowed)),
            // RFC 7143 13.25: obsolete, and must not be answered with NotUnderstood.
            Key::IfMarker | Key::OfMarker => Some(NO),
            Key::IfMarkInt | Key::OfMarkInt => Some(REJECT),
        }
    }
}

/// The first of the initiator's list that is among ours.
pub(super) fn chosen(list: &str, ours: &[&'static str]) -> Option<&'static str> {
    list.split(',').find_map(|theirs| ours.iter().find(|our| **our == theirs)).copied()
}

fn digest(digest: &mut bool, list: &str) -> Answer {
    let Some(choice) = chosen(list, &[CRC32C, NONE]) else {
        return Some(REJECT);
    };
    *digest = choice == CRC32C;
    Some(Cow::Borrowed(choice))
}

fn same(setting: &mut bool, value: &str) -> Answer {
    let Some(wanted) = boolean(value) else {
        return Some(REJECT);
    };
    *setting = wanted;
    Some(if wanted { YES } else { NO })
}

fn smaller<N: TryFrom<u32>>(setting: &mut N, value: &str, range: RangeInclusive<u32>, ours: u32) -> Answer {
    agreed(setting, within(value, range).map(|theirs| theirs.min(ours)))
}

fn greater<N: TryFrom<u32>>(setting: &mut N, value: &str, range: RangeInclusive<u32>, ours: u32) -> Answer {
    agreed(setting, within(value, range).map(|theirs| theirs.max(ours)))
}

fn agreed<N: TryFrom<u32>>(setting: &mut N, number: Option<u32>) -> Answer {
    let Some((number, fitting)) = number.and_then(|number| Some((number, N::try_from(number).ok()?))) else {
        return Some(REJECT);
    };
    *setting = fitting;
    Some(Cow::Owned(number.to_string()))
}

fn within(value: &str, range: RangeInclusive<u32>) -> Option<u32> {
    number(value).filter(|number| range.contains(number))
}

pub(super) const NOT_UNDERSTOOD: Cow<'static, str> = Cow::Borrowed("NotUnderstood");
pub(super) const REJECT: Cow<'static, str> = Cow::Borrowed("Reject");
const IRRELEVANT: Cow<'static, str> = Cow::Borrowed("Irrelevant");
const YES: Cow<'static, str> = Cow::Borrowed("Yes");
const NO: Cow<'static, str> = Cow::Borrowed("No");
const CRC32C: &str = "CRC32C";
const NONE: &str = "None";
const TASK_REPORTING: &str = "RFC3720";

const SEGMENT_LENGTHS: RangeInclusive<u32> = 512..=DATA_SEGMENT_BYTES_MAX;
const SECONDS: RangeInclusive<u32> = 0..=3600;

const MAX_CONNECTIONS: u32 = 8;
const MAX_BURST_BYTES: u32 = 1024 * 1024;
const FIRST_BURST_BYTES: u32 = 256 * 1024;
const TIME2WAIT_SECONDS: u32 = 2;
const TIME2RETAIN_SECONDS: u32 = 0;
const OUTSTANDING_R2T: u32 = 1;
const PROTOCOL_LEVEL: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(negotiation: &mut Negotiation, offers: &[(&str, &str)]) -> Result<String, Repeated> {
        let offers: Vec<_> = offers.iter().map(|(name, value)| (Key::parse(name).unwrap(), *name, *value)).collect();
        let mut answer = Vec::new();
        negotiation.settle(&offers, &mut answer)?;
        Ok(String::from_utf8(answer).unwrap().trim_end_matches('\0').replace('\0', " "))
    }

    /// The answer to one key of a normal session, and what came of it.
    fn one(key: &str, value: &str) -> (String, Parameters) {
        let mut negotiation = Negotiation::default();
        let answer = settle(&mut negotiation, &[(key, value)]).unwrap();
        let value = answer.strip_prefix(key).map_or("", |rest| &rest[1..]);
        (value.to_owned(), negotiation.parameters())
    }

    #[test]
    fn digests_are_chosen_in_the_initiators_order() {
        for (list, answer, is_on) in [
            ("None,CRC32C", "None", false),
            ("CRC32C,None", "CRC32C", true),
            ("X-other,CRC32C", "CRC32C", true),
            ("CRC32C", "CRC32C", true),
            ("X-other", "Reject", false),
            ("", "Reject", false),
        ] {
            let (header, parameters) = one("HeaderDigest", list);
            assert_eq!((header.as_str(), parameters.framing().header_digest), (answer, is_on), "{list}");
            let (data, parameters) = one("DataDigest", list);
            assert_eq!((data.as_str(), parameters.framing().data_digest), (answer, is_on), "{list}");
        }
    }

    #[test]
    fn numbers_are_agreed_on_by_their_rule() {
        for (key, offer, answer) in [
            ("MaxConnections", "1", "1"),
            ("MaxConnections", "65535", "8"),
            ("MaxBurstLength", "512", "512"),
            ("MaxBurstLength", "16777215", "1048576"),
            ("MaxBurstLength", "0x1000", "4096"),
            ("FirstBurstLength", "16777215", "262144"),
            ("FirstBurstLength", "65536", "65536"),
            ("DefaultTime2Wait", "0", "2"),
            ("DefaultTime2Wait", "3600", "3600"),
            ("DefaultTime2Retain", "3600", "0"),
            ("MaxOutstandingR2T", "65535", "1"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("iSCSIProtocolLevel", "0", "0"),
            ("iSCSIProtocolLevel", "31", "1"),
        ] {
            assert_eq!(one(key, offer).0, answer, "{key}={offer}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_rejected_and_change_nothing() {
        for (key, offer) in [
            ("MaxConnections", "0"),
            ("MaxConnections", "65536"),
            ("MaxBurstLength", "511"),
            ("MaxBurstLength", "16777216"),
            ("FirstBurstLength", "0"),
            ("FirstBurstLength", "ten"),
            ("DefaultTime2Wait", "3601"),
            ("DefaultTime2Retain", "3601"),
            ("MaxOutstandingR2T", "0"),
            ("ErrorRecoveryLevel", "3"),
            ("iSCSIProtocolLevel", "32"),
            ("MaxRecvDataSegmentLength", "511"),
            ("MaxRecvDataSegmentLength", "16777216"),
            ("MaxRecvDataSegmentLength", "99999999999999999999"),
            ("InitialR2T", "yes"),
            ("ImmediateData", ""),
            ("DataPDUInOrder", "1"),
            ("TaskReporting", "FastAbort"),
        ] {
            assert_eq!(one(key, offer), ("Reject".to_owned(), Parameters::default()), "{key}={offer}");
        }
    }

    #[test]
    fn booleans_are_agreed_on_by_their_rule() {
        for (key, offer, answer) in [
            ("InitialR2T", "Yes", "Yes"),
            ("InitialR2T", "No", "No"),
            ("ImmediateData", "Yes", "Yes"),
            ("ImmediateData", "No", "No"),
            ("DataPDUInOrder", "No", "Yes"),
            ("DataSequenceInOrder", "No", "Yes"),
            ("DataSequenceInOrder", "Yes", "Yes"),
        ] {
            assert_eq!(one(key, offer).0, answer, "{key}={offer}");
        }
        assert!(!one("InitialR2T", "No").1.initial_r2t);
        assert!(!one("ImmediateData", "No").1.immediate_data);
    }

    #[test]
    fn obsolete_and_later_keys_get_the_answer_they_must_get() {
        assert_eq!(one("IFMarker", "Yes").0, "No");
        assert_eq!(one("OFMarker", "No").0, "No");
        assert_eq!(one("IFMarkInt", "1~65535").0, "Reject");
        assert_eq!(one("OFMarkInt", "2048").0, "Reject");
        assert_eq!(one("TaskReporting", "FastAbort,ResponseFence,RFC3720").0, "RFC3720");
    }

    #[test]
    fn a_declared_length_is_taken_without_an_answer() {
        let (answer, parameters) = one("MaxRecvDataSegmentLength", "16777215");
        assert_eq!((answer.as_str(), parameters.initiator_data_bytes_max), ("", 16_777_215));
    }

    #[test]
    fn what_is_sent_first_is_never_more_than_what_is_sent_at_all() {
        let mut negotiation = Negotiation::default();
        let answer = settle(&mut negotiation, &[("FirstBurstLength", "65536"), ("MaxBurstLength", "4096")]);
        assert_eq!(answer.unwrap(), "MaxBurstLength=4096 FirstBurstLength=4096");
        assert_eq!(negotiation.parameters().first_burst, 4096);
        assert_eq!(one("MaxBurstLength", "8192").1.first_burst, 8192);
    }

    #[test]
    fn the_first_burst_is_irrelevant_when_nothing_may_come_unsolicited() {
        let offers = [("FirstBurstLength", "65536"), ("InitialR2T", "Yes"), ("ImmediateData", "No")];
        let answer = settle(&mut Negotiation::default(), &offers).unwrap();
        assert_eq!(answer, "InitialR2T=Yes ImmediateData=No FirstBurstLength=Irrelevant");
    }

    #[test]
    fn a_key_settled_twice_is_refused_across_requests_too() {
        let mut negotiation = Negotiation::default();
        settle(&mut negotiation, &[("InitialR2T", "No")]).unwrap();
        assert_eq!(settle(&mut negotiation, &[("InitialR2T", "No")]), Err(Repeated));
        let twice = [("MaxRecvDataSegmentLength", "512"), ("MaxRecvDataSegmentLength", "512")];
        assert_eq!(settle(&mut Negotiation::default(), &twice), Err(Repeated));
    }

    #[test]
    fn answers_are_not_answered() {
        assert_eq!(one("MaxRecvDataSegmentLength", "Reject"), (String::new(), Parameters::default()));
    }

    #[test]
    fn discovery_and_joining_connections_leave_out_what_says_nothing_there() {
        let offers = [("InitialR2T", "No"), ("ErrorRecoveryLevel", "0"), ("HeaderDigest", "CRC32C")];
        let mut discovery = Negotiation { is_discovery: true, ..Negotiation::default() };
        let answer = settle(&mut discovery, &offers).unwrap();
        assert_eq!(answer, "InitialR2T=Irrelevant ErrorRecoveryLevel=0 HeaderDigest=CRC32C");
        let mut joining = Negotiation { is_joining: true, ..Negotiation::default() };
        let answer = settle(&mut joining, &offers).unwrap();
        assert_eq!(answer, "InitialR2T=Irrelevant ErrorRecoveryLevel=Irrelevant HeaderDigest=CRC32C");
        let session = Parameters { initial_r2t: false, max_connections: 8, ..Parameters::default() };
        let joined = joining.parameters().within(session);
        assert_eq!(joined, Parameters { header_digest: true, ..session });
    }

    #[test]
    fn after_login_only_the_length_of_segments_is_declared_anew() {
        let mut parameters = Parameters::default();
        let mut answer = Vec::new();
        parameters.declare_after_login("MaxRecvDataSegmentLength", "65536", &mut answer);
        assert_eq!((parameters.initiator_data_bytes_max, answer.as_slice()), (65536, &[][..]));
        parameters.declare_after_login("InitialR2T", "No", &mut answer);
        parameters.declare_after_login("X-unknown", "1", &mut answer);
        assert_eq!(answer, b"InitialR2T=Reject\0X-unknown=NotUnderstood\0");
        assert!(parameters.initial_r2t);
    }
}
