//! What is asked of etcd and what it answers, as JSON: the gateway's form of etcd's `rpc.proto`. Pure: bytes in, bytes out.
//!
//! Keys and values are Base64, numbers of 64 bits are texts, and what is zero, false or empty is left out. Asked for are
//! `/v3/kv/range`, `/v3/kv/txn`, `/v3/cluster/member/list` and `/v3/maintenance/status`.

use super::ClusterId;
use crate::base64;
use hyper::body::Bytes;
use replication::{Record, RecordError, Revision, Seen};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use thiserror::Error;
use units::GroupId;

pub(super) const RANGE: &str = "/v3/kv/range";
pub(super) const TXN: &str = "/v3/kv/txn";
pub(super) const MEMBER_LIST: &str = "/v3/cluster/member/list";
pub(super) const STATUS: &str = "/v3/maintenance/status";

/// The head of every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    cluster_id: u64,
    #[serde(default, deserialize_with = "number")]
    pub(super) member_id: u64,
    #[serde(default, deserialize_with = "number")]
    revision: u64,
}

impl Header {
    pub(super) const fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster_id)
    }
}

/// An answer: the cluster of it is looked at before anything else.
pub(super) trait Answer: DeserializeOwned + Send + 'static {
    fn header(&self) -> &Header;

    /// Whether who gives it can serve.
    ///
    /// # Errors
    /// Why not, in words.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Answers a range.
#[derive(Debug, Deserialize)]
pub(super) struct RangeAnswer {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

/// Answers a transaction.
#[derive(Debug, Deserialize)]
pub(super) struct TxnAnswer {
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<TxnResponse>,
}

#[derive(Debug, Deserialize)]
struct TxnResponse {
    #[serde(default)]
    response_range: Option<TxnRange>,
}

#[derive(Debug, Deserialize)]
struct TxnRange {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    mod_revision: u64,
}

/// Answers a member list.
#[derive(Debug, Deserialize)]
pub(super) struct MemberList {
    header: Header,
    #[serde(default)]
    pub(super) members: Vec<Member>,
}

/// A member of the cluster.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    #[serde(rename = "ID", default, deserialize_with = "number")]
    pub(super) id: u64,
    /// Where it says that it is.
    #[serde(rename = "clientURLs", default)]
    pub(super) urls: Vec<String>,
    /// It follows without a vote.
    #[serde(rename = "isLearner", default)]
    pub(super) is_learner: bool,
}

/// Answers for the state of one member.
#[derive(Debug, Deserialize)]
pub(super) struct StatusAnswer {
    pub(super) header: Header,
    /// The leader that it knows; 0 for none.
    #[serde(default, deserialize_with = "number")]
    leader: u64,
}

impl Answer for RangeAnswer {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Answer for TxnAnswer {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Answer for MemberList {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Answer for StatusAnswer {
    fn header(&self) -> &Header {
        &self.header
    }

    /// A member that knows no leader has left the quorum, or there is none: it answers no question, and takes no change.
    fn check(&self) -> Result<(), &'static str> {
        if self.leader == 0 { Err("it knows no leader") } else { Ok(()) }
    }
}

/// Why an answer tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum AnswerError {
    /// What is there is no record.
    #[error("what is there is no record: {0}")]
    Record(#[from] RecordError),
    /// A value is no Base64.
    #[error("a value is not Base64")]
    Base64,
    /// Another key than was asked for, or several.
    #[error("it tells of other keys than the one that was asked for")]
    Key,
    /// A key without a revision.
    #[error("a key has no revision")]
    Revision,
    /// A change without its answer.
    #[error("it does not tell what became of the change")]
    Response,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Won(Revision),
    Lost(Option<Seen>),
}

/// What one entry of a page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    pub(super) seen: Result<Seen, AnswerError>,
}

/// The key of a group's record.
pub(super) fn key_of(prefix: &str, group: GroupId) -> String {
    format!("{prefix}/group/{group}/record")
}

/// The group of which `key` is the record's.
pub(super) fn group_of(prefix: &str, key: &[u8]) -> Option<GroupId> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    let text = rest.strip_prefix("/group/")?.strip_suffix("/record")?;
    text.parse().ok().map(GroupId).filter(|group| group.to_string() == text)
}

/// Where the keys of all groups begin and end: `/` and the character that follows it.
pub(super) fn all_groups(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("{prefix}/group/").into_bytes(), format!("{prefix}/group0").into_bytes())
}

/// Asks for one key, linearizably.
pub(super) fn range(key: &str) -> Bytes {
    body(&json!({ "key": base64::encode(key.as_bytes()), "serializable": false }))
}

/// Asks for at most `limit` keys of `from..end`, in their order.
pub(super) fn page(from: &[u8], end: &[u8], limit: usize) -> Bytes {
    body(&json!({
        "key": base64::encode(from),
        "range_end": base64::encode(end),
        "limit": limit.to_string(),
        "sort_target": "KEY",
        "sort_order": "ASCEND",
        "serializable": false,
    }))
}

/// Asks to put `record` where `key` has the revision `expected`, and to tell what is there where it has not.
pub(super) fn swap(key: &str, expected: Option<Revision>, record: &Record) -> Bytes {
    let key = base64::encode(key.as_bytes());
    // A key that is not there has modification revision 0, and no key that is there has.
    let expected = expected.map_or(0, |revision| revision.0).to_string();
    body(&json!({
        "compare": [{ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": expected }],
        "success": [{ "request_put": { "key": key, "value": base64::encode(record.encode().as_bytes()) } }],
        "failure": [{ "request_range": { "key": key } }],
    }))
}

/// Asks for what needs no arguments.
pub(super) const fn nothing() -> Bytes {
    Bytes::from_static(b"{}")
}

impl RangeAnswer {
    /// The record at `key`, which alone was asked for.
    pub(super) fn found(&self, key: &str) -> Result<Option<Seen>, AnswerError> {
        found(&self.kvs, key)
    }

    /// All keys of a page.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, AnswerError> {
        self.kvs
            .iter()
            .map(|kv| Ok(Entry { key: base64::decode(&kv.key).ok_or(AnswerError::Base64)?, seen: kv.seen() }))
            .collect()
    }
}

impl TxnAnswer {
    /// What became of a change of `key`. The header's revision is that of the transaction, which its put is of.
    pub(super) fn outcome(&self, key: &str) -> Result<Outcome, AnswerError> {
        if self.succeeded {
            return if self.header.revision == 0 {
                Err(AnswerError::Revision)
            } else {
                Ok(Outcome::Won(Revision(self.header.revision)))
            };
        }
        let [TxnResponse { response_range: Some(range) }] = self.responses.as_slice() else {
            return Err(AnswerError::Response);
        };
        found(&range.kvs, key).map(Outcome::Lost)
    }
}

impl KeyValue {
    fn seen(&self) -> Result<Seen, AnswerError> {
        let value = base64::decode(&self.value).ok_or(AnswerError::Base64)?;
        let record = Record::decode(&value)?;
        if self.mod_revision == 0 {
            return Err(AnswerError::Revision);
        }
        Ok(Seen { revision: Revision(self.mod_revision), record })
    }
}

fn found(kvs: &[KeyValue], key: &str) -> Result<Option<Seen>, AnswerError> {
    match kvs {
        [] => Ok(None),
        [kv] if base64::decode(&kv.key).as_deref() == Some(key.as_bytes()) => kv.seen().map(Some),
        _ => Err(AnswerError::Key),
    }
}

fn body(value: &Value) -> Bytes {
    value.to_string().into()
}

/// A number of 64 bits: a text by the rules of JSON's form of protobuf, where a number is allowed as well.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Number(u64),
    }
    match Form::deserialize(deserializer)? {
        Form::Text(text) => text.parse().map_err(|_| de::Error::custom("a number is none")),
        Form::Number(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::{Epoch, SiteId};

    const KEY: &str = "aljibe/mirror/group/7/record";

    fn record() -> Record {
        Record { epoch: Epoch(3), primary: SiteId(1), partner: None, is_sole: false, lineage: 1, fork: None }
    }

    fn kv(key: &str, value: &[u8]) -> String {
        let (key, value) = (base64::encode(key.as_bytes()), base64::encode(value));
        format!(r#"{{"key":"{key}","create_revision":"2","mod_revision":"9","version":"3","value":"{value}"}}"#)
    }

    fn txn(text: &str) -> Result<Outcome, AnswerError> {
        serde_json::from_str::<TxnAnswer>(text).unwrap().outcome(KEY)
    }

    /// P4. Answers as etcd 3.4 gives them; what is false or empty is left out.
    #[test]
    fn answers_are_read() {
        let head = r#""header":{"cluster_id":"13455796455940752355","member_id":"4","revision":"12","raft_term":"2"}"#;
        let seen = Seen { revision: Revision(9), record: record() };
        let there = kv(KEY, record().encode().as_bytes());
        let range = |rest: &str| serde_json::from_str::<RangeAnswer>(&format!("{{{head}{rest}}}")).unwrap();
        assert_eq!(range("").found(KEY), Ok(None));
        assert_eq!(range("").header().cluster(), ClusterId(13_455_796_455_940_752_355));
        assert_eq!(range(&format!(r#","kvs":[{there}],"count":"1""#)).found(KEY), Ok(Some(seen)));
        let put = r#""responses":[{"response_put":{"header":{"revision":"12"}}}]"#;
        assert_eq!(txn(&format!(r#"{{{head},"succeeded":true,{put}}}"#)), Ok(Outcome::Won(Revision(12))));
        let lost = |kvs: &str| txn(&format!(r#"{{{head},"responses":[{{"response_range":{{"header":{{}}{kvs}}}}}]}}"#));
        assert_eq!(lost(""), Ok(Outcome::Lost(None)));
        assert_eq!(lost(&format!(r#","kvs":[{there}],"count":"1""#)), Ok(Outcome::Lost(Some(seen))));
    }

    /// P4. An answer that does not tell is no answer: it is never taken for "nothing there" or "lost".
    #[test]
    fn what_tells_nothing_is_refused() {
        let range = |kvs: &str| {
            serde_json::from_str::<RangeAnswer>(&format!(r#"{{"header":{{}},"kvs":[{kvs}]}}"#)).unwrap().found(KEY)
        };
        let there = kv(KEY, record().encode().as_bytes());
        assert_eq!(range(&there.replace(r#""mod_revision":"9","#, "")), Err(AnswerError::Revision));
        assert_eq!(range(&kv("other", record().encode().as_bytes())), Err(AnswerError::Key));
        assert_eq!(range(&format!("{there},{there}")), Err(AnswerError::Key));
        assert!(matches!(range(&kv(KEY, b"garbage")), Err(AnswerError::Record(_))));
        assert_eq!(range(&there.replace(r#""value":""#, r#""value":"*"#)), Err(AnswerError::Base64));
        assert_eq!(txn(r#"{"header":{}}"#), Err(AnswerError::Response));
        assert_eq!(txn(r#"{"header":{},"responses":[{"response_put":{}}]}"#), Err(AnswerError::Response));
        assert_eq!(txn(r#"{"header":{},"succeeded":true}"#), Err(AnswerError::Revision));
        for text in ["", "{}", "[]", r#"{"header":{"revision":"x"}}"#, r#"{"header":{"revision":"-1"}}"#] {
            assert!(serde_json::from_str::<TxnAnswer>(text).is_err(), "{text}");
        }
    }

    /// P4. A member without a leader is not well.
    #[test]
    fn a_member_without_a_leader_is_not_well() {
        let status = |text: &str| serde_json::from_str::<StatusAnswer>(text).unwrap().check();
        assert!(
            status(r#"{"header":{"cluster_id":"9"},"version":"3.4.23","errors":["etcdserver: no leader"]}"#).is_err()
        );
        assert_eq!(status(r#"{"header":{"cluster_id":"9"},"leader":"443629905751424238"}"#), Ok(()));
    }

    /// P4. The key of a group is nobody else's, and all of them lie in the range that is listed.
    #[test]
    fn keys_name_their_groups() {
        let (from, end) = all_groups("a/b");
        for group in [0, 7, u64::MAX] {
            let key = key_of("a/b", GroupId(group)).into_bytes();
            assert!(from < key && key < end);
            assert_eq!(group_of("a/b", &key), Some(GroupId(group)));
        }
        for key in
            ["a/b/group/07/record", "a/b/group//record", "a/b/group/7", "a/b/group/7/record/", "x/group/7/record"]
        {
            assert_eq!(group_of("a/b", key.as_bytes()), None, "{key}");
        }
    }

    proptest! {
        /// P4. Bytes of any kind do no harm.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(answer) = serde_json::from_slice::<TxnAnswer>(&bytes) {
                let _ = answer.outcome(KEY);
            }
            let _ = group_of("a", &bytes);
        }
    }
}
