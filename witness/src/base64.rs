//! Base64 of keys and values in etcd's JSON. Spec: RFC 4648 section 4, with padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const PADDING: u8 = b'=';

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // A chunk of n bytes has n + 1 digits.
            let letter = if digit <= chunk.len() { letter_of(bits >> (18 - 6 * digit)) } else { PADDING };
            text.push(char::from(letter));
        }
    }
    text
}

/// The bytes of `text`; nothing when it is no Base64, or not as [`encode`] writes it.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches(char::from(PADDING));
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in digits.bytes() {
        bits = bits << 6 | value_of(letter)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(low_byte(bits >> count));
            bits &= (1 << count) - 1;
        }
    }
    // What is left of the last digit is zeros, so that each content has one text.
    (bits == 0).then_some(bytes)
}

fn letter_of(bits: u32) -> u8 {
    let index = usize::from(low_byte(bits & 0x3f));
    *ALPHABET.get(index).expect("six bits index 64 letters")
}

fn value_of(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

fn low_byte(bits: u32) -> u8 {
    let [.., byte] = bits.to_be_bytes();
    byte
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// P4. The examples of RFC 4648 section 10.
    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        let examples =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in examples {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
    }

    /// P4. What is not Base64 is not read: too short, strange letters, padding that is none, bits behind the end.
    #[test]
    fn nothing_else_is_read() {
        for text in ["Z", "Zg", "Zg=", "Zg=a", "Z===", "====", "Zh==", "Zm9=", "Zm-_", "Zg==Zg==", "Zg\n="] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    proptest! {
        /// P4. What is written is read.
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        /// P4. Of texts of any kind, those alone are read that something is written as.
        #[test]
        fn each_content_has_one_text(text in "[A-Za-z0-9+/=]{0,16}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
