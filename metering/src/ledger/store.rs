//! The ledger as its daemon has it: where each book ends, the heads, and where in the volume the next batch goes.
//!
//! Nothing here reads or writes. What is to be written is given out, one batch at a time; the next one is given out once
//! the daemon says that it is durable. Where a write fails nobody knows what is in the volume: the ledger is then dropped
//! and recovered ([`super::Recovery`]).

use super::blocks::{Line, Place, TEXT_BYTES_MAX, encode_batch};
use super::bundle::{Books, Export};
use super::digest::Digest;
use super::entry::{Book, Kind, PayloadError};
use super::head::{Continuation, Date, HEAD_BYTES_MAX, Head, LedgerId, Statement};
use super::key::{PublicKey, SigningKey};
use super::merkle::{self, Tree};
use super::start::{FIRST_BLOCK, Start};
use super::text::NUMBER_END;
use super::tip::{TIP_BYTES_MAX, Tip};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use units::{BLOCK_LEN, TenantId};

/// Tenants of a ledger have numbers below this: each head has two leaves for each number up to the highest.
pub const TENANTS_MAX: u64 = 1 << 16;

/// An entry that is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEntry<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// What it is, which tells the book.
    pub kind: Kind,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// JSON on one line.
    pub payload: &'a str,
}

/// Blocks to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockWrite {
    /// The first of them.
    pub first: u64,
    /// Whole blocks.
    pub bytes: Vec<u8>,
}

/// Where a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPlace {
    /// Its number.
    pub number: u64,
    /// The day that it ends.
    pub date: Date,
    /// Its hash.
    pub hash: Digest,
    /// The block where its line begins; the tips that it was signed over follow.
    pub block: u64,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    pub(super) capacity_blocks: u64,
    pub(super) start: Start,
    pub(super) tips: BTreeMap<(TenantId, Book), Tip>,
    pub(super) heads: Vec<HeadPlace>,
    pub(super) newest: Option<Head>,
    /// How many heads are durable, and the newest of them: no other is shown.
    shown: (usize, Option<Head>),
    /// Where the next batch goes.
    pub(super) next: Place,
    pub(super) is_writing: bool,
}

impl Ledger {
    /// An empty one, in a volume of `capacity_blocks`, two at least, that was never written to, and what makes it one. It is durable before
    /// anything is appended. `id` is 16 random bytes.
    #[must_use]
    pub fn create(capacity_blocks: u64, id: LedgerId) -> (Self, BlockWrite) {
        let start = Start::new(id);
        let mut ledger = Self::empty(capacity_blocks, start);
        let write = ledger.write_start(start);
        (ledger, write)
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> LedgerId {
        self.start.id
    }

    pub(super) const fn empty(capacity_blocks: u64, start: Start) -> Self {
        Self {
            capacity_blocks,
            start,
            tips: BTreeMap::new(),
            heads: Vec::new(),
            newest: None,
            shown: (0, None),
            next: Place { first: FIRST_BLOCK, batch: 1, head: 0, chain: 0 },
            is_writing: false,
        }
    }

    /// Makes a tenant's books, if it has none: from the next head on, all of it can be proven. Of all tenants that are known, at
    /// every start. Whoever has a lower number gets books too: numbers are given one after the other.
    ///
    /// # Errors
    /// [`AppendError::Number`] of [`TENANTS_MAX`] or more.
    pub fn admit(&mut self, tenant: TenantId) -> Result<(), AppendError> {
        if tenant.0 >= TENANTS_MAX {
            return Err(AppendError::Number);
        }
        for number in self.tenants()..=tenant.0 {
            for book in Book::ALL {
                self.tips.insert((TenantId(number), book), Tip::empty(TenantId(number), book));
            }
        }
        Ok(())
    }

    /// The number behind the highest of a tenant with books: those below have books too.
    fn tenants(&self) -> u64 {
        self.tips.last_key_value().map_or(0, |((tenant, _), _)| tenant.0 + 1)
    }

    /// Appends `entries` as one batch, all or none. Room for one more head stays: what is in the ledger can still be signed.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has changed then.
    pub fn append(&mut self, entries: &[NewEntry<'_>]) -> Result<BlockWrite, AppendError> {
        let mut tips: BTreeMap<(TenantId, Book), Tip> = BTreeMap::new();
        let mut lines = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.tenant.0 >= TENANTS_MAX || entry.time_ms >= NUMBER_END {
                return Err(AppendError::Number);
            }
            let book = entry.kind.book();
            let tip = tips.entry((entry.tenant, book)).or_insert_with(|| self.tip(entry.tenant, book));
            let text = tip.append(entry.kind, entry.time_ms, entry.payload)?;
            lines.push(Line { text, is_kept: book == Book::Account });
        }
        let highest = tips.keys().next_back().map_or(0, |(tenant, _)| tenant.0 + 1);
        let write = self.write(&lines, head_blocks(highest.max(self.tenants())))?;
        for tip in tips.into_values() {
            self.admit(tip.tenant)?;
            self.tips.insert((tip.tenant, tip.book), tip);
        }
        Ok(write)
    }

    /// Signs where all books end now, as the end of `date`, by the wall clock: no later head is bound by it. The next head will be
    /// signed by `next_key`, when there is one, else by `key` again.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has changed then.
    pub fn sign_head(
        &mut self,
        date: Date,
        key: &SigningKey,
        next_key: Option<PublicKey>,
    ) -> Result<BlockWrite, AppendError> {
        if let Some(expected) = self.newest.map(|head| head.key_of_next()).filter(|expected| *expected != key.public())
        {
            return Err(AppendError::Key { expected });
        }
        let says = Statement {
            ledger: self.start.id,
            number: self.newest.map_or(1, |head| head.number() + 1),
            date,
            tips: self.tree(),
            before: self.newest.map_or(Digest::NONE, |head| head.hash()),
            log: merkle::root(&hashes_of(&self.heads)),
            next_key,
        };
        let head = Head::sign(says, key);
        let texts = std::iter::once(head.line()).chain(self.tips.values().map(Tip::line));
        let lines: Vec<Line> = texts.map(|text| Line { text, is_kept: true }).collect();
        let write = self.write(&lines, 0)?;
        self.add_head(head, write.first);
        Ok(write)
    }

    pub(super) fn add_head(&mut self, head: Head, block: u64) {
        self.heads.push(HeadPlace { number: head.number(), date: head.date(), hash: head.hash(), block });
        self.newest = Some(head);
        self.next.head = block;
    }

    /// Lays out a batch and goes on behind it, if `spare_blocks` are left there.
    fn write(&mut self, lines: &[Line], spare_blocks: u64) -> Result<BlockWrite, AppendError> {
        if self.is_writing {
            return Err(AppendError::Busy);
        }
        let place = self.next;
        let (bytes, chain) = encode_batch(place, lines).ok_or(AppendError::TooMany)?;
        let end = place.first + (bytes.len() / BLOCK_LEN) as u64;
        if !bytes.is_empty() {
            if end + spare_blocks > self.capacity_blocks {
                return Err(AppendError::Full);
            }
            self.next = Place { first: end, batch: place.batch + 1, chain, ..place };
            self.is_writing = true;
        }
        Ok(BlockWrite { first: place.first, bytes })
    }

    /// Says that the last write is on stable storage. A head is shown from then on: where a crash takes one that somebody has seen,
    /// another of the same number is signed.
    pub const fn on_durable(&mut self) {
        self.is_writing = false;
        self.shown = (self.heads.len(), self.newest);
    }

    /// Gives up all that was measured before head `number`, on which what is left of each book of the meter then rests. Once
    /// the write is durable, [`Self::sweep`] tells what to trim.
    ///
    /// # Errors
    /// [`AppendError::Busy`]; [`AppendError::NoHead`] when there is no such head, or as much was given up already.
    pub fn drop_readings_before(&mut self, number: u64) -> Result<BlockWrite, AppendError> {
        if self.is_writing {
            return Err(AppendError::Busy);
        }
        let place = self.heads.iter().find(|place| place.number == number);
        let place = place.filter(|place| place.block > self.start.whole_from).ok_or(AppendError::NoHead)?;
        Ok(self.write_start(Start { whole_from: place.block, ..self.start }))
    }

    /// The blocks that have not been looked at since what was measured in them was given up: those that are
    /// [`super::is_droppable`] are trimmed, and then [`Self::on_swept`] is called with where they end.
    #[must_use]
    pub fn sweep(&self) -> Option<Range<u64>> {
        Some(self.start.swept_to..self.start.whole_from).filter(|range| !range.is_empty() && !self.is_writing)
    }

    /// Says that they are trimmed up to block `end`, whatever was given up since. What this gives to be written need not be
    /// waited for, but for the next append.
    ///
    /// # Errors
    /// [`AppendError::Busy`].
    pub fn on_swept(&mut self, end: u64) -> Result<BlockWrite, AppendError> {
        if self.is_writing {
            return Err(AppendError::Busy);
        }
        Ok(self.write_start(Start { swept_to: end.clamp(self.start.swept_to, self.start.whole_from), ..self.start }))
    }

    fn write_start(&mut self, start: Start) -> BlockWrite {
        self.start = start;
        self.is_writing = true;
        BlockWrite { first: 0, bytes: start.encode() }
    }

    /// Where a tenant's book ends.
    #[must_use]
    pub fn tip(&self, tenant: TenantId, book: Book) -> Tip {
        self.tips.get(&(tenant, book)).copied().unwrap_or_else(|| Tip::empty(tenant, book))
    }

    /// All heads that are durable, the oldest first.
    #[must_use]
    pub fn heads(&self) -> &[HeadPlace] {
        self.heads.get(..self.shown.0).unwrap_or_default()
    }

    /// How to export what a tenant has of the days from `first` to `last`, and the block from which on the exporter wants lines;
    /// `None` while no head has ended any of them. When the last of them is still to come, it is what is signed so far. Dates may be
    /// wrong: it is all between the first head of such a day and the last one.
    #[must_use]
    pub fn export(&self, (tenant, books): (TenantId, Books), (first, last): (Date, Date)) -> Option<(Export, u64)> {
        let is_within = |place: &HeadPlace| (first..=last).contains(&place.date);
        let begin = self.heads().iter().position(is_within)?;
        let end = self.heads().iter().rfind(|place| is_within(place))?;
        let after = begin.checked_sub(1).and_then(|before| self.heads().get(before));
        let export = Export { tenant, books, after: after.map(|place| place.number), last: end.number };
        Some((export, after.map_or(FIRST_BLOCK, |place| place.block)))
    }

    /// The newest head that is durable.
    #[must_use]
    pub const fn newest(&self) -> Option<&Head> {
        self.shown.1.as_ref()
    }

    /// That the newest head continues head `older`; `None` when there is no older one of that number.
    #[must_use]
    pub fn continuation(&self, older: u64) -> Option<Continuation> {
        Continuation::prove(hashes_of(self.heads()).split_last()?.1, older)
    }

    /// The block where the books of the meter are whole from: what was measured before it was given up.
    #[must_use]
    pub const fn whole_from_block(&self) -> u64 {
        self.start.whole_from
    }

    /// The block behind the last.
    #[must_use]
    pub const fn end_block(&self) -> u64 {
        self.next.first
    }

    pub(super) fn tree(&self) -> Tree {
        let leaves: Vec<Digest> = self.tips.values().map(Tip::leaf).collect();
        Tree { size: leaves.len() as u64, root: merkle::root(&leaves) }
    }
}

fn hashes_of(heads: &[HeadPlace]) -> Vec<Digest> {
    heads.iter().map(|place| place.hash).collect()
}

/// Blocks that a head takes at most, with the tips of so many tenants.
const fn head_blocks(tenants: u64) -> u64 {
    (HEAD_BYTES_MAX + 2 * tenants * TIP_BYTES_MAX).div_ceil(TEXT_BYTES_MAX as u64)
}

/// Why nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendError {
    /// The write before is not durable yet.
    Busy,
    /// A payload is none.
    Payload(PayloadError),
    /// A tenant's number of [`TENANTS_MAX`] or more, or a time that no line can say.
    Number,
    /// More than a batch can have.
    TooMany,
    /// The volume is full, for entries but for the room of one more head.
    Full,
    /// The head before says that another key signs this one.
    Key {
        /// Which one.
        expected: PublicKey,
    },
    /// There is no such head.
    NoHead,
}

impl From<PayloadError> for AppendError {
    fn from(error: PayloadError) -> Self {
        Self::Payload(error)
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the write before is not durable yet"),
            Self::Payload(error) => error.fmt(f),
            Self::Number => write!(f, "a tenant's number of {TENANTS_MAX} or more, or a time of 2^63 or more"),
            Self::TooMany => f.write_str("more entries than one batch can have"),
            Self::Full => f.write_str("the ledger's volume is full"),
            Self::Key { expected } => write!(f, "the head before says that key {expected} signs this one"),
            Self::NoHead => f.write_str("there is no such head, or as much was given up already"),
        }
    }
}

impl std::error::Error for AppendError {}
