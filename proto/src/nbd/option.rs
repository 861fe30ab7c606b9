//! Options of the handshake as they come off the wire: NBD proto.md, "Option types".

use super::constants::{OPTION_HEADER_BYTES, OPTION_MAGIC, STRING_BYTES_MAX, info, option, option_reply};
use super::handshake::limit;
use crate::wire::{take_counted, take_u16, take_u32, take_u64};

/// The options that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownOption {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
    ExtendedHeaders,
}

impl KnownOption {
    pub(super) const fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            option::EXPORT_NAME => Self::ExportName,
            option::ABORT => Self::Abort,
            option::LIST => Self::List,
            option::STARTTLS => Self::StartTls,
            option::INFO => Self::Info,
            option::GO => Self::Go,
            option::STRUCTURED_REPLY => Self::StructuredReply,
            option::LIST_META_CONTEXT => Self::ListMetaContext,
            option::SET_META_CONTEXT => Self::SetMetaContext,
            option::EXTENDED_HEADERS => Self::ExtendedHeaders,
            _ => return None,
        })
    }

    pub(super) const fn to_wire(self) -> u32 {
        match self {
            Self::ExportName => option::EXPORT_NAME,
            Self::Abort => option::ABORT,
            Self::List => option::LIST,
            Self::StartTls => option::STARTTLS,
            Self::Info => option::INFO,
            Self::Go => option::GO,
            Self::StructuredReply => option::STRUCTURED_REPLY,
            Self::ListMetaContext => option::LIST_META_CONTEXT,
            Self::SetMetaContext => option::SET_META_CONTEXT,
            Self::ExtendedHeaders => option::EXTENDED_HEADERS,
        }
    }

    /// Whether the option must come without data.
    pub(super) const fn is_bare(self) -> bool {
        matches!(self, Self::List | Self::StartTls | Self::StructuredReply | Self::ExtendedHeaders)
    }
}

/// An error reply to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionError {
    pub(super) code: u32,
    pub(super) message: &'static str,
}

const fn invalid(message: &'static str) -> OptionError {
    OptionError { code: option_reply::ERR_INVALID, message }
}

/// An option's header: its number, and how much data follows. `None` when it begins with another magic.
pub(super) fn decode_header(header: [u8; OPTION_HEADER_BYTES]) -> Option<(u32, u32)> {
    let mut rest = header.as_slice();
    (take_u64(&mut rest)? == OPTION_MAGIC).then_some(())?;
    Some((take_u32(&mut rest)?, take_u32(&mut rest)?))
}

/// A string of the protocol: UTF-8 without NUL, at most 4096 bytes.
pub(super) fn decode_string(bytes: &[u8]) -> Result<&str, OptionError> {
    if bytes.len() > STRING_BYTES_MAX {
        return Err(invalid("a string is longer than 4096 bytes"));
    }
    let text = str::from_utf8(bytes).map_err(|_| invalid("a string is not UTF-8"))?;
    if text.contains('\0') { Err(invalid("a string contains NUL")) } else { Ok(text) }
}

/// What the client wants to know about an export, besides its size and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) name: bool,
    pub(super) description: bool,
    pub(super) block_size: bool,
}

/// Data of `NBD_OPT_INFO` and `NBD_OPT_GO`: name, number of information requests, the requests.
pub(super) fn decode_info(mut data: &[u8]) -> Result<(&str, Wanted), OptionError> {
    let malformed = invalid("lengths within the option do not add up");
    let name = decode_string(take_counted(&mut data).ok_or(malformed)?)?;
    let count = usize::from(take_u16(&mut data).ok_or(malformed)?);
    if data.len() != 2 * count {
        return Err(malformed);
    }
    let mut wanted = Wanted::default();
    while let Some(kind) = take_u16(&mut data) {
        match kind {
            info::NAME => wanted.name = true,
            info::DESCRIPTION => wanted.description = true,
            info::BLOCK_SIZE => wanted.block_size = true,
            // The export's size and flags are told in any case, and what is not known is to be ignored.
            _ => {}
        }
    }
    Ok((name, wanted))
}

/// Data of the meta context options: export name, number of queries, the queries.
pub(super) fn decode_meta_context(mut data: &[u8]) -> Result<(&str, Vec<&[u8]>), OptionError> {
    let malformed = invalid("lengths within the option do not add up");
    let name = decode_string(take_counted(&mut data).ok_or(malformed)?)?;
    let count = take_u32(&mut data).ok_or(malformed)?;
    if count > limit::QUERIES_MAX {
        return Err(OptionError { code: option_reply::ERR_TOO_BIG, message: "too many queries" });
    }
    let mut queries = Vec::new();
    for _ in 0..count {
        let query = take_counted(&mut data).ok_or(malformed)?;
        if query.len() > STRING_BYTES_MAX {
            return Err(invalid("a query is longer than 4096 bytes"));
        }
        queries.push(query);
    }
    if data.is_empty() { Ok((name, queries)) } else { Err(malformed) }
}
