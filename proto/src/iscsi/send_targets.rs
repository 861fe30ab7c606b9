//! Text requests after login: which targets there are, and where. RFC 7143 4.3, 11.10, 11.11, appendix C.
//!
//! A whole text is read ([`TextQuery::parse`]), the driver looks up the targets wanted, and the answer
//! ([`TextQuery::answer`]) goes out over as many PDUs as it needs ([`LongText`]).

use super::constants::RESERVED_TAG;
use super::parameters::{NOT_UNDERSTOOD, Parameters, REJECT};
use super::reply::TextResponse;
use super::request::TextRequest;
use super::text::{Pieces, TextError, parse, push_pair};

/// Which targets are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetsWanted {
    /// All that the initiator may know of.
    All,
    /// The one of this name.
    Named(String),
}

/// A target and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetListing {
    /// The target's name.
    pub name: String,
    /// Its portals as `address:port,portal group`, IPv6 addresses in brackets.
    pub addresses: Vec<String>,
}

/// A text request that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextQuery {
    /// The targets to look up, if any are asked for.
    pub targets: Option<TargetsWanted>,
    /// The answer to everything else.
    answer: Vec<u8>,
}

impl TextQuery {
    /// Reads a whole text. `session_target` is the target of a normal session, `None` in a discovery session. What may
    /// be declared anew goes to `parameters`.
    ///
    /// A normal session is told of its own target only, whatever it asks for: RFC 7143 appendix C keeps `All` to
    /// discovery sessions, and initiators that ask for it elsewhere want to hear of their target's portals.
    ///
    /// # Errors
    /// The text cannot be read: a protocol error.
    pub fn parse(text: &[u8], session_target: Option<&str>, parameters: &mut Parameters) -> Result<Self, TextError> {
        let mut query = Self { targets: None, answer: Vec::new() };
        for (key, value) in parse(text)? {
            match key {
                // A second one would have the answers of two questions run into one.
                "SendTargets" if query.targets.is_some() => push_pair(&mut query.answer, key, &REJECT),
                "SendTargets" => match wanted(value, session_target) {
                    Some(targets) => query.targets = Some(targets),
                    None => push_pair(&mut query.answer, key, &REJECT),
                },
                // What people call the initiator now; nobody needs to know.
                "InitiatorAlias" => {}
                "InitiatorName"
                | "TargetName"
                | "SessionType"
                | "AuthMethod"
                | "TargetAddress"
                | "TargetAlias"
                | "TargetPortalGroupTag" => push_pair(&mut query.answer, key, &REJECT),
                _ if *value == *NOT_UNDERSTOOD => {}
                _ => parameters.declare_after_login(key, value, &mut query.answer),
            }
        }
        Ok(query)
    }

    /// Makes the answer with the targets found, which are none when none is to be seen.
    #[must_use]
    pub fn answer<'a>(self, targets: impl IntoIterator<Item = &'a TargetListing>) -> Vec<u8> {
        let mut answer = self.answer;
        for target in targets {
            push_pair(&mut answer, "TargetName", &target.name);
            for address in &target.addresses {
                push_pair(&mut answer, "TargetAddress", address);
            }
        }
        answer
    }
}

fn wanted(value: &str, session_target: Option<&str>) -> Option<TargetsWanted> {
    let is_name = ["iqn.", "eui.", "naa."].iter().any(|kind| value.starts_with(kind));
    match session_target {
        None if value == "All" => Some(TargetsWanted::All),
        None => is_name.then(|| TargetsWanted::Named(value.to_owned())),
        Some(own) if value.is_empty() || value == "All" || value == own => Some(TargetsWanted::Named(own.to_owned())),
        Some(_) => None,
    }
}

/// An answer that goes out in as many Text Responses as it needs, each asked for by the initiator.
#[derive(Debug)]
pub struct LongText {
    itt: u32,
    ttt: u32,
    lun: [u8; 8],
    pieces: Pieces,
}

impl LongText {
    /// Begins to answer `request`. `ttt` (not [`RESERVED_TAG`]) is what the initiator asks for further pieces with.
    #[must_use]
    pub const fn new(request: &TextRequest, ttt: u32, text: Vec<u8>) -> Self {
        Self { itt: request.itt, ttt, lun: request.lun, pieces: Pieces::new(text) }
    }

    /// Makes the next response and its data, at most `data_bytes_max` (the initiator's limit).
    pub fn respond(&mut self, data_bytes_max: u32) -> (TextResponse, Vec<u8>) {
        let data = self.pieces.next_piece(data_bytes_max).to_vec();
        let is_final = self.pieces.is_over();
        let response = TextResponse {
            is_final,
            is_continued: !is_final,
            lun: self.lun,
            itt: self.itt,
            ttt: if is_final { RESERVED_TAG } else { self.ttt },
            // A piece is no longer than a number of 32 bits allows.
            data_bytes: u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        (response, data)
    }

    /// Whether `request` asks for the next piece: the tags are those of this answer, and it says nothing itself.
    #[must_use]
    pub const fn is_asked_by(&self, request: &TextRequest) -> bool {
        request.itt == self.itt && request.ttt == self.ttt && request.data_bytes == 0 && !request.is_continued
    }

    /// Whether all of it has been sent.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.pieces.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "iqn.2025-01.example:disk";

    fn query(text: &[u8], session_target: Option<&str>) -> TextQuery {
        TextQuery::parse(text, session_target, &mut Parameters::default()).unwrap()
    }

    fn request(itt: u32, ttt: u32) -> TextRequest {
        TextRequest {
            immediate: true,
            is_final: true,
            is_continued: false,
            lun: [0; 8],
            itt,
            ttt,
            cmd_sn: 0,
            exp_stat_sn: 0,
            data_bytes: 0,
        }
    }

    #[test]
    fn a_discovery_session_asks_for_all_targets_or_one() {
        assert_eq!(query(b"SendTargets=All\0", None).targets, Some(TargetsWanted::All));
        let named = Some(TargetsWanted::Named(TARGET.to_owned()));
        assert_eq!(query(format!("SendTargets={TARGET}\0").as_bytes(), None).targets, named);
        assert_eq!(query(b"SendTargets=\0", None).targets, None);
    }

    #[test]
    fn a_normal_session_hears_of_its_own_target_only() {
        let own = Some(TargetsWanted::Named(TARGET.to_owned()));
        for value in ["", "All", TARGET] {
            assert_eq!(query(format!("SendTargets={value}\0").as_bytes(), Some(TARGET)).targets, own, "{value}");
        }
        let other = query(b"SendTargets=iqn.2025-01.example:other\0", Some(TARGET));
        assert_eq!(other.targets, None);
        assert_eq!(other.answer([]), b"SendTargets=Reject\0");
    }

    /// What libiscsi's test suite sends and wants to see fail.
    #[test]
    fn questions_that_are_none_are_refused_key_by_key() {
        for (text, answer) in [
            ("SendTargetsPlease=All", "SendTargetsPlease=NotUnderstood\0"),
            ("SendTargets=Alle", "SendTargets=Reject\0"),
            ("SendTargets=A", "SendTargets=Reject\0"),
            ("sENDtARGETS=aLL", "sENDtARGETS=NotUnderstood\0"),
        ] {
            for session_target in [None, Some(TARGET)] {
                let query = query(text.as_bytes(), session_target);
                assert_eq!(query.targets, None, "{text}");
                assert_eq!(query.answer([]), answer.as_bytes());
            }
        }
        assert_eq!(query(b"SendTargets=All\0SendTargets=All\0", None).answer([]), b"SendTargets=Reject\0");
    }

    #[test]
    fn other_keys_are_answered_and_lengths_are_taken() {
        let mut parameters = Parameters::default();
        let text =
            b"MaxRecvDataSegmentLength=4096\0InitialR2T=No\0InitiatorAlias=me\0TargetAlias=x\0X-a=NotUnderstood\0";
        let query = TextQuery::parse(text, None, &mut parameters).unwrap();
        assert_eq!(query.answer([]), b"InitialR2T=Reject\0TargetAlias=Reject\0");
        assert_eq!(parameters.initiator_data_bytes_max, 4096);
        assert_eq!(TextQuery::parse(b"SendTargets\0", None, &mut parameters), Err(TextError::NoValue));
    }

    #[test]
    fn targets_are_listed_with_their_addresses() {
        let listings = [
            TargetListing {
                name: "iqn.2025-01.example:a".to_owned(),
                addresses: vec!["192.0.2.1:3260,1".to_owned(), "[2001:db8::1]:3260,2".to_owned()],
            },
            TargetListing { name: "iqn.2025-01.example:b".to_owned(), addresses: vec![] },
        ];
        let answer = query(b"SendTargets=All\0", None).answer(&listings);
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "TargetName=iqn.2025-01.example:a\0TargetAddress=192.0.2.1:3260,1\0\
             TargetAddress=[2001:db8::1]:3260,2\0TargetName=iqn.2025-01.example:b\0"
        );
    }

    #[test]
    fn a_long_answer_goes_out_in_pieces_that_are_asked_for() {
        let mut long = LongText::new(&request(9, RESERVED_TAG), 5, vec![7; 1100]);
        let mut sent = Vec::new();
        for (is_final, ttt, len) in [(false, 5, 512), (false, 5, 512), (true, RESERVED_TAG, 76)] {
            assert!(!long.is_over());
            let (response, data) = long.respond(512);
            assert_eq!((response.is_final, response.is_continued, response.ttt), (is_final, !is_final, ttt));
            assert_eq!((response.itt, response.data_bytes, data.len()), (9, len, usize::try_from(len).unwrap()));
            sent.extend(data);
        }
        assert!(long.is_over());
        assert_eq!(sent, vec![7; 1100]);
    }

    #[test]
    fn an_empty_answer_is_one_final_response() {
        let mut long = LongText::new(&request(9, RESERVED_TAG), 5, Vec::new());
        let (response, data) = long.respond(512);
        assert!(response.is_final && data.is_empty() && long.is_over());
    }

    #[test]
    fn only_an_empty_request_with_both_tags_asks_for_the_next_piece() {
        let long = LongText::new(&request(9, RESERVED_TAG), 5, vec![7; 1100]);
        assert!(long.is_asked_by(&request(9, 5)));
        assert!(!long.is_asked_by(&request(8, 5)));
        assert!(!long.is_asked_by(&request(9, 6)));
        assert!(!long.is_asked_by(&TextRequest { data_bytes: 4, ..request(9, 5) }));
    }
}
