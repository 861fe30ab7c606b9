//! The link: in order within a life on each of its two connections, one for what role machines say, and nothing of one life in another. What is cut off waits, and arrives when the cut ends before the
//! life does. Batches have a window; beyond it there is no room for them.

use super::faults::Plan;
use super::{Happening, MICROSECOND, MILLISECOND, Next, Pair};
use replication::seat;
use replication::wire::Frame;

/// Silence after which a life ends.
const SILENCE: u64 = 2000 * MILLISECOND;

/// The link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// Counts lives.
    pub(super) life: u64,
    /// Nothing arrives from this site at the other one.
    pub(super) is_cut: [bool; 2],
    stuck: [Vec<Frame>; 2],
    pub(super) delay_us: u64,
    /// When the last of what a site sent arrives, on each connection.
    arrival: [[u64; 2]; 2],
    /// Bytes of batches of this site that the other one has not consumed, and how many may be.
    bytes: [u64; 2],
    window: u64,
    wants_room: [bool; 2],
    /// Of a thousand small frames so many find no room.
    small_refused: u32,
}

impl Link {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            is_up: false,
            life: 0,
            is_cut: [false; 2],
            stuck: [Vec::new(), Vec::new()],
            delay_us: plan.delay_us,
            arrival: [[0; 2]; 2],
            bytes: [0; 2],
            window: plan.window,
            wants_room: [false; 2],
            small_refused: plan.small_refused,
        }
    }
}

impl Pair {
    /// Whether so many bytes of buffers of a site have room now; else it is told when they do.
    pub(super) fn has_room(&mut self, from: usize, bytes: u64) -> bool {
        let is_full = bytes > 0 && self.link.bytes[from] > 0 && self.link.bytes[from] + bytes > self.link.window;
        self.link.wants_room[from] |= is_full;
        !is_full
    }

    /// Sends a frame; `false` when a batch, or what is passed on, found no room.
    pub(super) fn send_frame(&mut self, from: usize, frame: Frame) -> bool {
        let bytes = frame.payload_bytes();
        if !self.is_in_life(from) {
            return true;
        }
        if !self.has_room(from, bytes) {
            return false;
        }
        let is_small = bytes == 0 && !matches!(frame, Frame::Say { .. } | Frame::Answer { .. });
        if is_small && self.random.chance(self.link.small_refused) {
            return !matches!(frame, Frame::Ask { .. });
        }
        self.link.bytes[from] += bytes;
        if self.link.is_cut[from] {
            self.link.stuck[from].push(frame);
        } else {
            self.carry(from, frame);
        }
        true
    }

    fn carry(&mut self, from: usize, frame: Frame) {
        let most = *self.random.pick(&[800, 800, 800, 8000]);
        let delay = (self.link.delay_us + self.random.within(50, most)) * MICROSECOND;
        let last = &mut self.link.arrival[from][usize::from(matches!(frame, Frame::Say { .. }))];
        let arrival = (self.time + delay).max(*last + 1);
        *last = arrival;
        let life = self.link.life;
        self.node_at(arrival, 1 - from, Next::Frame(life, Box::new(frame)));
    }

    /// A frame has arrived at `node`.
    pub(super) fn on_frame(&mut self, node: usize, life: u64, frame: Frame) {
        // What came before a site notices that the life is over counts for it.
        if self.nodes[node].link_life != Some(life) {
            return;
        }
        let bytes = frame.payload_bytes();
        if let Frame::Ask { epoch, ask, .. } = frame {
            self.on_consumed(node, bytes);
            return self.on_ask(node, epoch, *ask);
        }
        if let Frame::Answer { answer, .. } = frame {
            self.on_consumed(node, bytes);
            return self.on_answer(node, *answer);
        }
        self.tell(node, seat::Event::Frame(frame));
    }

    /// Whether a site has been told of the life that the link has.
    fn is_in_life(&self, node: usize) -> bool {
        self.link.is_up && self.nodes[node].link_life == Some(self.link.life)
    }

    /// What came from the other site has been done with at `node`.
    pub(super) fn on_consumed(&mut self, node: usize, bytes: u64) {
        let (from, life) = (1 - node, self.link.life);
        if !self.is_in_life(node) {
            return;
        }
        if self.link.bytes[from] < bytes {
            self.find(format!("P6: site {} has consumed more than was sent", node + 1));
        }
        self.link.bytes[from] = self.link.bytes[from].saturating_sub(bytes);
        if self.link.wants_room[from] && self.link.bytes[from] <= self.link.window / 2 {
            self.link.wants_room[from] = false;
            self.node_at(self.time + 200 * MICROSECOND, from, Next::Room(life));
        }
    }

    pub(super) fn cut_link(&mut self, is_cut: [bool; 2]) {
        self.link.is_cut = is_cut;
        for (from, is_cut) in is_cut.into_iter().enumerate() {
            if !is_cut {
                for frame in std::mem::take(&mut self.link.stuck[from]) {
                    self.carry(from, frame);
                }
            }
        }
        let life = self.link.life;
        if is_cut != [false; 2] {
            self.at(self.time + SILENCE, Happening::LinkLost(life));
        } else if !self.link.is_up {
            self.seek_link();
        }
    }

    pub(super) fn on_link_lost(&mut self, life: u64) {
        if self.link.life == life && self.link.is_up && self.link.is_cut != [false; 2] {
            self.end_link();
        }
    }

    /// The life ends, whatever is on its way.
    pub(super) fn end_link(&mut self) {
        if !self.link.is_up {
            return;
        }
        self.link.is_up = false;
        self.link.life += 1;
        self.link.stuck = [Vec::new(), Vec::new()];
        (self.link.bytes, self.link.wants_room, self.link.arrival) = ([0; 2], [false; 2], [[0; 2]; 2]);
        for node in 0..2 {
            self.node_at(self.time, node, Next::Link(None));
        }
        self.seek_link();
    }

    /// The sites look for each other.
    pub(super) fn seek_link(&mut self) {
        let life = self.link.life;
        let wait = self.random.within(5, 400) * MILLISECOND;
        self.at(self.time + wait, Happening::LinkUp(life));
    }

    pub(super) fn on_link_up(&mut self, life: u64) {
        let are_there = self.nodes.iter().all(|node| node.seat.is_some() && node.stalled_until <= self.time);
        if self.link.is_up || self.link.life != life {
            return;
        }
        if self.link.is_cut != [false; 2] || !are_there {
            return self.seek_link();
        }
        self.link.is_up = true;
        for node in 0..2 {
            let life = Some(self.link.life);
            self.node_at(self.time, node, Next::Link(life));
        }
    }
}
