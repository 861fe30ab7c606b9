//! The primary's side of the log: what the other site is sent, and what it is known to have.
//!
//! The other site asks for what lies behind its end; from then on batches are sent as they are appended, or read from the log where that
//! site is behind. What it is known to have is what it has told since it asked.

use super::io::{Action, FeedId};
use super::{Given, Seat};
use crate::io::PeerAck;
use crate::wire::Frame;
use std::time::Duration;
use units::{Epoch, Lsn, Monotonic, SegmentId};
use volume::buffer::Buffer;
use volume::engine::{PeerLog, Volume};
use volume::feed::{Feed, FeedError};
use volume::io::{FellOut, ToPeer};
use volume::parting::{Stretch, parting};

/// When the log is tried to be read again for the other site, after that went wrong.
const FEED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What is being sent.
#[derive(Debug)]
struct Stream {
    epoch: Epoch,
    feed: Feed,
    /// Where the batch begins that was sent last: it may come back.
    sent: Lsn,
    reading: Option<FeedId>,
    /// There was no room.
    is_blocked: bool,
}

/// What a primary knows of the other site's log.
#[derive(Debug, Default)]
pub(super) struct Sending {
    stream: Option<Stream>,
    /// What the other site has told of its log, and in which epoch. It stays true until that site compares its log again.
    told: Option<(Epoch, PeerLog)>,
    /// The newest question that was answered.
    wanted: u64,
    feeds: u64,
    /// What is waited for to be durable there.
    awaited: Lsn,
    /// What it was told that counts.
    committed: PeerLog,
    /// Why it cannot be sent the log, and when that was found.
    gone: Option<(FeedError, Monotonic)>,
}

impl Sending {
    /// What is known of the other site's log.
    pub(super) fn told(&self) -> PeerLog {
        self.told.map_or_else(PeerLog::default, |(_, log)| log)
    }

    /// What the role machine is told of it.
    pub(super) fn ack(&self, volume: &Volume) -> Option<PeerAck> {
        // Who asks for nothing, or has fallen out, does not follow.
        self.stream.as_ref()?;
        let (epoch, log) = self.told?;
        let PeerLog { appended, durable, .. } = volume.shared_with(log);
        Some(PeerAck { epoch, appended, durable })
    }

    /// Why it cannot be sent the log.
    pub(super) fn gone(&self) -> Option<FeedError> {
        self.gone.map(|(error, _)| error)
    }

    pub(super) const fn awaited(&self) -> Lsn {
        self.awaited
    }

    /// Nothing is sent any more until it is asked for.
    pub(super) fn stop(&mut self) {
        self.stream = None;
        self.committed = PeerLog::default();
    }

    /// What the other site has told counts no more.
    pub(super) fn forget(&mut self) {
        self.stop();
        self.told = None;
    }

    pub(super) const fn await_nothing(&mut self) {
        self.awaited = Lsn::ZERO;
    }
}

impl Seat {
    /// The other site compares its log with this one.
    pub(super) fn on_align(
        &mut self,
        volume: &Volume,
        (epoch, number): (Epoch, u64),
        stretches: &[Stretch],
        actions: &mut Vec<Action>,
    ) {
        if !self.leads_in(epoch) {
            return;
        }
        // It is about to cut, and what it has told before may go with that.
        let has_told = self.sending.told.is_some();
        self.sending.forget();
        if has_told {
            self.give_engine_lead(actions);
        }
        let parting = parting(&volume.stretches(), stretches);
        self.send(actions, |group| Frame::Aligned { group, epoch, number, parting });
    }

    /// The other site asks for what lies behind its end.
    pub(super) fn on_want(
        &mut self,
        volume: &Volume,
        (epoch, number): (Epoch, u64),
        (segment, lsn): (Option<SegmentId>, Lsn),
        actions: &mut Vec<Action>,
    ) {
        if !self.leads_in(epoch) || number <= self.sending.wanted || self.is_feed_failing() {
            return;
        }
        self.sending.wanted = number;
        self.sending.stop();
        if !volume.has(lsn, segment) {
            self.send(actions, |group| Frame::FellOut { group, epoch, why: FellOut::NotNext });
            return;
        }
        self.sending.told = Some((epoch, PeerLog { segment, appended: lsn, durable: Lsn::ZERO }));
        let feed = Feed::new(lsn.next());
        self.sending.stream = Some(Stream { epoch, feed, sent: lsn.next(), reading: None, is_blocked: false });
        self.give_engine_lead(actions);
        self.send(actions, |group| Frame::Begins { group, epoch, number });
        self.want_durable(actions);
    }

    pub(super) fn on_has(&mut self, epoch: Epoch, log: PeerLog, actions: &mut Vec<Action>) {
        if !self.leads_in(epoch) {
            return;
        }
        if self.sending.stream.is_none() {
            // It does not know that it is sent nothing any more. What could not be read is not tried again at once.
            if self.is_feed_failing() {
                return;
            }
            self.send(actions, |group| Frame::FellOut { group, epoch, why: FellOut::NotNext });
            return;
        }
        self.sending.told = Some((epoch, log));
        actions.push(Action::Volume(volume::io::Event::PeerHas(log)));
    }

    /// A batch is being appended: it goes to the other site at once, when that has all before it.
    pub(super) fn on_shipped(&mut self, buffers: Vec<Buffer>, batch: &ToPeer, actions: &mut Vec<Action>) {
        let Some(stream) = &mut self.sending.stream else { return };
        if stream.reading.is_some() || stream.is_blocked {
            if batch.lsns.0 < stream.feed.next_lsn() {
                // What was sent was given up, and is appended again.
                (stream.feed, stream.reading) = (Feed::new(batch.lsns.0), None);
            }
        } else if stream.feed.passes(batch) {
            stream.sent = batch.lsns.0;
            self.send_batch(buffers, actions);
        }
    }

    /// Whether the log could not be read for the other site a while ago.
    fn is_feed_failing(&self) -> bool {
        self.sending.gone.is_some_and(|(_, at)| self.now.since(at) < FEED_AGAIN_AFTER)
    }

    fn send_batch(&mut self, buffers: Vec<Buffer>, actions: &mut Vec<Action>) {
        let Some(epoch) = self.sending.stream.as_ref().map(|stream| stream.epoch) else { return };
        self.send(actions, |group| Frame::Batch { group, epoch, buffers });
    }

    /// The batch that was sent last is not on its way.
    pub(super) const fn on_no_room(&mut self) {
        if let Some(stream) = &mut self.sending.stream {
            // What is being read comes behind it.
            (stream.is_blocked, stream.reading) = (true, None);
            stream.feed = Feed::new(stream.sent);
        }
    }

    pub(super) const fn on_room(&mut self) {
        if let Some(stream) = &mut self.sending.stream {
            stream.is_blocked = false;
        }
    }

    pub(super) fn on_fed(
        &mut self,
        (id, feed): (FeedId, Feed),
        batch: Result<Option<Vec<Buffer>>, FeedError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(stream) = self.sending.stream.as_mut() else { return };
        if stream.reading.take_if(|reading| *reading == id).is_none() {
            return;
        }
        match batch {
            Ok(Some(buffers)) => {
                self.sending.gone = None;
                stream.sent = stream.feed.next_lsn();
                stream.feed = feed;
                self.send_batch(buffers, actions);
            }
            Ok(None) => {}
            Err(error) => {
                self.sending.gone = Some((error, self.now));
                self.sending.stop();
            }
        }
    }

    /// Reads on where the other site is behind, and tells it what counts.
    pub(super) fn pump(&mut self, volume: &Volume, actions: &mut Vec<Action>) {
        let end = volume.end().lsn;
        let Some(stream) = &mut self.sending.stream else { return };
        if stream.feed.next_lsn() > volume.next_lsn() {
            // What was sent was given up, and nothing is in its place yet.
            stream.feed = Feed::new(volume.next_lsn());
        }
        if stream.reading.is_none() && !stream.is_blocked && stream.feed.next_lsn() <= end {
            self.sending.feeds += 1;
            let id = FeedId(self.sending.feeds);
            stream.reading = Some(id);
            actions.push(Action::Feed { id, feed: stream.feed, up_to: end });
        }
        self.tell_committed(volume, false, actions);
    }

    fn tell_committed(&mut self, volume: &Volume, is_again: bool, actions: &mut Vec<Action>) {
        let Some(epoch) = self.sending.stream.as_ref().map(|stream| stream.epoch) else { return };
        let (end, peer) = (volume.counted_end(), volume.shared_with(self.sending.told()));
        let durable = volume.durable_lsn().min(peer.durable).min(end.lsn);
        let log = PeerLog { segment: end.segment, appended: end.lsn, durable };
        if is_again || log != self.sending.committed {
            self.sending.committed = log;
            self.send(actions, |group| Frame::Committed { group, epoch, log });
        }
    }

    /// The volume waits until the other site has this on stable storage.
    pub(super) fn on_sync_peer(&mut self, lsn: Lsn, actions: &mut Vec<Action>) {
        if lsn > self.sending.awaited {
            self.sending.awaited = lsn;
            self.want_durable(actions);
        }
    }

    fn want_durable(&mut self, actions: &mut Vec<Action>) {
        let (Some(stream), lsn) = (&self.sending.stream, self.sending.awaited) else { return };
        let epoch = stream.epoch;
        if lsn > Lsn::ZERO {
            self.send(actions, |group| Frame::MakeDurable { group, epoch, lsn });
        }
    }

    /// Says again what may have found no room.
    pub(super) fn say_to_secondary_again(&mut self, volume: &Volume, actions: &mut Vec<Action>) {
        if volume.shared_with(self.sending.told()).durable < self.sending.awaited {
            self.want_durable(actions);
        }
        self.tell_committed(volume, true, actions);
    }

    fn leads_in(&self, epoch: Epoch) -> bool {
        matches!(self.given, Given::Lead { epoch: led, .. } if led == epoch)
    }
}
