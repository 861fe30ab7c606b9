//! Finds the ledger again in the blocks of its volume: where it ends by bisection, where each book ends by what was appended
//! since the newest head, and the heads by going back from each to the one before.
//!
//! A batch is given out once the one before is durable. So a batch that lacks a block was never durable if no later batch is
//! there, and is cut off; if one is, something durable is gone, which is an error. So is a block that is neither whole nor
//! absent: blocks are written whole or not at all.

use super::blocks::{Block, BlockError, decode_block};
use super::digest::Digest;
use super::entry::Entry;
use super::head::{Head, LedgerId};
use super::merkle::Growing;
use super::start::{FIRST_BLOCK, Start};
use super::store::{HeadPlace, Ledger};
use super::tip::Tip;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use units::BLOCK_LEN;

/// Blocks asked for at once.
const READ_BLOCKS: u64 = 64;

/// Finds the ledger: asks for blocks until it has.
#[derive(Debug)]
pub struct Recovery {
    ledger: Ledger,
    /// Of each head that was read, by number: what it says of those before.
    logs: BTreeMap<u64, Digest>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Block 0 is wanted.
    Start,
    /// Block 0 is not there: block 1 tells whether it ever was.
    Absent,
    /// `found` is the furthest block known to be there; none at or behind `end` is known.
    Search {
        found: Option<Found>,
        end: u64,
    },
    Replay(Replay),
    /// Of what comes behind the end, from `at` on, nothing may be later.
    Beyond {
        oldest: Option<(Head, u64)>,
        at: u64,
    },
    /// The head in `block` is wanted, which is the one before `newer`, the oldest known.
    Heads {
        block: u64,
        newer: Head,
    },
    Done {
        is_ledger: bool,
    },
}

/// A block that is there.
#[derive(Debug, Clone, Copy)]
struct Found {
    number: u64,
    batch: u64,
    head: u64,
}

/// Reads on from a head, or from the first block.
#[derive(Debug)]
struct Replay {
    furthest: Found,
    /// The next block.
    at: u64,
    /// The next batch, when known: not of the first.
    batch: Option<u64>,
    /// The CRC of the block before, when known.
    chain: Option<u32>,
    /// Of the batch that is being read: its first block's fields, and its text.
    open: Option<(Opened, Vec<u8>)>,
    /// The first head, and where the one before it is.
    oldest: Option<(Head, u64)>,
    /// Whether the first batch has a head and all tips, so that nothing before it counts.
    has_base: bool,
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    first: u64,
    batch: u64,
    blocks: u32,
    head: u64,
    next_index: u32,
}

impl Recovery {
    /// Of a ledger in a volume of `capacity_blocks`, two at least.
    #[must_use]
    pub const fn new(capacity_blocks: u64) -> Self {
        let start = Start::new(LedgerId([0; 16]));
        Self { ledger: Ledger::empty(capacity_blocks, start), logs: BTreeMap::new(), stage: Stage::Start }
    }

    /// The blocks that are wanted next; `None` when it is done.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        let one = |block: u64| Some(block..block + 1);
        match &self.stage {
            Stage::Start => one(0),
            Stage::Absent => one(1),
            Stage::Search { found: None, .. } => one(self.ledger.start.whole_from),
            Stage::Search { found: Some(found), end } => one(found.number + (end - found.number) / 2),
            Stage::Replay(replay) => Some(replay.at..self.ledger.capacity_blocks.min(replay.at + READ_BLOCKS)),
            Stage::Beyond { at, .. } => Some(*at..self.ledger.capacity_blocks.min(at + READ_BLOCKS)),
            Stage::Heads { block, .. } => one(*block),
            Stage::Done { .. } => None,
        }
    }

    /// Takes the bytes of the blocks that were wanted.
    ///
    /// # Errors
    /// [`RecoverError`]: it cannot be found. The ledger is not written to until somebody has seen to it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), RecoverError> {
        let Some(wanted) = self.wants() else { return Ok(()) };
        let first = wanted.start;
        let broken = |error| RecoverError::Block { block: first, error };
        let wanted_blocks = usize::try_from(wanted.end - first).unwrap_or(usize::MAX);
        if bytes.len() / BLOCK_LEN != wanted_blocks || !bytes.len().is_multiple_of(BLOCK_LEN) {
            return Err(broken(BlockError::Length));
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Start) {
            Stage::Start => match Start::decode(bytes).map_err(broken)? {
                None => Stage::Absent,
                Some(start) => {
                    if start.whole_from >= self.ledger.capacity_blocks {
                        return Err(RecoverError::Gone { block: start.whole_from });
                    }
                    self.ledger.start = start;
                    Stage::Search { found: None, end: self.ledger.capacity_blocks }
                }
            },
            Stage::Absent => match decode_block(first, bytes).map_err(broken)? {
                None => Stage::Done { is_ledger: false },
                Some(_) => return Err(RecoverError::Gone { block: 0 }),
            },
            Stage::Search { found, end } => self.on_found(first, bytes, (found, end))?,
            Stage::Replay(replay) => self.on_replay(replay, bytes)?,
            Stage::Beyond { oldest, .. } => self.on_beyond(first, bytes, oldest)?,
            Stage::Heads { newer, .. } => self.on_head(first, bytes, &newer)?,
            Stage::Done { is_ledger } => Stage::Done { is_ledger },
        };
        Ok(())
    }

    /// The ledger; `None` when there is none in the volume. What was found may not be durable yet: the volume is synced, and then
    /// [`Ledger::on_durable`] called, before anything is appended.
    ///
    /// # Errors
    /// [`RecoverError::Unfinished`] while blocks are wanted; [`RecoverError::Lines`] when the heads do not say the same of those before.
    pub fn finish(mut self) -> Result<Option<Ledger>, RecoverError> {
        self.check_logs()?;
        self.ledger.is_writing = true;
        match self.stage {
            Stage::Done { is_ledger } => Ok(is_ledger.then_some(self.ledger)),
            Stage::Start | Stage::Absent | Stage::Search { .. } | Stage::Replay(_) => Err(RecoverError::Unfinished),
            Stage::Beyond { .. } | Stage::Heads { .. } => Err(RecoverError::Unfinished),
        }
    }

    /// Holds that the heads are all there, and that each one's `log` is over those before it.
    fn check_logs(&self) -> Result<(), RecoverError> {
        if !matches!(self.stage, Stage::Done { .. }) {
            return Ok(());
        }
        let mut before = Growing::default();
        for (number, place) in (1..).zip(&self.ledger.heads) {
            if place.number != number || self.logs.get(&number) != Some(&before.root()) {
                return Err(RecoverError::Lines { block: place.block });
            }
            before.push(place.hash);
        }
        Ok(())
    }

    fn on_found(&self, number: u64, bytes: &[u8], (found, end): (Option<Found>, u64)) -> Result<Stage, RecoverError> {
        let block = decode_block(number, bytes).map_err(|error| RecoverError::Block { block: number, error })?;
        let (found, end) = match (block, found) {
            (Some(block), _) => (Found { number, batch: block.batch, head: block.head }, end),
            (None, Some(found)) => (found, number),
            (None, None) if number == FIRST_BLOCK => return Ok(Stage::Beyond { oldest: None, at: number }),
            (None, None) => return Err(RecoverError::Gone { block: number }),
        };
        if end > found.number + 1 {
            return Ok(Stage::Search { found: Some(found), end });
        }
        // The newest head before the batch; the batch itself when it is the one on which all rests.
        let at = found.head.max(self.ledger.start.whole_from);
        Ok(Stage::Replay(Replay::new(found, at)))
    }

    fn on_replay(&mut self, mut replay: Replay, bytes: &[u8]) -> Result<Stage, RecoverError> {
        for block in bytes.chunks(BLOCK_LEN) {
            let number = replay.at;
            let decoded = decode_block(number, block).map_err(|error| RecoverError::Block { block: number, error })?;
            if !self.on_block(&mut replay, decoded)? {
                return self.end(&replay);
            }
        }
        if replay.at >= self.ledger.capacity_blocks {
            return self.end(&replay);
        }
        Ok(Stage::Replay(replay))
    }

    /// Whether the log goes on with this block.
    fn on_block(&mut self, replay: &mut Replay, block: Option<Block<'_>>) -> Result<bool, RecoverError> {
        let number = replay.at;
        let Some(block) = block.filter(|block| replay.is_next(block)) else { return Ok(false) };
        let opened =
            Opened { first: number, batch: block.batch, blocks: block.blocks, head: block.head, next_index: 0 };
        let (opened, text) = replay.open.get_or_insert((opened, Vec::new()));
        opened.next_index += 1;
        text.extend_from_slice(block.begun);
        text.extend_from_slice(block.lines);
        replay.at += 1;
        replay.chain = Some(block.crc);
        if opened.next_index < opened.blocks {
            return Ok(true);
        }
        let (opened, text) = (*opened, std::mem::take(text));
        replay.open = None;
        replay.batch = Some(opened.batch + 1);
        self.on_batch(opened.first, &text, replay.has_base)?;
        replay.oldest = replay.oldest.or_else(|| self.ledger.newest.map(|head| (head, opened.head)));
        self.ledger.next.first = replay.at;
        self.ledger.next.batch = opened.batch + 1;
        self.ledger.next.chain = block.crc;
        Ok(true)
    }

    /// Takes the lines of a whole batch.
    fn on_batch(&mut self, first: u64, text: &[u8], has_base: bool) -> Result<(), RecoverError> {
        let wrong = || RecoverError::Lines { block: first };
        let lines = text.strip_suffix(b"\n").ok_or_else(wrong)?.split(|byte| *byte == b'\n');
        let mut is_of_head = false;
        for (place, line) in lines.enumerate() {
            if line.starts_with(b"{\"head\":") && place == 0 {
                let head = Head::parse(line).map_err(|_| wrong())?;
                let follows = match &self.ledger.newest {
                    Some(newest) => head.follows(newest),
                    None => has_base || (head.number(), head.before()) == (1, Digest::NONE),
                };
                if !follows || head.ledger() != self.ledger.id() {
                    return Err(wrong());
                }
                self.logs.insert(head.number(), head.log().root);
                self.ledger.add_head(head, first);
                is_of_head = true;
            } else if is_of_head {
                let tip = Tip::parse(line).map_err(|_| wrong())?;
                if u64::try_from(place).ok().and_then(|place| place.checked_sub(1)) != Some(tip.place()) {
                    return Err(wrong());
                }
                if *self.ledger.tips.entry((tip.tenant, tip.book)).or_insert(tip) != tip {
                    return Err(wrong());
                }
            } else {
                let entry = Entry::parse(line).map_err(|_| wrong())?;
                self.ledger.admit(entry.tenant).map_err(|_| wrong())?;
                let tip = self.ledger.tips.get_mut(&(entry.tenant, entry.kind.book())).ok_or_else(wrong)?;
                tip.follow(&entry, line).map_err(|_| wrong())?;
            }
        }
        if is_of_head && self.ledger.newest.is_some_and(|head| head.tips() != self.ledger.tree()) {
            return Err(wrong());
        }
        Ok(())
    }

    /// The log ends: what was begun behind was never durable, or something is gone.
    fn end(&self, replay: &Replay) -> Result<Stage, RecoverError> {
        let unfinished = replay.open.as_ref().map(|(opened, _)| opened.first);
        let next_batch = self.ledger.next.batch;
        if replay.furthest.batch > next_batch || (replay.has_base && self.ledger.newest.is_none()) {
            return Err(RecoverError::Gone { block: unfinished.unwrap_or(replay.at) });
        }
        Ok(self.beyond(replay.oldest, self.ledger.next.first))
    }

    fn beyond(&self, oldest: Option<(Head, u64)>, at: u64) -> Stage {
        if at < self.ledger.capacity_blocks { Stage::Beyond { oldest, at } } else { Stage::heads(oldest) }
    }

    /// Holds that no later batch comes behind the end, nor behind the batch that was begun there, as it does where a block in
    /// between is gone.
    fn on_beyond(&self, at: u64, bytes: &[u8], oldest: Option<(Head, u64)>) -> Result<Stage, RecoverError> {
        let next = self.ledger.next;
        let mut begun_end = at;
        for (block, bytes) in (at..).zip(bytes.chunks(BLOCK_LEN)) {
            let found = decode_block(block, bytes).map_err(|error| RecoverError::Block { block, error })?;
            let Some(found) = found.filter(|found| found.batch >= next.batch) else { continue };
            if found.batch > next.batch {
                return Err(RecoverError::Gone { block: next.first });
            }
            begun_end = next.first + u64::from(found.blocks);
        }
        Ok(if begun_end > at { self.beyond(oldest, begun_end) } else { Stage::heads(oldest) })
    }

    /// Takes the head before the oldest known.
    fn on_head(&mut self, number: u64, bytes: &[u8], newer: &Head) -> Result<Stage, RecoverError> {
        let block = decode_block(number, bytes).map_err(|error| RecoverError::Block { block: number, error })?;
        let block = block.ok_or(RecoverError::Gone { block: number })?;
        let line = block.lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let head = Head::parse(line).ok().filter(|head| newer.follows(head));
        let head = head.ok_or(RecoverError::Lines { block: number })?;
        self.logs.insert(head.number(), head.log().root);
        let place = HeadPlace { number: head.number(), date: head.date(), hash: head.hash(), block: number };
        self.ledger.heads.insert(0, place);
        Ok(Stage::heads(Some((head, block.head))))
    }
}

impl Stage {
    /// Goes on with the head before the oldest known, which is in the block told with that, or 0 when there is none.
    const fn heads(oldest: Option<(Head, u64)>) -> Self {
        match oldest {
            None | Some((_, 0)) => Self::Done { is_ledger: true },
            Some((newer, block)) => Self::Heads { block, newer },
        }
    }
}

impl Replay {
    /// From `at` on, which is where a head begins or the first block.
    fn new(furthest: Found, at: u64) -> Self {
        let has_base = at != FIRST_BLOCK;
        let (batch, chain) = if has_base { (None, None) } else { (Some(1), Some(0)) };
        Self { furthest, at, batch, chain, open: None, oldest: None, has_base }
    }

    fn is_next(&self, block: &Block<'_>) -> bool {
        let follows = match &self.open {
            Some((opened, _)) => {
                (block.batch, block.index, block.blocks, block.head)
                    == (opened.batch, opened.next_index, opened.blocks, opened.head)
            }
            None => block.index == 0 && self.batch.is_none_or(|batch| batch == block.batch),
        };
        follows && self.chain.is_none_or(|chain| chain == block.chain)
    }
}

/// Why the ledger cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverError {
    /// A block is neither whole nor absent.
    Block {
        /// Which one.
        block: u64,
        /// What is wrong with it.
        error: BlockError,
    },
    /// A block that was durable is not there.
    Gone {
        /// Which one, or one before it.
        block: u64,
    },
    /// The lines of the batch that begins in a block do not follow those before.
    Lines {
        /// Which one.
        block: u64,
    },
    /// Blocks are still wanted.
    Unfinished,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block { block, error } => write!(f, "block {block} of the ledger: {error}"),
            Self::Gone { block } => write!(f, "block {block} of the ledger was written and is gone"),
            Self::Lines { block } => write!(f, "the lines of block {block} of the ledger do not follow those before"),
            Self::Unfinished => f.write_str("the ledger was not read to its end"),
        }
    }
}

impl std::error::Error for RecoverError {}
