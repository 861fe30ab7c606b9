//! The keys that sign heads: Ed25519, RFC 8032.

use super::digest::Digest;
use super::text::{NotCanonical, Text};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;

/// The prime less 1, as bytes of a point's y.
const P_MINUS_1: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xec;
    bytes[31] = 0x7f;
    bytes
};

/// A y of which the points have order 8; so have those of its negative.
const ORDER_8: [u8; 32] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac,
    0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
];
const MINUS_ORDER_8: [u8; 32] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53,
    0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];

/// Every y, without the sign of x, of the eight points of low order.
const LOW_ORDER: [[u8; 32]; 5] = [[0; 32], ONE, P_MINUS_1, ORDER_8, MINUS_ORDER_8];

const ONE: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// An Ed25519 public key (RFC 8032), which is also what names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Makes one of its bytes; `None` of those of a point of low order, or written in another way than RFC 8032's: signatures by
    /// those can be made without a secret.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        let mut y = bytes;
        y[31] &= 0x7f;
        // Of numbers below 2^255 those from p on.
        let is_past_p = y[0] > P_MINUS_1[0] && y[1..] == P_MINUS_1[1..];
        (!is_past_p && !LOW_ORDER.contains(&y)).then_some(Self(bytes))
    }

    /// Reads one from 64 small hexadecimal digits.
    ///
    /// # Errors
    /// [`NotCanonical`] when `text` is anything else.
    pub fn parse(text: &str) -> Result<Self, NotCanonical> {
        let mut text = Text::new(text.as_bytes());
        let key = Self::take(&mut text)?;
        text.end()?;
        Ok(key)
    }

    pub(super) fn take(text: &mut Text<'_>) -> Result<Self, NotCanonical> {
        let refusal = text.refusal();
        Self::new(text.hex()?).ok_or(refusal)
    }

    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The key that signs heads. It signs the heads of one ledger and nothing else.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes the key that comes of 32 random bytes, which are its secret.
    ///
    /// # Panics
    /// Never: any 32 bytes make a key.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes make a key"))
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, text: &str) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(text.as_bytes()).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. A key for which anybody can sign is none: those of low order, and what is written in a second way.
    #[test]
    fn a_key_that_everybody_has_is_refused() {
        for y in LOW_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                assert_eq!(PublicKey::new(bytes), None, "{}", Digest(bytes));
                assert!(PublicKey::parse(&Digest(bytes).to_string()).is_err());
            }
        }
        for low in 0xed..=0xff {
            let mut bytes = P_MINUS_1;
            bytes[0] = low;
            assert_eq!(PublicKey::new(bytes), None, "{low}");
        }
        for seed in 0..100 {
            let key = SigningKey::from_seed(&[seed; 32]).public();
            assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
        }
    }
}
