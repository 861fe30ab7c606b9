//! A client says anything: the handshake answers in well-formed replies, within its bounds, however the stream is cut.
//! First byte: TLS policy, and the length of the pieces to cut into.
#![no_main]

#[path = "../../proto/tests/driver/mod.rs"]
mod driver;

use driver::{Outcome, drive};
use libfuzzer_sys::fuzz_target;
use proto::nbd::client::decode_option_reply;
use proto::nbd::{Export, Handshake, TlsPolicy};

fuzz_target!(|data: &[u8]| {
    let Some((setup, stream)) = data.split_first() else { return };
    let policy = [TlsPolicy::Off, TlsPolicy::Optional, TlsPolicy::Required][usize::from(setup % 3)];
    let disk = Export { description: "a disk".to_owned(), ..Export::writable("disk", 1 << 30) };
    let exports = [disk, Export::writable("", 4096)];
    let whole = drive(Handshake::new(policy), &exports, [stream]);
    let cut = drive(Handshake::new(policy), &exports, stream.chunks(1 + usize::from(setup / 3)));
    // Where TLS starts, bytes that came too early end the connection, and how early depends on the cut.
    if policy == TlsPolicy::Off {
        assert_eq!(whole, cut);
    }
    for driven in [whole, cut] {
        let mut output = &driven.output[18..];
        while let Ok(Some(_)) = decode_option_reply(&mut output) {}
        let by_name = matches!(driven.outcome, Outcome::Transmission(_)) && [10, 134].contains(&output.len());
        assert!(output.is_empty() || by_name, "{output:x?}");
        assert!(driven.output.len() <= 512 + 64 * stream.len(), "{} bytes of answers", driven.output.len());
    }
});
