//! Base64 of keys and values in etcd's JSON. Spec: RFC 4648 section 4, with padding.

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of `text`; nothing when it is no Base64, or not as [`encode`] writes it.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
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
