//! Clients at both sites. A driver's retry is the same operation; what it asked before on a connection that it gave up is done or not, and
//! is not answered any more. A block has one writer and many readers.

use super::{BLOCKS, Happening, MICROSECOND, MILLISECOND, Next, Pair};
use crate::mirror::clients::Answer;
use crate::mirror::history::Operation;
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// A request of a client, as a site has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) client: usize,
    /// Which try of its it is.
    pub(super) attempt: u64,
    pub(super) wish: Wish,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The first or the second half of the block, or all of it.
    Write {
        block: u8,
        value: u64,
        halves: [bool; 2],
    },
    Read {
        block: u8,
    },
    /// All that was answered is to be on stable storage.
    Flush,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) site: usize,
    attempt: u64,
    tries: u64,
    wish: Option<(Wish, Option<usize>)>,
    written: u64,
    pub(super) served_at: u64,
    /// It begins nothing any more.
    pub(super) is_done: bool,
    /// It only reads, and stays where it is: it sees what is shown too long.
    pub(super) is_reader: bool,
    /// What the halves of its blocks hold once its last write is done.
    halves: BTreeMap<u8, [u64; 2]>,
    /// Blocks of which part was lost with an excuse: they are written whole next.
    unsure: BTreeSet<u8>,
    /// Blocks that are still to be read.
    to_read: Vec<u8>,
}

impl Client {
    pub(super) fn new(index: usize, is_reader: bool, random: &mut Random) -> Self {
        Self {
            is_reader,
            halves: BTreeMap::new(),
            unsure: BTreeSet::new(),
            site: index % 2,
            attempt: 0,
            tries: 0,
            wish: None,
            written: ((index as u64 + 1) << 32) | random.below(1 << 16),
            served_at: 0,
            is_done: false,
            to_read: Vec::new(),
        }
    }

    /// Whether it wants nothing any more.
    pub(super) fn is_idle(&self) -> bool {
        self.is_done && (self.is_reader || self.wish.is_none() && self.to_read.is_empty())
    }
}

impl Pair {
    /// A client's timer: it begins something, or tries again.
    pub(super) fn on_client(&mut self, client: usize, attempt: u64) {
        if self.clients[client].attempt != attempt {
            return;
        }
        if self.clients[client].wish.is_none() && !self.begin(client) {
            return;
        }
        if self.clients[client].tries > 0 && !self.clients[client].is_reader {
            self.clients[client].site = 1 - self.clients[client].site;
        }
        // The connection of before is closed: what waits on it is dropped, and what has begun is not answered.
        for node in &mut self.nodes {
            node.waiting.retain(|held| held.key.client().is_none_or(|request| request.client != client));
        }
        let one = &mut self.clients[client];
        one.attempt += 1;
        one.tries += 1;
        let (attempt, site) = (one.attempt, one.site);
        let Some((wish, _)) = one.wish else { return };
        let arrival = self.time + self.random.within(50, 500) * MICROSECOND;
        self.node_at(arrival, site, Next::Request(Request { client, attempt, wish }));
        // Longer than what was passed on may take for being begun (S7).
        let patience = self.random.within(3700, 7000) * MILLISECOND;
        self.at(self.time + patience, Happening::Client { client, attempt });
    }

    /// Whether the client still waits for this try.
    pub(super) fn is_current(&self, request: &Request) -> bool {
        self.clients[request.client].attempt == request.attempt
    }

    fn begin(&mut self, client: usize) -> bool {
        let draw = self.random.below(100);
        let any = self.random.below(BLOCKS) as u8;
        let count = self.writers();
        let halves = *self.random.pick(&[[true, true], [true, false], [false, true]]);
        let own = ((u64::from(any) / count * count + client as u64) % BLOCKS.next_multiple_of(count)) as u8;
        let one = &mut self.clients[client];
        one.tries = 0;
        let wish = match (one.is_done, one.to_read.pop()) {
            (_, Some(block)) => Wish::Read { block },
            (true, None) => return false,
            (false, None) if draw < 50 && !one.is_reader => {
                one.written += 1;
                let value = one.written;
                let halves = if one.unsure.remove(&own) { [true, true] } else { halves };
                let before = one.halves.entry(own).or_default();
                for (half, _) in halves.into_iter().enumerate().filter(|(_, is_written)| *is_written) {
                    before[half] = value;
                }
                self.written.insert((own, value), *before);
                Wish::Write { block: own, value, halves }
            }
            (false, None) if draw < 90 || one.is_reader => Wish::Read { block: any },
            (false, None) => Wish::Flush,
        };
        let asked = self.time;
        let operation = match wish {
            Wish::Write { block, value, .. } => Some(Operation { block, value, is_write: true, asked, answered: None }),
            Wish::Read { block } => Some(Operation { block, value: 0, is_write: false, asked, answered: None }),
            Wish::Flush => None,
        };
        let index = operation.map(|operation| self.history.ask(operation));
        self.clients[client].wish = Some((wish, index));
        true
    }

    fn writers(&self) -> u64 {
        self.clients.iter().filter(|client| !client.is_reader).count() as u64
    }

    /// The write that a block shows of which these are the halves: the newer one's, if that left the other half so.
    pub(super) fn value_of(&mut self, block: u8, halves: [u64; 2]) -> u64 {
        let value = halves[0].max(halves[1]);
        let expected = self.written.get(&(block, value)).copied();
        if expected.is_some_and(|expected| halves != expected) {
            self.find(format!("P2: block {block} holds {halves:x?}, and {value:#x} made it {expected:x?}"));
        }
        value
    }

    /// What clients knew is lost with an excuse, but for what they wait for.
    pub(super) fn begin_history_anew(&mut self) {
        self.written.clear();
        for client in &mut self.clients {
            client.unsure = client.halves.keys().copied().collect();
        }
        let waited = self.clients.iter_mut().filter_map(|client| client.wish.as_mut()?.1.as_mut());
        self.history.begin_anew(waited.collect());
    }

    /// Every block is read, at `node` first.
    pub(super) fn send_readers(&mut self, node: usize) {
        let writers = self.writers();
        for block in 0..BLOCKS.next_multiple_of(writers) {
            let client = (block % writers) as usize;
            self.clients[client].to_read.push(block as u8);
            self.clients[client].site = node;
        }
        for client in 0..self.clients.len() {
            let attempt = self.clients[client].attempt;
            self.at(self.time + MILLISECOND, Happening::Client { client, attempt });
        }
    }

    pub(super) fn reply(&mut self, request: Request, answer: Answer) {
        let Request { client, attempt, .. } = request;
        let at = self.time + self.random.within(50, 500) * MICROSECOND;
        self.at(at, Happening::Reply { client, attempt, answer });
    }

    pub(super) fn on_reply(&mut self, client: usize, attempt: u64, answer: Answer) {
        if self.clients[client].attempt != attempt {
            return;
        }
        let Some((wish, index)) = self.clients[client].wish else { return };
        let value = match answer {
            Answer::Refused => {
                let most = if self.clients[client].is_reader { 40 } else { 400 };
                let at = self.time + self.random.within(10, most) * MILLISECOND;
                return self.at(at, Happening::Client { client, attempt });
            }
            Answer::Done => None,
            Answer::Content(value) => Some(value),
        };
        self.trace.note(&[self.time, client as u64, value.unwrap_or(1)]);
        self.say(|| format!("client {client}: {wish:x?} {value:x?}"));
        if let Some(index) = index {
            let operation = self.history.operation(index);
            operation.answered = Some(self.time);
            operation.value = value.unwrap_or(operation.value);
        }
        self.outcome.answers += 1;
        let one = &mut self.clients[client];
        one.wish = None;
        one.served_at = self.time;
        one.attempt += 1;
        let attempt = one.attempt;
        let pause = self.random.within(1, 150) * MILLISECOND;
        self.at(self.time + pause, Happening::Client { client, attempt });
    }
}
