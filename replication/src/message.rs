//! What the two sites of a group say to each other about roles. The log's own bytes travel beside it.

use crate::io::{DiskState, Seen};
use crate::position::Position;
use crate::promise::Life;
use units::Epoch;

/// A message, with what tells whether it still counts: connections reorder, and a site may have restarted since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The life of the sender.
    pub life: Life,
    /// The life of the receiver, as far as the sender knows.
    pub heard: Life,
    /// Grows with every message of this life.
    pub number: u64,
    /// The epoch that the sender has promised.
    pub epoch: Epoch,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// I am there. Sent every [`crate::times::HEARTBEAT`], and whenever there is news.
    Heartbeat {
        /// The newest committed record that the sender knows.
        seen: Option<Seen>,
        /// The end of its log.
        end: Position,
        /// The sender leads in its promised epoch.
        leads: bool,
        /// It wants the receiver's word that it will not take over.
        asks_word: bool,
        /// How its disk is.
        disk: DiskState,
    },
    /// S5. An answer to heartbeat `of`, which asked for it: no takeover for [`crate::times::LEASE_GIVEN`] from now.
    Word {
        /// The number of the heartbeat.
        of: u64,
    },
    /// Planned switch: the sender reads and acknowledges nothing more for now. Be ready at `end`.
    HandOver {
        /// The end of the log.
        end: Position,
    },
    /// The log is durable up to the end that message `of` named.
    Ready {
        /// The number of the hand-over.
        of: u64,
    },
}
