//! What people ask of the catalogue: one change at a time, each a row of steps, any two of which a crash may come between.

use super::book::{Record, Ticket};
use super::groups::Member;
use super::{CLONES_MAX, SnapshotState, Task, VolumeState, World};
use crate::census::Fault;
use crate::meter::Model;
use crate::oracle::Oracle;
use crate::trace::Finding;
use crate::workload::Wish;
use crate::world::store_thread::Job;
use crate::world::{Broken, Checked, Site};
use units::VolumeId;
use volume::error::Error;
use volume::pool::{MeterStart, Parent};
use volume::recover::fresh_clone;
use volume::request::{Completion, RequestId};

/// What a step waits for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Answers of volumes.
    pub(super) answers: Vec<(usize, RequestId)>,
    /// A write of records.
    pub(super) record: Option<Ticket>,
    /// That nothing is asked of a volume, and all its snapshots are answered.
    pub(super) quiet: Option<usize>,
    /// That a volume has nothing under way.
    pub(super) idle: Option<usize>,
    /// The store's thread.
    pub(super) task: Option<Task>,
}

/// Where a change goes on when what it waits for has come.
#[derive(Debug)]
pub(super) enum Step {
    /// The members of a group are held, have their snapshots, are let go.
    Held(Vec<Member>),
    Marked(Vec<Member>),
    LetGo(Vec<Member>, bool),
    /// Snapshots are recorded, and their operations flushed.
    Taken(Vec<VolumeId>, Option<Rollback>),
    /// Those that could not be are taken back.
    TakenBack(Option<Rollback>),
    /// Nothing is asked any more of a volume that is to be deleted, or rolled back.
    QuietToGo(usize),
    QuietToRollBack(Rollback),
    Detached(Rollback),
    Undone(Rollback, VolumeId),
    /// The record of an heir is there, and the index knows what it inherits.
    HeirRecorded(VolumeId, Option<Rollback>),
    HeirNoted(VolumeId, Option<Rollback>),
    SnapshotRecorded(VolumeId),
    VolumeRecorded(usize),
    Checkpointed(usize),
    Idle(usize),
}

/// A volume, and the snapshot that it is to be again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rollback {
    pub(super) site: usize,
    to: VolumeId,
}

/// The change under way.
#[derive(Debug)]
pub(super) struct Change {
    step: Step,
    waits: Waits,
}

/// What a volume answered.
pub(super) type Answer = Result<Completion, Error>;

/// What comes next, and what that waits for; the change is over without.
pub(super) type Next = Option<(Step, Waits)>;

impl Waits {
    pub(super) fn record(ticket: Ticket) -> Self {
        Self { record: Some(ticket), ..Self::default() }
    }

    pub(super) fn task(task: Task) -> Self {
        Self { task: Some(task), ..Self::default() }
    }

    pub(super) fn answers(answers: Vec<(usize, RequestId)>) -> Self {
        Self { answers, ..Self::default() }
    }
}

impl Change {
    /// What a crash in it is counted as.
    pub(super) const fn fault(&self) -> Fault {
        match &self.step {
            Step::Held(_) | Step::Marked(_) | Step::LetGo(..) => Fault::CrashInGroup,
            Step::Taken(_, None) | Step::TakenBack(None) => Fault::CrashInGroup,
            Step::Taken(_, Some(_)) | Step::TakenBack(Some(_)) | Step::QuietToRollBack(_) => Fault::CrashInRollback,
            Step::Detached(_) | Step::Undone(..) => Fault::CrashInRollback,
            Step::HeirRecorded(_, Some(_)) | Step::HeirNoted(_, Some(_)) => Fault::CrashInRollback,
            Step::HeirRecorded(_, None) | Step::HeirNoted(_, None) => Fault::CrashInClone,
            Step::QuietToGo(_) | Step::SnapshotRecorded(_) | Step::VolumeRecorded(_) => Fault::CrashInDeletion,
            Step::Checkpointed(_) | Step::Idle(_) => Fault::CrashInDeletion,
        }
    }
}

impl Change {
    /// Whether a record says something that the cleaner is not to see yet: a volume is not closed, or may not have the name
    /// of another after all.
    pub(super) const fn hides_records(&self) -> bool {
        match &self.step {
            Step::HeirRecorded(..) | Step::HeirNoted(..) | Step::TakenBack(Some(_)) => true,
            Step::VolumeRecorded(_) | Step::Checkpointed(_) | Step::Idle(_) => true,
            Step::Held(_) | Step::Marked(_) | Step::LetGo(..) | Step::Taken(..) | Step::TakenBack(None) => false,
            Step::QuietToGo(_) | Step::QuietToRollBack(_) | Step::Detached(_) | Step::Undone(..) => false,
            Step::SnapshotRecorded(_) => false,
        }
    }
}

impl World {
    pub(super) fn is_ready(&self, waits: &Waits) -> bool {
        let is_answered = |(site, id): &(usize, RequestId)| self.sites[*site].answered.contains_key(id);
        let is_quiet = |at: usize| {
            let site = &self.sites[at];
            let mut own = self.families.snapshots.values().filter(|one| one.parent.volume == site.id);
            site.asked.is_empty() && own.all(super::Snapshot::is_answered)
        };
        waits.answers.iter().all(is_answered)
            && waits.record.is_none_or(|ticket| self.families.book.has(ticket))
            && waits.quiet.is_none_or(is_quiet)
            && waits.idle.is_none_or(|at| self.sites[at].is_idle())
            && waits.task.is_none_or(|task| self.families.ended.contains_key(&task))
    }

    pub(super) fn take_answers(&mut self, waits: &Waits) -> Vec<Answer> {
        let each = waits.answers.iter();
        each.filter_map(|(site, id)| Some(self.sites[*site].answered.remove(id)?.result)).collect()
    }

    /// What the store's thread has come to.
    pub(super) fn take_end(&mut self, waits: &Waits) -> Result<(), String> {
        waits.task.map_or(Ok(()), |task| self.families.ended.remove(&task).unwrap_or(Ok(())))
    }

    fn begin_change(&mut self, step: Step, waits: Waits) {
        self.trace.tell(|| format!("a change begins: {step:?}"));
        self.families.change = Some(Change { step, waits });
    }

    pub(super) fn begin_next(&mut self, next: Next) {
        next.into_iter().for_each(|(step, waits)| self.begin_change(step, waits));
    }

    pub(super) fn go_on_with_change(&mut self) -> Checked {
        while self.families.change.as_ref().is_some_and(|change| self.is_ready(&change.waits)) {
            let Some(Change { step, waits }) = self.families.change.take() else { break };
            self.trace.tell(|| format!("a change goes on: {step:?}"));
            let answers = self.take_answers(&waits);
            if let Some((step, waits)) = self.take_step(step, &waits, &answers)? {
                self.families.change = Some(Change { step, waits });
            }
            self.families.cleaner.has_news = true;
        }
        Ok(())
    }

    fn take_step(&mut self, step: Step, waits: &Waits, answers: &[Answer]) -> Checked<Next> {
        Ok(match step {
            Step::Held(members) => self.mark_members(members, answers)?,
            Step::Marked(members) => self.let_members_go(members, answers)?,
            Step::LetGo(members, is_marked) => self.judge_group(&members, is_marked, answers)?,
            Step::Taken(ids, rollback) => self.end_snapshots(ids, rollback, answers),
            Step::TakenBack(rollback) => self.give_up(rollback),
            Step::QuietToGo(site) => self.record_leaving(site)?,
            Step::QuietToRollBack(rollback) => {
                let checkpoint = self.ask(rollback.site, Wish::Checkpoint, true)?;
                Some((Step::Detached(rollback), Waits::answers(vec![(rollback.site, checkpoint)])))
            }
            // What of it is not in the index is in its log.
            Step::Detached(rollback) => {
                let undo = self.families.next_id();
                let asked = self.ask(rollback.site, Wish::Snapshot(undo), true)?;
                Some((Step::Undone(rollback, undo), Waits::answers(vec![(rollback.site, asked)])))
            }
            Step::Undone(rollback, undo) => match answers.first() {
                Some(Ok(_)) => self.record_taken(vec![(rollback.site, undo)], Some(rollback))?,
                Some(Err(_)) | None => self.give_up(Some(rollback)),
            },
            Step::HeirRecorded(heir, rollback) => {
                self.queue_job(Job::NoteParent(heir));
                Some((Step::HeirNoted(heir, rollback), Waits::task(Task::NoteParent(heir))))
            }
            Step::HeirNoted(heir, rollback) => {
                let is_noted = self.take_end(waits).is_ok();
                self.serve_heir(heir, rollback, is_noted)
            }
            Step::SnapshotRecorded(id) => {
                self.families.snapshots.get_mut(&id).into_iter().for_each(|one| one.is_leaving = false);
                None
            }
            Step::VolumeRecorded(site) => {
                let checkpoint = self.ask(site, Wish::Checkpoint, true)?;
                Some((Step::Checkpointed(site), Waits::answers(vec![(site, checkpoint)])))
            }
            // Whether it could be checkpointed does not matter any more.
            Step::Checkpointed(site) if self.is_parent(self.sites[site].id) => None,
            Step::Checkpointed(site) => Some((Step::Idle(site), Waits { idle: Some(site), ..Waits::default() })),
            Step::Idle(site) => {
                self.close_site(site);
                None
            }
        })
    }

    /// Makes snapshots durable, with their records side by side.
    pub(super) fn record_taken(&mut self, taken: Vec<(usize, VolumeId)>, rollback: Option<Rollback>) -> Checked<Next> {
        let ids: Vec<VolumeId> = taken.iter().map(|(_, id)| *id).collect();
        let record = Some(self.write_record(Record::Taken(ids.clone())));
        let mut answers = Vec::new();
        for (site, _) in taken {
            answers.push((site, self.ask(site, Wish::Flush, true)?));
        }
        Ok(Some((Step::Taken(ids, rollback), Waits { answers, record, ..Waits::default() })))
    }

    fn end_snapshots(&mut self, ids: Vec<VolumeId>, rollback: Option<Rollback>, flushed: &[Answer]) -> Next {
        if flushed.iter().any(Result::is_err) {
            let ticket = self.write_record(Record::Dropped(ids));
            return Some((Step::TakenBack(rollback), Waits::record(ticket)));
        }
        for id in ids {
            self.families.snapshots.get_mut(&id).into_iter().for_each(|one| one.is_flushed = true);
        }
        let rollback = rollback?;
        let line = self.sites[rollback.site].line;
        self.record_heir(rollback.to, Some((line, rollback)))
    }

    /// A rollback has failed: the volume goes on as it is.
    fn give_up(&mut self, rollback: Option<Rollback>) -> Next {
        rollback.into_iter().for_each(|rollback| self.welcome(rollback.site));
        None
    }

    pub(super) fn begin_clone(&mut self) -> Checked {
        let clones = self.sites.iter().filter(|site| site.parent.is_some() && site.state == VolumeState::Live);
        if self.families.change.is_some() || clones.filter(|site| !site.is_view).count() >= CLONES_MAX {
            return Ok(());
        }
        let Some(of) = self.pick_snapshot(|_| true) else { return Ok(()) };
        let next = self.record_heir(of, None);
        self.begin_next(next);
        Ok(())
    }

    /// Writes the record of a volume that begins as a snapshot: with a line, of one that takes that line's name.
    fn record_heir(&mut self, of: VolumeId, rollback: Option<(VolumeId, Rollback)>) -> Next {
        let depth = *self.random.pick(&[1, 2, 4]);
        let snapshot = self.families.snapshots.get(&of)?;
        let (parent, size_bytes) = (snapshot.parent, snapshot.boundary.size_bytes);
        let (fork, plan) = self.shown_by(of).map(|(oracle, plan)| (oracle.clone(), plan))?;
        let id = self.families.next_id();
        self.trace.tell(|| format!("snapshot {of}, of {parent:?}, is to be volume {id}"));
        let line = rollback.map_or(id, |(line, _)| line);
        let oracle: Oracle = fork.with_tag(id.0);
        let shown = self.shown_at(parent.volume, parent.generation);
        let model = Model::new(self.meter_now(), size_bytes, shown);
        let site = Site { parent: Some(parent), line, model, ..Site::new(id, size_bytes, oracle) };
        let plan = crate::plan::VolumePlan { depth, ..plan };
        let ticket = self.write_record(Record::Heir(Box::new((site, plan))));
        Some((Step::HeirRecorded(id, rollback.map(|(_, rollback)| rollback)), Waits::record(ticket)))
    }

    fn serve_heir(&mut self, heir: VolumeId, rollback: Option<Rollback>, is_noted: bool) -> Next {
        if !is_noted {
            let ticket = self.write_record(Record::VolumeDropped(heir));
            return Some((Step::TakenBack(rollback), Waits::record(ticket)));
        }
        let at = self.site_of(heir)?;
        if rollback.is_some() {
            self.note(Fault::RolledBack);
        }
        self.serve(at, fresh_clone(heir, self.sites[at].created_bytes));
        None
    }

    /// The snapshot's record says first that it is deleted.
    pub(super) fn begin_snapshot_deletion(&mut self) -> Checked {
        match self.pick_snapshot(|_| true) {
            Some(id) => self.delete_snapshot(id),
            None => Ok(()),
        }
    }

    pub(in crate::world) fn delete_snapshot(&mut self, id: VolumeId) -> Checked {
        let Some(one) = self.families.snapshots.get(&id) else { return Ok(()) };
        let parent = one.parent;
        let line = self.site_of(parent.volume).map(|of| self.sites[of].line);
        let has_clones =
            self.broken != Broken::SnapshotPin && self.children_of(parent).any(|child| Some(child.line) != line);
        if self.families.change.is_some() || has_clones || !self.close_view_of(id)? {
            return Ok(());
        }
        // Its own volume may have been rolled back to it: then it goes on without a name.
        let is_parent = self.has_children(parent);
        let state = if is_parent { SnapshotState::Pin } else { SnapshotState::Deleting };
        self.families.snapshots.get_mut(&id).into_iter().for_each(|one| one.is_leaving = true);
        let ticket = self.write_record(Record::Snapshot(id, state));
        self.begin_change(Step::SnapshotRecorded(id), Waits::record(ticket));
        Ok(())
    }

    /// Whether a volume began as the end of a generation.
    pub(super) fn has_children(&self, boundary: Parent) -> bool {
        self.children_of(boundary).next().is_some() && self.broken != Broken::SnapshotPin
    }

    /// The named volumes that are served.
    pub(super) fn served_heads(&self) -> Vec<usize> {
        let is_head = |at: &usize| !self.sites[*at].is_view && self.takes_clients(*at);
        (0..self.sites.len()).filter(is_head).collect()
    }

    pub(super) fn begin_volume_deletion(&mut self) -> Checked {
        let heads = self.served_heads();
        if heads.len() > 1 {
            let at = *self.random.pick(&heads);
            self.delete_volume(at);
        }
        Ok(())
    }

    pub(in crate::world) fn delete_volume(&mut self, at: usize) {
        if self.families.change.is_none() {
            self.sites[at].is_leaving = true;
            self.begin_change(Step::QuietToGo(at), Waits { quiet: Some(at), ..Waits::default() });
        }
    }

    /// Its record says first that it is deleted, when nobody reads its snapshots.
    fn record_leaving(&mut self, at: usize) -> Checked<Next> {
        let line = self.sites[at].line;
        let of_line = |parent: Parent| self.site_of(parent.volume).is_some_and(|of| self.sites[of].line == line);
        let snapshots = self.families.snapshots.iter().filter(|(_, one)| of_line(one.parent));
        for id in snapshots.map(|(id, _)| *id).collect::<Vec<_>>() {
            if !self.close_view_of(id)? {
                self.welcome(at);
                return Ok(None);
            }
        }
        let ticket = self.write_record(Record::Volume(self.sites[at].id, VolumeState::Deleting));
        Ok(Some((Step::VolumeRecorded(at), Waits::record(ticket))))
    }

    /// The engine of a volume ends; the store's thread is told so behind all that it was asked.
    pub(super) fn close_site(&mut self, at: usize) {
        self.trace.tell(|| format!("{at}: is closed"));
        self.sites[at].volume = None;
        self.queue_job(Job::Closed(self.sites[at].id));
    }

    /// A snapshot of what the volume is, then a clone that takes its name.
    pub(super) fn begin_rollback(&mut self) -> Checked {
        let heads = self.served_heads();
        if self.families.change.is_some() || heads.is_empty() || !self.may_take_snapshot(1) {
            return Ok(());
        }
        let at = *self.random.pick(&heads);
        let line = self.sites[at].line;
        let of_line: Vec<VolumeId> =
            self.sites.iter().filter(|site| site.has_record() && site.line == line).map(|site| site.id).collect();
        let Some(to) = self.pick_snapshot(|one| of_line.contains(&one.parent.volume)) else { return Ok(()) };
        self.sites[at].is_leaving = true;
        let rollback = Rollback { site: at, to };
        self.begin_change(Step::QuietToRollBack(rollback), Waits { quiet: Some(at), ..Waits::default() });
        Ok(())
    }

    /// The store's thread notes what a volume inherits.
    pub(in crate::world) fn note_parent_of(&mut self, heir: VolumeId) -> Checked {
        let parent = self.site_of(heir).and_then(|at| self.sites[at].parent);
        let Some(parent) = parent else { return Err(Finding(format!("volume {heir} has no parent"))) };
        let mut noted = self.note_heir(heir, parent)?;
        if let (Some(index), true) = (&mut self.index, noted.is_ok()) {
            let site = self.sites.iter().find(|site| site.id == heir);
            let start =
                site.map(|site| MeterStart { at: site.model.began(), size_bytes: site.created_bytes, last: None });
            noted =
                start.map_or(Ok(()), |start| index.begin_meters(&[(heir, start)]).map_err(|fault| fault.to_string()));
        }
        self.families.ended.insert(Task::NoteParent(heir), noted);
        Ok(())
    }
}
