//! What clients want of a site: it is begun, waits for a role, is passed on to the other site, or ends.

use super::clients::{Request, Wish};
use super::node::Origin;
use super::{MILLISECOND, Pair};
use crate::mirror::clients::Answer as ToClient;
use crate::twins::site::block_of;
use replication::passing::{Answer, Answerer, Ask, Came, Held, Turn, Whose};
use replication::seat::Admission;
use replication::wire::Frame;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, Epoch};
use volume::buffer::Buffer;
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, RequestId};

/// After a question that the other site does not take, none is asked for so long.
const ASK_AGAIN: u64 = 50 * MILLISECOND;

impl Pair {
    pub(super) fn on_request(&mut self, node: usize, request: Request) {
        if !self.is_current(&request) {
            // Its connection is closed, and a newer one has fenced it (S7).
            return;
        }
        let now = self.nodes[node].clock(self.time);
        let held = Held::new(now, Origin::Client(request), self.asked(&request));
        self.nodes[node].waiting.push_back(held);
        self.go_on(node);
    }

    fn asked(&self, request: &Request) -> volume::request::Request {
        let fua = self.is_durable;
        let range = |block: u8| ByteRange::new(u64::from(block) * BLOCK_BYTES, BLOCK_BYTES).unwrap();
        let part = |block: u8, [first, second]: [bool; 2]| {
            let half = BLOCK_BYTES / 2;
            let start = u64::from(block) * BLOCK_BYTES + if first { 0 } else { half };
            ByteRange::new(start, if first && second { BLOCK_BYTES } else { half }).unwrap()
        };
        match request.wish {
            Wish::Write { block, value, halves } => {
                let range = part(block, halves);
                let bytes = block_of(value);
                let payload = std::iter::once(Buffer::copy_of(&bytes[..range.len() as usize])).collect();
                volume::request::Request::Write { range, payload, fua }
            }
            Wish::Read { block } => volume::request::Request::Read { range: range(block) },
            Wish::Flush => volume::request::Request::Flush,
        }
    }

    pub(super) fn admission(&self, node: usize) -> Admission {
        let one = &self.nodes[node];
        match (&one.seat, &one.site.volume) {
            (Some(seat), Some(_)) => seat.admits(),
            (Some(_), None) => Admission::Wait,
            (None, _) => Admission::Refuse,
        }
    }

    /// Does with what waits as the role has it.
    pub(super) fn go_on(&mut self, node: usize) {
        let admission = self.admission(node);
        if matches!(admission, Admission::Pass | Admission::Refuse) {
            self.end_begun(node);
        }
        if admission == Admission::Wait {
            return;
        }
        let mut is_full = self.time < self.nodes[node].ask_again_at;
        for held in std::mem::take(&mut self.nodes[node].waiting) {
            let whose = match held.key {
                Origin::Client(request) if self.is_current(&request) => Whose::Own,
                Origin::Client(_) => continue,
                Origin::Guest(_) => Whose::Guest,
            };
            let one = &mut self.nodes[node];
            let now = one.clock(self.time);
            match one.asker.turn(now, admission, &held, whose) {
                Turn::Begin => self.admit(node, held.key, held.request),
                Turn::PassOn => {
                    is_full = is_full || !one.asker.has_room_for(&held.request);
                    let back = if is_full { Some(held) } else { self.pass_on(node, held) };
                    is_full = back.is_some();
                    self.nodes[node].waiting.extend(back);
                }
                Turn::Fail => {
                    self.end(node, held.key, Err(Error::new(ErrorKind::Fenced, "nobody is known to lead")));
                }
                Turn::GiveBack => {
                    if let Origin::Guest(guest) = held.key {
                        one.answerer.close(guest);
                        self.send_answer(node, Answerer::give_back(now, guest));
                    }
                }
                Turn::Wait => one.waiting.push_back(held),
            }
        }
    }

    fn admit(&mut self, node: usize, origin: Origin, request: volume::request::Request) {
        let one = &mut self.nodes[node];
        one.next_request += 1;
        let id = RequestId(one.next_request);
        one.asked.insert(id, (origin, one.clock(self.time)));
        self.give(node, volume::io::Event::Request { id, request });
    }

    /// Ends what was begun, by a site that does not lead any more: nobody knows what becomes of it.
    pub(super) fn end_begun(&mut self, node: usize) {
        for origin in self.nodes[node].take_begun() {
            let fenced = Err(Error::new(ErrorKind::Fenced, "it leads no more"));
            self.end(node, origin, fenced);
        }
    }

    /// A request has ended, or what it has read may be shown.
    pub(super) fn end(&mut self, node: usize, origin: Origin, result: Result<Completion, Error>) {
        match origin {
            Origin::Client(request) => self.show(&request, result),
            Origin::Guest(guest) => {
                let now = self.nodes[node].clock(self.time);
                self.nodes[node].answerer.close(guest);
                self.send_answer(node, Answerer::answer(now, guest, result));
            }
        }
    }

    fn show(&mut self, request: &Request, result: Result<Completion, Error>) {
        let answer = match (request.wish, result) {
            (Wish::Read { block }, Ok(Completion::Read { buffer, skip, .. })) => {
                let bytes = &buffer.as_slice()[skip..skip + BLOCK_LEN];
                let halves = [0, BLOCK_LEN / 2].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
                let whole = halves.map(|value| block_of(value)[..BLOCK_LEN / 2].to_vec()).concat();
                if bytes != whole {
                    self.find(format!("P3: block {block} is torn"));
                }
                ToClient::Content(self.value_of(block, halves))
            }
            (Wish::Write { .. } | Wish::Flush, Ok(Completion::Done)) => ToClient::Done,
            (wish, Ok(other)) => return self.find(format!("P2: {wish:?} is answered by {other:?}")),
            (_, Err(_)) => ToClient::Refused,
        };
        self.reply(*request, answer);
    }

    /// Passes a request on; gives it back when there is no room for it.
    fn pass_on(&mut self, node: usize, held: Held<Origin>) -> Option<Held<Origin>> {
        let now = self.nodes[node].clock(self.time);
        let one = &mut self.nodes[node];
        let (group, epoch) = (one.config.group, one.epoch());
        let ask = one.asker.ask(now, held).expect("all that clients want is passed on");
        let number = ask.number;
        self.outcome.passed += 1;
        if self.send_frame(node, Frame::Ask { group, epoch, ask: Box::new(ask) }) {
            return None;
        }
        self.nodes[node].asker.take_back(number)
    }

    /// The other site passes a request on.
    pub(super) fn on_ask(&mut self, node: usize, epoch: Epoch, ask: Ask) {
        let is_led =
            self.nodes[node].epoch() == epoch && matches!(self.admission(node), Admission::Serve | Admission::Wait);
        let now = self.nodes[node].clock(self.time);
        match self.nodes[node].answerer.take(now, is_led, ask) {
            Ok((guest, request)) => {
                let held = Held::new(now, Origin::Guest(guest), request);
                self.nodes[node].waiting.push_back(held);
                self.go_on(node);
            }
            Err(answer) => self.send_answer(node, answer),
        }
    }

    pub(super) fn on_answer(&mut self, node: usize, answer: Answer) {
        let now = self.nodes[node].clock(self.time);
        match self.nodes[node].asker.on_answer(now, answer) {
            None => {}
            Some(Came::Answered(origin, result, _)) => self.end(node, origin, result),
            Some(Came::Again { held, at_once }) => {
                if !at_once {
                    self.nodes[node].ask_again_at = self.time + ASK_AGAIN;
                }
                self.nodes[node].waiting.push_front(held);
                self.go_on(node);
            }
        }
    }

    fn send_answer(&mut self, node: usize, answer: Answer) {
        self.nodes[node].answers.push_back(answer);
        self.send_answers(node);
    }

    /// Sends what had no room before.
    pub(super) fn send_answers(&mut self, node: usize) {
        let (group, epoch) = (self.nodes[node].config.group, self.nodes[node].epoch());
        while let Some(answer) = self.nodes[node].answers.front() {
            if !self.has_room(node, replication::wire::answer_bytes(answer)) {
                return;
            }
            let Some(answer) = self.nodes[node].answers.pop_front() else { return };
            self.send_frame(node, Frame::Answer { group, epoch, answer: Box::new(answer) });
        }
    }

    /// A life of the link is over: what was asked is to be asked again, and what was to be answered is nobody's.
    pub(super) fn forget_passed(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        one.answers.clear();
        let held = one.asker.take_all();
        one.waiting.extend(held);
        self.go_on(node);
    }
}
