//! Requests that wait for their replies, and the replies as they gather.

use super::NbdError;
use proto::nbd::client::{Body, Reply};
use proto::nbd::{Cookie, StatusExtent};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most chunks of one reply: a read of 1 MiB that changes between data and holes with every sector has half as many.
const CHUNKS_MAX: u32 = 4096;

/// What a whole reply brings.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing but that it was done.
    Done,
    /// What was read.
    Data(Vec<u8>),
    /// What is where.
    Extents(Vec<StatusExtent>),
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Pending {
    command: &'static str,
    offset: u64,
    answer: Answer,
    /// What has come of the data: the end of each part by its start.
    filled: BTreeMap<usize, usize>,
    chunks: u32,
    errno: Option<u32>,
    done: oneshot::Sender<Result<Answer, NbdError>>,
}

/// Every request on its way.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<u64, Pending>,
    next: u64,
    failure: Option<NbdError>,
    heard_at: Option<Instant>,
}

impl Waiting {
    /// Gives a request its cookie, unless the connection has failed.
    pub(super) fn add(&self, pending: Pending) -> Result<Cookie, NbdError> {
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let cookie = state.next;
        state.next += 1;
        state.pending.insert(cookie, pending);
        Ok(Cookie(cookie))
    }

    /// Fails every request, and all that come later.
    pub(super) fn fail(&self, failure: &NbdError) {
        let mut state = self.lock();
        let failure = state.failure.get_or_insert_with(|| failure.clone()).clone();
        for (_, pending) in std::mem::take(&mut state.pending) {
            // Whoever asked may have gone.
            let _ = pending.done.send(Err(failure.clone()));
        }
    }

    /// Notes that something came from the server.
    pub(super) fn hear(&self) {
        self.lock().heard_at = Some(Instant::now());
    }

    /// When something last came from the server.
    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.lock().heard_at
    }

    /// How many bytes a simple reply brings.
    pub(super) fn data_len(&self, cookie: Cookie) -> usize {
        match self.lock().pending.get(&cookie.0).map(|pending| &pending.answer) {
            Some(Answer::Data(buffer)) => buffer.len(),
            Some(Answer::Done | Answer::Extents(_)) | None => 0,
        }
    }

    /// Takes one reply or chunk; the last one ends its request.
    pub(super) fn take(&self, reply: Reply, allocation: Option<u32>) -> Result<(), NbdError> {
        let mut state = self.lock();
        let pending = state.pending.get_mut(&reply.cookie.0).ok_or_else(|| broken("a reply is to no request"))?;
        pending.take(reply.body, allocation)?;
        if reply.is_last
            && let Some(pending) = state.pending.remove(&reply.cookie.0)
        {
            pending.finish()?;
        }
        Ok(())
    }

    // A panic while the lock is held leaves no request half changed that another would look at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    pub(super) const fn new(
        (command, offset): (&'static str, u64),
        answer: Answer,
        done: oneshot::Sender<Result<Answer, NbdError>>,
    ) -> Self {
        Self { command, offset, answer, filled: BTreeMap::new(), chunks: 0, errno: None, done }
    }

    fn take(&mut self, body: Body, allocation: Option<u32>) -> Result<(), NbdError> {
        self.chunks += 1;
        if self.chunks > CHUNKS_MAX {
            return Err(broken("a reply does not end"));
        }
        match (body, &mut self.answer) {
            (Body::None, _) => {}
            (Body::Simple { error: 0, data }, Answer::Data(_)) => {
                self.part(self.offset, data.len())?.copy_from_slice(&data);
            }
            (Body::Simple { error: 0, .. }, Answer::Done) => {}
            (Body::Simple { error, .. } | Body::Error { error, .. }, _) if error != 0 => {
                self.errno.get_or_insert(error);
            }
            (Body::Data { at, data }, Answer::Data(_)) => self.part(at, data.len())?.copy_from_slice(&data),
            (Body::Hole { at, len_bytes }, Answer::Data(_)) => {
                let len = usize::try_from(len_bytes).map_err(|_| broken("a hole is too long"))?;
                self.part(at, len)?.fill(0);
            }
            (Body::Status { context_id, extents }, Answer::Extents(found)) => {
                if Some(context_id) != allocation || !found.is_empty() {
                    return Err(broken("extents are of another context, or come twice"));
                }
                *found = extents;
            }
            _ => return Err(broken("a reply does not fit its request")),
        }
        Ok(())
    }

    /// The part of the buffer that a chunk fills, which no other one does.
    fn part(&mut self, at: u64, len: usize) -> Result<&mut [u8], NbdError> {
        let outside = || broken("data lies outside of what was asked for");
        let from = at.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok()).ok_or_else(outside)?;
        let end = from.checked_add(len).ok_or_else(outside)?;
        let Answer::Data(buffer) = &mut self.answer else { return Err(outside()) };
        let part = buffer.get_mut(from..end).ok_or_else(outside)?;
        if self.filled.range(..end).next_back().is_some_and(|(_, filled_to)| *filled_to > from) {
            return Err(broken("data comes twice"));
        }
        self.filled.insert(from, end);
        Ok(part)
    }

    /// Ends the request; what its reply lacks is the server's fault and ends the connection.
    fn finish(self) -> Result<(), NbdError> {
        let Self { command, offset, answer, filled, errno, done, .. } = self;
        let is_whole = match &answer {
            Answer::Done => true,
            Answer::Data(buffer) => filled.iter().map(|(from, end)| end - from).sum::<usize>() == buffer.len(),
            Answer::Extents(extents) => !extents.is_empty(),
        };
        let result = match errno {
            Some(errno) => Err(NbdError::Refused { command, offset, errno }),
            None if is_whole => Ok(answer),
            None => Err(broken("a reply ends before all has come")),
        };
        let failure = result.as_ref().err().filter(|error| matches!(error, NbdError::Protocol(_))).cloned();
        // Whoever asked may have gone.
        let _ = done.send(result);
        failure.map_or(Ok(()), Err)
    }
}

fn broken(what: &str) -> NbdError {
    NbdError::Protocol(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(answer: Answer) -> (Waiting, Cookie, oneshot::Receiver<Result<Answer, NbdError>>) {
        let waiting = Waiting::default();
        let (done, answered) = oneshot::channel();
        let pending = Pending::new(("read", 100), answer, done);
        let cookie = waiting.add(pending).unwrap();
        (waiting, cookie, answered)
    }

    const fn chunk(cookie: Cookie, body: Body, is_last: bool) -> Reply {
        Reply { cookie, offset: None, is_last, body }
    }

    #[test]
    fn chunks_in_any_order_make_one_answer() {
        let (waiting, cookie, mut answered) = waiting(Answer::Data(vec![9; 6]));
        assert_eq!(waiting.data_len(cookie), 6);
        waiting.take(chunk(cookie, Body::Hole { at: 104, len_bytes: 2 }, false), None).unwrap();
        waiting.take(chunk(cookie, Body::Data { at: 100, data: vec![1, 2, 3, 4] }, false), None).unwrap();
        waiting.take(chunk(cookie, Body::None, true), None).unwrap();
        let Ok(Answer::Data(data)) = answered.try_recv().unwrap() else { panic!("no data") };
        assert_eq!(data, [1, 2, 3, 4, 0, 0]);
        assert!(waiting.take(chunk(cookie, Body::None, true), None).is_err(), "it is answered already");
    }

    #[test]
    fn data_outside_of_what_was_asked_for_breaks_the_connection() {
        for body in [
            Body::Data { at: 99, data: vec![1] },
            Body::Data { at: 105, data: vec![1, 2] },
            Body::Hole { at: 106, len_bytes: 1 },
            Body::Data { at: u64::MAX, data: vec![1] },
            Body::Status { context_id: 0, extents: Vec::new() },
        ] {
            let (waiting, cookie, _answered) = waiting(Answer::Data(vec![0; 6]));
            assert!(matches!(waiting.take(chunk(cookie, body, false), Some(0)), Err(NbdError::Protocol(_))));
        }
        let (waiting, cookie, mut answered) = waiting(Answer::Data(vec![0; 6]));
        waiting.take(chunk(cookie, Body::Data { at: 100, data: vec![1] }, true), None).unwrap_err();
        assert!(matches!(answered.try_recv().unwrap(), Err(NbdError::Protocol(_))), "it is not whole");
    }

    /// P2. Two chunks for the same bytes do not make up for bytes that never came, and a reply ends some time.
    #[test]
    fn data_that_comes_twice_or_without_end_breaks_the_connection() {
        for again in [
            Body::Data { at: 100, data: vec![1, 2, 3] },
            Body::Data { at: 102, data: vec![1, 2, 3, 4] },
            Body::Hole { at: 101, len_bytes: 1 },
            Body::Hole { at: 100, len_bytes: 6 },
        ] {
            let (waiting, cookie, _answered) = waiting(Answer::Data(vec![0; 6]));
            waiting.take(chunk(cookie, Body::Data { at: 100, data: vec![1, 2, 3] }, false), None).unwrap();
            assert!(matches!(waiting.take(chunk(cookie, again, true), None), Err(NbdError::Protocol(_))));
        }
        let (waiting, cookie, _answered) = waiting(Answer::Data(vec![0; 6]));
        let error = || chunk(cookie, Body::Error { error: 5, message: Vec::new(), at: Some(101) }, false);
        let taken = (0..2 * CHUNKS_MAX).take_while(|_| waiting.take(error(), None).is_ok()).count();
        assert_eq!(taken, CHUNKS_MAX as usize);
    }

    #[test]
    fn extents_are_of_the_context_that_was_asked_for_and_come_once() {
        let status = |context_id| Body::Status { context_id, extents: vec![StatusExtent { len_bytes: 1, status: 0 }] };
        let (one, cookie, _answered) = waiting(Answer::Extents(Vec::new()));
        assert!(one.take(chunk(cookie, status(8), true), Some(7)).is_err());
        let (one, cookie, _answered) = waiting(Answer::Extents(Vec::new()));
        one.take(chunk(cookie, status(7), false), Some(7)).unwrap();
        assert!(one.take(chunk(cookie, status(7), true), Some(7)).is_err());
    }

    #[test]
    fn an_error_is_told_with_what_was_asked() {
        let (waiting, cookie, mut answered) = waiting(Answer::Data(vec![0; 6]));
        waiting.take(chunk(cookie, Body::Error { error: 5, message: Vec::new(), at: Some(101) }, true), None).unwrap();
        let error = answered.try_recv().unwrap().unwrap_err();
        assert_eq!(error, NbdError::Refused { command: "read", offset: 100, errno: 5 });
        assert!(error.to_string().contains("Input/output error"), "{error}");
    }

    #[test]
    fn a_lost_connection_fails_what_waits_and_what_comes() {
        let (waiting, _, mut answered) = waiting(Answer::Done);
        let lost = NbdError::Lost("reset".to_owned());
        waiting.fail(&lost);
        waiting.fail(&NbdError::Protocol("later".to_owned()));
        assert_eq!(answered.try_recv().unwrap().unwrap_err(), lost);
        let (done, _) = oneshot::channel();
        let pending = Pending::new(("flush", 0), Answer::Done, done);
        assert_eq!(waiting.add(pending).unwrap_err(), lost);
    }
}
