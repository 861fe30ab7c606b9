//! Checks a bundle, line by line and in the memory of one line: needs a key or a head that is trusted, and nothing else.

use super::bundle::{Books, Header};
use super::digest::Digest;
use super::entry::{Book, Entry, LINE_BYTES_MAX};
use super::head::Head;
use super::key::PublicKey;
use super::proof::Proof;
use super::text::NotCanonical;
use super::tip::{ChainFault, Tip};
use std::fmt;
use units::TenantId;

/// What the checker knows from elsewhere. One head of the bundle at least has to bear one of the keys or be one of the heads;
/// it vouches for those before it by their hashes, and for those behind it by who may sign them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Keys of the ledger.
    pub keys: Vec<PublicKey>,
    /// Hashes of heads.
    pub heads: Vec<Digest>,
}

/// What a bundle was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which books it has.
    pub books: Books,
    /// The head behind which it begins; `None` when it has the books from their first entries on.
    pub after: Option<Head>,
    /// The head that ends it.
    pub last: Head,
    /// How many entries it has.
    pub entries: u64,
    /// Where the books ended then.
    pub tips: Vec<Tip>,
}

/// Checks a bundle that is there whole.
///
/// # Errors
/// [`VerifyError`]: where it is wrong first, and what is.
pub fn verify(bundle: &[u8], trust: Trust) -> Result<Verified, VerifyError> {
    let mut verifier = Verifier::new(trust);
    verifier.push(bundle, &mut |_| ())?;
    verifier.finish()
}

/// Checks a bundle that comes in pieces.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    partial: Vec<u8>,
    line: u64,
    fault: Option<VerifyError>,
    body: Option<Body>,
}

/// What is known once the first line is.
#[derive(Debug)]
struct Body {
    header: Header,
    expects: Expects,
    /// Of each book, in order; `None` before the head that tells where it begins.
    tips: Vec<Option<Tip>>,
    after: Option<Head>,
    head: Option<Head>,
    entries: u64,
    is_trusted: bool,
}

/// What the next line has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// An entry of the book at this place of the list, or of one behind it, or a head.
    EntryOrHead(usize),
    /// The proof of the book at this place.
    Proof(usize),
    /// There is no next line.
    Nothing,
}

impl Verifier {
    /// Knows nothing but `trust`.
    #[must_use]
    pub const fn new(trust: Trust) -> Self {
        Self { trust, partial: Vec::new(), line: 0, fault: None, body: None }
    }

    /// Takes the next bytes, however they are cut. Entries go to `on_entry`; they count once [`Self::finish`] says so.
    ///
    /// # Errors
    /// [`VerifyError`], and the same one for ever.
    pub fn push(&mut self, bytes: &[u8], on_entry: &mut dyn FnMut(&Entry<'_>)) -> Result<(), VerifyError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(error) = self.fault {
                return Err(error);
            }
            let (text, is_line) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let result = self.piece(text, is_line, on_entry);
            if let Err(fault) = result {
                self.fault = Some(VerifyError { line: self.line + 1, fault });
            } else if is_line {
                self.line += 1;
            }
        }
        self.fault.map_or(Ok(()), Err)
    }

    fn piece(&mut self, text: &[u8], is_line: bool, on_entry: &mut dyn FnMut(&Entry<'_>)) -> Result<(), Fault> {
        if self.partial.len() + text.len() > LINE_BYTES_MAX {
            return Err(Fault::Long);
        }
        self.partial.extend_from_slice(text);
        if !is_line {
            return Ok(());
        }
        let line = std::mem::take(&mut self.partial);
        match &mut self.body {
            None => self.body = Some(Body::new(Header::parse(&line)?)),
            Some(body) => body.line(&line, &self.trust, on_entry)?,
        }
        self.partial = line;
        self.partial.clear();
        Ok(())
    }

    /// Says that there are no more bytes.
    ///
    /// # Errors
    /// [`VerifyError`]: the bundle is wrong, or nothing in it is trusted.
    pub fn finish(self) -> Result<Verified, VerifyError> {
        if let Some(error) = self.fault {
            return Err(error);
        }
        let error = |fault| VerifyError { line: self.line + 1, fault };
        if !self.partial.is_empty() {
            return Err(error(Fault::Unfinished));
        }
        let Some(Body { header, expects, tips, after, head, entries, is_trusted }) = self.body else {
            return Err(error(Fault::Empty));
        };
        let Some(last) = head.filter(|_| expects == Expects::Nothing) else {
            return Err(error(Fault::Cut { last: header.last_head }));
        };
        if !is_trusted {
            return Err(error(Fault::Untrusted { key: last.key() }));
        }
        let tips = tips.into_iter().flatten().collect();
        Ok(Verified { tenant: header.tenant, books: header.books, after, last, entries, tips })
    }
}

impl Body {
    fn new(header: Header) -> Self {
        let tip = |book: &Book| header.is_origin.then(|| Tip::empty(header.tenant, *book));
        Self {
            header,
            expects: Expects::EntryOrHead(0),
            tips: header.books.list().iter().map(tip).collect(),
            after: None,
            head: None,
            entries: 0,
            is_trusted: false,
        }
    }

    fn line(&mut self, line: &[u8], trust: &Trust, on_entry: &mut dyn FnMut(&Entry<'_>)) -> Result<(), Fault> {
        match self.expects {
            Expects::EntryOrHead(place) if line.starts_with(b"{\"entry\":") => {
                let entry = Entry::parse(line)?;
                self.on_entry(&entry, line, place)?;
                on_entry(&entry);
                Ok(())
            }
            Expects::EntryOrHead(_) => self.on_head(Head::parse(line)?, trust),
            Expects::Proof(place) => self.on_proof(&Proof::parse(line)?, place),
            Expects::Nothing => Err(Fault::Trailing { last: self.header.last_head }),
        }
    }

    fn on_entry(&mut self, entry: &Entry<'_>, line: &[u8], at_least: usize) -> Result<(), Fault> {
        let book = entry.kind.book();
        let place = self.header.books.list().iter().position(|listed| *listed == book);
        let place = place.filter(|place| *place >= at_least).ok_or(Fault::Order { book, number: entry.number })?;
        let Some(Some(tip)) = self.tips.get_mut(place) else {
            return Err(Fault::Order { book, number: entry.number });
        };
        tip.follow(entry, line)?;
        self.expects = Expects::EntryOrHead(place);
        self.entries += 1;
        Ok(())
    }

    fn on_head(&mut self, head: Head, trust: &Trust) -> Result<(), Fault> {
        let number = head.number();
        let expected = self.head.map_or(self.header.first_head, |before| before.number() + 1);
        if number != expected {
            return Err(Fault::HeadNumber { expected, found: number });
        }
        let follows = match self.head {
            Some(before) => head.follows(&before),
            None => (number == 1) == (head.before() == Digest::NONE),
        };
        if !follows {
            return Err(Fault::HeadBefore { number });
        }
        if let Some(expected) = self.head.map(|before| before.key_of_next()).filter(|key| *key != head.key()) {
            return Err(Fault::HeadKey { number, expected, found: head.key() });
        }
        if !head.is_signed() {
            return Err(Fault::Signature { number });
        }
        self.is_trusted |= trust.keys.contains(&head.key()) || trust.heads.contains(&head.hash());
        if self.head.is_none() && !self.header.is_origin {
            self.after = Some(head);
        }
        self.head = Some(head);
        self.expects = Expects::Proof(0);
        Ok(())
    }

    fn on_proof(&mut self, proof: &Proof, place: usize) -> Result<(), Fault> {
        let book = self.header.books.list().get(place).copied().unwrap_or(proof.book);
        let Some(head) = self.head else { return Err(Fault::Proof { book, head: 0 }) };
        let fault = Fault::Proof { book, head: head.number() };
        let tip = proof.tip(self.header.tenant, head.tips()).filter(|tip| tip.book == book).ok_or(fault)?;
        let Some(known) = self.tips.get_mut(place) else { return Err(fault) };
        let reached = *known.get_or_insert(tip);
        if reached.count < tip.count {
            return Err(Fault::Missing { book, from: reached.count + 1, to: tip.count, head: head.number() });
        }
        if reached.count > tip.count {
            return Err(Fault::Surplus { book, number: reached.count, head: head.number() });
        }
        if reached.hash != tip.hash {
            return Err(Fault::Changed { book, number: tip.count, head: head.number() });
        }
        self.expects = if place + 1 < self.tips.len() {
            Expects::Proof(place + 1)
        } else if head.number() < self.header.last_head {
            Expects::EntryOrHead(0)
        } else {
            Expects::Nothing
        };
        Ok(())
    }
}

/// Where a bundle is wrong first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyError {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl std::error::Error for VerifyError {}

/// What is wrong with a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing.
    Empty,
    /// The line is longer than any line is.
    Long,
    /// The bundle ends within a line.
    Unfinished,
    /// The line is none of those that may come here.
    Line(NotCanonical),
    /// An entry comes before the head behind which the period begins, or behind another book's.
    Order {
        /// Its book.
        book: Book,
        /// Its number.
        number: u64,
    },
    /// An entry does not follow the one before.
    Chain(ChainFault),
    /// Another head than the next.
    HeadNumber {
        /// The next.
        expected: u64,
        /// The one that is there.
        found: u64,
    },
    /// A head does not follow the one before.
    HeadBefore {
        /// Its number.
        number: u64,
    },
    /// A head bears the signature of a key that may not sign it.
    HeadKey {
        /// Its number.
        number: u64,
        /// Who may.
        expected: PublicKey,
        /// Who did.
        found: PublicKey,
    },
    /// A head's signature is not that of its key.
    Signature {
        /// Its number.
        number: u64,
    },
    /// A proof does not prove what it says of a book under a head.
    Proof {
        /// The book.
        book: Book,
        /// The head's number.
        head: u64,
    },
    /// A head was signed over entries that are not there.
    Missing {
        /// Their book.
        book: Book,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// The head.
        head: u64,
    },
    /// There are entries before a head that it was not signed over.
    Surplus {
        /// Their book.
        book: Book,
        /// The last.
        number: u64,
        /// The head.
        head: u64,
    },
    /// The last entry before a head is not what it was signed over.
    Changed {
        /// Its book.
        book: Book,
        /// Its number.
        number: u64,
        /// The head.
        head: u64,
    },
    /// The bundle ends before the head that is to end it.
    Cut {
        /// That head's number.
        last: u64,
    },
    /// The bundle goes on behind the head that is to end it.
    Trailing {
        /// That head's number.
        last: u64,
    },
    /// All is well, and nobody who is trusted has signed it.
    Untrusted {
        /// Who has.
        key: PublicKey,
    },
}

impl From<NotCanonical> for Fault {
    fn from(error: NotCanonical) -> Self {
        Self::Line(error)
    }
}

impl From<ChainFault> for Fault {
    fn from(fault: ChainFault) -> Self {
        Self::Chain(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the bundle is empty"),
            Self::Long => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Self::Unfinished => f.write_str("the bundle ends within a line"),
            Self::Line(error) => error.fmt(f),
            Self::Order { book, number } => write!(f, "entry {number} of the {book} book has no place here"),
            Self::Chain(fault) => fault.fmt(f),
            Self::HeadNumber { expected, found } => write!(f, "head {found} where head {expected} belongs"),
            Self::HeadBefore { number } => {
                write!(f, "head {number} does not follow the one before it: one of the two was changed")
            }
            Self::HeadKey { number, expected, found } => {
                write!(f, "head {number} is signed by {found}, and only {expected} may")
            }
            Self::Signature { number } => write!(f, "the signature of head {number} is wrong: the head was changed"),
            Self::Proof { book, head } => {
                write!(f, "head {head} was not signed over what this says of the {book} book")
            }
            Self::Missing { book, from, to, head } => {
                write!(f, "entries {from} to {to} of the {book} book are missing: head {head} was signed over them")
            }
            Self::Surplus { book, number, head } => {
                write!(f, "head {head} was signed before there was an entry {number} of the {book} book")
            }
            Self::Changed { book, number, head } => {
                write!(f, "entry {number} of the {book} book was changed: head {head} was signed over another")
            }
            Self::Cut { last } => write!(f, "the bundle ends before head {last} and its proofs"),
            Self::Trailing { last } => write!(f, "the bundle goes on behind head {last} and its proofs"),
            Self::Untrusted { key } => {
                write!(f, "all is consistent, but no head is trusted: they are signed by {key}")
            }
        }
    }
}
