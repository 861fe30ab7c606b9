//! Answers to the client's options: NBD proto.md, "Option reply types".

use super::super::constants::{EXPORT_NAME_ZEROES, OPTION_REPLY_MAGIC, info, option_reply};
use super::super::export::{BlockSizes, Export, TransmissionFlags};
use super::super::meta_context::MetaContext;
use super::super::option::{KnownOption, OptionError, Wanted};
use super::super::reply::clipped;
use super::limit;

/// Appends one reply to `option`. Its data is the concatenation of `parts`.
pub(super) fn reply(out: &mut Vec<u8>, option: u32, kind: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).expect("replies are made of a few limited strings");
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    for field in [option, kind, len] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out.extend(parts.iter().copied().flatten());
}

pub(super) fn ack(out: &mut Vec<u8>, option: KnownOption) {
    reply(out, option.to_wire(), option_reply::ACK, &[]);
}

pub(super) fn error(out: &mut Vec<u8>, option: u32, error: OptionError) {
    reply(out, option, error.code, &[error.message.as_bytes()]);
}

/// Appends the description of an export that a successful `NBD_OPT_INFO` or `NBD_OPT_GO` gets.
pub(super) fn export(
    out: &mut Vec<u8>,
    option: KnownOption,
    export: &Export,
    flags: TransmissionFlags,
    wanted: Wanted,
) {
    let mut fact = |kind: u16, parts: [&[u8]; 3]| {
        let [first, second, third] = parts;
        reply(out, option.to_wire(), option_reply::INFO, &[&kind.to_be_bytes(), first, second, third]);
    };
    fact(info::EXPORT, [&export.size_bytes.to_be_bytes(), &flags.to_wire().to_be_bytes(), &[]]);
    if wanted.name {
        fact(info::NAME, [export.name.as_bytes(), &[], &[]]);
    }
    if wanted.description && !export.description.is_empty() {
        fact(info::DESCRIPTION, [clipped(&export.description).as_bytes(), &[], &[]]);
    }
    let sizes = export.block_sizes;
    // Limits that a client would not take for granted are told unasked.
    if wanted.block_size || sizes != BlockSizes::default() {
        let [min, preferred, payload_max] =
            [sizes.min_bytes, sizes.preferred_bytes, sizes.payload_bytes_max].map(u32::to_be_bytes);
        fact(info::BLOCK_SIZE, [&min, &preferred, &payload_max]);
    }
    ack(out, option);
}

/// Appends the answer to `NBD_OPT_EXPORT_NAME`, which has no reply header.
pub(super) fn export_name(out: &mut Vec<u8>, export: &Export, flags: TransmissionFlags, no_zeroes: bool) {
    out.extend_from_slice(&export.size_bytes.to_be_bytes());
    out.extend_from_slice(&flags.to_wire().to_be_bytes());
    if !no_zeroes {
        out.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
    }
}

/// Appends the answer to `NBD_OPT_LIST`; a list that grows too long ends with an error.
pub(super) fn list<'a>(out: &mut Vec<u8>, exports: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let list_option = KnownOption::List;
    for (name, description) in exports {
        if out.len() > limit::LIST_BYTES_MAX {
            let too_big = OptionError { code: option_reply::ERR_TOO_BIG, message: "too many exports to list" };
            return error(out, list_option.to_wire(), too_big);
        }
        let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts = [name_len.as_slice(), name.as_bytes(), clipped(description).as_bytes()];
        reply(out, list_option.to_wire(), option_reply::SERVER, &parts);
    }
    ack(out, list_option);
}

/// Appends the answer to a meta context option. The ids of a listing are zero.
pub(super) fn contexts(out: &mut Vec<u8>, option: KnownOption, contexts: &[MetaContext]) {
    for context in contexts {
        if out.len() > limit::LIST_BYTES_MAX {
            let too_big =
                OptionError { code: option_reply::ERR_TOO_BIG, message: "too many metadata contexts to list" };
            return error(out, option.to_wire(), too_big);
        }
        let id = if option == KnownOption::SetMetaContext { context.id } else { 0 };
        reply(out, option.to_wire(), option_reply::META_CONTEXT, &[&id.to_be_bytes(), context.name.as_bytes()]);
    }
    ack(out, option);
}
