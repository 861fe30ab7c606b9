//! Clients at both sites: they write values that are written once, read, flush, and try again. A driver's retry is the same
//! operation; what it asked before on a connection that it gave up does nothing more.
//!
//! Besides, at each site a client reads all the time and stays there, whoever is primary: it sees what is shown too long.
//!
//! A block has one writer and many readers. A retry may write a second time what was written: with two writers of a block the
//! other one's write may lie between, and no storage could tell that from two operations.

use super::history::Operation;
use super::site::{Request, Wish};
use super::{BLOCKS, Happening, MICROSECOND, MILLISECOND, Next, World};
use crate::random::Random;

/// Tries after which a client leaves an operation, of which nobody knows what became.
const TRIES_MAX: u64 = 12;

/// What a site answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Done,
    Content(u64),
    /// Not here, or not now.
    Refused,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    site: usize,
    home: usize,
    /// Its last try; what concerns earlier ones is over.
    pub(super) attempt: u64,
    tries: u64,
    wish: Option<(Wish, Option<usize>)>,
    written: u64,
    /// When it was last served.
    pub(super) served_at: u64,
    /// It only reads, at its site.
    pub(super) is_reader: bool,
    /// It begins nothing any more.
    pub(super) is_done: bool,
}

impl Client {
    pub(super) fn new(index: usize, is_reader: bool, random: &mut Random) -> Self {
        Self {
            site: index % 2,
            home: index % 2,
            attempt: 0,
            tries: 0,
            wish: None,
            written: ((index as u64 + 1) << 32) | random.below(1 << 16),
            served_at: 0,
            is_reader,
            is_done: false,
        }
    }

    /// Whether it wants nothing any more.
    pub(super) const fn is_idle(&self) -> bool {
        self.is_done && self.wish.is_none()
    }
}

impl World {
    /// A client's timer: it begins something, or tries again.
    pub(super) fn on_client(&mut self, client: usize, attempt: u64) {
        if self.clients[client].attempt != attempt {
            return;
        }
        if self.clients[client].wish.is_none() {
            if self.clients[client].is_done {
                return;
            }
            self.begin(client);
        } else if self.clients[client].tries >= TRIES_MAX {
            self.clients[client].wish = None;
            return self.on_client(client, attempt);
        } else if self.clients[client].tries > 0 && !self.clients[client].is_reader {
            self.clients[client].site = 1 - self.clients[client].site;
        }
        for site in &mut self.sites {
            if let Some(process) = &mut site.process {
                process.forget(client);
            }
        }
        let one = &mut self.clients[client];
        one.attempt += 1;
        one.tries += 1;
        let (attempt, site) = (one.attempt, one.site);
        let Some((wish, _)) = one.wish else { return };
        let arrival = self.time + self.random.within(50, 500) * MICROSECOND;
        self.site_at(arrival, site, Next::Request(Request { client, attempt, wish }));
        let patience = self.random.within(5000, 7000) * MILLISECOND;
        self.at(self.time + patience, Happening::Client { client, attempt });
    }

    fn begin(&mut self, client: usize) {
        let block = self.random.below(BLOCKS);
        let count = self.clients.iter().filter(|client| !client.is_reader).count() as u64;
        let own = (block / count * count + client as u64) % BLOCKS.next_multiple_of(count);
        let draw = self.random.below(100);
        let one = &mut self.clients[client];
        one.tries = 0;
        if self.random.chance(150) {
            one.site = one.home;
        }
        let asked = self.time;
        let wish = match draw {
            _ if one.is_reader => Wish::Read { block: block as u8 },
            0..45 => {
                one.written += 1;
                Wish::Write { block: own as u8, value: one.written }
            }
            45..90 => Wish::Read { block: block as u8 },
            _ => Wish::Flush,
        };
        let operation = match wish {
            Wish::Write { block, value } => Some(Operation { block, value, is_write: true, asked, answered: None }),
            Wish::Read { block } => Some(Operation { block, value: 0, is_write: false, asked, answered: None }),
            Wish::Flush => None,
        };
        let index = operation.map(|operation| self.judge.history.ask(operation));
        self.clients[client].wish = Some((wish, index));
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
                // The other site, a little later.
                let most = if self.clients[client].is_reader { 40 } else { 400 };
                let at = self.time + self.random.within(10, most) * MILLISECOND;
                self.at(at, Happening::Client { client, attempt });
                return;
            }
            Answer::Done => None,
            Answer::Content(value) => Some(value),
        };
        self.trace.note(&[self.time, client as u64, value.unwrap_or(1)]);
        self.say(|| format!("client {client}: {wish:?} {value:?}"));
        if let Some(index) = index {
            let operation = self.judge.history.operation(index);
            operation.answered = Some(self.time);
            operation.value = value.unwrap_or(operation.value);
        }
        self.judge.answers += 1;
        let one = &mut self.clients[client];
        one.wish = None;
        one.served_at = self.time;
        one.attempt += 1;
        let attempt = one.attempt;
        let pause = self.random.within(1, 120) * MILLISECOND;
        self.at(self.time + pause, Happening::Client { client, attempt });
    }

    /// The history begins anew, with what clients wait for.
    pub(super) fn begin_history_anew(&mut self) {
        let waited = self.clients.iter_mut().filter_map(|client| client.wish.as_mut()?.1.as_mut());
        self.judge.history.begin_anew(waited.collect());
    }
}
