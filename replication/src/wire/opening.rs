//! How a connection begins: each side says who it is, or why it does not go on.
//!
//! | offset | size | opening |
//! | --- | --- | --- |
//! | 0 | 8 | magic `ALJIBEMR` |
//! | 8 | 2 | 1: hello, 2: refusal |
//! | 10 | 2 | bytes of the body, at most [`OPENING_BYTES_MAX`] - 12 |
//!
//! This much, and the fields below, stay as they are in all versions: a later one may put more behind a hello, which is not looked at.
//!
//! | offset | size | hello |
//! | --- | --- | --- |
//! | 0 | 2 + 2 | lowest and highest version |
//! | 4 | 1 + 1 + 2 | site, the site that it wants to speak with, zero |
//! | 8 | 2 + 2 | which connection, how many carry data |
//! | 12 | 4 | zero |
//! | 16 | 16 | pool |
//! | 32 | 16 | the link's id |
//! | 48 | 8 | bytes of batches that it takes ahead on a data connection |
//!
//! A refusal is a code of two bytes and a text.

use super::bytes::Fields;
use super::error::{OpeningError, WireError};
use super::text::Text;
use std::fmt;
use units::{PoolId, SiteId};

/// The versions of the protocol that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Longest opening.
pub const OPENING_BYTES_MAX: usize = 512;

/// Most data connections of a link.
pub const CONNECTIONS_MAX: u16 = 16;

const MAGIC: [u8; 8] = *b"ALJIBEMR";
const HEAD_BYTES: usize = 12;
const KIND_HELLO: u16 = 1;
const KIND_REFUSAL: u16 = 2;
const HELLO_BYTES: u16 = 56;

/// A range of versions. `min <= max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl Versions {
    /// The highest version of both.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// Names one life of the link, at random: all connections of it bear it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub [u8; 16]);

/// Who opens a connection, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub versions: Versions,
    /// The site of the sender.
    pub site: SiteId,
    /// The one that it wants to speak with.
    pub wants: SiteId,
    /// Its pool.
    pub pool: PoolId,
    /// The life of the link; an answer repeats it.
    pub link: LinkId,
    /// 0: the control connection; from 1 on those that carry data. `connection <= data_connections`.
    pub connection: u16,
    /// How many of these there are. 1 to [`CONNECTIONS_MAX`]; an answer repeats it.
    pub data_connections: u16,
    /// How many bytes of batches the sender takes on a data connection before it has given credit for the first of them.
    pub window_bytes: u64,
}

/// Why a connection does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// No version in common.
    Version,
    /// Not the site that is expected here.
    Site,
    /// It belongs to no link that is being built here, or has a number that this one has not.
    Connection,
    /// What came is no hello.
    Protocol,
}

impl RefusalCode {
    const ALL: [Self; 4] = [Self::Version, Self::Site, Self::Connection, Self::Protocol];

    /// The code on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Site => 2,
            Self::Connection => 3,
            Self::Protocol => 4,
        }
    }

    fn from_wire(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.to_wire() == code)
    }
}

/// A connection does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub text: Text,
}

/// The first thing that is said on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// It goes on.
    Hello(Hello),
    /// It does not.
    Refusal(Refusal),
}

impl Opening {
    /// Takes one opening off the front of `input`; `Ok(None)` takes nothing and means more bytes are needed, though never more
    /// than [`OPENING_BYTES_MAX`] of them.
    ///
    /// # Errors
    /// [`OpeningError`]; of another protocol as soon as its first bytes are no magic.
    pub fn decode(input: &mut &[u8]) -> Result<Option<Self>, OpeningError> {
        if !MAGIC.iter().zip(*input).all(|(magic, byte)| magic == byte) {
            return Err(OpeningError::Magic);
        }
        let Some((head, rest)) = input.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let mut head = Fields(head.split_at_checked(MAGIC.len()).map_or(&[], |(_, head)| head));
        let (kind, body_bytes) = head.u16().and_then(|kind| Ok((kind, head.u16()?))).map_err(value)?;
        let is_known = match kind {
            KIND_HELLO => body_bytes >= HELLO_BYTES,
            KIND_REFUSAL => body_bytes >= 2,
            kind => return Err(OpeningError::UnknownKind { kind }),
        };
        if !is_known || usize::from(body_bytes) > OPENING_BYTES_MAX - HEAD_BYTES {
            return Err(OpeningError::Length { body_bytes });
        }
        let Some((body, rest)) = rest.split_at_checked(usize::from(body_bytes)) else { return Ok(None) };
        *input = rest;
        let mut body = Fields(body);
        let opening = if kind == KIND_HELLO {
            decode_hello(&mut body).map(Self::Hello)
        } else {
            decode_refusal(&mut body).map(Self::Refusal)
        };
        opening.map(Some).map_err(value)
    }

    /// The opening's bytes.
    ///
    /// # Panics
    /// When a hello says of itself what cannot be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = match self {
            Self::Hello(hello) => {
                encode_hello(hello, &mut body);
                KIND_HELLO
            }
            Self::Refusal(refusal) => {
                body.extend_from_slice(&refusal.code.to_wire().to_le_bytes());
                body.extend_from_slice(refusal.text.as_str().as_bytes());
                KIND_REFUSAL
            }
        };
        let body_bytes = u16::try_from(body.len()).expect("a text is short");
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&body_bytes.to_le_bytes());
        out.extend_from_slice(&body);
        assert!(out.len() <= OPENING_BYTES_MAX, "an opening is short");
        out
    }
}

fn decode_hello(body: &mut Fields<'_>) -> Result<Hello, WireError> {
    let versions = Versions { min: body.u16()?, max: body.u16()? };
    let [site, wants, _, _] = body.u32()?.to_le_bytes();
    let (connection, data_connections) = (body.u16()?, body.u16()?);
    body.u32()?;
    let hello = Hello {
        versions,
        site: SiteId(site),
        wants: SiteId(wants),
        connection,
        data_connections,
        pool: PoolId(body.bytes16()?),
        link: LinkId(body.bytes16()?),
        window_bytes: body.u64()?,
    };
    let wrong = |field| Err(WireError::Value { field });
    if versions.min > versions.max {
        return wrong("versions");
    }
    if !(1..=CONNECTIONS_MAX).contains(&data_connections) || connection > data_connections {
        return wrong("connections");
    }
    if hello.window_bytes == 0 { wrong("window") } else { Ok(hello) }
}

fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    let Hello { versions, site, wants, pool, link, connection, data_connections, window_bytes } = hello;
    assert!(versions.min <= versions.max && *window_bytes > 0, "a hello has a version and a window");
    assert!(
        (1..=CONNECTIONS_MAX).contains(data_connections) && connection <= data_connections,
        "one of its connections"
    );
    out.extend_from_slice(&versions.min.to_le_bytes());
    out.extend_from_slice(&versions.max.to_le_bytes());
    out.extend_from_slice(&[site.0, wants.0, 0, 0]);
    out.extend_from_slice(&connection.to_le_bytes());
    out.extend_from_slice(&data_connections.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&pool.0);
    out.extend_from_slice(&link.0);
    out.extend_from_slice(&window_bytes.to_le_bytes());
}

fn decode_refusal(body: &mut Fields<'_>) -> Result<Refusal, WireError> {
    let code = RefusalCode::from_wire(body.u16()?).ok_or(WireError::Value { field: "code" })?;
    Ok(Refusal { code, text: Text::decode(body.rest())? })
}

/// An opening that is long enough can be wrong in its values only.
const fn value(error: WireError) -> OpeningError {
    match error {
        WireError::Value { field } => OpeningError::Value { field },
        WireError::UnknownKind { .. }
        | WireError::Length { .. }
        | WireError::Reserved
        | WireError::OfGroup { .. }
        | WireError::Cut
        | WireError::Tail
        | WireError::OverCredit { .. } => OpeningError::Value { field: "body" },
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkId({self})")
    }
}
