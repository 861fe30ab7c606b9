//! The proof, in a bundle, that a book ended in a certain tip when a head was signed.

use super::digest::Digest;
use super::entry::Book;
use super::merkle::{self, PATH_LEN_MAX, Tree};
use super::text::{NotCanonical, Text};
use super::tip::Tip;
use std::fmt::Write as _;
use units::TenantId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) book: Book,
    pub(super) count: u64,
    pub(super) hash: Digest,
    pub(super) path: Vec<Digest>,
}

impl Proof {
    /// The tip, if it is that leaf of `tips` which is the tenant's.
    pub(super) fn tip(&self, tenant: TenantId, tips: Tree) -> Option<Tip> {
        let tip = Tip { tenant, book: self.book, count: self.count, hash: self.hash };
        merkle::is_included(tip.leaf(), (tip.place(), tips.size), &self.path, tips.root).then_some(tip)
    }

    pub(super) fn line(&self) -> String {
        let mut line =
            format!("{{\"proof\":\"{}\",\"count\":{},\"hash\":\"{}\",\"path\":[", self.book, self.count, self.hash);
        for (place, step) in self.path.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(line, "{comma}\"{step}\"").expect("a text takes all that is written");
        }
        line.push_str("]}");
        line
    }

    pub(super) fn parse(line: &[u8]) -> Result<Self, NotCanonical> {
        let mut text = Text::new(line);
        text.literal("{\"proof\":\"")?;
        let book = Book::take(&mut text)?;
        text.literal("\",\"count\":")?;
        let count = text.number()?;
        text.literal(",\"hash\":\"")?;
        let hash = text.digest()?;
        text.literal("\",\"path\":[")?;
        let mut path = Vec::new();
        while !text.takes("]}") {
            if path.len() == PATH_LEN_MAX {
                return Err(text.refusal());
            }
            text.literal(if path.is_empty() { "\"" } else { ",\"" })?;
            path.push(text.digest()?);
            text.literal("\"")?;
        }
        text.end()?;
        Ok(Self { book, count, hash, path })
    }
}
