//! A volume of which there is one at each of two sites: what counts is what both have.
//!
//! The primary appends a batch and gives it to the peer ([`crate::io::Action::Append`], `to_peer`); the map takes it in, and its
//! requests are answered, once the peer has it too. The secondary appends the same batches to the same segments
//! (`follow`), and takes in what the primary says is committed. Which site has which role under which epoch is decided
//! elsewhere and told to the volume; it holds to what it was told, and to nothing that it could find out by itself.
//!
//! A volume that is mirrored opens **frozen**: what the end of its log is worth is known only when both ends have been compared.

use super::follow::Following;
use super::{Context, Volume, reply};
use crate::error::{Error, ErrorKind};
use crate::io::{Action, FellOut};
use crate::request::{Request, RequestId};
use std::ops::Bound;
use units::{Epoch, Lsn, SegmentId};

/// What a volume is to do, as the site's role has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serve, and answer a change once the peer has it. Of what is not appended yet each batch is given to it; what it lacks of
    /// the log till then, [`crate::feed::Feed`] has. Under load as well.
    Primary {
        /// The right to write. Above every epoch of the log, or that under which the volume is primary already.
        epoch: Epoch,
        /// How far the peer's log is.
        peer: PeerLog,
    },
    /// Serve without the peer.
    Alone {
        /// The right to write. Above every epoch of the log, or that under which the volume is primary already.
        epoch: Epoch,
    },
    /// Append what the primary sends, and serve nobody.
    Secondary {
        /// The highest right to write that counts.
        epoch: Epoch,
    },
}

/// How far the peer's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerLog {
    /// The segment in which it ends: of operations behind the end of that another one may have the LSNs by now.
    pub segment: Option<SegmentId>,
    /// It has everything up to here.
    pub appended: Lsn,
    /// And this on stable storage. `durable <= appended`.
    pub durable: Lsn,
}

/// The role that the volume has.
#[derive(Debug, Default)]
pub(super) enum Mirror {
    /// Nobody else has to have what counts.
    #[default]
    Alone,
    Primary(PeerLog),
    Secondary(Following),
    /// Nothing is appended, taken in or answered until a role is given.
    Frozen,
}

impl PeerLog {
    /// Of a peer whose log ends where the volume's does. What is durable there it has to say.
    pub const SAME: Self = Self { segment: Some(SegmentId::MAX), appended: Lsn(u64::MAX), durable: Lsn::ZERO };
}

impl Volume {
    /// Makes a volume that was just opened one of a mirror, which waits for its role.
    pub fn freeze(&mut self) {
        self.mirror = Mirror::Frozen;
        self.is_mirrored = true;
    }

    pub(super) fn is_following_idle(&self) -> bool {
        match &self.mirror {
            Mirror::Secondary(following) => following.is_idle(),
            Mirror::Alone | Mirror::Primary(_) | Mirror::Frozen => true,
        }
    }

    /// Whether batches go to a peer as well.
    pub(super) const fn has_peer(&self) -> bool {
        matches!(self.mirror, Mirror::Primary(_))
    }

    /// Whether it may begin batches of its own.
    pub(super) const fn may_write(&self) -> bool {
        matches!(self.mirror, Mirror::Alone | Mirror::Primary(_))
    }

    /// Whether it is not known what the end of its log is worth: none of that may get into the stored map.
    pub(super) const fn is_frozen(&self) -> bool {
        matches!(self.mirror, Mirror::Frozen)
    }

    /// What was appended counts up to here, as far as others have a say.
    pub(super) const fn commit_limit(&self) -> Lsn {
        match &self.mirror {
            Mirror::Alone => Lsn(u64::MAX),
            Mirror::Primary(peer) => peer.appended,
            Mirror::Secondary(following) => following.committed(),
            Mirror::Frozen => Lsn::ZERO,
        }
    }

    /// Everything up to here is on stable storage wherever it has to be.
    pub(super) fn stable_lsn(&self) -> Lsn {
        match &self.mirror {
            Mirror::Primary(peer) => self.durable_lsn.min(peer.durable),
            Mirror::Alone | Mirror::Secondary(_) | Mirror::Frozen => self.durable_lsn,
        }
    }

    /// Refuses what a volume does not answer in its role; what it may answer comes back.
    pub(super) fn refuse_by_role(&self, context: &mut Context<'_>, id: RequestId, request: Request) -> Option<Request> {
        let may_store = matches!(request, Request::Checkpoint) && !self.is_frozen();
        if self.may_write() || may_store {
            return Some(request);
        }
        context.buffers.put_all(request.into_buffers());
        let detail =
            "this site does not serve the volume now: connect to the other one, or wait until the role is decided";
        reply(context, id, Err(Error::new(ErrorKind::Fenced, detail)));
        None
    }

    pub(super) fn on_role(&mut self, context: &mut Context<'_>, role: Role) {
        if !matches!(role, Role::Secondary { .. }) && self.lead_later(role) {
            return;
        }
        match role {
            Role::Primary { epoch, peer } => {
                let limit = self.end_behind(peer.segment);
                let (appended, durable) = (peer.appended.min(limit), peer.durable.min(limit));
                self.lead(context, epoch, Mirror::Primary(PeerLog { segment: peer.segment, appended, durable }));
            }
            Role::Alone { epoch } => self.lead(context, epoch, Mirror::Alone),
            Role::Secondary { epoch } => self.begin_to_follow(context, epoch),
        }
    }

    /// Goes on under `epoch`: what was appended counts now, whoever wrote it, once all have it who are to.
    fn lead(&mut self, context: &mut Context<'_>, epoch: Epoch, mirror: Mirror) {
        // What a secondary appends cannot be appended again: all of it has ended well before it leads.
        let is_whole = self.log.in_flight.iter().all(|batch| batch.ended == Some(Ok(())));
        if !self.may_write() && !is_whole {
            context.actions.push(Action::FellOut { why: FellOut::NotAtRest });
            return;
        }
        // First of all: what has ended here counts as far as the new role has it.
        if let Mirror::Secondary(following) = std::mem::replace(&mut self.mirror, mirror) {
            self.stop_following(context, following);
        }
        if epoch > self.epoch {
            self.log.is_turning_over = true;
            self.epoch = epoch;
        }
        self.take_in_ended(context);
        self.turn_over_if_due(context);
        self.want_sync(context);
        self.note_durable(context);
        self.want_peer_sync_again(context);
    }

    /// Seals what is open before anything is appended of another epoch. The next batch waits for those under way.
    pub(super) fn turn_over_if_due(&mut self, context: &mut Context<'_>) {
        if self.log.is_turning_over && self.log.in_flight.is_empty() {
            self.log.is_turning_over = false;
            self.seal(context);
        }
    }

    /// The peer has told how far its log is.
    pub(super) fn on_peer_has(&mut self, context: &mut Context<'_>, told: PeerLog) {
        let limit = self.end_behind(told.segment);
        let Mirror::Primary(peer) = &mut self.mirror else { return };
        peer.appended = peer.appended.max(told.appended.min(limit));
        peer.durable = peer.durable.max(told.durable.min(limit));
        self.take_in_ended(context);
        self.note_durable(context);
    }

    /// What was appended from `first_lsn` on is appended anew, and what the peer has of it counts no more.
    pub(super) fn take_back_from_peer(&mut self, first_lsn: Lsn) {
        let before = Lsn(first_lsn.0.saturating_sub(1));
        if let Mirror::Primary(peer) = &mut self.mirror {
            (peer.appended, peer.durable) = (peer.appended.min(before), peer.durable.min(before));
        }
    }

    pub(super) fn newest_segment(&self) -> Option<SegmentId> {
        self.segments.last_key_value().map(|(newest, _)| *newest)
    }

    /// Where the log ends that a site has whose newest segment is this one, at the most.
    fn end_behind(&self, segment: Option<SegmentId>) -> Lsn {
        let from = segment.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.segments.range((from, Bound::Unbounded)).next();
        next.map_or_else(|| self.end_of_log(), |(_, row)| Lsn(row.first_lsn.0 - 1))
    }

    /// The last operation that has got an LSN.
    pub(super) const fn end_of_log(&self) -> Lsn {
        Lsn(self.log.next_lsn.0 - 1)
    }

    /// The same of all that is waited for: the peer was not there when it began, or has not heard it.
    pub(super) fn want_peer_sync_again(&self, context: &mut Context<'_>) {
        if let Some(lsn) = self.flush.last_awaited() {
            self.want_peer_sync(context, lsn);
        }
    }

    /// Sees to it that the peer makes durable what is waited for here.
    pub(super) fn want_peer_sync(&self, context: &mut Context<'_>, lsn: Lsn) {
        if let Mirror::Primary(peer) = &self.mirror
            && peer.durable < lsn
        {
            context.actions.push(Action::SyncPeer { lsn });
        }
    }
}
