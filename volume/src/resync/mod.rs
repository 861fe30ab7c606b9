//! Resync by segments: a copy of a log that is behind is sent what is left of each segment that it lacks, rather than the batches
//! as they were written, which are gone where a segment was moved or has left.
//!
//! Two sites hold the same log in the same segments, so that locations are the same at both; where each keeps a segment is its own
//! affair. The **sender** ([`Sender`]) reads what is left of one segment after the other and cuts it into parts; the **receiver**
//! ([`Receiver`]) looks at each as if anybody could have sent it, writes it to packs of its own pool, and has the index keep it
//! aside ([`crate::pool::Aside`]). When all is there up to an operation X, one commit makes it part of the log
//! ([`crate::pool::Index::join`]), and [`fold`] brings the stored map there, as a rebuild does: by replaying what is left of all
//! segments, oldest first. From X on the copy is fed ([`crate::feed`]).
//!
//! # Why the map is exact at X
//!
//! Let P be the operation where the copy's own log ends, 0 for a new one. What is claimed: for each block and each generation the end of
//! which somebody needs at X, the replay comes to what the newest operation C that touches the block up to there made of it.
//!
//! - What the replay meets did happen, and it meets it in order: something that was overwritten does no harm while what overwrote
//!   it is met as well. So it is enough that C is there.
//! - C is a write behind P. A segment is read with the sender's stored map complete to some operation F, and what is missing of it was named
//!   by no version of that map, nor of an earlier one. If C's block is missing, then by something up to F that touched the block again, in
//!   each generation that was needed: so C is not the newest up to F. Since X is F or later, it is not the newest up to X either. The same
//!   goes for a segment that has left, with the F of the listing from which it is missing. That is why parts and listings bear
//!   their F, and why a join to before any of them is refused: what was cut down by an overwrite behind X would make X wrong.
//! - C is a trim, zeroes or a resize behind P. It is there since the sender keeps those of a segment that ends behind P
//!   ([`crate::pool::Index::keep_for_peer`]), from the moment on at which the copy was at P. For a new copy, from before the first segment is
//!   read: what had gone by then took nothing that was left anywhere, or what it took had gone before it; a rebuild of the sender's
//!   pool is as right as that of the copy's.
//! - C is not behind P: the copy's own log has it, which stays as it is, and nothing behind touches the block.
//! - Ends of generations are told by the listing, as the catalogue's records tell them to a rebuild: the operation may have left
//!   with its segment. One of the listing was needed all the time before, so what it shows was named. One that was deleted
//!   meanwhile is not listed, and not shown, though its operation may be in the log.
//!
//! # What a driver does
//!
//! At the primary, while a peer is behind: `keep_for_peer` at each start, before anything is compacted, and before a batch is sent. It keeps
//! the segment whole in which P lies; the peer is fed to the end of that first. Then, with a fresh [`Source`] each time, a [`Sender`] for
//! each segment behind P that is sealed, counts, and is on stable storage at the primary. At last a listing ([`crate::pool::Index::listing`]) up to X, the end of a
//! segment that is not before the F of any part or listing; what is behind X has to be kept whole until the peer is fed.
//!
//! At the secondary: the catalogue's record says durably that a resync is under way from P ([`crate::rebuild::Families::with_resyncs`]), then
//! `begin_resync`, then parts to the [`Receiver`]. What is here [`crate::pool::Index::asides`] tells, after a restart as well. To join: recovery as at
//! any start, its writes durable, then `join`; then the record goes, durably; then `fold` until it says that it is done; then the volume
//! is opened. A resync that is not to be gone on with: `drop_asides`, the packs void, then the record.
//!
//! Copies that share are not sent: a segment with any is refused until compaction has made them its own.

mod fold;
mod part;
mod receive;
mod send;

pub use fold::{FoldError, fold};
pub use part::{Part, Refusal};
pub use receive::{Receiver, Taken};
pub use send::{SendError, Sender, Source};

#[cfg(test)]
mod tests;
