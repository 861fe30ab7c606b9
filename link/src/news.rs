//! What the link tells, and whom.

use replication::wire::{Bye, Frame, OpeningError, Refusal, WireError};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use units::{PoolId, SiteId};

/// Counts the times that a link was up since it was started. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifeNumber(pub u64);

impl fmt::Display for LifeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its site.
    pub site: SiteId,
    /// Its pool, as it says.
    pub pool: PoolId,
    /// The version of the protocol that is spoken.
    pub version: u16,
}

/// Takes what happens on a link.
///
/// It is called from the tasks that read and write the connections, of several at a time, and must not wait: whatever it does stands
/// in front of the next frame of that connection. It may send. Credit bounds the batches that come before it says that they are consumed;
/// of other frames it must not keep more than it has memory for. News are not logged here: who takes them knows what they mean.
///
/// It must not panic: that ends the life, or for good the task that connects. A sink that holds a [`crate::LinkHandle`] keeps itself alive.
pub trait Sink: Send + Sync + 'static {
    /// Takes one piece of news. All news of a life come between its [`News::Up`] and its [`News::Down`], and lives one after the other.
    fn take(&self, news: News);
}

/// What happens on a link.
#[derive(Debug)]
pub enum News {
    /// All connections are open: a life begins. It is not slow.
    Up {
        /// Its number.
        life: LifeNumber,
        /// Who is there.
        peer: Peer,
    },
    /// The life is over. Nothing that it has not told yet will come, and what it still had to send may not have arrived.
    Down {
        /// Its number.
        life: LifeNumber,
        /// Why.
        why: Why,
    },
    /// The other site sends this, in its order for each group. Whoever has done with a batch says so to
    /// [`crate::LinkHandle::consumed`].
    Frame {
        /// Of which life.
        life: LifeNumber,
        /// What it sends.
        frame: Frame,
    },
    /// A batch was rejected for want of room or credit, or another frame for want of room, and there is enough for it now.
    Room {
        /// Of which life.
        life: LifeNumber,
        /// On which connection ([`crate::LinkHandle::connection_of`]).
        connection: u16,
    },
    /// The other site has begun to answer too slowly, or well again.
    Slow {
        /// Of which life.
        life: LifeNumber,
        /// Which of the two.
        is_slow: bool,
    },
    /// A try to come up has failed. Ten a second are told at most, in the long run.
    NotUp {
        /// Why.
        why: Why,
    },
}

/// Why a link does not come up, or is up no more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Why {
    /// There is no connection to the other site's address.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// One side does not accept the other's certificate, or what is there does not speak TLS 1.3.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// What was said first is none of the protocol.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The other site refuses this one.
    #[error("the other site refuses the link: {}", .0.text)]
    Refused(Refusal),
    /// This site refuses the other one.
    #[error("the other site is refused: {}", .0.text)]
    Refuses(Refusal),
    /// A connection was not open in time.
    #[error("the connection is not open after {0:?}")]
    Late(Duration),
    /// Nothing was heard for too long.
    #[error("nothing was heard on connection {connection} for {silence:?}")]
    Silent {
        /// On which.
        connection: u16,
        /// What is too long.
        silence: Duration,
    },
    /// A connection was lost.
    #[error("connection {connection} was lost: {reason}")]
    Lost {
        /// Which.
        connection: u16,
        /// What the system says.
        reason: String,
    },
    /// What was received is against the protocol.
    #[error("connection {connection} is against the protocol: {source}")]
    Protocol {
        /// Which.
        connection: u16,
        /// What is wrong.
        source: WireError,
    },
    /// A frame that does not belong there.
    #[error("connection {connection} is against the protocol: {what}")]
    Misplaced {
        /// Which.
        connection: u16,
        /// What is wrong.
        what: &'static str,
    },
    /// The other site has closed the link on purpose.
    #[error("the other site closes the link: {}", .0.text)]
    Bye(Bye),
    /// What is being sent has not moved for as long as silence may last, though the other site is heard.
    #[error("what waits on connection {connection} does not move: the other site does not take it")]
    Backlog {
        /// Which.
        connection: u16,
    },
    /// The other site has begun another life of the link, so it has given this one up.
    #[error("the other site has connected anew")]
    Replaced,
    /// The link is closed here.
    #[error("the link is being closed")]
    Closing,
    /// A task of the link has panicked.
    #[error("a task of the link has failed: {0}")]
    Broken(String),
}
