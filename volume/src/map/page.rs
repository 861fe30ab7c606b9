//! A page of the map: where the blocks of one span of the volume are, with their check values, in few bytes.
//!
//! Two forms. **Packed**: sorted runs of up to 32 neighbouring blocks, 6 bytes a run, then 4 bytes of check value a block;
//! 10 bytes for a lone block, 4.2 a block for sequential data. **Dense**: one entry for each block of the span, 8 bytes,
//! once that is smaller. A segment is told by its distance from the page's base in 16 bits; where these do not reach (2 TiB
//! of log between the oldest and the newest block of one page) in 24 bits, and at last in 40.
//!
//! A page may be **partial**: what it does not mention is as in the stored page below it, so that a write need not wait for
//! that page to be loaded. There `Zero` says that a block is a hole whatever the stored page has.
//!
//! Encoded: flags 1 (bit 0 partial, bit 1 dense, bits 2 and 3 the reach: 0, 1, 2), zero 1, number of runs 2, zero 4, base 8, then the form's
//! bytes as they are in memory.

use crate::format::FormatError;
use units::SegmentId;

/// Blocks that one page maps: 8 MiB of the volume.
pub const PAGE_BLOCKS: u32 = 2048;

/// Most blocks of one run: its length has 5 bits.
const RUN_BLOCKS_MAX: u32 = 32;
const CHECK_LEN: usize = 4;
const HEADER_LEN: usize = 16;
/// Bytes of a run besides the segment: start and length 2, block 2.
const RUN_FIXED: usize = 4;

/// Where a block is for ever: the segment and the block of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The segment.
    pub segment: SegmentId,
    /// The block of the slot; never 0, which holds the slot's header.
    pub block: u16,
}

impl Location {
    /// The location `blocks` further on in the same segment.
    #[must_use]
    pub const fn plus(self, blocks: u32) -> Self {
        Self { segment: self.segment, block: self.block.wrapping_add(blocks as u16) }
    }

    /// The segment and the block of its slot, as check values take them.
    #[must_use]
    pub const fn place(self) -> (SegmentId, u32) {
        (self.segment, self.block as u32)
    }
}

/// A run of blocks of a page in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Not mentioned: a hole, or in a partial page whatever the stored page has.
    Hole,
    /// A hole, whatever the stored page has. In partial pages only.
    Zero,
    /// Data, at neighbouring locations from this one on.
    Data {
        /// Of the first block.
        location: Location,
        /// Four bytes a block, little-endian.
        checks: &'a [u8],
    },
}

/// What a run of blocks becomes.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Holes.
    Hole,
    /// Data, at neighbouring locations from this one on.
    Data {
        /// Of the first block.
        location: Location,
        /// Four bytes a block, little-endian.
        checks: &'a [u8],
    },
}

/// What a change took the place of: of the blocks that were mentioned, how many were in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Blocks that held data.
    pub data: u32,
    /// Blocks that were [`Found::Zero`].
    pub zeros: u32,
}

impl Replaced {
    const fn add(&mut self, is_zero: bool, blocks: u32) {
        if is_zero { self.zeros += blocks } else { self.data += blocks }
    }
}

/// How far segment ids reach from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// 16 bits.
    Short,
    /// 24 bits.
    Middle,
    /// 40 bits: every id, from base 0.
    All,
}

impl Reach {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Short),
            1 => Some(Self::Middle),
            2 => Some(Self::All),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Short => 0,
            Self::Middle => 1,
            Self::All => 2,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Short => 2,
            Self::Middle => 3,
            Self::All => 5,
        }
    }

    /// The distance that stands for [`Found::Zero`]; others are below.
    const fn zero_mark(self) -> u64 {
        (1 << (8 * self.bytes())) - 1
    }
}

/// How a page's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    is_dense: bool,
    reach: Reach,
}

impl Layout {
    const fn segment_len(self) -> usize {
        self.reach.bytes()
    }

    const fn run_len(self) -> usize {
        RUN_FIXED + self.segment_len()
    }

    const fn zero_mark(self) -> u64 {
        self.reach.zero_mark()
    }

    const fn dense_bytes(self) -> usize {
        PAGE_BLOCKS as usize * (2 + self.segment_len() + CHECK_LEN)
    }
}

/// A page of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    bytes: Vec<u8>,
    base: u64,
    run_count: u16,
    /// Runs of more than one block; while there are none, a run's place is that of its check value.
    long_run_count: u16,
    layout: Layout,
    is_partial: bool,
}

/// One run as it is packed.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    len: u32,
    block: u16,
    distance: u64,
}

impl Run {
    const fn end(self) -> u32 {
        self.start + self.len
    }
}

impl Page {
    /// Makes a page without data.
    #[must_use]
    pub const fn empty(is_partial: bool) -> Self {
        let layout = Layout { is_dense: false, reach: Reach::Short };
        Self { bytes: Vec::new(), base: 0, run_count: 0, long_run_count: 0, layout, is_partial }
    }

    /// Whether what it does not mention is as in the stored page.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether it mentions no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        if self.layout.is_dense { self.mapped_blocks() == 0 } else { self.run_count == 0 }
    }

    /// Bytes it takes in memory beside its own struct.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Blocks that hold data.
    #[must_use]
    pub fn mapped_blocks(&self) -> u64 {
        let mut count = 0;
        self.visit(0, PAGE_BLOCKS, |_, len, found| {
            if matches!(found, Found::Data { .. }) {
                count += u64::from(len);
            }
        });
        count
    }

    /// Calls `visitor(first, len, found)` for the runs that make up `first..first + count`, in order.
    pub fn visit<'a>(&'a self, first: u32, count: u32, mut visitor: impl FnMut(u32, u32, Found<'a>)) {
        let end = (first + count).min(PAGE_BLOCKS);
        if self.layout.is_dense {
            self.visit_dense(first, end, &mut visitor);
        } else {
            self.visit_packed(first, end, &mut visitor);
        }
    }

    fn visit_packed<'a>(&'a self, first: u32, end: u32, visitor: &mut impl FnMut(u32, u32, Found<'a>)) {
        let mut at = first;
        let mut index = self.first_run_ending_after(first);
        let mut check_index = self.checks_before(index);
        while at < end {
            let run = self.run(index).filter(|run| run.start < end);
            let Some(run) = run else {
                visitor(at, end - at, Found::Hole);
                return;
            };
            if run.start > at {
                visitor(at, run.start - at, Found::Hole);
                at = run.start;
            }
            let skip = at - run.start;
            let len = run.end().min(end) - at;
            visitor(at, len, self.found(run, skip, self.checks(check_index + skip as usize, len)));
            at += len;
            check_index += run.len as usize;
            index += 1;
        }
    }

    fn found<'a>(&self, run: Run, skip: u32, checks: &'a [u8]) -> Found<'a> {
        if run.distance == self.layout.zero_mark() {
            return Found::Zero;
        }
        let location = Location { segment: SegmentId(self.base + run.distance), block: run.block };
        Found::Data { location: location.plus(skip), checks }
    }

    fn visit_dense<'a>(&'a self, first: u32, end: u32, visitor: &mut impl FnMut(u32, u32, Found<'a>)) {
        let mut at = first;
        while at < end {
            let (block, distance) = self.dense_entry(at);
            let mut len = 1;
            while at + len < end
                && self.dense_entry(at + len) == Self::dense_successor(block, distance, len, self.layout)
            {
                len += 1;
            }
            let found = if distance == 0 && block == 0 {
                Found::Hole
            } else {
                self.found(Run { start: at, len, block, distance }, 0, self.checks(at as usize, len))
            };
            visitor(at, len, found);
            at += len;
        }
    }

    const fn dense_successor(block: u16, distance: u64, by: u32, layout: Layout) -> (u16, u64) {
        let is_data = !(block == 0 && distance == 0) && distance != layout.zero_mark();
        (if is_data { block.wrapping_add(by as u16) } else { block }, distance)
    }

    /// Changes the state of `first..first + count`, which lies within the page, and tells what that was before.
    ///
    /// # Panics
    /// When the range leaves the page, or the check values are not one a block.
    pub fn change(&mut self, first: u32, count: u32, change: Change<'_>) -> Replaced {
        assert!(first + count <= PAGE_BLOCKS, "a change stays within its page");
        if count == 0 {
            return Replaced::default();
        }
        if let Change::Data { location, checks } = change {
            assert_eq!(checks.len(), count as usize * CHECK_LEN, "one check value a block");
            self.reach(location.segment);
        }
        if self.layout.is_dense {
            self.change_dense(first, count, change)
        } else {
            let replaced = self.change_packed(first, count, change);
            self.densify_if_smaller();
            replaced
        }
    }

    fn distance_of(&self, change: Change<'_>) -> Option<(u16, u64)> {
        match change {
            Change::Data { location, .. } => Some((location.block, location.segment.0 - self.base)),
            Change::Hole => self.is_partial.then_some((0, self.layout.zero_mark())),
        }
    }

    fn change_packed(&mut self, first: u32, count: u32, change: Change<'_>) -> Replaced {
        let end = first + count;
        let mut replaced = Replaced::default();
        let from = self.first_run_ending_after(first);
        let mut to = from;
        let checks_from = self.checks_before(from);
        let mut checks_len = 0;
        let mut runs = SmallRuns::default();
        let mut left_checks: [u8; RUN_BLOCKS_MAX as usize * CHECK_LEN] = [0; _];
        let mut right_checks = left_checks;
        let (mut left_len, mut right_len) = (0, 0);
        while let Some(run) = self.run(to).filter(|run| run.start < end) {
            replaced.add(run.distance == self.layout.zero_mark(), run.end().min(end) - run.start.max(first));
            if run.start < first {
                let keep = first - run.start;
                left_len = copy_checks(&mut left_checks, self.checks(checks_from + checks_len, keep));
                runs.left = Some(Run { len: keep, ..run });
            }
            if run.end() > end {
                let skip = end - run.start;
                let kept = self.checks(checks_from + checks_len + skip as usize, run.len - skip);
                right_len = copy_checks(&mut right_checks, kept);
                let block =
                    if run.distance == self.layout.zero_mark() { 0 } else { run.block.wrapping_add(skip as u16) };
                runs.right = Some(Run { start: end, len: run.len - skip, block, distance: run.distance });
            }
            checks_len += run.len as usize;
            to += 1;
        }
        let entry = self.distance_of(change);
        let zeros = [0_u8; RUN_BLOCKS_MAX as usize * CHECK_LEN];
        self.splice_checks(checks_from, checks_len, |out| {
            out.extend_from_slice(left_checks.get(..left_len).unwrap_or_default());
            match change {
                Change::Data { checks, .. } => out.extend_from_slice(checks),
                Change::Hole if entry.is_some() => {
                    (0..count.div_ceil(RUN_BLOCKS_MAX)).for_each(|_| out.extend_from_slice(&zeros));
                    out.truncate(left_len + count as usize * CHECK_LEN);
                }
                Change::Hole => {}
            }
            out.extend_from_slice(right_checks.get(..right_len).unwrap_or_default());
        });
        self.splice_runs(
            from,
            to,
            &runs,
            entry.map(|(block, distance)| Run { start: first, len: count, block, distance }),
        );
        replaced
    }

    fn splice_checks(&mut self, from: usize, len: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut scratch = Vec::new();
        fill(&mut scratch);
        let at = usize::from(self.run_count) * self.layout.run_len() + from * CHECK_LEN;
        replace_bytes(&mut self.bytes, at, len * CHECK_LEN, &scratch);
    }

    fn splice_runs(&mut self, from: usize, to: usize, kept: &SmallRuns, new: Option<Run>) {
        for index in from..to {
            self.long_run_count -= u16::from(self.run(index).is_some_and(|run| run.len > 1));
        }
        let mut scratch = Vec::new();
        let mut added = 0_u16;
        let mut push = |run: Run, long: &mut u16| {
            put_run(&mut scratch, run, self.layout);
            added += 1;
            *long += u16::from(run.len > 1);
        };
        let mut long = self.long_run_count;
        if let Some(run) = kept.left {
            push(run, &mut long);
        }
        if let Some(run) = new {
            let is_zero = run.distance == self.layout.zero_mark();
            let mut at = 0;
            while at < run.len {
                let len = (run.len - at).min(RUN_BLOCKS_MAX);
                let block = if is_zero { 0 } else { run.block.wrapping_add(at as u16) };
                push(Run { start: run.start + at, len, block, distance: run.distance }, &mut long);
                at += len;
            }
        }
        if let Some(run) = kept.right {
            push(run, &mut long);
        }
        self.long_run_count = long;
        let run_len = self.layout.run_len();
        replace_bytes(&mut self.bytes, from * run_len, (to - from) * run_len, &scratch);
        self.run_count = self.run_count + added - (to - from) as u16;
    }

    fn change_dense(&mut self, first: u32, count: u32, change: Change<'_>) -> Replaced {
        let (block, distance) = self.distance_of(change).unwrap_or((0, 0));
        let mut replaced = Replaced::default();
        for by in 0..count {
            let before = self.dense_entry(first + by);
            if before != (0, 0) {
                replaced.add(before.1 == self.layout.zero_mark(), 1);
            }
            let (block, distance) = Self::dense_successor(block, distance, by, self.layout);
            self.put_dense_entry(first + by, block, distance);
        }
        let at = self.checks_offset() + first as usize * CHECK_LEN;
        if let Some(out) = self.bytes.get_mut(at..at + count as usize * CHECK_LEN) {
            match change {
                Change::Data { checks, .. } => out.copy_from_slice(checks),
                Change::Hole => out.fill(0),
            }
        }
        replaced
    }

    /// Makes sure that `segment` can be told from the base.
    fn reach(&mut self, segment: SegmentId) {
        let fits = |base: u64, layout: Layout| segment.0.checked_sub(base).is_some_and(|d| d < layout.zero_mark());
        if fits(self.base, self.layout) {
            return;
        }
        let (mut least, mut most) = (segment.0, segment.0);
        self.visit(0, PAGE_BLOCKS, |_, _, found| {
            if let Found::Data { location, .. } = found {
                least = least.min(location.segment.0);
                most = most.max(location.segment.0);
            }
        });
        let fits_in = |reach: Reach| most - least < reach.zero_mark();
        let reach = [Reach::Short, Reach::Middle].into_iter().find(|reach| fits_in(*reach)).unwrap_or(Reach::All);
        // The base lies well below, so that older segments, which come in with a stored page, seldom move it again.
        let room = (reach.zero_mark() - 1).saturating_sub(most - least) / 2;
        let base = if reach == Reach::All { 0 } else { least.saturating_sub(room) };
        self.relocate(base, Layout { reach, ..self.layout });
    }

    /// Writes the page anew with another base and layout.
    fn relocate(&mut self, base: u64, layout: Layout) {
        let mut new = Self { base, layout, ..Self::empty(self.is_partial) };
        if layout.is_dense {
            new.bytes = vec![0; layout.dense_bytes()];
        }
        self.visit(0, PAGE_BLOCKS, |first, len, found| match found {
            Found::Hole => {}
            Found::Zero => new.put_run_at_end(first, len, Change::Hole),
            Found::Data { location, checks } => new.put_run_at_end(first, len, Change::Data { location, checks }),
        });
        *self = new;
    }

    fn put_run_at_end(&mut self, first: u32, len: u32, change: Change<'_>) {
        if self.layout.is_dense {
            self.change_dense(first, len, change);
        } else {
            self.change_packed(first, len, change);
        }
    }

    fn densify_if_smaller(&mut self) {
        if self.bytes.len() > self.layout.dense_bytes() {
            self.relocate(self.base, Layout { is_dense: true, ..self.layout });
        }
    }

    /// The stored page with what this partial page says laid over it; `self` when it is not partial.
    #[must_use]
    pub fn over(&self, stored: &Self) -> Self {
        if !self.is_partial {
            return self.clone();
        }
        let mut merged = stored.clone();
        self.visit(0, PAGE_BLOCKS, |first, len, found| match found {
            Found::Hole => {}
            Found::Zero => drop(merged.change(first, len, Change::Hole)),
            Found::Data { location, checks } => drop(merged.change(first, len, Change::Data { location, checks })),
        });
        merged
    }

    /// Its encoded form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + self.bytes.len());
        let flags = u8::from(self.is_partial) | u8::from(self.layout.is_dense) << 1 | self.layout.reach.code() << 2;
        out.extend_from_slice(&[flags, 0]);
        out.extend_from_slice(&self.run_count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Decodes what [`Self::encode`] made.
    ///
    /// # Errors
    /// [`FormatError`] when the bytes are no page.
    pub fn decode(encoded: &[u8]) -> Result<Self, FormatError> {
        let (header, bytes) = encoded.split_first_chunk::<HEADER_LEN>().ok_or(FormatError::Short)?;
        let [flags, 0, count_low, count_high, 0, 0, 0, 0, base @ ..] = *header else {
            return Err(FormatError::Field("page header"));
        };
        let reach = Reach::from_code(flags >> 2).ok_or(FormatError::Field("page flags"))?;
        let mut page = Self {
            bytes: bytes.to_vec(),
            base: u64::from_le_bytes(base),
            run_count: u16::from_le_bytes([count_low, count_high]),
            long_run_count: 0,
            layout: Layout { is_dense: flags & 2 != 0, reach },
            is_partial: flags & 1 != 0,
        };
        page.check_shape()?;
        Ok(page)
    }

    fn check_shape(&mut self) -> Result<(), FormatError> {
        if self.base > SegmentId::MAX.0 {
            return Err(FormatError::Field("page base"));
        }
        if self.layout.is_dense {
            let right = self.bytes.len() == self.layout.dense_bytes() && self.run_count == 0;
            return if right { Ok(()) } else { Err(FormatError::Field("dense page length")) };
        }
        if self.bytes.len() < usize::from(self.run_count) * self.layout.run_len() {
            return Err(FormatError::Short);
        }
        let (mut end, mut blocks) = (0, 0_usize);
        for index in 0..usize::from(self.run_count) {
            let run = self.run(index).ok_or(FormatError::Short)?;
            if run.start < end || run.end() > PAGE_BLOCKS {
                return Err(FormatError::Field("page run"));
            }
            end = run.end();
            blocks += run.len as usize;
            self.long_run_count += u16::from(run.len > 1);
        }
        let right = self.bytes.len() == self.checks_offset() + blocks * CHECK_LEN;
        if right { Ok(()) } else { Err(FormatError::Field("page length")) }
    }

    const fn checks_offset(&self) -> usize {
        if self.layout.is_dense {
            PAGE_BLOCKS as usize * (2 + self.layout.segment_len())
        } else {
            self.run_count as usize * self.layout.run_len()
        }
    }

    fn checks(&self, index: usize, count: u32) -> &[u8] {
        let at = self.checks_offset() + index * CHECK_LEN;
        self.bytes.get(at..at + count as usize * CHECK_LEN).unwrap_or_default()
    }

    /// How many check values come before those of run `index`.
    fn checks_before(&self, index: usize) -> usize {
        if self.long_run_count == 0 {
            return index;
        }
        (0..index).map(|i| (self.start_and_len(i) >> 11) as usize + 1).sum()
    }

    /// First run that ends after block `at`; the number of runs when none does.
    fn first_run_ending_after(&self, at: u32) -> usize {
        let (mut low, mut high) = (0, usize::from(self.run_count));
        while low < high {
            let middle = usize::midpoint(low, high);
            let packed = self.start_and_len(middle);
            if u32::from(packed & 0x7ff) + u32::from(packed >> 11) + 1 > at { high = middle } else { low = middle + 1 }
        }
        low
    }

    fn start_and_len(&self, index: usize) -> u16 {
        let at = index * self.layout.run_len();
        self.bytes.get(at..at + 2).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
    }

    fn run(&self, index: usize) -> Option<Run> {
        if index >= usize::from(self.run_count) {
            return None;
        }
        let at = index * self.layout.run_len();
        let bytes = self.bytes.get(at..at + self.layout.run_len())?;
        let ([s0, s1, b0, b1], segment) = bytes.split_first_chunk::<RUN_FIXED>()?;
        let packed = u16::from_le_bytes([*s0, *s1]);
        Some(Run {
            start: u32::from(packed & 0x7ff),
            len: u32::from(packed >> 11) + 1,
            block: u16::from_le_bytes([*b0, *b1]),
            distance: read_uint(segment),
        })
    }

    fn dense_entry(&self, index: u32) -> (u16, u64) {
        let len = 2 + self.layout.segment_len();
        let at = index as usize * len;
        let entry = self.bytes.get(at..at + len).and_then(|bytes| bytes.split_first_chunk::<2>());
        entry.map_or((0, 0), |(block, segment)| (u16::from_le_bytes(*block), read_uint(segment)))
    }

    fn put_dense_entry(&mut self, index: u32, block: u16, distance: u64) {
        let len = 2 + self.layout.segment_len();
        let at = index as usize * len;
        if let Some((to_block, to_segment)) =
            self.bytes.get_mut(at..at + len).and_then(|b| b.split_first_chunk_mut::<2>())
        {
            *to_block = block.to_le_bytes();
            let wide = distance.to_le_bytes();
            to_segment.copy_from_slice(wide.get(..to_segment.len()).unwrap_or_default());
        }
    }
}

/// What is kept of the runs at the edges of a change.
#[derive(Debug, Default)]
struct SmallRuns {
    left: Option<Run>,
    right: Option<Run>,
}

fn put_run(out: &mut Vec<u8>, run: Run, layout: Layout) {
    let packed = (run.start | (run.len - 1) << 11) as u16;
    out.extend_from_slice(&packed.to_le_bytes());
    out.extend_from_slice(&run.block.to_le_bytes());
    out.extend_from_slice(run.distance.to_le_bytes().get(..layout.segment_len()).unwrap_or_default());
}

fn read_uint(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn copy_checks(to: &mut [u8], from: &[u8]) -> usize {
    if let Some(to) = to.get_mut(..from.len()) {
        to.copy_from_slice(from);
    }
    from.len()
}

/// Replaces `len` bytes from `at` on. Grows by a sixty-fourth at a time, since millions of pages live in memory.
fn replace_bytes(bytes: &mut Vec<u8>, at: usize, len: usize, new: &[u8]) {
    let old_total = bytes.len();
    let new_total = old_total - len + new.len();
    if new_total > bytes.capacity() {
        bytes.reserve_exact(new_total + new_total / 64 - old_total);
    }
    if new.len() >= len {
        bytes.resize(new_total, 0);
    }
    bytes.copy_within(at + len..old_total, at + new.len());
    if new.len() < len {
        bytes.truncate(new_total);
    }
    if let Some(slot) = bytes.get_mut(at..at + new.len()) {
        slot.copy_from_slice(new);
    }
}

#[cfg(test)]
mod tests;
