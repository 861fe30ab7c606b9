//! What goes into a [`super::Seat`] and what comes out.

use crate::evidence::Evidence;
use crate::io::{AskId, Command, DiskState, ReadAnswer, SwapAnswer};
use crate::position::Position;
use crate::promise::Promise;
use crate::record::{Record, Revision};
use crate::wire::Frame;
use units::Lsn;
use volume::buffer::Buffer;
use volume::engine::PeerLog;
use volume::feed::{Feed, FeedError};
use volume::io::{FellOut, ToPeer};

/// Names a part of the log that is being read for the other site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedId(pub u64);

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// Time has passed. Due every [`crate::times::TICK`].
    Tick,
    /// The witness answered a read.
    Read {
        /// Which.
        id: AskId,
        /// What it says.
        answer: ReadAnswer,
    },
    /// The witness answered a compare-and-swap.
    Swapped {
        /// Which.
        id: AskId,
        /// What became of it.
        answer: SwapAnswer,
    },
    /// A promise of [`Action::Promise`] is on stable storage; promises become so in their order.
    Promised,
    /// The link came or went. What was sent before is never told after.
    Link {
        /// Which of the two.
        is_up: bool,
    },
    /// The other site sent this. What the connections tell themselves is the link's.
    Frame(Frame),
    /// The batch that was to be sent last was not: there is no room. Told before anything else is done.
    NoRoom,
    /// There is room again.
    Room,
    /// An operator wants something.
    Command(Command),
    /// How the disk is, as far as the volume does not tell.
    Disk(DiskState),
    /// The link or the other site answers too slowly, or well again.
    PeerSlow(bool),
    /// Which site is to be primary when both could.
    Preferred(bool),
    /// A read waits for [`super::Seat::may_read`].
    ReadWaits,
    /// The volume has been opened anew, frozen.
    Opened,
    /// It cannot be opened.
    OpenFailed,
    /// Part of the log has been read.
    Fed {
        /// Which.
        id: FeedId,
        /// Where the place is now.
        feed: Feed,
        /// The batch, or none: it had ended.
        batch: Result<Option<Vec<Buffer>>, FeedError>,
    },
    /// The volume appends a batch that the other site is to have: [`volume::io::Action::Append`].
    Shipped {
        /// Its header and its payload.
        buffers: Vec<Buffer>,
        /// What it is.
        batch: ToPeer,
    },
    /// [`volume::io::Action::SyncPeer`].
    SyncPeer(Lsn),
    /// [`volume::io::Action::TellPrimary`].
    TellPrimary(PeerLog),
    /// [`volume::io::Action::FellOut`].
    FellOut(FellOut),
    /// The volume has been given events by others.
    Looked,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Action {
    /// As [`crate::Action::ReadWitness`].
    ReadWitness {
        /// Names the answer.
        id: AskId,
    },
    /// As [`crate::Action::Swap`].
    Swap {
        /// Names the answer.
        id: AskId,
        /// What is replaced.
        expected: Option<Revision>,
        /// What is to be there.
        record: Record,
    },
    /// Make this durable in place of the promise before; answer with [`Event::Promised`].
    Promise(Promise),
    /// Send this, if there is a link and room. One batch at most comes of an event; where that has no room, answer with
    /// [`Event::NoRoom`].
    Send(Frame),
    /// So many bytes of batches have been done with: the other site may send as many more (credit of the link).
    Consumed {
        /// How many.
        bytes: u64,
    },
    /// Give the volume this event. What it wants then comes back as events.
    Volume(volume::io::Event),
    /// Close the volume: whatever it was asked ends with an error, unless the role says to wait. Once nothing of it is under way, open it
    /// anew, frozen, and answer with [`Event::Opened`].
    Reopen {
        /// What is behind this operation is cut off ([`volume::recover::Terms::limit`]).
        limit: Option<Lsn>,
    },
    /// Read the next batch of the volume's log from `feed` on, up to `up_to`; answer with [`Event::Fed`]. One at a time.
    Feed {
        /// Names the answer.
        id: FeedId,
        /// From where.
        feed: Feed,
        /// No batch that ends behind it.
        up_to: Lsn,
    },
    /// Keep what lies behind `from` up to `to` as a named branch, before anything is cut.
    KeepBranch {
        /// The last operation that stays in the log.
        from: Lsn,
        /// The end of the branch.
        to: Position,
    },
    /// Keep this for `aljibe why`.
    Tell(Evidence),
}
