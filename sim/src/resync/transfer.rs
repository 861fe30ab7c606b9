//! Sending what is left of segments, joining them, and folding.

use super::station::VOLUME;
use super::{Checked, Resyncs, STEPS_MAX, compare};
use crate::trace::Finding;
use std::collections::BTreeSet;
use units::{Epoch, Lsn, SegmentId};
use volume::engine::Role;
use volume::io::Event;
use volume::pool::{JoinError, Listing, PeerBehind, SegmentRow};
use volume::request::Request;
use volume::resync::{Receiver, SendError, Sender, Source, Taken, fold};

/// Changes at the primary while it sends.
const CHANGES_MAX: u64 = 400;

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    from: Lsn,
    changes_left: u64,
    /// Where a segment was a while ago.
    stale: Option<Source>,
    /// Segments that are void: a stop came while they left.
    gone: BTreeSet<SegmentId>,
    kills_left: u64,
}

impl Resyncs {
    /// Brings the secondary, whose log ends at `from` and which is down, or new, to where the primary is, and returns where it ends; then it
    /// follows.
    pub(super) fn resync(&mut self, from: Lsn) -> Checked<Lsn> {
        let mut transfer =
            Transfer { from, changes_left: CHANGES_MAX, stale: None, gone: BTreeSet::new(), kills_left: 6 };
        // Its catalogue has the snapshots that its log has.
        self.secondary.records.boundaries = self.model.boundaries.values().copied().collect();
        let mut to = None;
        for _ in 0..STEPS_MAX {
            self.bring_up(&transfer)?;
            self.disturb(&mut transfer)?;
            if self.secondary.index.is_none() {
                continue;
            }
            let is_ready = self.secondary.receiver.as_ref().is_some_and(Receiver::is_ready);
            if is_ready && !self.send_next(&mut transfer)? {
                to = self.try_to_join(&mut transfer)?;
            }
            if to.is_some() && self.random.chance(100) && transfer.kills_left > 0 {
                // The record still says that it is under way: it begins anew.
                transfer.kills_left = 0;
                self.secondary.die(false, &mut self.random);
                self.start_secondary(true)?;
                to = None;
            }
            if to.is_some() {
                break;
            }
        }
        let to = to.ok_or_else(|| Finding("P6: a resync never ends".to_owned()))?;
        self.trace.note(&[2, from.0, to.0]);
        self.outcome.joins += 1;
        self.fold_to(to)?;
        self.primary.keep_for(Some(PeerBehind { durable: to, sent: to }));
        self.secondary.receiver_faults = (0, 0);
        self.follow()?;
        let mut feed = volume::feed::Feed::new(to.next());
        while self.feed(&mut feed)? == super::Fed::Some {
            if self.random.chance(200) {
                self.change()?;
            }
        }
        self.primary.keep_whole(None);
        let lsn = self.secondary_end();
        self.secondary.tell(Event::MakeDurable { lsn }, &mut self.random);
        while self.secondary.step(&mut self.random) {}
        Ok(self.secondary_end())
    }

    /// Sees to it that the secondary takes parts.
    fn bring_up(&mut self, transfer: &Transfer) -> Checked {
        let is_poisoned = self.secondary.receiver.as_ref().is_some_and(Receiver::is_poisoned);
        if is_poisoned {
            self.kill_secondary();
        }
        if self.secondary.index.is_none() {
            let is_store_lost = self.random.chance(200);
            self.start_secondary(is_store_lost)?;
        }
        if self.secondary.receiver.is_some() {
            return Ok(());
        }
        if self.random.chance(200) {
            self.secondary.check()?;
        }
        self.check_before(transfer.from)?;
        self.secondary.records.resync = Some(transfer.from);
        let index = self.secondary.index.as_mut().expect("the site is up");
        index.begin_resync(VOLUME, transfer.from).map_err(|fault| Finding(fault.to_string()))?;
        self.secondary.receiver = Some(Receiver::new(VOLUME));
        self.secondary.receiver_faults = if self.random.chance(500) { (20, 10) } else { (0, 0) };
        Ok(())
    }

    /// The secondary alone shows what it did before.
    fn check_before(&mut self, from: Lsn) -> Checked {
        let recovered = self.secondary.recover(false)?;
        if recovered.next_lsn != from.next() {
            let end = recovered.next_lsn.0 - 1;
            return Err(Finding(format!("P1: before it is joined the log ends at {end}, and did at {from}")));
        }
        if self.random.chance(700) || from == Lsn::ZERO {
            return Ok(());
        }
        self.secondary.open(recovered);
        self.secondary.tell(Event::Role(Role::Alone { epoch: Epoch(self.epoch + 1) }), &mut self.random);
        self.secondary.ask(Request::Checkpoint, &mut self.random)?;
        let known = std::mem::take(&mut self.model.boundaries);
        // Snapshots that were deleted at the primary meanwhile, and those of later, are no matter here.
        let shown = compare(&mut self.secondary, &self.model, from, "the copy that is behind");
        self.model.boundaries = known;
        shown?;
        for _ in 0..self.random.below(300) {
            if !self.secondary.step(&mut self.random) {
                self.secondary.tick(&mut self.random);
            }
        }
        self.secondary.close(&mut self.random);
        let recovered = self.secondary.recover(false)?;
        if recovered.next_lsn == from.next() {
            Ok(())
        } else {
            Err(Finding("P1: a look at the log moves it".to_owned()))
        }
    }

    fn kill_secondary(&mut self) {
        let is_power_cut = self.random.chance(500);
        self.trace.note(&[3, u64::from(is_power_cut)]);
        self.outcome.kills += 1;
        self.secondary.die(is_power_cut, &mut self.random);
    }

    /// Something else happens.
    fn disturb(&mut self, transfer: &mut Transfer) -> Checked {
        match self.random.below(100) {
            0..=14 if transfer.changes_left > 0 => {
                transfer.changes_left -= 1;
                self.change()?;
            }
            15..=16 if transfer.kills_left > 0 && self.random.chance(300) => {
                transfer.kills_left -= 1;
                self.kill_secondary();
            }
            17 if transfer.kills_left > 0 && self.random.chance(300) => {
                transfer.kills_left -= 1;
                self.outcome.kills += 1;
                self.restart_primary()?;
            }
            30 if self.random.chance(150) => self.pause(transfer)?,
            31 if self.random.chance(20) && transfer.kills_left > 0 => {
                transfer.kills_left -= 1;
                self.kill_secondary();
                self.start_secondary(false)?;
                self.secondary.drop_resync(&mut self.random)?;
                self.outcome.drops += 1;
            }
            18..=22 => self.primary.tick(&mut self.random),
            23..=27 if self.secondary.index.is_some() => self.secondary.tick(&mut self.random),
            28..=29 if transfer.stale.is_none() => {
                let mut rows = self.primary.index().segments(VOLUME);
                rows.retain(|row| row.last_lsn.is_some());
                if !rows.is_empty() {
                    let segment = self.random.pick(&rows).segment;
                    transfer.stale = self.primary.index().source(segment);
                }
            }
            _ => {
                for _ in 0..self.random.below(6) {
                    self.primary.step(&mut self.random);
                }
                for _ in 0..self.random.below(6) {
                    self.secondary.step(&mut self.random);
                }
            }
        }
        Ok(())
    }

    /// Nothing is sent for a long time, and much that was sent is dead by then.
    fn pause(&mut self, transfer: &mut Transfer) -> Checked {
        self.move_on();
        for _ in 0..self.random.within(30, 150).min(transfer.changes_left) {
            transfer.changes_left -= 1;
            self.change()?;
            self.primary.tick(&mut self.random);
            for _ in 0..self.random.below(60) {
                self.primary.step(&mut self.random);
            }
        }
        Ok(())
    }

    fn listing(&self, from: Lsn) -> Listing {
        let durable = self.primary.volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().durable_lsn);
        self.primary.index().listing(VOLUME, (from, durable))
    }

    /// Sends a part that the secondary lacks; `false` when it lacks none.
    fn send_next(&mut self, transfer: &mut Transfer) -> Checked<bool> {
        let mut listing = self.listing(transfer.from);
        listing.segments.retain(|segment| !transfer.gone.contains(segment));
        let (index, receiver) = (self.secondary.index(), self.secondary.receiver.as_ref());
        let is_missing = |segment: &SegmentId| index.aside(*segment).is_none_or(|aside| !aside.is_whole());
        let mut missing: Vec<_> = listing.segments.into_iter().filter(is_missing).collect();
        let count = missing.len() as u64;
        if count > 0 {
            missing.rotate_left(self.random.below(count) as usize);
        }
        let mut stale = transfer.stale.take_if(|stale| missing.contains(&stale.segment()));
        if let Some(stale) = &stale {
            missing.insert(0, stale.segment());
        }
        let mut lacks = None;
        for segment in missing {
            let fresh = self.primary.index().source(segment);
            let Some(source) = stale.take().or(fresh) else {
                continue;
            };
            let cut = index.aside(segment).map(|aside| aside.parcels.cut);
            let place = source.clone();
            let opened = Sender::open(&self.primary.disk, &self.primary.superblock, source, cut);
            let sender = match opened {
                Ok(sender) => sender,
                Err(SendError::Void(_))
                    if self.primary.index().source(segment).is_some_and(|now| now.is_at(&place)) =>
                {
                    transfer.gone.insert(segment);
                    return Ok(true);
                }
                Err(SendError::Moved(_) | SendError::Void(_)) => {
                    self.outcome.moved += 1;
                    return Ok(true);
                }
                Err(error) => return Err(Finding(format!("P1: a segment cannot be sent: {error}"))),
            };
            let parts = sender.parts();
            let is_wanted = |part: &usize| {
                let has = receiver.is_some_and(|receiver| receiver.has(index, segment, *part));
                parts.contains(*part) && !has
            };
            // Where it has fewer parts by now, the trunk says so.
            let is_narrower = index.aside(segment).is_some_and(|aside| parts.without(aside.parcels.parts()).is_empty());
            let wanted = (0..8).find(is_wanted).or_else(|| is_narrower.then_some(0));
            if let Some(part) = wanted {
                lacks = Some(sender.part(part).map_err(|error| Finding(format!("P1: a part is not sent: {error}")))?);
                break;
            }
        }
        let Some(part) = lacks else { return Ok(false) };
        match self.secondary.take(part, &mut self.random) {
            Ok(Taken::Begun) => self.outcome.parts += 1,
            Ok(Taken::Known | Taken::Busy) => {}
            Err(refusal) => return Err(Finding(format!("P1: a part is refused: {refusal}"))),
        }
        let failed = self.secondary.receiver.as_mut().and_then(Receiver::take_error);
        self.outcome.given_up += u64::from(failed.is_some());
        Ok(true)
    }

    /// The secondary has all there is: it is joined where it can be.
    fn try_to_join(&mut self, transfer: &mut Transfer) -> Checked<Option<Lsn>> {
        if !self.secondary.receiver.as_ref().is_some_and(Receiver::is_idle) {
            self.secondary.finish(&mut self.random);
            return Ok(None);
        }
        let last = self.secondary.index().asides(VOLUME).last().map(|aside| aside.whole.last_lsn);
        let Some(to) = last else {
            self.seal_primary(transfer)?;
            return Ok(None);
        };
        // All that is sealed is here: what comes behind is whole, and stays so.
        self.primary.keep_whole(Some(to));
        // What it has told the store comes before the question.
        self.primary.settle(&mut self.random)?;
        let mut listing = self.primary.index().listing(VOLUME, (transfer.from, to));
        listing.segments.retain(|segment| !transfer.gone.contains(segment));
        let recovered = self.secondary.recover(false)?;
        let index = self.secondary.index.as_mut().expect("the site is up");
        match index.join(&recovered, to, &listing) {
            Ok(()) => {
                self.secondary.records.boundaries = listing.boundaries;
                self.secondary.receiver = None;
                return Ok(Some(to));
            }
            Err(JoinError::TooEarly(_)) => {
                self.outcome.too_early += 1;
                self.seal_primary(transfer)?;
            }
            Err(JoinError::NotVoid | JoinError::Missing(_)) => {}
            Err(error) => return Err(Finding(format!("P1: nothing explains why it is not joined: {error}"))),
        }
        Ok(None)
    }

    /// The primary's log goes on in a new segment.
    fn seal_primary(&mut self, transfer: &mut Transfer) -> Checked {
        if self.random.chance(500) && transfer.changes_left > 0 {
            transfer.changes_left -= 1;
            self.change()?;
        }
        self.primary.settle(&mut self.random)?;
        let open = self.primary.index().segments(VOLUME).into_iter().find(|row: &SegmentRow| row.last_lsn.is_none());
        if let Some(row) = open {
            self.primary.tell(Event::Awaited { segment: row.segment }, &mut self.random);
        } else {
            self.write()?;
        }
        self.primary.ask(Request::Flush, &mut self.random)?;
        Ok(())
    }

    /// Brings the secondary's stored map to where its log was joined to, whatever stops it.
    fn fold_to(&mut self, to: Lsn) -> Checked {
        self.secondary.records.resync = None;
        if self.random.chance(100) {
            self.secondary.die(false, &mut self.random);
            self.start_secondary(true)?;
        }
        loop {
            let segments_max = self.random.within(1, 5) as usize;
            let index = self.secondary.index.as_mut().expect("the site is up");
            let is_joined = index.joined(VOLUME).is_some();
            let known = index.known(VOLUME, 0);
            let refused = volume::recover::recover(&self.secondary.disk, &self.secondary.superblock, &known).is_err();
            if refused != is_joined {
                return Err(Finding("P1: a log is opened before it is whole, or not when it is".to_owned()));
            }
            let folded = fold(index, &self.secondary.disk, VOLUME, segments_max);
            if folded.map_err(|error| Finding(format!("P1: what was joined is not folded: {error}")))? {
                break;
            }
            if self.random.chance(200) {
                self.kill_secondary();
                self.start_secondary(false)?;
            }
        }
        let folded_to = self.secondary.index().volume_row(VOLUME).map_or(Lsn::ZERO, |row| row.folded_to);
        if folded_to == to {
            compare(&mut self.secondary, &self.model, to, "the copy that was joined")?;
        }
        Ok(())
    }
}
