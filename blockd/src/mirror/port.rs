//! What seats want of the host: plain messages to the task that serves their group.

use link::{LifeNumber, LinkHandle, Rejected};
use replication::seat::FeedId;
use replication::wire::Frame;
use replication::{AskId, Position, Promise, Record, Revision};
use tokio::sync::mpsc::UnboundedSender;
use units::{GroupId, Lsn};
use volume::feed::Feed;

/// What a seat wants of its host. Each but the last two comes back as an event of the seat.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Read the witness's record.
    ReadWitness { id: AskId },
    /// Change it.
    Swap { id: AskId, expected: Option<Revision>, record: Record },
    /// Make a promise durable. They become so in their order.
    Promise(Promise),
    /// Read the next batch of the log.
    Feed { id: FeedId, feed: Feed, up_to: Lsn },
    /// Open the volume anew, of which nothing is under way.
    Reopen { limit: Option<Lsn> },
    /// A sync of the disk has failed: the volume is not to be opened again in this boot of the machine.
    NoteFailedSync,
    /// Keep what lies behind `from` up to `to`.
    KeepBranch { from: Lsn, to: Position },
}

/// A seat's way to its host and to the other site. Never blocks: it is used on a shard's thread.
#[derive(Debug, Clone)]
pub struct MirrorPort {
    group: GroupId,
    wishes: UnboundedSender<Wish>,
    link: LinkHandle,
    /// Whether requests are passed on between the sites.
    passes_on: bool,
}

impl MirrorPort {
    pub(super) fn new(group: GroupId, wishes: UnboundedSender<Wish>, (link, passes_on): (LinkHandle, bool)) -> Self {
        Self { group, wishes, link, passes_on }
    }

    /// Whether requests are passed on between the sites.
    pub(crate) const fn passes_on(&self) -> bool {
        self.passes_on
    }

    /// Asks the host.
    pub(crate) fn ask(&self, wish: Wish) {
        if self.wishes.send(wish).is_err() {
            tracing::debug!(group = %self.group, "the mirror's host has ended: a seat's wish is not carried out");
        }
    }

    /// Sends a frame in a life of the link; tells whether it went. What has no room is said again, or read from the log.
    pub(crate) fn send(&self, life: Option<LifeNumber>, frame: Frame) -> Sent {
        let Some(life) = life else { return Sent::Dropped };
        match self.link.send(life, frame) {
            Ok(()) => Sent::Gone,
            Err(Rejected::NoRoom(frame) | Rejected::NoCredit(frame)) => Sent::NoRoom(frame),
            Err(Rejected::Down(_) | Rejected::Unsendable(_)) => Sent::Dropped,
        }
    }

    /// Gives the other site credit for bytes of batches that have been done with.
    pub(crate) fn consumed(&self, life: Option<LifeNumber>, bytes: u64) {
        if let Some(life) = life {
            self.link.consumed(life, self.group, bytes);
        }
    }
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It is on its way.
    Gone,
    /// There is no room for it now.
    NoRoom(Frame),
    /// There is no link for it.
    Dropped,
}
