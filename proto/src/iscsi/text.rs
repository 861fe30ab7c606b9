//! Text in login and text PDUs: `key=value` pairs, each ended by a zero byte, and the forms that values have.
//!
//! A text may be cut anywhere to go over several PDUs; it is put together ([`GatheredText`]) before it is read, and cut
//! again ([`Pieces`]) on the way out. What a key means is not known here. Spec: RFC 7143 6.1, 6.2.

/// The longest text taken, over all its PDUs.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The greatest number of pairs in a text.
pub const PAIRS_MAX: usize = 256;

/// The longest key: RFC 7143 6.1.
pub const KEY_BYTES_MAX: usize = 63;

/// The longest binary value, decoded: RFC 7143 6.1.
pub const BINARY_BYTES_MAX: usize = 1024;

/// Why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextError {
    /// It is longer than [`TEXT_BYTES_MAX`].
    TooLong,
    /// It has more than [`PAIRS_MAX`] pairs.
    TooManyPairs,
    /// A pair is no UTF-8.
    NotUtf8,
    /// A pair has no `=`.
    NoValue,
    /// A key is empty, too long, or has characters that keys do not have.
    BadKey,
}

/// Text that comes in pieces.
#[derive(Debug, Default)]
pub struct GatheredText(Vec<u8>);

impl GatheredText {
    /// Adds the data segment of one PDU.
    ///
    /// # Errors
    /// [`TextError::TooLong`] adds nothing.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), TextError> {
        if piece.len() > TEXT_BYTES_MAX - self.0.len() {
            return Err(TextError::TooLong);
        }
        self.0.extend_from_slice(piece);
        Ok(())
    }

    /// Gives the text out and begins a new one.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Text that goes out in pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    text: Vec<u8>,
    sent: usize,
}

impl Pieces {
    /// Begins with a whole text.
    pub(super) const fn new(text: Vec<u8>) -> Self {
        Self { text, sent: 0 }
    }

    /// Whether all of it has been given out.
    pub(super) const fn is_over(&self) -> bool {
        self.sent >= self.text.len()
    }

    /// Gives out the next piece, of at most `bytes_max` (not 0) bytes.
    pub(super) fn next_piece(&mut self, bytes_max: u32) -> &[u8] {
        let start = self.sent;
        let bytes_max = usize::try_from(bytes_max.max(1)).unwrap_or(usize::MAX);
        self.sent = self.text.len().min(start.saturating_add(bytes_max));
        self.text.get(start..self.sent).unwrap_or_default()
    }
}

/// Reads a whole text. What follows the last zero byte is a pair too; empty pairs are padding.
///
/// # Errors
/// [`TextError`] says which rule is broken.
pub(super) fn parse(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TextError::TooLong);
    }
    let mut pairs = Vec::new();
    for pair in text.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
        if pairs.len() == PAIRS_MAX {
            return Err(TextError::TooManyPairs);
        }
        let pair = std::str::from_utf8(pair).map_err(|_| TextError::NotUtf8)?;
        let (key, value) = pair.split_once('=').ok_or(TextError::NoValue)?;
        if !is_key(key) {
            return Err(TextError::BadKey);
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// A key goes back to the initiator when it is not understood, so that it must be one. `#` is in extension keys.
fn is_key(key: &str) -> bool {
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b".-+@_#".contains(&byte);
    key.len() <= KEY_BYTES_MAX
        && key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.bytes().all(is_label)
}

/// Appends a pair.
pub(super) fn push_pair(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// Reads `Yes` or `No`.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// Reads a decimal or hexadecimal number of at most 32 bits.
pub(super) fn number(value: &str) -> Option<u32> {
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // What is parsed below may also begin with a sign, a number here may not.
    let is_digits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    is_digits.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// Reads a binary value, hexadecimal behind `0x` or Base64 behind `0b`, of at most [`BINARY_BYTES_MAX`] bytes.
pub(super) fn binary(value: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = value.as_bytes().split_at_checked(2)?;
    if digits.len() > 2 * BINARY_BYTES_MAX {
        return None;
    }
    let bytes = match prefix {
        b"0x" | b"0X" => hexadecimal(digits),
        b"0b" | b"0B" => base64(digits),
        _ => None,
    };
    bytes.filter(|bytes| bytes.len() <= BINARY_BYTES_MAX)
}

/// An odd number of digits has a leading zero that was left out.
fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    let (first, pairs) = digits.split_at_checked(digits.len() % 2)?;
    let mut bytes = first.iter().map(nibble).collect::<Option<Vec<u8>>>()?;
    for pair in pairs.chunks_exact(2) {
        let [high, low] = pair else { return None };
        bytes.push(nibble(high)? << 4 | nibble(low)?);
    }
    (!digits.is_empty()).then_some(bytes)
}

/// RFC 4648 section 4, with its padding. Bits left over must be zero, so that a value has one form only.
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|digit| **digit == b'=').count();
    let (digits, _) = digits.split_at_checked(digits.len() - padding)?;
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut held, mut held_bits) = (0_u32, 0_u32);
    for digit in digits {
        held = held << 6 | u32::from(sextet(*digit)?);
        held_bits += 6;
        if held_bits >= 8 {
            held_bits -= 8;
            let [.., byte] = (held >> held_bits).to_be_bytes();
            bytes.push(byte);
            held &= (1 << held_bits) - 1;
        }
    }
    (padding <= 2 && held == 0).then_some(bytes)
}

const fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Writes a binary value in hexadecimal, which every initiator reads.
pub(super) fn to_hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]);
    "0x".chars().chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_padding_is_passed_over() {
        let text = b"A=1\0B=\0\0X-com.example.k=a=b\0Last=x";
        let pairs = vec![("A", "1"), ("B", ""), ("X-com.example.k", "a=b"), ("Last", "x")];
        assert_eq!(parse(text), Ok(pairs));
        assert_eq!(parse(b"\0\0\0"), Ok(vec![]));
    }

    #[test]
    fn a_text_that_breaks_a_rule_is_refused() {
        assert_eq!(parse(b"Key\0"), Err(TextError::NoValue));
        assert_eq!(parse(b"Key=\xff\0"), Err(TextError::NotUtf8));
        for key in ["", "1a", "a b", "k\n", &"k".repeat(64)] {
            assert_eq!(parse(format!("{key}=v\0").as_bytes()), Err(TextError::BadKey), "{key}");
        }
        assert!(parse(format!("{}=v\0", "k".repeat(63)).as_bytes()).is_ok());
        assert_eq!(parse(&b"a=\0".repeat(257)), Err(TextError::TooManyPairs));
        assert!(parse(&b"a=\0".repeat(256)).is_ok());
        assert_eq!(parse(&vec![0; TEXT_BYTES_MAX + 1]), Err(TextError::TooLong));
    }

    #[test]
    fn pieces_are_put_together_up_to_the_limit() {
        let mut gathered = GatheredText::default();
        gathered.push(b"Ke").unwrap();
        gathered.push(b"y=1\0").unwrap();
        assert_eq!(gathered.take(), b"Key=1\0");
        gathered.push(&vec![0; TEXT_BYTES_MAX]).unwrap();
        assert_eq!(gathered.push(&[0]), Err(TextError::TooLong));
        assert_eq!(gathered.take().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut pieces = Pieces::new(b"12345".to_vec());
        assert_eq!(pieces.next_piece(2), b"12");
        assert_eq!(pieces.next_piece(2), b"34");
        assert!(!pieces.is_over());
        assert_eq!(pieces.next_piece(2), b"5");
        assert!(pieces.is_over());
        assert!(pieces.next_piece(2).is_empty());
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_have_no_sign() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("4294967295"), Some(u32::MAX));
        assert_eq!(number("0xfF"), Some(255));
        assert_eq!(number("0X10"), Some(16));
        for wrong in ["", "+1", "-1", "0x", "0x+1", "4294967296", "1 ", "abc", "0b11", "1,2", "\u{661}"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn binary_values_are_hexadecimal_or_base64() {
        assert_eq!(binary("0x00ff"), Some(vec![0, 255]));
        assert_eq!(binary("0Xfff"), Some(vec![15, 255]));
        assert_eq!(binary("0bAP8="), Some(vec![0, 255]));
        assert_eq!(binary("0Babcd"), Some(vec![0x69, 0xb7, 0x1d]));
        assert_eq!(binary("0b+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        for wrong in
            ["", "0", "0x", "0b", "0xg0", "ff", "0bA", "0bAP8", "0bAP9=", "0bA===", "0b====", "0bA=P8", "\u{e9}x"]
        {
            assert_eq!(binary(wrong), None, "{wrong}");
        }
        assert!(binary(&format!("0x{}", "00".repeat(1024))).is_some());
        assert_eq!(binary(&format!("0x{}", "00".repeat(1025))), None);
        assert_eq!(binary(&format!("0b{}", "AAAA".repeat(342))), None);
    }

    #[test]
    fn binary_values_are_written_in_hexadecimal() {
        assert_eq!(to_hexadecimal(&[0, 0x1f, 0xa0]), "0x001fa0");
        assert_eq!(binary(&to_hexadecimal(&[7; 32])), Some(vec![7; 32]));
    }
}
