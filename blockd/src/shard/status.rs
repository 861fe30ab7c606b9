//! Block status: one answer of what each of the contexts tells that a client has selected.

use super::Shard;
use super::requests::Origin;
use crate::nbd::{Asked, EXTENTS_MAX, Phase, StatusContext, StatusPart, status_part};
use units::ByteRange;
use volume::error::Error;
use volume::request::{Completion, Request};

/// A request of which some contexts are not answered.
#[derive(Debug)]
pub(super) struct Gathering {
    /// The connection.
    key: usize,
    asked: Asked,
    held_bytes: u64,
    open_count: usize,
    parts: Vec<StatusPart>,
    failed: Option<Error>,
}

impl Shard {
    /// Asks the volume what each context of a connection wants to tell; they share the extents that one answer may hold.
    pub(super) fn begin_status(&mut self, (key, held_bytes): (usize, u64), asked: Asked, range: ByteRange) {
        let Some(connection) = self.connections.get(key) else { return };
        let (volume, contexts) = (connection.volume, connection.contexts.clone());
        let parts = contexts.iter().map(|context| StatusPart { context_id: context.id, extents: Vec::new() });
        let (parts, open_count) = (parts.collect(), contexts.len());
        let gathering = Gathering { key, asked, held_bytes, open_count, parts, failed: None };
        let place = self.statuses.insert(gathering);
        let extents_max = if asked.one_extent { 1 } else { (EXTENTS_MAX / open_count.max(1)).max(1) };
        for StatusContext { id, since } in contexts {
            let request = match since {
                None => Request::Extents { range, extents_max },
                Some(since) => Request::Changed { since, range, extents_max },
            };
            self.begin(volume, request, Origin::Status { key: place, context_id: id });
        }
    }

    /// Takes what one context tells; the last one answers the request.
    pub(super) fn take_status(&mut self, place: usize, context_id: u32, result: Result<Completion, Error>) {
        let Some(gathering) = self.statuses.get_mut(place) else { return };
        gathering.open_count -= 1;
        match result {
            Ok(answer) => {
                if let Some(part) = gathering.parts.iter_mut().find(|part| part.context_id == context_id) {
                    *part = status_part(context_id, &answer);
                }
            }
            Err(error) => gathering.failed = Some(error),
        }
        if gathering.open_count == 0 {
            let gathering = self.statuses.remove(place);
            self.answer_status(gathering);
        }
    }

    fn answer_status(&mut self, gathering: Gathering) {
        let Gathering { key, asked, held_bytes, parts, failed, .. } = gathering;
        let connection = self.connections.get_mut(key).expect("a connection outlives its requests");
        connection.requests -= 1;
        let is_kept = connection.phase != Phase::Dead && failed.is_none();
        if connection.phase != Phase::Dead {
            let answer = failed.map_or(Ok(parts.as_slice()), Err);
            connection.replies.push_status(asked, if is_kept { held_bytes } else { 0 }, answer);
        }
        if !is_kept {
            self.release(key, held_bytes);
        }
        self.note_news(key);
    }
}
