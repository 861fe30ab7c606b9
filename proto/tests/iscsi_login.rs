//! The iSCSI login, rule by rule and its exact answer: RFC 7143 6.3, 11.12, 11.13, 12.1, 13.
#![cfg(test)]
#![forbid(unsafe_code)]

use md5::{Digest as _, Md5};
use proto::iscsi::{
    Admitted, ChapSecrets, Config, Door, Entry, LOGIN_DATA_BYTES_MAX, LOGIN_REQUESTS_MAX, Login, LoginFailure,
    LoginStatus, Parameters, SessionKind, Step,
};
use sha2::Sha256;

const INITIATOR: &str = "iqn.2025-01.example:host";
const TARGET: &str = "iqn.2025-01.example:disk";
const SECRET: &[u8] = b"a secret of joe";
const TARGET_SECRET: &[u8] = b"a secret of ours";
const ISID: [u8; 6] = [0x40, 1, 2, 3, 4, 5];

/// Lets everybody in to [`TARGET`] and discovery who proves what there is to prove.
#[derive(Default)]
struct Guard {
    chap: Option<ChapSecrets>,
}

impl Door for Guard {
    fn enter(&self, target: Option<&str>, initiator: &str) -> Result<Entry, LoginStatus> {
        match (target, initiator) {
            (_, "iqn.2025-01.example:banned") => Err(LoginStatus::FORBIDDEN),
            (None | Some(TARGET), _) => Ok(Entry { chap: self.chap.clone() }),
            (Some(_), _) => Err(LoginStatus::NOT_FOUND),
        }
    }
}

/// A login request in the making: a leading one of the operational stage that wants to be the last.
#[derive(Clone, Copy)]
struct Ask {
    flags: u8,
    version_min: u8,
    isid: [u8; 6],
    tsih: u16,
    cid: u16,
}

const ASK: Ask = Ask { flags: OPERATIONAL_LAST, version_min: 0, isid: ISID, tsih: 0, cid: 1 };
/// Bits: T 80, C 40, current stage 0C, next stage 03.
const OPERATIONAL_LAST: u8 = 0x87;
const OPERATIONAL: u8 = 0x04;
const OPERATIONAL_CONTINUED: u8 = 0x44;
const SECURITY: u8 = 0x00;
const SECURITY_TO_OPERATIONAL: u8 = 0x81;
const SECURITY_LAST: u8 = 0x83;

impl Ask {
    fn pdu(self, text: &[u8]) -> Vec<u8> {
        let mut pdu = vec![0x43, self.flags, 0, self.version_min, 0];
        pdu.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes()[1..]);
        pdu.extend_from_slice(&self.isid);
        pdu.extend_from_slice(&self.tsih.to_be_bytes());
        pdu.extend_from_slice(&0xaabb_ccdd_u32.to_be_bytes());
        pdu.extend_from_slice(&self.cid.to_be_bytes());
        pdu.extend_from_slice(&[0, 0]);
        pdu.extend_from_slice(&100_u32.to_be_bytes());
        pdu.extend_from_slice(&7_u32.to_be_bytes());
        pdu.resize(48, 0);
        pdu.extend_from_slice(text);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        pdu
    }
}

/// A login response taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    flags: u8,
    tsih: u16,
    stat_sn: u32,
    status: (u8, u8),
    text: Vec<String>,
}

impl Heard {
    fn value(&self, key: &str) -> Option<&str> {
        self.text.iter().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

fn heard(mut output: &[u8]) -> Vec<Heard> {
    let mut responses = Vec::new();
    while !output.is_empty() {
        let (bhs, rest) = output.split_at(48);
        let word = |at: usize| u32::from_be_bytes(bhs[at..at + 4].try_into().unwrap());
        assert_eq!((bhs[0], &bhs[2..5]), (0x23, &[0, 0, 0][..]));
        let len = usize::try_from(word(4) & 0x00ff_ffff).unwrap();
        let (text, rest) = rest.split_at(len.next_multiple_of(4));
        let text = String::from_utf8(text[..len].to_vec()).unwrap();
        responses.push(Heard {
            flags: bhs[1],
            tsih: u16::from_be_bytes([bhs[14], bhs[15]]),
            stat_sn: word(24),
            status: (bhs[36], bhs[37]),
            text: text.split_terminator('\0').map(str::to_owned).collect(),
        });
        output = rest;
    }
    responses
}

/// An initiator and the login it talks to.
struct Talk {
    login: Login,
    guard: Guard,
}

impl Talk {
    fn new(chap: Option<ChapSecrets>) -> Self {
        let mut challenge = [0; 32];
        for (byte, value) in challenge.iter_mut().zip(0..) {
            *byte = value;
        }
        Self { login: Login::new(Config { challenge, portal_group: 3 }), guard: Guard { chap } }
    }

    fn send(&mut self, ask: Ask, pairs: &[&str]) -> (Step, Option<Heard>) {
        let text: String = pairs.iter().map(|pair| format!("{pair}\0")).collect();
        self.send_bytes(&ask.pdu(text.as_bytes()))
    }

    fn send_bytes(&mut self, mut bytes: &[u8]) -> (Step, Option<Heard>) {
        let step = self.login.advance(&mut bytes, &self.guard);
        let mut responses = heard(&self.login.take_output());
        assert!(responses.len() <= 1);
        (step, responses.pop())
    }

    /// Sends what does not end the stage, and hears the answer.
    #[track_caller]
    fn hear(&mut self, ask: Ask, pairs: &[&str]) -> Heard {
        let (step, heard) = self.send(ask, pairs);
        assert_eq!(step, Step::NeedBytes, "{heard:?}");
        let heard = heard.expect("an answer");
        assert_eq!(heard.status, (0, 0));
        heard
    }

    /// Sends what is refused, and hears why.
    #[track_caller]
    fn refused(&mut self, ask: Ask, pairs: &[&str]) -> LoginStatus {
        let (step, heard) = self.send(ask, pairs);
        refusal(&step, heard)
    }

    /// Sends what ends the login, and gives what was admitted and the last response.
    #[track_caller]
    fn admitted(&mut self, ask: Ask, pairs: &[&str]) -> (Admitted, Heard) {
        let (step, early) = self.send(ask, pairs);
        let Step::Admitted(admitted) = step else { panic!("{step:?} {early:?}") };
        assert_eq!(early, None, "nothing is promised before the session is settled");
        self.login.finish(Ok(9));
        (*admitted, heard(&self.login.take_output()).pop().unwrap())
    }
}

#[track_caller]
fn refusal(step: &Step, heard: Option<Heard>) -> LoginStatus {
    let Step::Close(LoginFailure::Refused(status)) = step else { panic!("{step:?} {heard:?}") };
    let heard = heard.expect("a refusal is answered");
    assert_eq!((heard.status, heard.flags & 0x80, heard.text), ((status.class, status.detail), 0, vec![]));
    *status
}

fn names() -> Vec<String> {
    vec![format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")]
}

/// The names of a normal session, and then `pairs`.
fn named<'a>(names: &'a [String], pairs: &[&'a str]) -> Vec<&'a str> {
    names.iter().map(String::as_str).chain(pairs.iter().copied()).collect()
}

fn stage(flags: u8) -> Ask {
    Ask { flags, ..ASK }
}

/// One request of the operational stage with `pairs`, and the value that `key` was answered with.
#[track_caller]
fn answer_to(key: &str, pairs: &[&str]) -> Option<String> {
    let (_, heard) = Talk::new(None).admitted(ASK, &named(&names(), pairs));
    heard.value(key).map(str::to_owned)
}

#[test]
fn a_login_in_one_exchange_admits_and_ends_with_the_drivers_handle() {
    let mut talk = Talk::new(None);
    let (admitted, last) = talk.admitted(ASK, &named(&names(), &["InitiatorAlias=my host", "InitialR2T=No"]));
    let expected = Admitted {
        initiator: INITIATOR.to_owned(),
        isid: ISID,
        tsih: 0,
        cid: 1,
        kind: SessionKind::Normal,
        target: Some(TARGET.to_owned()),
        parameters: Parameters { initial_r2t: false, ..Parameters::default() },
        cmd_sn: 100,
        alias: Some("my host".to_owned()),
    };
    assert_eq!(admitted, expected);
    let text = ["TargetPortalGroupTag=3", "InitialR2T=No", "MaxRecvDataSegmentLength=262144"].map(str::to_owned);
    assert_eq!(last, Heard { flags: 0x87, tsih: 9, stat_sn: 7, status: (0, 0), text: text.to_vec() });
    assert_eq!(talk.login.stat_sn(), 8);
    assert_eq!(talk.send(ASK, &[]).0, Step::Close(LoginFailure::Over));
}

#[test]
fn the_driver_may_refuse_the_session_at_the_end() {
    for status in [LoginStatus::NO_SESSION, LoginStatus::TOO_MANY_CONNECTIONS, LoginStatus::OUT_OF_RESOURCES] {
        let mut talk = Talk::new(None);
        let (step, _) = talk.send(Ask { tsih: 5, ..ASK }, &named(&names(), &[]));
        let Step::Admitted(admitted) = step else { panic!("{step:?}") };
        assert_eq!(admitted.tsih, 5);
        talk.login.finish(Err(status));
        let last = heard(&talk.login.take_output()).pop();
        let (step, nothing) = talk.send(ASK, &[]);
        assert_eq!((refusal(&step, last), nothing), (status, None));
    }
}

#[test]
fn the_last_response_tells_the_window_that_the_driver_set() {
    let mut talk = Talk::new(None);
    let text: String = names().iter().map(|pair| format!("{pair}\0")).collect();
    let mut pdu = &ASK.pdu(text.as_bytes())[..];
    assert!(matches!(talk.login.advance(&mut pdu, &talk.guard), Step::Admitted(_)));
    talk.login.set_window(100, 163);
    talk.login.finish(Ok(1));
    let output = talk.login.take_output();
    assert_eq!(output[28..36], [0, 0, 0, 100, 0, 0, 0, 163]);
}

/// Any cut of the stream gives the same login, and bytes behind it are left alone.
#[test]
fn the_stream_may_be_cut_anywhere() {
    let text: String = named(&names(), &["HeaderDigest=CRC32C"]).iter().map(|pair| format!("{pair}\0")).collect();
    let pdu = ASK.pdu(text.as_bytes());
    for cut in 0..pdu.len() {
        let mut talk = Talk::new(None);
        let mut input = &pdu[..cut];
        assert_eq!(talk.login.advance(&mut input, &talk.guard), Step::NeedBytes);
        assert_eq!(input.len(), cut);
    }
    let with_more = [&pdu[..], &[1, 2, 3]].concat();
    let mut input = &with_more[..];
    let mut talk = Talk::new(None);
    assert!(matches!(talk.login.advance(&mut input, &talk.guard), Step::Admitted(_)));
    assert_eq!(input, [1, 2, 3]);
}

#[test]
fn digests_are_agreed_on_and_not_used_before_the_login_is_over() {
    let mut talk = Talk::new(None);
    let heard = talk.hear(stage(OPERATIONAL), &named(&names(), &["HeaderDigest=CRC32C", "DataDigest=CRC32C,None"]));
    assert_eq!((heard.value("HeaderDigest"), heard.value("DataDigest")), (Some("CRC32C"), Some("CRC32C")));
    let (admitted, _) = talk.admitted(ASK, &[]);
    assert!(admitted.parameters.header_digest && admitted.parameters.data_digest);
}

#[test]
fn every_key_is_answered_by_its_rule() {
    for (offer, answer) in [
        ("HeaderDigest=None", Some("None")),
        ("DataDigest=X-fast,None", Some("None")),
        ("MaxConnections=4", Some("4")),
        ("InitialR2T=Yes", Some("Yes")),
        ("ImmediateData=No", Some("No")),
        ("MaxRecvDataSegmentLength=65536", Some("262144")),
        ("MaxBurstLength=16776192", Some("1048576")),
        ("FirstBurstLength=65536", Some("65536")),
        ("DefaultTime2Wait=0", Some("2")),
        ("DefaultTime2Retain=20", Some("0")),
        ("MaxOutstandingR2T=16", Some("1")),
        ("DataPDUInOrder=No", Some("Yes")),
        ("DataSequenceInOrder=No", Some("Yes")),
        ("ErrorRecoveryLevel=2", Some("0")),
        ("iSCSIProtocolLevel=2", Some("1")),
        ("TaskReporting=RFC3720", Some("RFC3720")),
        ("IFMarker=No", Some("No")),
        ("OFMarker=Yes", Some("No")),
        ("IFMarkInt=2048~8192", Some("Reject")),
        ("X-com.example.speed=11", Some("NotUnderstood")),
        ("X#NodeArchitecture=abc", Some("NotUnderstood")),
        ("RDMAExtensions=Yes", Some("NotUnderstood")),
        ("SendTargets=All", Some("Reject")),
        ("TargetAlias=x", Some("Reject")),
        ("InitiatorAlias=x", None),
        ("X-ours=NotUnderstood", None),
    ] {
        let key = offer.split('=').next().unwrap();
        assert_eq!(answer_to(key, &[offer]).as_deref(), answer, "{offer}");
    }
}

#[test]
fn what_was_not_offered_keeps_the_default_of_the_specification() {
    let (admitted, last) = Talk::new(None).admitted(ASK, &named(&names(), &[]));
    assert_eq!(admitted.parameters, Parameters::default());
    assert_eq!(last.text, ["TargetPortalGroupTag=3", "MaxRecvDataSegmentLength=262144"]);
    // Straight from the security stage nothing is negotiated at all.
    let (admitted, last) = Talk::new(None).admitted(stage(SECURITY_LAST), &named(&names(), &["AuthMethod=None"]));
    assert_eq!(admitted.parameters, Parameters::default());
    assert_eq!((last.flags, last.value("AuthMethod")), (0x83, Some("None")));
    assert_eq!(last.value("MaxRecvDataSegmentLength"), None);
}

#[test]
fn keys_that_say_nothing_in_a_discovery_session_are_irrelevant() {
    let name = format!("InitiatorName={INITIATOR}");
    let pairs = [
        name.as_str(),
        "SessionType=Discovery",
        "InitialR2T=No",
        "MaxBurstLength=65536",
        "MaxConnections=1",
        "TaskReporting=RFC3720",
        "DefaultTime2Wait=2",
        "HeaderDigest=CRC32C",
    ];
    let (admitted, last) = Talk::new(None).admitted(ASK, &pairs);
    assert_eq!((admitted.kind, admitted.target), (SessionKind::Discovery, None));
    for key in ["InitialR2T", "MaxBurstLength", "MaxConnections", "TaskReporting"] {
        assert_eq!(last.value(key), Some("Irrelevant"), "{key}");
    }
    assert_eq!((last.value("DefaultTime2Wait"), last.value("HeaderDigest")), (Some("2"), Some("CRC32C")));
    assert_eq!(last.value("TargetPortalGroupTag"), None);
}

#[test]
fn a_text_may_be_cut_anywhere_into_requests() {
    let text: String = named(&names(), &["MaxBurstLength=65536"]).iter().map(|pair| format!("{pair}\0")).collect();
    for cut in [1, 20, 38, text.len() - 1] {
        let mut talk = Talk::new(None);
        let (step, heard) = talk.send_bytes(&stage(OPERATIONAL_CONTINUED).pdu(&text.as_bytes()[..cut]));
        let empty = Heard { flags: 0x04, tsih: 0, stat_sn: 7, status: (0, 0), text: vec![] };
        assert_eq!((step, heard), (Step::NeedBytes, Some(empty)));
        let (step, _) = talk.send_bytes(&ASK.pdu(&text.as_bytes()[cut..]));
        let Step::Admitted(admitted) = step else { panic!("{step:?}") };
        assert_eq!(admitted.parameters.max_burst, 65536);
    }
}

#[test]
fn text_that_goes_on_cannot_end_the_stage() {
    assert_eq!(Talk::new(None).refused(stage(0xc7), &named(&names(), &[])), LoginStatus::INITIATOR_ERROR);
}

#[test]
fn text_that_never_ends_is_refused() {
    let piece = [b'a'; 8192];
    let mut talk = Talk::new(None);
    for _ in 0..8 {
        assert_eq!(talk.send_bytes(&stage(OPERATIONAL_CONTINUED).pdu(&piece)).0, Step::NeedBytes);
    }
    let (step, heard) = talk.send_bytes(&stage(OPERATIONAL_CONTINUED).pdu(b"a"));
    assert_eq!(refusal(&step, heard), LoginStatus::INITIATOR_ERROR);
}

#[test]
fn a_login_that_never_ends_is_refused() {
    let mut talk = Talk::new(None);
    talk.hear(stage(OPERATIONAL), &named(&names(), &[]));
    for _ in 1..LOGIN_REQUESTS_MAX {
        talk.hear(stage(OPERATIONAL), &[]);
    }
    assert_eq!(talk.refused(stage(OPERATIONAL), &[]), LoginStatus::INITIATOR_ERROR);
}

/// An answer longer than the initiator takes goes out in pieces, and the stage ends only with the last of them.
#[test]
fn a_long_answer_is_cut_and_keeps_the_stage_open() {
    let unknown: Vec<String> = (0..60).map(|number| format!("X-com.example.key-{number}=1")).collect();
    let mut pairs: Vec<&str> = unknown.iter().map(String::as_str).collect();
    let names = names();
    pairs.extend(named(&names, &["MaxRecvDataSegmentLength=512"]));
    let mut talk = Talk::new(None);
    let mut text = Vec::new();
    let mut ask = pairs.as_slice();
    let admitted = loop {
        let pair_text: String = ask.iter().map(|pair| format!("{pair}\0")).collect();
        let mut pdu = &ASK.pdu(pair_text.as_bytes())[..];
        let step = talk.login.advance(&mut pdu, &talk.guard);
        if let Step::Admitted(admitted) = step {
            talk.login.finish(Ok(9));
            let output = talk.login.take_output();
            text.extend_from_slice(&output[48..]);
            break admitted;
        }
        assert_eq!(step, Step::NeedBytes);
        let output = talk.login.take_output();
        assert_eq!((output[1], output.len()), (0x44, 48 + 512));
        text.extend_from_slice(&output[48..]);
        ask = &[];
    };
    assert_eq!(admitted.parameters.initiator_data_bytes_max, 512);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("=NotUnderstood\0").count(), 60);
    assert!(text.contains("\0MaxRecvDataSegmentLength=262144\0"));
    // Who is told that the text goes on has nothing to say.
    let mut talk = Talk::new(None);
    talk.send(ASK, &pairs);
    assert_eq!(talk.refused(ASK, &["InitialR2T=No"]), LoginStatus::INITIATOR_ERROR);
}

#[test]
fn a_key_that_comes_twice_ends_the_login() {
    for twice in ["InitialR2T=No", "MaxRecvDataSegmentLength=512", "InitiatorAlias=x"] {
        assert_eq!(Talk::new(None).refused(ASK, &named(&names(), &[twice, twice])), LoginStatus::INITIATOR_ERROR);
        let mut talk = Talk::new(None);
        talk.hear(stage(OPERATIONAL), &named(&names(), &[twice]));
        assert_eq!(talk.refused(stage(OPERATIONAL), &[twice]), LoginStatus::INITIATOR_ERROR, "{twice}");
    }
    for again in names() {
        assert_eq!(Talk::new(None).refused(ASK, &named(&names(), &[&again])), LoginStatus::INITIATOR_ERROR);
        let mut talk = Talk::new(None);
        talk.hear(stage(OPERATIONAL), &named(&names(), &[]));
        assert_eq!(talk.refused(stage(OPERATIONAL), &[&again]), LoginStatus::INITIATOR_ERROR, "{again}");
    }
    // But for the one that libiscsi asks twice, where it has a user and the target wants none.
    let mut talk = Talk::new(None);
    talk.hear(stage(SECURITY), &named(&names(), &["AuthMethod=CHAP,None"]));
    assert_eq!(talk.hear(stage(SECURITY), &["AuthMethod=CHAP,None"]).text, ["AuthMethod=None"]);
}

#[test]
fn numbers_out_of_range_are_rejected_and_the_login_goes_on() {
    for offer in ["MaxConnections=0", "MaxBurstLength=16777216", "DefaultTime2Wait=3601", "ErrorRecoveryLevel=-1"] {
        let key = offer.split('=').next().unwrap();
        assert_eq!(answer_to(key, &[offer]).as_deref(), Some("Reject"), "{offer}");
    }
}

#[test]
fn names_must_be_there_and_be_names() {
    let initiator = format!("InitiatorName={INITIATOR}");
    let target = format!("TargetName={TARGET}");
    let long = format!("InitiatorName=iqn.{}", "a".repeat(220));
    for (pairs, status) in [
        (&[][..], LoginStatus::MISSING_PARAMETER),
        (&[target.as_str()], LoginStatus::MISSING_PARAMETER),
        (&[initiator.as_str()], LoginStatus::MISSING_PARAMETER),
        (&["SessionType=Discovery"], LoginStatus::MISSING_PARAMETER),
        (&[initiator.as_str(), "SessionType=Other"], LoginStatus::SESSION_TYPE_UNSUPPORTED),
        (&["InitiatorName=", target.as_str()], LoginStatus::INITIATOR_ERROR),
        (&["InitiatorName=a b", target.as_str()], LoginStatus::INITIATOR_ERROR),
        (&[long.as_str(), target.as_str()], LoginStatus::INITIATOR_ERROR),
        (&[initiator.as_str(), "TargetName=iqn.2025-01.example:no"], LoginStatus::NOT_FOUND),
        (&["InitiatorName=iqn.2025-01.example:banned", target.as_str()], LoginStatus::FORBIDDEN),
    ] {
        assert_eq!(Talk::new(None).refused(ASK, pairs), status, "{pairs:?}");
    }
}

#[test]
fn only_a_version_that_is_spoken_is_taken() {
    let ask = Ask { version_min: 1, ..ASK };
    assert_eq!(Talk::new(None).refused(ask, &named(&names(), &[])), LoginStatus::UNSUPPORTED_VERSION);
}

#[test]
fn stages_come_in_order() {
    // From operational to operational or back, from a stage that is none, to a stage that is none.
    for flags in [0x85, 0x84, 0x86, 0x08, 0x0c, 0x8f, 0x82, 0x80] {
        assert_eq!(
            Talk::new(None).refused(stage(flags), &named(&names(), &[])),
            LoginStatus::INITIATOR_ERROR,
            "{flags:#x}"
        );
    }
    let mut talk = Talk::new(None);
    talk.hear(stage(OPERATIONAL), &named(&names(), &[]));
    assert_eq!(talk.refused(stage(SECURITY), &[]), LoginStatus::INITIATOR_ERROR, "back");
    let mut talk = Talk::new(None);
    talk.hear(stage(SECURITY), &named(&names(), &["AuthMethod=None"]));
    assert_eq!(talk.refused(stage(OPERATIONAL), &[]), LoginStatus::INITIATOR_ERROR, "on without being told");
    let mut talk = Talk::new(None);
    let heard = talk.hear(stage(SECURITY_TO_OPERATIONAL), &named(&names(), &["AuthMethod=CHAP,None"]));
    assert_eq!((heard.flags, heard.value("AuthMethod")), (0x81, Some("None")));
    talk.admitted(ASK, &[]);
}

#[test]
fn keys_of_another_stage_end_the_login() {
    let security = Talk::new(None).refused(stage(SECURITY), &named(&names(), &["InitialR2T=No"]));
    assert_eq!(security, LoginStatus::INITIATOR_ERROR);
    let operational = Talk::new(None).refused(ASK, &named(&names(), &["AuthMethod=None"]));
    assert_eq!(operational, LoginStatus::INITIATOR_ERROR);
}

#[test]
fn all_requests_are_of_one_connection_of_one_session() {
    for other in [Ask { isid: [0; 6], ..ASK }, Ask { tsih: 4, ..ASK }, Ask { cid: 2, ..ASK }] {
        let mut talk = Talk::new(None);
        talk.hear(stage(OPERATIONAL), &named(&names(), &[]));
        assert_eq!(talk.refused(other, &[]), LoginStatus::INITIATOR_ERROR);
    }
}

#[test]
fn a_connection_that_joins_a_session_settles_only_what_is_its_own() {
    let ask = Ask { tsih: 5, cid: 2, ..ASK };
    let pairs = ["InitialR2T=No", "ErrorRecoveryLevel=0", "DataDigest=CRC32C"];
    let (admitted, last) = Talk::new(None).admitted(ask, &named(&names(), &pairs));
    assert_eq!((admitted.tsih, admitted.cid), (5, 2));
    assert_eq!((last.value("InitialR2T"), last.value("ErrorRecoveryLevel")), (Some("Irrelevant"), Some("Irrelevant")));
    let session = Parameters { initial_r2t: false, ..Parameters::default() };
    assert_eq!(admitted.parameters.within(session), Parameters { data_digest: true, ..session });
}

#[test]
fn what_is_no_login_request_is_not_answered_at_first_and_refused_later() {
    let mut talk = Talk::new(None);
    let mut ping = vec![0; 48];
    ping[0] = 0x40;
    assert_eq!(talk.send_bytes(&ping), (Step::Close(LoginFailure::NotLogin), None));
    let mut talk = Talk::new(None);
    talk.hear(stage(OPERATIONAL), &named(&names(), &[]));
    let (step, heard) = talk.send_bytes(&ping);
    assert_eq!(refusal(&step, heard), LoginStatus::INVALID_DURING_LOGIN);
}

#[test]
fn requests_that_cannot_be_read_are_refused() {
    for text in [&b"InitiatorName"[..], b"=x\0", b"a=\xff\0", b"1=2\0"] {
        let (step, heard) = Talk::new(None).send_bytes(&ASK.pdu(text));
        assert_eq!(refusal(&step, heard), LoginStatus::INITIATOR_ERROR, "{text:?}");
    }
    // Too long, told by the header alone; and additional header segments, which no login has.
    let mut header = ASK.pdu(&[]);
    header[5..8].copy_from_slice(&(LOGIN_DATA_BYTES_MAX + 1).to_be_bytes()[1..]);
    let (step, heard) = Talk::new(None).send_bytes(&header);
    assert_eq!(refusal(&step, heard), LoginStatus::INITIATOR_ERROR);
    let mut with_ahs = ASK.pdu(&[]);
    with_ahs[4] = 1;
    with_ahs.extend_from_slice(&[0; 4]);
    let (step, heard) = Talk::new(None).send_bytes(&with_ahs);
    assert_eq!(refusal(&step, heard), LoginStatus::INITIATOR_ERROR);
}

fn secrets(mutual: bool) -> ChapSecrets {
    let mutual = mutual.then(|| ("us".to_owned(), TARGET_SECRET.to_vec()));
    ChapSecrets { user: "joe".to_owned(), secret: SECRET.to_vec(), mutual }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "0b".to_owned();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain(&[0, 0]).take(3).fold(0, |word, byte| word << 8 | usize::from(*byte));
        for place in 0..4 {
            let is_padding = place > chunk.len();
            text.push(if is_padding { '=' } else { char::from(alphabet[word >> (18 - 6 * place) & 63]) });
        }
    }
    text
}

fn hash(algorithm: &str, id: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let input = [&[id], secret, challenge].concat();
    if algorithm == "5" { Md5::digest(input).to_vec() } else { Sha256::digest(input).to_vec() }
}

/// Goes as far as the challenge; gives identifier and challenge.
#[track_caller]
fn challenged(talk: &mut Talk, algorithms: &str) -> (u8, Vec<u8>) {
    let heard = talk.hear(stage(SECURITY_TO_OPERATIONAL), &named(&names(), &["AuthMethod=CHAP,None"]));
    // The initiator is ready for the next stage; the target is not.
    assert_eq!((heard.flags, heard.value("AuthMethod")), (0x00, Some("CHAP")));
    let heard = talk.hear(stage(SECURITY), &[&format!("CHAP_A={algorithms}")]);
    assert_eq!(heard.value("CHAP_A"), Some(algorithms));
    (heard.value("CHAP_I").unwrap().parse().unwrap(), unhex(heard.value("CHAP_C").unwrap()))
}

#[test]
fn who_proves_to_know_the_secret_comes_in() {
    for (algorithm, encode) in [("5", hex as fn(&[u8]) -> String), ("5", base64), ("7", hex), ("7", base64)] {
        let mut talk = Talk::new(Some(secrets(false)));
        let (id, challenge) = challenged(&mut talk, algorithm);
        let response = format!("CHAP_R={}", encode(&hash(algorithm, id, SECRET, &challenge)));
        let heard = talk.hear(stage(SECURITY_TO_OPERATIONAL), &["CHAP_N=joe", &response]);
        assert_eq!((heard.flags, heard.text.len()), (0x81, 0), "{response}");
        talk.admitted(ASK, &["InitialR2T=No"]);
    }
}

/// Straight to full feature phase, and with the challenge asked for at once.
#[test]
fn chap_may_be_all_there_is_to_a_login() {
    let mut talk = Talk::new(Some(secrets(false)));
    let heard = talk.hear(stage(SECURITY), &named(&names(), &["AuthMethod=CHAP", "CHAP_A=7,5"]));
    assert_eq!((heard.value("AuthMethod"), heard.value("CHAP_A")), (Some("CHAP"), Some("7")));
    let id = heard.value("CHAP_I").unwrap().parse().unwrap();
    let response = hash("7", id, SECRET, &unhex(heard.value("CHAP_C").unwrap()));
    talk.admitted(stage(SECURITY_LAST), &["CHAP_N=joe", &format!("CHAP_R={}", hex(&response))]);
}

#[test]
fn who_does_not_prove_it_stays_out() {
    let good = |id, challenge: &[u8]| hash("5", id, SECRET, challenge);
    let tried: [(&str, Vec<u8>); 6] = [
        ("CHAP_N=joe", b"wrong secret".to_vec()),
        ("CHAP_N=joe", Vec::new()),
        ("CHAP_N=jo", SECRET.to_vec()),
        ("CHAP_N=", SECRET.to_vec()),
        ("X-name=joe", SECRET.to_vec()),
        ("CHAP_A=5", SECRET.to_vec()),
    ];
    for (name, secret) in tried {
        let mut talk = Talk::new(Some(secrets(false)));
        let (id, challenge) = challenged(&mut talk, "5");
        let response = format!("CHAP_R={}", hex(&hash("5", id, &secret, &challenge)));
        let status = talk.refused(stage(SECURITY_TO_OPERATIONAL), &[name, &response]);
        assert_eq!(status, LoginStatus::AUTHENTICATION_FAILED, "{name}");
    }
    for wrong in ["CHAP_R=0x".to_owned(), format!("CHAP_R={}", hex(&[0; 17])), "CHAP_R=1234".to_owned()] {
        let mut talk = Talk::new(Some(secrets(false)));
        challenged(&mut talk, "5");
        assert_eq!(talk.refused(stage(SECURITY), &["CHAP_N=joe", &wrong]), LoginStatus::AUTHENTICATION_FAILED);
    }
    // As libiscsi's test suite does it: nine bytes of Base64 before the right ones.
    let mut talk = Talk::new(Some(secrets(false)));
    let (id, challenge) = challenged(&mut talk, "5");
    let oversize = base64(&good(id, &challenge)).replacen("0b", "CHAP_R=0bb3ZlcnNpemUK", 1);
    assert_eq!(talk.refused(stage(SECURITY), &["CHAP_N=joe", &oversize]), LoginStatus::AUTHENTICATION_FAILED);
    // A name twice, one of them right.
    let mut talk = Talk::new(Some(secrets(false)));
    challenged(&mut talk, "5");
    assert_eq!(talk.refused(stage(SECURITY), &["CHAP_N=joe", "CHAP_N=joe"]), LoginStatus::INITIATOR_ERROR);
}

#[test]
fn nobody_gets_around_proving_it() {
    let failed = LoginStatus::AUTHENTICATION_FAILED;
    let refused = |ask, pairs: &[&str]| Talk::new(Some(secrets(false))).refused(ask, &named(&names(), pairs));
    assert_eq!(refused(ASK, &[]), failed, "the stage left out");
    assert_eq!(refused(stage(SECURITY), &["AuthMethod=None"]), failed, "not offered");
    assert_eq!(refused(stage(SECURITY), &["AuthMethod=SRP,KRB5"]), failed, "others offered");
    assert_eq!(refused(stage(SECURITY_TO_OPERATIONAL), &[]), failed, "not mentioned");
    assert_eq!(refused(stage(SECURITY_LAST), &[]), failed, "not mentioned, straight on");
    assert_eq!(refused(stage(SECURITY), &["CHAP_A=5"]), failed, "begun without a method");
    for algorithms in ["CHAP_A=56", "CHAP_A=", "CHAP_A=6,8"] {
        assert_eq!(refused(stage(SECURITY), &["AuthMethod=CHAP", algorithms]), failed, "{algorithms}");
    }
    let mut silent = Talk::new(Some(secrets(false)));
    challenged(&mut silent, "5");
    assert_eq!(silent.refused(stage(SECURITY_TO_OPERATIONAL), &[]), failed, "no response");
    let mut on = Talk::new(Some(secrets(false)));
    challenged(&mut on, "5");
    assert_eq!(on.refused(ASK, &[]), LoginStatus::INITIATOR_ERROR, "on to the next stage");
    let mut again = Talk::new(Some(secrets(false)));
    challenged(&mut again, "5");
    assert_eq!(again.refused(stage(SECURITY), &["AuthMethod=None"]), LoginStatus::INITIATOR_ERROR, "another method");
    // Only the method of a target that asks for nothing may be none.
    assert_eq!(Talk::new(None).refused(stage(SECURITY), &named(&names(), &["AuthMethod=CHAP"])), failed);
}

#[test]
fn a_discovery_session_proves_itself_too() {
    let name = format!("InitiatorName={INITIATOR}");
    let status = Talk::new(Some(secrets(false))).refused(ASK, &[&name, "SessionType=Discovery"]);
    assert_eq!(status, LoginStatus::AUTHENTICATION_FAILED);
}

#[test]
fn the_target_proves_itself_when_asked_to() {
    for (algorithm, encode) in [("5", hex as fn(&[u8]) -> String), ("7", base64)] {
        let mut talk = Talk::new(Some(secrets(true)));
        let (id, challenge) = challenged(&mut talk, algorithm);
        let response = format!("CHAP_R={}", hex(&hash(algorithm, id, SECRET, &challenge)));
        let theirs = format!("CHAP_C={}", encode(&[0x5a; 24]));
        let pairs = ["CHAP_N=joe", &response, "CHAP_I=0x21", &theirs];
        let heard = talk.hear(stage(SECURITY_TO_OPERATIONAL), &pairs);
        let proof = hex(&hash(algorithm, 0x21, TARGET_SECRET, &[0x5a; 24]));
        assert_eq!(heard.text, ["CHAP_N=us".to_owned(), format!("CHAP_R={proof}")]);
        assert_eq!(heard.flags, 0x81);
        talk.admitted(ASK, &[]);
    }
}

#[test]
fn the_target_does_not_answer_its_own_challenge_or_before_it_was_answered() {
    for (secret, is_reflected) in [(SECRET, true), (&b"wrong"[..], false)] {
        let mut talk = Talk::new(Some(secrets(true)));
        let (id, challenge) = challenged(&mut talk, "5");
        let response = format!("CHAP_R={}", hex(&hash("5", id, secret, &challenge)));
        let theirs = if is_reflected { hex(&challenge) } else { hex(&[9; 16]) };
        let pairs = ["CHAP_N=joe", &response, &format!("CHAP_I={id}"), &format!("CHAP_C={theirs}")];
        assert_eq!(talk.refused(stage(SECURITY), &pairs), LoginStatus::AUTHENTICATION_FAILED);
    }
}

#[test]
fn a_target_that_cannot_prove_itself_says_so_by_refusing() {
    let mut talk = Talk::new(Some(secrets(false)));
    let (id, challenge) = challenged(&mut talk, "5");
    let response = format!("CHAP_R={}", hex(&hash("5", id, SECRET, &challenge)));
    let pairs = ["CHAP_N=joe", &response, "CHAP_I=1", "CHAP_C=0x0102"];
    assert_eq!(talk.refused(stage(SECURITY), &pairs), LoginStatus::AUTHENTICATION_FAILED);
}
