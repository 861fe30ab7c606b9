//! Snapshots of several volumes at one point: all are held, have their snapshots, and are let go.
//!
//! No change that a member lacks was answered before the last of the snapshots was taken. The oracle knows that by the
//! answers: a snapshot is taken in when it is answered.

use super::World;
use super::changes::{Answer, Next, Step, Waits};
use crate::census::Fault;
use crate::oracle::Step as Moment;
use crate::trace::Finding;
use crate::workload::Wish;
use crate::world::Checked;
use units::VolumeId;

/// A volume and its snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    site: usize,
    id: VolumeId,
    /// When the snapshot was answered.
    taken: Option<Moment>,
}

impl World {
    pub(super) fn begin_group(&mut self) -> Checked {
        let heads = self.served_heads();
        if self.families.change.is_some() || heads.len() < 2 || !self.may_take_snapshot(heads.len()) {
            return Ok(());
        }
        let mut members = Vec::new();
        for site in heads {
            members.push(Member { site, id: self.families.next_id(), taken: None });
        }
        self.families.held_at = self.now;
        let waits = self.ask_members(&members, |_| Wish::Hold)?;
        self.begin_next(Some((Step::Held(members), waits)));
        Ok(())
    }

    fn ask_members(&mut self, members: &[Member], wish: impl Fn(VolumeId) -> Wish) -> Checked<Waits> {
        let mut answers = Vec::new();
        for member in members {
            answers.push((member.site, self.ask(member.site, wish(member.id), true)?));
        }
        Ok(Waits::answers(answers))
    }

    pub(super) fn mark_members(&mut self, members: Vec<Member>, held: &[Answer]) -> Checked<Next> {
        if held.iter().any(Result::is_err) {
            return self.let_go(members, false);
        }
        let waits = self.ask_members(&members, Wish::Snapshot)?;
        Ok(Some((Step::Marked(members), waits)))
    }

    pub(super) fn let_members_go(&mut self, members: Vec<Member>, marked: &[Answer]) -> Checked<Next> {
        let is_marked = marked.iter().all(Result::is_ok);
        let taken = members.into_iter().map(|member| Member { taken: self.families.taken_at(member.id), ..member });
        let taken = taken.collect();
        self.let_go(taken, is_marked)
    }

    /// Each is let go, whatever became of the others.
    fn let_go(&mut self, members: Vec<Member>, is_marked: bool) -> Checked<Next> {
        let waits = self.ask_members(&members, |_| Wish::Release)?;
        Ok(Some((Step::LetGo(members, is_marked), waits)))
    }

    /// Where a hold ended early nothing is known of order: the snapshots are given up.
    pub(super) fn judge_group(&mut self, members: &[Member], is_marked: bool, released: &[Answer]) -> Checked<Next> {
        let of_members: Vec<VolumeId> = members.iter().map(|member| member.id).collect();
        if !is_marked || released.iter().any(Result::is_err) {
            self.note(Fault::GroupGivenUp);
            self.families.forget_unrecorded(&of_members);
            return Ok(None);
        }
        let Some(last) = members.iter().filter_map(|member| member.taken).max() else { return Ok(None) };
        for member in members {
            let oracle = &self.sites[member.site].oracle;
            let shown = self.families.snapshots.get_mut(&member.id).and_then(|one| one.oracle.as_mut());
            let held = shown.map_or(Ok(()), |shown| shown.hold_to(oracle, last));
            held.map_err(|found| Finding(format!("P1: a group of snapshots: {found}")))?;
        }
        self.note(Fault::GroupTaken);
        let taken = members.iter().map(|member| (member.site, member.id)).collect();
        self.record_taken(taken, None)
    }

    /// Whether time explains that a hold ended by itself, or a failed sync.
    pub(in crate::world) fn is_hold_over(&self) -> bool {
        let held_max = volume::engine::HOLD_DURATION_MAX.as_nanos() as u64;
        self.injected.syncs > 0 || self.now >= self.families.held_at + held_max
    }
}

impl super::Families {
    fn taken_at(&self, id: VolumeId) -> Option<Moment> {
        self.snapshots.get(&id).map(|one| one.taken)
    }

    /// Snapshots that were taken and never recorded.
    fn forget_unrecorded(&mut self, ids: &[VolumeId]) {
        let given_up = ids.iter().filter_map(|id| self.snapshots.remove(id)).map(|one| one.parent);
        let given_up: Vec<_> = given_up.collect();
        self.orphans.extend(given_up);
        self.cleaner.has_news = true;
    }
}
