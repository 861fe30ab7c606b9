//! CHAP as iSCSI uses it: RFC 7143 12.1.3, RFC 1994, with MD5 (5) and SHA-256 (7).
//!
//! The target asks first and answers only after it was answered rightly, so that nobody can have it work out responses
//! to challenges of its own. Names are text even when they look like numbers. Secrets are compared in constant time.

use super::text::{binary, number, push_pair, to_hexadecimal};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use std::fmt;

/// Length of the random bytes that challenges are made of.
pub const CHALLENGE_BYTES: usize = 32;

/// What an initiator must prove to know, and what the target proves in return.
#[derive(Clone)]
pub struct ChapSecrets {
    /// The name that the initiator gives.
    pub user: String,
    /// The initiator's secret.
    pub secret: Vec<u8>,
    /// The target's name and secret, if it can prove itself when asked to. The secret must differ from the initiator's.
    pub mutual: Option<(String, Vec<u8>)>,
}

impl fmt::Debug for ChapSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = self.mutual.as_ref().map(|(name, _)| name);
        formatter.debug_struct("ChapSecrets").field("user", &self.user).field("mutual", &mutual).finish_non_exhaustive()
    }
}

/// The initiator is not who it says it is, or breaks the rules of proving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotProven;

/// The keys of one step, as they came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChapKeys<'a> {
    pub(super) algorithms: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) response: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) challenge: Option<&'a str>,
}

impl<'a> ChapKeys<'a> {
    /// The place of a key's value; `None` for keys that are not CHAP's.
    pub(super) fn place(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "CHAP_A" => &mut self.algorithms,
            "CHAP_N" => &mut self.name,
            "CHAP_R" => &mut self.response,
            "CHAP_I" => &mut self.id,
            "CHAP_C" => &mut self.challenge,
            _ => return None,
        })
    }
}

/// One initiator proving itself.
#[derive(Debug)]
pub(super) struct Chap {
    secrets: ChapSecrets,
    random: [u8; CHALLENGE_BYTES],
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    WaitsForAlgorithms,
    WaitsForResponse(Algorithm),
    Proven,
}

impl Chap {
    pub(super) const fn new(secrets: ChapSecrets, random: [u8; CHALLENGE_BYTES]) -> Self {
        Self { secrets, random, state: State::WaitsForAlgorithms }
    }

    pub(super) const fn is_proven(&self) -> bool {
        matches!(self.state, State::Proven)
    }

    /// Takes the keys of the next request, and appends the answer.
    pub(super) fn advance(&mut self, keys: &ChapKeys<'_>, answer: &mut Vec<u8>) -> Result<(), NotProven> {
        match (self.state, *keys) {
            (State::WaitsForAlgorithms, ChapKeys { algorithms: Some(list), name: None, response: None, .. }) => {
                self.challenge(list, answer)
            }
            (State::WaitsForResponse(algorithm), ChapKeys { algorithms: None, .. }) => {
                self.judge(algorithm, keys, answer)
            }
            (State::Proven, keys) if keys == ChapKeys::default() => Ok(()),
            (State::WaitsForAlgorithms | State::WaitsForResponse(_) | State::Proven, _) => Err(NotProven),
        }
    }

    fn challenge(&mut self, list: &str, answer: &mut Vec<u8>) -> Result<(), NotProven> {
        let algorithm = list.split(',').find_map(Algorithm::parse).ok_or(NotProven)?;
        push_pair(answer, "CHAP_A", algorithm.code());
        push_pair(answer, "CHAP_I", &self.own_id().to_string());
        push_pair(answer, "CHAP_C", &to_hexadecimal(self.own_challenge(algorithm)));
        self.state = State::WaitsForResponse(algorithm);
        Ok(())
    }

    fn judge(&mut self, algorithm: Algorithm, keys: &ChapKeys<'_>, answer: &mut Vec<u8>) -> Result<(), NotProven> {
        let (Some(name), Some(response)) = (keys.name, keys.response) else {
            return Err(NotProven);
        };
        let response = binary(response).ok_or(NotProven)?;
        let expected = algorithm.respond(self.own_id(), &self.secrets.secret, self.own_challenge(algorithm));
        // Both are always compared, so that a wrong name takes as long as a wrong secret.
        let is_proven = is_same(name.as_bytes(), self.secrets.user.as_bytes()) & is_same(&response, &expected);
        if !is_proven {
            return Err(NotProven);
        }
        match (keys.id, keys.challenge) {
            (None, None) => {}
            (Some(id), Some(challenge)) => self.prove(algorithm, id, challenge, answer)?,
            (Some(_), None) | (None, Some(_)) => return Err(NotProven),
        }
        self.state = State::Proven;
        Ok(())
    }

    /// Proves the target to an initiator that has proven itself.
    fn prove(&self, algorithm: Algorithm, id: &str, challenge: &str, answer: &mut Vec<u8>) -> Result<(), NotProven> {
        let id = number(id).and_then(|id| u8::try_from(id).ok()).ok_or(NotProven)?;
        let challenge = binary(challenge).ok_or(NotProven)?;
        // RFC 7143 12.1.3: a challenge that is our own sent back must not be answered.
        if challenge == self.own_challenge(algorithm) {
            return Err(NotProven);
        }
        let (name, secret) = self.secrets.mutual.as_ref().ok_or(NotProven)?;
        // The same section: one secret for both directions would prove nothing to whoever can have us use it.
        if is_same(secret, &self.secrets.secret) {
            return Err(NotProven);
        }
        push_pair(answer, "CHAP_N", name);
        push_pair(answer, "CHAP_R", &to_hexadecimal(&algorithm.respond(id, secret, &challenge)));
        Ok(())
    }

    /// As long as the hash, which initiators expect.
    fn own_challenge(&self, algorithm: Algorithm) -> &[u8] {
        self.random.get(..algorithm.hash_bytes()).unwrap_or(&self.random)
    }

    const fn own_id(&self) -> u8 {
        let [.., id] = self.random;
        id
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn parse(code: &str) -> Option<Self> {
        match number(code) {
            Some(5) => Some(Self::Md5),
            Some(7) => Some(Self::Sha256),
            _ => None,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Md5 => "5",
            Self::Sha256 => "7",
        }
    }

    const fn hash_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 => 32,
        }
    }

    /// RFC 1994 4.1: the hash over identifier, secret and challenge.
    fn respond(self, id: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => Md5::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize().to_vec(),
            Self::Sha256 => {
                Sha256::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize().to_vec()
            }
        }
    }
}

/// Compares in a time that depends on lengths only.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |difference, (left, right)| {
        // Kept from being turned into a loop that ends early.
        std::hint::black_box(difference | (left ^ right))
    });
    left.len() == right.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chap(mutual: Option<(String, Vec<u8>)>) -> Chap {
        let mut random = [0; CHALLENGE_BYTES];
        for (byte, value) in random.iter_mut().zip(1..) {
            *byte = value;
        }
        Chap::new(ChapSecrets { user: "0xjoe".to_owned(), secret: b"twelve bytes".to_vec(), mutual }, random)
    }

    fn challenged(chap: &mut Chap, list: &str) -> Result<String, NotProven> {
        let mut answer = Vec::new();
        chap.advance(&ChapKeys { algorithms: Some(list), ..ChapKeys::default() }, &mut answer)?;
        Ok(String::from_utf8(answer).unwrap().replace('\0', " "))
    }

    fn right_response(algorithm: Algorithm) -> String {
        let random: Vec<u8> = (1..=32).collect();
        to_hexadecimal(&algorithm.respond(32, b"twelve bytes", &random[..algorithm.hash_bytes()]))
    }

    /// RFC 1321 and FIPS 180 through the formula: id 'a', secret "b", challenge "c".
    #[test]
    fn responses_are_the_hash_over_identifier_secret_and_challenge() {
        assert_eq!(to_hexadecimal(&Algorithm::Md5.respond(b'a', b"b", b"c")), "0x900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            to_hexadecimal(&Algorithm::Sha256.respond(b'a', b"b", b"c")),
            "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_first_algorithm_of_the_list_that_is_known_is_chosen() {
        assert_eq!(
            challenged(&mut chap(None), "5,6,7,8").unwrap(),
            "CHAP_A=5 CHAP_I=32 CHAP_C=0x0102030405060708090a0b0c0d0e0f10 "
        );
        assert!(challenged(&mut chap(None), "8,7,5").unwrap().starts_with("CHAP_A=7 "));
        for wrong in ["56", "", "6", "8,6", "5 ", "None"] {
            assert_eq!(challenged(&mut chap(None), wrong), Err(NotProven), "{wrong}");
        }
    }

    #[test]
    fn the_right_response_proves_and_nothing_else_does() {
        for (algorithm, list) in [(Algorithm::Md5, "5"), (Algorithm::Sha256, "7")] {
            let right = right_response(algorithm);
            let mut tried = vec![("0xjoe", right.clone(), true), ("joe", right.clone(), false)];
            tried.push(("0xjoe", right.replace("0x", "0X"), true));
            tried.push(("0xjoe", format!("{right}00"), false));
            tried.push(("0xjoe", right[..right.len() - 2].to_owned(), false));
            tried.push(("0xjoe", "0x00".to_owned(), false));
            tried.push(("0xjoe", String::new(), false));
            for (name, response, is_right) in tried {
                let mut chap = chap(None);
                challenged(&mut chap, list).unwrap();
                let keys = ChapKeys { name: Some(name), response: Some(&response), ..ChapKeys::default() };
                let mut answer = Vec::new();
                assert_eq!(chap.advance(&keys, &mut answer).is_ok(), is_right, "{name} {response}");
                assert_eq!((chap.is_proven(), answer.is_empty()), (is_right, true));
            }
        }
    }

    #[test]
    fn steps_out_of_order_prove_nothing() {
        let right = right_response(Algorithm::Md5);
        let response = ChapKeys { name: Some("0xjoe"), response: Some(&right), ..ChapKeys::default() };
        let mut early = chap(None);
        assert_eq!(early.advance(&response, &mut Vec::new()), Err(NotProven));
        assert_eq!(early.advance(&ChapKeys::default(), &mut Vec::new()), Err(NotProven));
        challenged(&mut early, "5").unwrap();
        assert_eq!(challenged(&mut early, "5"), Err(NotProven));
        assert_eq!(early.advance(&ChapKeys::default(), &mut Vec::new()), Err(NotProven));
        early.advance(&response, &mut Vec::new()).unwrap();
        assert_eq!(early.advance(&ChapKeys::default(), &mut Vec::new()), Ok(()));
        assert_eq!(early.advance(&response, &mut Vec::new()), Err(NotProven));
    }

    #[test]
    fn the_target_proves_itself_only_when_it_can_and_to_a_challenge_not_its_own() {
        let right = right_response(Algorithm::Md5);
        let mutual = Some(("target".to_owned(), b"other secret".to_vec()));
        let tried = [
            (mutual.clone(), "7", Some("0x0102"), true),
            (mutual.clone(), "7", Some("0bAQI="), true),
            (mutual.clone(), "7", Some("0x0102030405060708090a0b0c0d0e0f10"), false),
            (mutual.clone(), "7", Some("0bAQIDBAUGBwgJCgsMDQ4PEA=="), false),
            (mutual.clone(), "7", None, false),
            (mutual.clone(), "256", Some("0x0102"), false),
            (mutual, "7", Some("0102"), false),
            (Some(("target".to_owned(), b"twelve bytes".to_vec())), "7", Some("0x0102"), false),
            (None, "7", Some("0x0102"), false),
        ];
        for (mutual, id, challenge, is_right) in tried {
            let mut chap = chap(mutual);
            challenged(&mut chap, "5").unwrap();
            let keys =
                ChapKeys { algorithms: None, name: Some("0xjoe"), response: Some(&right), id: Some(id), challenge };
            let mut answer = Vec::new();
            assert_eq!(chap.advance(&keys, &mut answer).is_ok(), is_right, "{id} {challenge:?}");
            assert_eq!(chap.is_proven(), is_right);
            let proof = to_hexadecimal(&Algorithm::Md5.respond(7, b"other secret", &[1, 2]));
            let expected = if is_right { format!("CHAP_N=target\0CHAP_R={proof}\0") } else { String::new() };
            assert_eq!(answer, expected.as_bytes());
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", chap(Some(("target".to_owned(), b"other secret".to_vec()))));
        let numbers = format!("{:?}", b"twelve bytes");
        assert!(!printed.contains(&numbers[1..numbers.len() - 1]), "{printed}");
        assert!(printed.contains("0xjoe"), "{printed}");
    }
}
