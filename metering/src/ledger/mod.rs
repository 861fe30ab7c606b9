//! The ledger: what was measured and what was charged for it, so that nobody can change it unseen.
//!
//! Each tenant has two books, chains of entries that bear the hash of the one before. Each day a head is signed over where
//! all books end. What a tenant is given of it, a bundle, can be checked with the public key alone: [`verify()`].
//! Spec: `docs/metering.md`, "Ledger".

mod blocks;
mod bundle;
mod digest;
mod entry;
mod head;
mod key;
mod merkle;
mod proof;
mod readings;
mod recover;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod tip;
mod verify;

pub use blocks::{BATCH_BLOCKS_MAX, BlockError, LineReader, is_droppable};
pub use bundle::{Books, Export, ExportError, Exporter};
pub use digest::Digest;
pub use entry::{AccountEntry, Book, Entry, Kind, LINE_BYTES_MAX, PAYLOAD_BYTES_MAX, PayloadError};
pub use head::{Continuation, Date, Head, LedgerId};
pub use key::{PublicKey, SigningKey};
pub use merkle::Tree;
pub use readings::{decode_readings, encode_readings};
pub use recover::{RecoverError, Recovery};
pub use store::{AppendError, BlockWrite, HeadPlace, Ledger, NewEntry, TENANTS_MAX};
pub use text::NotCanonical;
pub use tip::{ChainFault, Tip};
pub use verify::{Fault, Trust, Verified, Verifier, VerifyError, verify};
