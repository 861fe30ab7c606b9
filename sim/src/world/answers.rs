//! Answers: judged by the oracle when they are good, and against what was injected when they are errors.

use super::clients::Asked;
use super::{Checked, Happening, MS, World};
use crate::census::Fault;
use crate::oracle::Step;
use crate::trace::Finding;
use crate::workload::Wish;
use units::{BLOCK_BYTES, SECTOR_BYTES};
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Reply};

/// What explains an error of the very event that a volume is being told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Excuse {
    pub(super) corrupt: bool,
    pub(super) unavailable: bool,
}

impl World {
    pub(super) fn take_reply(&mut self, site: usize, reply: Reply) -> Checked {
        let now = self.next_step();
        let Some(asked) = self.sites[site].asked.remove(&reply.id) else {
            return Err(Finding(format!("request {} is answered and was not under way", reply.id.0)));
        };
        self.outcome.answers += 1;
        self.trace.note(&[
            11,
            self.now,
            reply.id.0,
            reply.result.as_ref().map_or_else(|error| error.kind as u64, |_| 99),
        ]);
        self.trace.tell(|| format!("[{now}] {site}: answer to {}: {}", reply.id.0, told(&reply)));
        match &reply.result {
            Ok(completion) => self.judge_success(site, &asked, completion, now),
            Err(error) => self.judge_failure(site, &asked, error, now),
        }
        .map_err(|finding| Finding(format!("{finding}; asked {:?} of volume {}", asked.wish, self.sites[site].id)))?;
        if asked.is_waited {
            self.sites[site].answered.insert(reply.id, reply);
            return Ok(());
        }
        if let Ok(Completion::Read { buffer, .. }) = reply.result {
            self.buffers.put(buffer);
        }
        if asked.is_apart {
            return Ok(());
        }
        let most = if self.random.chance(700) || !self.plan.has_pauses { 2 * MS } else { 100 * MS };
        let think = self.random.below(most);
        self.after(think, Happening::Client(site));
        Ok(())
    }

    fn judge_success(&mut self, site: usize, asked: &Asked, completion: &Completion, now: Step) -> Checked {
        if !asked.may_be.1 && !self.is_reading_back {
            return Err(Finding("a request beyond the volume's end is served".to_owned()));
        }
        let is_reading_back = self.is_reading_back;
        let oracle = &mut self.sites[site].oracle;
        match (&asked.wish, completion) {
            (Wish::Read(sectors), Completion::Read { buffer, skip, len }) => {
                let bytes = buffer.as_slice().get(*skip..skip + len).unwrap_or_default();
                if bytes.len() as u64 != (sectors.end - sectors.start) * SECTOR_BYTES {
                    return Err(Finding("a read of another length".to_owned()));
                }
                if is_reading_back {
                    return Ok(());
                }
                oracle.check_read(sectors.start, bytes, asked.started, now).map_err(Finding)
            }
            (Wish::Extents(sectors, extents_max), Completion::Extents(extents)) => {
                if extents.len() > *extents_max {
                    return Err(Finding(format!("{} extents, at most {extents_max} wanted", extents.len())));
                }
                oracle.check_extents(sectors.clone(), extents, asked.started).map_err(Finding)
            }
            (Wish::Write { .. } | Wish::Zero { .. }, Completion::Done) => {
                if let Some(op) = asked.op {
                    oracle.end(op, now, true);
                }
                Ok(())
            }
            (Wish::CompareAndWrite { .. } | Wish::OrWrite { .. }, Completion::Done) => {
                self.judge_merged(site, asked, now)
            }
            (Wish::CompareAndWrite { wrong_at, .. }, Completion::Miscompare { at }) => {
                self.judge_miscompare(site, asked, (*wrong_at, *at))
            }
            (Wish::Lend { .. }, Completion::Lent(lent)) => self.take_lent(site, asked, lent),
            (Wish::Copy { .. } | Wish::Borrow { .. }, Completion::Done) => {
                if let Some(op) = asked.op {
                    oracle.end(op, now, true);
                }
                self.outcome.census.note(Fault::Copied);
                Ok(())
            }
            (Wish::Flush | Wish::Checkpoint, Completion::Done) => {
                oracle.flushed(asked.started);
                Ok(())
            }
            (Wish::FlushFor(id), Completion::Done) => {
                oracle.flushed(asked.started);
                self.note_flushed(*id, true);
                Ok(())
            }
            (Wish::Hold | Wish::Release, Completion::Done) | (Wish::Meter, Completion::Metered(_)) => Ok(()),
            (Wish::Snapshot(id), Completion::Snapshot(boundary)) => {
                let Some(moment) = asked.moment.clone() else { return Ok(()) };
                self.take_snapshot(site, *id, (moment, *boundary), !asked.is_waited)
            }
            (Wish::Cache(_), Completion::Done) => Ok(()),
            (Wish::Resize { size_bytes, discard_tail }, Completion::Done) => {
                if asked.had_data && !discard_tail {
                    return Err(Finding("a shrink throws data away that it was not to discard".to_owned()));
                }
                if let Some(op) = asked.op {
                    oracle.end(op, now, true);
                }
                oracle.end_resize(*size_bytes, true, false);
                Ok(())
            }
            (_, completion) => Err(Finding(format!("an answer of another kind: {completion:?}"))),
        }
    }

    fn judge_failure(&mut self, site: usize, asked: &Asked, error: &Error, now: Step) -> Checked {
        self.outcome.errors += 1;
        if !self.is_explained(asked, error.kind) {
            return Err(Finding(format!("P6: nothing explains the error: {error}")));
        }
        let is_refused = error.kind == ErrorKind::InvalidRequest;
        let oracle = &mut self.sites[site].oracle;
        if let Wish::Resize { size_bytes, .. } = &asked.wish {
            oracle.end_resize(*size_bytes, false, is_refused);
        }
        if let Wish::FlushFor(id) = &asked.wish {
            self.note_flushed(*id, false);
        }
        let oracle = &mut self.sites[site].oracle;
        match asked.op {
            Some(op) if is_refused => oracle.refuse(op),
            Some(op) => oracle.end(op, now, false),
            None => {}
        }
        Ok(())
    }

    fn is_explained(&self, asked: &Asked, kind: ErrorKind) -> bool {
        let injected = &self.injected;
        let is_resize = matches!(asked.wish, Wish::Resize { .. });
        let is_change = asked.wish.changed().is_some() || matches!(asked.wish, Wish::Snapshot(_));
        let is_look = matches!(asked.wish, Wish::Read(_) | Wish::Extents(..) | Wish::Cache(_));
        match kind {
            ErrorKind::InvalidRequest => asked.may_be.0 || is_resize,
            ErrorKind::NoSpace => {
                let is_host_full = injected.no_space > 0;
                let needs_little = is_whole_zero(&asked.wish) || matches!(asked.wish, Wish::Snapshot(_));
                let is_pool_full = if needs_little { injected.full_reserve > 0 } else { injected.full > 0 };
                is_change && (is_host_full || is_pool_full)
            }
            ErrorKind::Corrupt => {
                let has_met = injected.may_revive
                    || injected.may_lack
                    || (is_change && injected.tainted + injected.map_pages > 0);
                self.excuse.corrupt || has_met
            }
            ErrorKind::Unavailable if matches!(asked.wish, Wish::Hold | Wish::Release) => self.is_hold_over(),
            ErrorKind::Unavailable => {
                // What a clone inherits may never come when its parent is poisoned.
                let is_orphan = injected.syncs > 0 && self.has_families();
                let has_failed = is_orphan || injected.disk > 0 || self.store.faults() > 0 || injected.map_pages > 0;
                self.excuse.unavailable || (!is_look && (has_failed || is_resize))
            }
            ErrorKind::Poisoned => injected.syncs > 0 && !is_look,
            ErrorKind::Fenced | ErrorKind::Closing => false,
        }
    }
}

/// P6: a trim of whole blocks carries no data, so that a full pool has room for it.
fn is_whole_zero(wish: &Wish) -> bool {
    let block = BLOCK_BYTES / SECTOR_BYTES;
    matches!(wish, Wish::Zero { sectors, .. } if sectors.start % block == 0 && sectors.end % block == 0)
}

fn told(reply: &Reply) -> String {
    match &reply.result {
        Ok(Completion::Read { len, .. }) => format!("{len} bytes"),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error: {error}"),
    }
}
