//! The site that does not lead: what it has passed on, and what comes of that.

use super::{Answer, Ask, FAILS_AFTER, LATE_AFTER, OPEN_BYTES_MAX, OPEN_MAX, Outcome, weight};
use crate::controls::{Safeguard, is_missing};
use std::collections::BTreeMap;
use std::time::Duration;
use units::{BLOCK_BYTES, Monotonic};
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Extent, Request};

/// A request that waits for a role, or for being passed on; the driver knows by `K` whose it is.
#[derive(Debug)]
pub struct Held<K> {
    /// Whose it is.
    pub key: K,
    /// What is wanted.
    pub request: Request,
    /// When it came from its client.
    arrived: Monotonic,
    /// The other site may yet begin it up to then, or have done so.
    tried_until: Option<Monotonic>,
}

impl<K> Held<K> {
    /// One that comes from its client now.
    pub const fn new(now: Monotonic, key: K, request: Request) -> Self {
        Self { key, request, arrived: now, tried_until: None }
    }

    /// S7. Whether its client may be told that it failed: the other site will not begin it any more.
    #[must_use]
    pub fn may_fail(&self, now: Monotonic) -> bool {
        self.tried_until.is_none_or(|until| until <= now)
    }

    /// Whether it can only fail: it may have been done, and would find its own bytes.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.tried_until.is_some() && matches!(self.request, Request::CompareAndWrite { .. })
    }
}

/// What has come of a request.
#[derive(Debug)]
pub enum Came<K> {
    /// It is answered. The request comes back for its buffers.
    Answered(K, Result<Completion, Error>, Request),
    /// It is to be asked for again, or begun here when this site leads by now.
    Again {
        /// Which.
        held: Held<K>,
        /// Whether without a pause.
        at_once: bool,
    },
}

/// A request that was passed on.
#[derive(Debug)]
struct Open<K> {
    held: Held<K>,
    asked_at: Monotonic,
}

/// Requests that were passed on.
#[derive(Debug)]
pub struct Asker<K> {
    next_number: u64,
    /// The newest that the other site has told in this life of the link, and when.
    tick: Option<(u64, Monotonic)>,
    /// By their numbers, so in the order in which they were asked for.
    open: BTreeMap<u64, Open<K>>,
    open_bytes: u64,
}

impl<K> Default for Asker<K> {
    fn default() -> Self {
        Self { next_number: 1, tick: None, open: BTreeMap::new(), open_bytes: 0 }
    }
}

impl<K> Asker<K> {
    /// Whether a request may be passed on now; else it waits for the answers of others.
    #[must_use]
    pub fn has_room_for(&self, request: &Request) -> bool {
        let bytes = self.open_bytes.saturating_add(weight(request));
        self.open.is_empty() || self.open.len() < OPEN_MAX && bytes <= OPEN_BYTES_MAX
    }

    /// S7. Whether the other site could take it for in time; else it is not passed on any more.
    #[must_use]
    pub(super) fn is_in_time(&self, now: Monotonic, held: &Held<K>) -> bool {
        self.waited(now, held) <= LATE_AFTER || is_missing(Safeguard::InTime)
    }

    /// How long its client had waited when the newest tick came, or has until now.
    fn waited(&self, now: Monotonic, held: &Held<K>) -> Duration {
        self.tick.map_or(now, |(_, heard)| heard).since(held.arrived)
    }

    /// The question that asks for a request, which is kept until it is answered.
    ///
    /// # Errors
    /// The request, when it is none that is passed on.
    pub fn ask(&mut self, now: Monotonic, held: Held<K>) -> Result<Ask, Box<Held<K>>> {
        let Some(ask) = Ask::of(&held.request) else { return Err(Box::new(held)) };
        let (tick, number) = (self.tick.map_or(0, |(tick, _)| tick), self.next_number);
        // Rounded up, and all that is too long alike.
        let waited = self.waited(now, &held).as_millis();
        let waited_ms = u16::try_from(waited).map_or(u16::MAX, |waited| waited.saturating_add(1));
        self.next_number += 1;
        self.open_bytes += weight(&held.request);
        self.open.insert(number, Open { held, asked_at: now });
        Ok(Ask { number, tick, waited_ms, ..ask })
    }

    /// The question was not sent: there was no room for it. Gives the request back.
    pub fn take_back(&mut self, number: u64) -> Option<Held<K>> {
        self.close(number).map(|open| open.held)
    }

    fn close(&mut self, number: u64) -> Option<Open<K>> {
        let open = self.open.remove(&number)?;
        self.open_bytes -= weight(&open.held.request);
        Some(open)
    }

    /// The other site has answered; nothing comes of what was not asked, or has ended.
    pub fn on_answer(&mut self, now: Monotonic, answer: Answer) -> Option<Came<K>> {
        self.tick = Some((answer.tick, now));
        let Open { mut held, .. } = self.close(answer.number)?;
        let result = match answer.outcome {
            Outcome::NotHere => return Some(Came::Again { held, at_once: false }),
            Outcome::Stale => return Some(Came::Again { held, at_once: true }),
            Outcome::Lost => {
                held.tried_until = held.tried_until.max(Some(now));
                return Some(Came::Again { held, at_once: true });
            }
            Outcome::Failed(error) => Err(error),
            Outcome::Done => Ok(Completion::Done),
            Outcome::Read { buffer, skip, len } => {
                Ok(Completion::Read { buffer, skip: skip as usize, len: len as usize })
            }
            Outcome::Miscompare { at } => Ok(Completion::Miscompare { at }),
            Outcome::Extents(extents) => Ok(Completion::Extents(extents)),
        };
        let result = result.and_then(|completion| {
            let unfit = || Error::new(ErrorKind::Unavailable, "the other site answered something else than was asked");
            if is_answer_to(&held.request, &completion) { Ok(completion) } else { Err(unfit()) }
        });
        Some(Came::Answered(held.key, result, held.request))
    }

    /// Whose requests are passed on.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.open.values().map(|open| &open.held.key)
    }

    /// Those that are to end, whatever becomes of them: their answers are nobody's then.
    pub fn take_if(&mut self, mut is_to_end: impl FnMut(&K) -> bool) -> Vec<Held<K>> {
        let ending: Vec<u64> =
            self.open.iter().filter(|(_, open)| is_to_end(&open.held.key)).map(|(number, _)| *number).collect();
        ending.into_iter().filter_map(|number| self.take_back(number)).collect()
    }

    /// No answer comes any more: the link is down. All that was asked, in its order.
    pub fn take_all(&mut self) -> Vec<Held<K>> {
        (self.tick, self.open_bytes) = (None, 0);
        let tried = |Open { mut held, asked_at }| {
            held.tried_until = held.tried_until.max(Some(asked_at.plus(FAILS_AFTER)));
            held
        };
        std::mem::take(&mut self.open).into_values().map(tried).collect()
    }
}

/// Whether it can be the answer.
fn is_answer_to(request: &Request, completion: &Completion) -> bool {
    match (request, completion) {
        (Request::Read { range }, Completion::Read { buffer, skip, len }) => {
            let is_there = skip.checked_add(*len).is_some_and(|end| end <= buffer.len());
            // Whoever asked has memory for the range, and for the rest of its first and last block.
            let is_short = buffer.len() as u64 <= range.len() + 2 * BLOCK_BYTES;
            *len as u64 == range.len() && is_there && is_short
        }
        (Request::CompareAndWrite { range, .. }, Completion::Miscompare { at }) => *at < range.len(),
        (Request::Extents { range, extents_max }, Completion::Extents(extents)) => {
            let sum = extents.iter().try_fold(0_u64, |sum, Extent { len, .. }| sum.checked_add(*len));
            let is_whole = extents.iter().all(|extent| extent.len > 0);
            is_whole && (1..=*extents_max).contains(&extents.len()) && sum.is_some_and(|sum| sum <= range.len())
        }
        (Request::Read { .. } | Request::Extents { .. }, _) => false,
        (_, completion) => matches!(completion, Completion::Done),
    }
}
