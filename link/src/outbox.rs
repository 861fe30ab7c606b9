//! What waits for being sent on a connection, how much of it may, and what may come: all that bounds a connection's memory.
//!
//! Of batches, `queued` bytes are here and `unacknowledged` bytes are here, on their way, or at the other site and not consumed. Neither
//! exceeds its bound (the queue's, the other site's window), but for a batch that is longer than that and alone. What the link
//! itself says is a flag each, so that it needs no bound.

use replication::wire::{BATCH_BYTES_MAX, Bye, Frame, Outgoing};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// From so many bytes of frames that are no batches on, no more of them are taken on a connection.
const SMALL_BYTES_MAX: usize = 1 << 20;

/// Once one was rejected, there is room again when no more than this is left: not after each that was written.
const SMALL_BYTES_ROOM: usize = SMALL_BYTES_MAX / 2;

/// What a frame counts for among these at the least: what it takes in memory.
const SMALL_BYTES_MIN: usize = 128;

/// From so many bytes, or frames, on no more are written at once.
const WRITE_BYTES: usize = 256 << 10;
const WRITE_FRAMES: usize = 64;

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of batches that wait.
    pub(crate) queue_bytes: u64,
    /// Bytes of batches that the other site takes before it has consumed the first.
    pub(crate) peer_window: u64,
    /// The same of this site.
    pub(crate) own_window: u64,
}

/// The outbox of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    bounds: Bounds,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Outgoing>,
    small_bytes: usize,
    queued: u64,
    /// Those of them that nobody has begun to write: none of them can have arrived.
    waiting: u64,
    unacknowledged: u64,
    /// The shortest batch that was rejected, until there is room for it.
    wanted: Option<u64>,
    /// A frame that is no batch was rejected, and there is no room yet.
    is_small_wanted: bool,
    /// What was taken out is being written.
    is_writing: bool,
    /// How often that was found without progress since the last.
    stuck_ticks: u32,
    ping: Option<u64>,
    pong: Option<u64>,
    /// Nothing is sent behind it.
    bye: Option<Bye>,
    is_closed: bool,
    /// Bytes of batches that came and are not consumed.
    unconsumed: u64,
    /// Consumed, and the other site does not know.
    owed: u64,
}

/// Why a frame is not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The queue is full, or too many small frames wait.
    Room(Frame),
    /// The other site has given no credit.
    Credit(Frame),
    /// The connection is being closed.
    Closed(Frame),
}

/// What was taken out to be written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    batch_bytes: u64,
    small_bytes: usize,
    /// It ends with the last frame of the connection.
    pub(crate) is_last: bool,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame, or gives it back.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Refused> {
        let batch_bytes = frame.payload_bytes();
        let mut state = self.state();
        if state.is_closed {
            return Err(Refused::Closed(frame));
        }
        if batch_bytes > 0 {
            if !fits(state.queued, batch_bytes, self.bounds.queue_bytes) {
                state.want(batch_bytes);
                return Err(Refused::Room(frame));
            }
            if !fits(state.unacknowledged, batch_bytes, self.bounds.peer_window) {
                state.want(batch_bytes);
                return Err(Refused::Credit(frame));
            }
            state.queued += batch_bytes;
            state.waiting += batch_bytes;
            state.unacknowledged += batch_bytes;
        } else if state.small_bytes >= SMALL_BYTES_MAX {
            state.is_small_wanted = true;
            return Err(Refused::Room(frame));
        }
        let frame = Outgoing::new(frame);
        if batch_bytes == 0 {
            state.small_bytes += small_bytes(&frame);
        }
        state.frames.push_back(frame);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Asks the other site whether it is there. A question that was not sent yet stands for this one.
    pub(crate) fn ping(&self, number: u64) {
        self.state().ping.get_or_insert(number);
        self.wake.notify_one();
    }

    /// Whether a question is still to be sent.
    pub(crate) fn is_ping_waiting(&self) -> bool {
        self.state().ping.is_some()
    }

    /// Answers the newest question.
    pub(crate) fn pong(&self, number: u64) {
        self.state().pong = Some(number);
        self.wake.notify_one();
    }

    /// Drops what waits; the last thing that is sent is `bye`.
    pub(crate) fn close(&self, bye: Option<Bye>) {
        let mut state = self.state();
        state.frames.clear();
        state.is_closed = true;
        state.bye = bye;
        drop(state);
        self.wake.notify_one();
    }

    /// Waits until it is closed. Whoever writes waits for it, and for nothing else then.
    pub(crate) async fn closed(&self) {
        while !self.state().is_closed {
            self.wake.notified().await;
        }
    }

    /// Waits until there may be something to take.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Takes out what is to be written next.
    pub(crate) fn take(&self, out: &mut Vec<Outgoing>) -> Taken {
        let mut state = self.state();
        let mut taken = Taken::default();
        let owed = Some(std::mem::take(&mut state.owed)).filter(|bytes| *bytes > 0);
        let own = [
            owed.map(|bytes| Frame::Credit { bytes }),
            state.pong.take().map(|number| Frame::Pong { number }),
            state.ping.take().map(|number| Frame::Ping { number }),
            state.bye.take().map(Frame::Bye),
        ];
        taken.is_last = state.is_closed;
        out.extend(own.into_iter().flatten().map(Outgoing::new));
        taken.bytes = out.iter().map(Outgoing::len).sum();
        while taken.bytes < WRITE_BYTES && out.len() < WRITE_FRAMES {
            let Some(frame) = state.frames.pop_front() else { break };
            taken.bytes += frame.len();
            match frame.payload_bytes() {
                0 => taken.small_bytes += small_bytes(&frame),
                bytes => taken.batch_bytes += bytes,
            }
            out.push(frame);
        }
        state.waiting -= taken.batch_bytes;
        state.is_writing = !out.is_empty();
        state.stuck_ticks = 0;
        taken
    }

    /// What was taken has been written. Whether there is room again where some was missing.
    pub(crate) fn wrote(&self, taken: Taken) -> bool {
        let mut state = self.state();
        state.is_writing = false;
        state.stuck_ticks = 0;
        state.queued -= taken.batch_bytes;
        state.small_bytes -= taken.small_bytes;
        self.tells_room(&mut state)
    }

    /// Some of what was taken has left, or the other site says that some has come.
    pub(crate) fn progressed(&self) {
        self.state().stuck_ticks = 0;
    }

    /// Time has passed: how many times in a row what is being written has not moved. It counts times and not time, so that a
    /// process that was stopped does not take its own sleep for the other site's.
    pub(crate) fn tick(&self) -> u32 {
        let mut state = self.state();
        state.stuck_ticks += u32::from(state.is_writing);
        state.stuck_ticks
    }

    /// The other site has consumed so much of what was sent. Whether there is room again where some was missing;
    /// nothing where it was never sent.
    pub(crate) fn credit(&self, bytes: u64) -> Option<bool> {
        let mut state = self.state();
        let sent = state.unacknowledged - state.waiting;
        state.unacknowledged -= Some(bytes).filter(|bytes| *bytes <= sent)?;
        Some(self.tells_room(&mut state))
    }

    /// Bytes of batches that the other site has not consumed, with those that wait here.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.state().unacknowledged
    }

    /// How long a batch may be that comes now.
    pub(crate) fn incoming_max(&self) -> u64 {
        let state = self.state();
        match state.unconsumed + state.owed {
            0 => self.bounds.own_window.max(BATCH_BYTES_MAX as u64),
            outstanding => self.bounds.own_window.saturating_sub(outstanding),
        }
    }

    /// A batch has come.
    pub(crate) fn received(&self, bytes: u64) {
        self.state().unconsumed += bytes;
    }

    /// So much of what came is consumed. Rides along with what is sent next, and is sent by itself once it is a quarter of the window.
    pub(crate) fn consumed(&self, bytes: u64) {
        let mut state = self.state();
        debug_assert!(bytes <= state.unconsumed, "{bytes} bytes consumed of {}", state.unconsumed);
        let bytes = bytes.min(state.unconsumed);
        state.unconsumed -= bytes;
        state.owed += bytes;
        let is_due = state.owed >= self.bounds.own_window / 4;
        drop(state);
        if is_due {
            self.wake.notify_one();
        }
    }

    /// Whether there is room for what was rejected, which is told once.
    fn tells_room(&self, state: &mut State) -> bool {
        let Bounds { queue_bytes, peer_window, .. } = self.bounds;
        let (queued, unacknowledged) = (state.queued, state.unacknowledged);
        let has_room = |bytes| fits(queued, bytes, queue_bytes) && fits(unacknowledged, bytes, peer_window);
        if state.is_closed {
            return false;
        }
        let is_small_told = state.is_small_wanted && state.small_bytes <= SMALL_BYTES_ROOM;
        state.is_small_wanted &= !is_small_told;
        let is_told = state.wanted.take_if(|bytes| has_room(*bytes)).is_some();
        is_told || is_small_told
    }
}

impl State {
    fn want(&mut self, bytes: u64) {
        self.wanted = Some(self.wanted.map_or(bytes, |wanted| wanted.min(bytes)));
    }
}

/// Whether so many more bytes are within a bound; what is alone always is.
const fn fits(held: u64, more: u64, bound: u64) -> bool {
    held == 0 || held.saturating_add(more) <= bound
}

fn small_bytes(frame: &Outgoing) -> usize {
    frame.len().max(SMALL_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::wire::{ByeCode, Text};
    use units::{Epoch, GroupId, Lsn};
    use volume::buffer::Buffer;

    fn outbox(queue_bytes: u64, window: u64) -> Outbox {
        Outbox::new(Bounds { queue_bytes, peer_window: window, own_window: window })
    }

    fn batch(blocks: usize) -> Frame {
        Frame::Batch { group: GroupId(1), epoch: Epoch(1), buffers: vec![Buffer::zeroed(blocks * 4096)] }
    }

    fn small() -> Frame {
        Frame::MakeDurable { group: GroupId(1), epoch: Epoch(1), lsn: Lsn(1) }
    }

    fn write(outbox: &Outbox) -> (usize, bool) {
        let mut out = Vec::new();
        let taken = outbox.take(&mut out);
        (out.len(), outbox.wrote(taken))
    }

    #[test]
    fn no_more_is_sent_than_the_window_before_it_is_consumed() {
        let outbox = outbox(1 << 20, 8192);
        outbox.push(batch(1)).unwrap();
        outbox.push(batch(1)).unwrap();
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Credit(_))));
        assert_eq!(write(&outbox), (2, false));
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Credit(Frame::Batch { .. }))));
        assert_eq!(outbox.credit(4096), Some(true));
        outbox.push(batch(1)).unwrap();
        assert_eq!(outbox.unacknowledged(), 8192);
        assert_eq!(outbox.credit(8192), None, "one of them was not sent yet");
        let mut out = Vec::new();
        outbox.take(&mut out);
        assert_eq!(outbox.credit(8192), Some(false), "what is being written may have arrived");
    }

    #[test]
    fn no_more_waits_than_the_queue_holds() {
        let outbox = outbox(8192, 1 << 20);
        outbox.push(batch(2)).unwrap();
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Room(_))));
        let mut out = Vec::new();
        let taken = outbox.take(&mut out);
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Room(_))), "it is not written yet");
        assert!(outbox.wrote(taken));
        outbox.push(batch(1)).unwrap();
    }

    #[test]
    fn a_batch_longer_than_any_bound_goes_alone() {
        let outbox = outbox(8192, 8192);
        outbox.push(batch(5)).unwrap();
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Room(_))));
        write(&outbox);
        assert!(matches!(outbox.push(batch(1)), Err(Refused::Credit(_))));
        assert_eq!(outbox.credit(5 * 4096), Some(true));
        outbox.push(batch(1)).unwrap();
        assert!(matches!(outbox.push(batch(5)), Err(Refused::Room(_))));
    }

    #[test]
    fn small_frames_have_a_bound_of_their_own() {
        let outbox = outbox(4096, 4096);
        outbox.push(batch(1)).unwrap();
        for _ in 0..SMALL_BYTES_MAX / SMALL_BYTES_MIN {
            outbox.push(small()).unwrap();
        }
        for _ in 0..2 {
            assert!(matches!(outbox.push(small()), Err(Refused::Room(Frame::MakeDurable { .. }))));
        }
        let (mut written, mut told) = (0, Vec::new());
        loop {
            let (frames, has_room) = write(&outbox);
            if frames == 0 {
                break;
            }
            written += 1;
            told.extend(has_room.then_some(written));
        }
        assert!(written > 100, "written in bounded parts");
        // Once, when half of them are written.
        assert_eq!(told, [(written + 1) / 2]);
        outbox.push(small()).unwrap();
        assert_eq!(write(&outbox), (1, false), "nothing was rejected since");
    }

    #[test]
    fn what_the_link_says_itself_has_room_at_the_bound() {
        let outbox = outbox(4096, 4096);
        while outbox.push(small()).is_ok() {}
        outbox.received(4096);
        outbox.consumed(4096);
        outbox.pong(1);
        outbox.ping(2);
        let mut out = Vec::new();
        outbox.take(&mut out);
        let kinds: Vec<u8> = out.iter().take(4).map(|frame| frame.slices().next().unwrap()[0]).collect();
        assert_eq!(kinds, [8, 10, 9, 5], "credit, pong and ping before what waits");
        outbox.close(Some(Bye { code: ByeCode::Backlog, text: Text::default() }));
        out.clear();
        assert!(outbox.take(&mut out).is_last && out.len() == 1);
    }

    #[test]
    fn only_what_is_being_written_and_does_not_move_is_stuck() {
        let outbox = outbox(4096, 4096);
        outbox.push(small()).unwrap();
        assert_eq!([outbox.tick(), outbox.tick()], [0, 0], "nobody has begun to write it");
        let mut out = Vec::new();
        let taken = outbox.take(&mut out);
        assert_eq!([outbox.tick(), outbox.tick()], [1, 2]);
        outbox.progressed();
        assert_eq!(outbox.tick(), 1);
        outbox.wrote(taken);
        assert_eq!(outbox.tick(), 0);
    }

    #[test]
    fn credit_is_given_back_with_what_is_sent_next() {
        let outbox = outbox(1 << 20, 65536);
        assert_eq!(outbox.incoming_max(), BATCH_BYTES_MAX as u64);
        outbox.received(8192);
        assert_eq!(outbox.incoming_max(), 57344);
        outbox.consumed(8192);
        assert_eq!(outbox.incoming_max(), 57344, "the other site does not know yet");
        outbox.push(small()).unwrap();
        assert_eq!(write(&outbox).0, 2);
        assert_eq!(outbox.incoming_max(), BATCH_BYTES_MAX as u64);
    }

    #[test]
    fn what_the_link_says_itself_does_not_pile_up() {
        let outbox = outbox(4096, 4096);
        for number in 0..1000 {
            outbox.ping(number);
            outbox.pong(number);
        }
        let mut out = Vec::new();
        outbox.take(&mut out);
        let said: Vec<u8> = out.iter().flat_map(Outgoing::slices).flatten().copied().collect();
        assert_eq!((out.len(), said[0], said[24], said[32], said[56]), (2, 10, 231, 9, 0));
    }

    #[test]
    fn the_last_thing_that_is_sent_is_the_farewell() {
        let outbox = outbox(4096, 4096);
        outbox.push(batch(1)).unwrap();
        outbox.close(Some(Bye { code: ByeCode::Closing, text: Text::new("bye") }));
        assert!(matches!(outbox.push(small()), Err(Refused::Closed(_))));
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).is_last);
        assert_eq!(out.len(), 1);
    }
}
