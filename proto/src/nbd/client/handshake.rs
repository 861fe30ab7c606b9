//! Options sent and their replies read.

use super::super::constants::{
    EXPORT_NAME_ZEROES, INIT_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, option,
};
use super::Malformed;
use crate::wire::{take, take_bytes, take_u16, take_u32, take_u64};

/// Most bytes of an option reply's data that are taken for sane.
const OPTION_REPLY_BYTES_MAX: usize = 1 << 20;

/// A reply to an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionReply {
    /// The option.
    pub option: u32,
    /// The reply's type, see `constants::option_reply`.
    pub kind: u32,
    /// Its data.
    pub data: Vec<u8>,
}

/// Takes the server's greeting and returns its handshake flags; `Ok(None)` means more bytes are needed.
///
/// # Errors
/// [`Malformed::Oldstyle`] or [`Malformed::Magic`] when it is no newstyle greeting.
pub fn decode_greeting(input: &mut &[u8]) -> Result<Option<u16>, Malformed> {
    let mut rest = *input;
    let fields = (take_u64(&mut rest), take_u64(&mut rest), take_u16(&mut rest));
    let (Some(init), Some(option), Some(flags)) = fields else {
        return Ok(None);
    };
    if init != INIT_MAGIC || option != OPTION_MAGIC {
        let is_oldstyle = init == INIT_MAGIC && option == OLDSTYLE_MAGIC;
        return Err(if is_oldstyle { Malformed::Oldstyle } else { Malformed::Magic });
    }
    *input = rest;
    Ok(Some(flags))
}

/// Appends the answer to the greeting.
pub fn encode_client_flags(flags: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&flags.to_be_bytes());
}

/// Appends an option with its data.
pub fn encode_option(number: u32, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&len_of(data).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends `NBD_OPT_EXPORT_NAME`.
pub fn encode_export_name(name: &str, out: &mut Vec<u8>) {
    encode_option(option::EXPORT_NAME, name.as_bytes(), out);
}

/// Appends `NBD_OPT_INFO` or `NBD_OPT_GO` with information requests.
pub fn encode_info(number: u32, name: &str, infos: &[u16], out: &mut Vec<u8>) {
    let mut data = len_of(name.as_bytes()).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&u16::try_from(infos.len()).unwrap_or(u16::MAX).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    encode_option(number, &data, out);
}

/// Appends `NBD_OPT_LIST_META_CONTEXT` or `NBD_OPT_SET_META_CONTEXT` with queries.
pub fn encode_meta_context(number: u32, name: &str, queries: &[&str], out: &mut Vec<u8>) {
    let mut data = len_of(name.as_bytes()).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&u32::try_from(queries.len()).unwrap_or(u32::MAX).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&len_of(query.as_bytes()).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    encode_option(number, &data, out);
}

/// Takes one reply to an option; `Ok(None)` means more bytes are needed.
///
/// # Errors
/// [`Malformed`] when it is none.
pub fn decode_option_reply(input: &mut &[u8]) -> Result<Option<OptionReply>, Malformed> {
    let mut rest = *input;
    let fields = (take_u64(&mut rest), take_u32(&mut rest), take_u32(&mut rest), take_u32(&mut rest));
    let (Some(magic), Some(option), Some(kind), Some(len)) = fields else {
        return Ok(None);
    };
    if magic != OPTION_REPLY_MAGIC {
        return Err(Malformed::Magic);
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= OPTION_REPLY_BYTES_MAX).ok_or(Malformed::Length)?;
    let Some(data) = take_bytes(&mut rest, len) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(OptionReply { option, kind, data: data.to_vec() }))
}

/// Takes the reply to `NBD_OPT_EXPORT_NAME`: size and transmission flags. `None` means more bytes are needed.
pub fn decode_export_name_reply(no_zeroes: bool, input: &mut &[u8]) -> Option<(u64, u16)> {
    let mut rest = *input;
    let facts = (take_u64(&mut rest)?, take_u16(&mut rest)?);
    if !no_zeroes {
        take::<EXPORT_NAME_ZEROES>(&mut rest)?;
    }
    *input = rest;
    Some(facts)
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
