//! A bundle: what a tenant is given of the ledger, to check it without us. Lines: what it is of; then of each head the entries
//! before it that no earlier head has, book by book, the head, and a proof for each book. Spec: `docs/metering.md`, "Bundle".
//!
//! The exporter is fed the log's lines in order, those of all tenants, from the head on behind which the period begins.

use super::digest::Digest;
use super::entry::{Book, Entry};
use super::head::Head;
use super::merkle;
use super::proof::Proof;
use super::text::{NotCanonical, Text};
use super::tip::Tip;
use std::fmt;
use units::TenantId;

/// Which books a bundle has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    /// Both.
    Both,
    /// The account's alone: for a time of which the readings were dropped.
    Account,
}

impl Books {
    pub(super) const fn list(self) -> &'static [Book] {
        match self {
            Self::Both => &Book::ALL,
            Self::Account => &[Book::Account],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Account => "account",
        }
    }
}

/// What a bundle is of: its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tenant: TenantId,
    pub(super) books: Books,
    /// Whether the books begin with their first entries; else behind the first head.
    pub(super) is_origin: bool,
    pub(super) first_head: u64,
    pub(super) last_head: u64,
}

impl Header {
    fn line(&self) -> String {
        format!(
            "{{\"bundle\":1,\"tenant\":{},\"books\":\"{}\",\"origin\":{},\"first\":{},\"last\":{}}}",
            self.tenant,
            self.books.name(),
            self.is_origin,
            self.first_head,
            self.last_head
        )
    }

    pub(super) fn parse(line: &[u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"bundle\":1,\"tenant\":")?;
        let tenant = TenantId(text.number()?);
        text.literal(",\"books\":\"")?;
        let books = if text.takes(Books::Both.name()) { Books::Both } else { Books::Account };
        if books == Books::Account {
            text.literal(Books::Account.name())?;
        }
        text.literal("\",\"origin\":")?;
        let is_origin = text.takes("true");
        if !is_origin {
            text.literal("false")?;
        }
        text.literal(",\"first\":")?;
        let first_head = text.number()?;
        text.literal(",\"last\":")?;
        let refusal = text.refusal();
        let last_head = text.number()?;
        text.literal("}")?;
        text.end()?;
        if first_head == 0 || last_head < first_head {
            return Err(refusal);
        }
        Ok(Self { tenant, books, is_origin, first_head, last_head })
    }
}

/// What to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Whose books.
    pub tenant: TenantId,
    /// Which of them.
    pub books: Books,
    /// The head behind which the period begins; `None` for all of it from the first entry on.
    pub after: Option<u64>,
    /// The head that ends the period.
    pub last: u64,
}

/// Makes a bundle of the log's lines. Holds what the tenant has between two heads, and the leaves of one head.
#[derive(Debug)]
pub struct Exporter {
    export: Export,
    books: Vec<BookState>,
    gathering: Option<Gathering>,
    is_behind_anchor: bool,
    is_started: bool,
    is_done: bool,
}

/// One of the books, as far as it was read.
#[derive(Debug)]
struct BookState {
    tip: Tip,
    /// The lines behind the last head.
    lines: Vec<u8>,
}

/// A head of which tips are still to come.
#[derive(Debug)]
struct Gathering {
    head: Head,
    leaves: Vec<Digest>,
    /// The tenant's own tips.
    own: Vec<Tip>,
}

impl Exporter {
    /// Wants the log's lines from that of head `export.after` on, or from the first of all.
    #[must_use]
    pub fn new(export: Export) -> Self {
        let state = |book: &Book| BookState { tip: Tip::empty(export.tenant, *book), lines: Vec::new() };
        Self {
            export,
            books: export.books.list().iter().map(state).collect(),
            gathering: None,
            is_behind_anchor: export.after.is_none(),
            is_started: false,
            is_done: false,
        }
    }

    /// Whether the bundle is complete. What comes later is not looked at.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes the log's next line; what the bundle goes on with is put behind `out`.
    ///
    /// # Errors
    /// [`ExportError`]: no bundle can be made of these lines.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), ExportError> {
        if self.is_done {
            return Ok(());
        }
        if line.starts_with(b"{\"entry\":") {
            return self.on_entry(line);
        }
        if line.starts_with(b"{\"tip\":") {
            let tip = Tip::parse(line)?;
            self.on_tip(tip);
        } else {
            let head = Head::parse(line)?;
            self.gathering = Some(Gathering { head, leaves: Vec::new(), own: Vec::new() });
        }
        match self.gathering.take_if(|gathering| gathering.is_complete()) {
            Some(gathering) => self.on_head(&gathering, out),
            None => Ok(()),
        }
    }

    fn on_entry(&mut self, line: &[u8]) -> Result<(), ExportError> {
        if !self.is_behind_anchor || Entry::tenant_of(line)? != self.export.tenant {
            return Ok(());
        }
        let entry = Entry::parse(line)?;
        if let Some(book) = self.books.iter_mut().find(|state| state.tip.book == entry.kind.book()) {
            book.tip.follow(&entry, line).map_err(|_| ExportError::Gap)?;
            book.lines.extend_from_slice(line);
            book.lines.push(b'\n');
        }
        Ok(())
    }

    fn on_tip(&mut self, tip: Tip) {
        if let Some(gathering) = &mut self.gathering {
            if tip.tenant == self.export.tenant && self.export.books.list().contains(&tip.book) {
                gathering.own.push(tip);
            }
            gathering.leaves.push(tip.leaf());
        }
    }

    fn on_head(&mut self, gathering: &Gathering, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let (number, own) = (gathering.head.number(), &gathering.own);
        if merkle::root(&gathering.leaves) != gathering.head.tips().root {
            return Err(ExportError::Root);
        }
        let is_anchor = self.export.after == Some(number);
        if is_anchor {
            self.is_behind_anchor = true;
            for (book, tip) in self.books.iter_mut().zip(own) {
                book.tip = *tip;
            }
        } else if !self.is_behind_anchor {
            return Ok(());
        }
        if own.is_empty() {
            // The tenant came later, or not at all.
            return if self.is_started || number >= self.export.last { Err(ExportError::Tenant) } else { Ok(()) };
        }
        if !own.iter().eq(self.books.iter().map(|book| &book.tip)) {
            return Err(ExportError::Gap);
        }
        if !self.is_started {
            self.is_started = true;
            let Export { tenant, books, last, .. } = self.export;
            let header = Header { tenant, books, is_origin: !is_anchor, first_head: number, last_head: last };
            push_line(out, &header.line());
        }
        self.books.iter_mut().for_each(|book| out.append(&mut book.lines));
        push_line(out, &gathering.head.line());
        gathering.proofs().for_each(|proof| push_line(out, &proof.line()));
        self.is_done = number >= self.export.last;
        Ok(())
    }
}

impl Gathering {
    fn is_complete(&self) -> bool {
        u64::try_from(self.leaves.len()).is_ok_and(|count| count >= self.head.tips().size)
    }

    fn proofs(&self) -> impl Iterator<Item = Proof> {
        let path = |tip: &Tip| merkle::inclusion(&self.leaves, usize::try_from(tip.place()).ok()?);
        self.own.iter().map(move |tip| Proof {
            book: tip.book,
            count: tip.count,
            hash: tip.hash,
            path: path(tip).unwrap_or_default(),
        })
    }
}

fn push_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

/// Why no bundle can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportError {
    /// A line of the log is none.
    Line(NotCanonical),
    /// Entries are missing: lines were left out, or what was measured so long ago was dropped.
    Gap,
    /// The tips are not those that the head was signed over.
    Root,
    /// The ledger has nothing of the tenant by then.
    Tenant,
}

impl From<NotCanonical> for ExportError {
    fn from(error: NotCanonical) -> Self {
        Self::Line(error)
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => write!(f, "a line of the ledger is {error}"),
            Self::Gap => {
                f.write_str("the ledger does not have all entries of the period: older readings may have been dropped")
            }
            Self::Root => f.write_str("the ledger's tips are not those that the head was signed over"),
            Self::Tenant => f.write_str("the ledger has nothing of the tenant in the period"),
        }
    }
}

impl std::error::Error for ExportError {}
