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
use crate::feed::BatchEnd;
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
    /// Append nothing any more, and forget what waits for that: once what is under way has ended ([`Volume::is_still`]), the log
    /// ends where it ends until there is another role.
    Still,
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

    /// Where what is appended ends, with all before it, whether it counts or not.
    #[must_use]
    pub fn end(&self) -> BatchEnd {
        let has_ended = |batch: &&super::log::Batch| batch.ended == Some(Ok(()));
        let last = self.log.in_flight.iter().take_while(has_ended).last();
        last.map_or(self.applied_end, |batch| batch.end)
    }

    /// Where what counts ends.
    #[must_use]
    pub const fn counted_end(&self) -> BatchEnd {
        self.applied_end
    }

    /// The operation that is appended next.
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        self.log.next_lsn
    }

    /// On stable storage is everything up to here, whether or not it counts.
    #[must_use]
    pub const fn synced_lsn(&self) -> Lsn {
        self.synced_lsn
    }

    /// On stable storage is everything up to here that counts.
    #[must_use]
    pub const fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    /// Whether it takes no writes any more since a sync failed.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// Whether no change is under way, and nobody waits for stable storage.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let has_requests = !self.writes.is_empty() || !self.subblock.is_empty() || self.flush.has_waiters();
        self.log.rests() && !has_requests && self.resize.is_none() && !self.hold.is_on()
    }

    /// Whether the log grows by nothing that is under way.
    #[must_use]
    pub fn is_still(&self) -> bool {
        let has_ended = self.log.in_flight.iter().all(|batch| batch.ended.is_some());
        match &self.mirror {
            Mirror::Frozen => true,
            Mirror::Secondary(following) => following.is_still() && has_ended,
            Mirror::Alone | Mirror::Primary(_) => false,
        }
    }

    /// What of this log a site has that tells this of its own.
    #[must_use]
    pub fn shared_with(&self, told: PeerLog) -> PeerLog {
        let limit = self.end_behind(told.segment);
        PeerLog { appended: told.appended.min(limit), durable: told.durable.min(limit), ..told }
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
            // What only one site has on stable storage may be cut off after a power cut: a stored map could not go back.
            Mirror::Secondary(following) => self.durable_lsn.min(following.stable()),
            Mirror::Alone => self.durable_lsn,
            Mirror::Frozen => Lsn::ZERO,
        }
    }

    /// The other site surely has everything up to here on stable storage, and so has this one; nothing while that is not told.
    #[must_use]
    pub fn shared_lsn(&self) -> Option<Lsn> {
        match &self.mirror {
            Mirror::Primary(_) | Mirror::Secondary(_) => Some(self.stable_lsn()),
            Mirror::Alone | Mirror::Frozen => None,
        }
    }

    /// Refuses what a volume does not answer in its role; what it may answer comes back.
    pub(super) fn refuse_by_role(&self, context: &mut Context<'_>, id: RequestId, request: Request) -> Option<Request> {
        if self.may_write() {
            return Some(request);
        }
        context.buffers.put_all(request.into_buffers());
        let detail =
            "this site does not serve the volume now: connect to the other one, or wait until the role is decided";
        reply(context, id, Err(Error::new(ErrorKind::Fenced, detail)));
        None
    }

    pub(super) fn on_role(&mut self, context: &mut Context<'_>, role: Role) {
        match role {
            Role::Primary { .. } | Role::Alone { .. } if self.lead_later(role) => {}
            Role::Primary { epoch, peer } => self.lead(context, epoch, Mirror::Primary(self.shared_with(peer))),
            Role::Alone { epoch } => self.lead(context, epoch, Mirror::Alone),
            Role::Secondary { epoch } => self.begin_to_follow(context, epoch),
            Role::Still => self.rest(context),
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
        // First of all: what has ended here counts as far as the new role has it. In the segment that the log of a volume that was opened
        // anew ends in, there may be batches behind that end, which the peer has: what comes now is not put in their place.
        let before = std::mem::replace(&mut self.mirror, mirror);
        self.log.is_turning_over |= epoch > self.epoch || matches!(before, Mirror::Frozen);
        self.epoch = self.epoch.max(epoch);
        if let Mirror::Secondary(mut following) = before {
            following.forget_waiting(context);
        }
        self.take_in_ended(context);
        self.turn_over_if_due(context);
        self.want_sync(context);
        self.note_durable(context);
        self.store_captured(context);
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
        let shared = self.shared_with(told);
        let Mirror::Primary(peer) = &mut self.mirror else { return };
        peer.appended = peer.appended.max(shared.appended);
        peer.durable = peer.durable.max(shared.durable);
        self.take_in_ended(context);
        self.note_durable(context);
        self.store_captured(context);
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
