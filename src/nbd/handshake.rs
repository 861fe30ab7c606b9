//! The handshake: structured replies and `base:allocation` where the server has them, then the export.
//! Spec: NBD proto.md, "Fixed newstyle negotiation".

use super::NbdError;
use proto::nbd::client::{
    Malformed, OptionReply, decode_greeting, decode_option_reply, encode_client_flags, encode_info,
    encode_meta_context, encode_option,
};
use proto::nbd::constants::{BASE_ALLOCATION, client_flag, handshake_flag, info, option, option_reply};
use proto::nbd::{ReplyStyle, TransmissionFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a server's replies that are kept while one is not whole.
const INPUT_BYTES_MAX: usize = 2 << 20;

/// Most replies to one option: lists of contexts and facts are short.
const REPLIES_MAX: usize = 1000;

/// Most that the protocol lets a server ask for in alignment.
const ALIGNMENT_MAX: u32 = 64 << 10;

/// What a server says of an export, and how it is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The export's size.
    pub(crate) size_bytes: u64,
    /// Whether it takes no writes.
    pub(crate) is_read_only: bool,
    /// Whether it understands flushes.
    pub(crate) has_flush: bool,
    /// The longest payload, when the server limits it.
    pub(crate) payload_bytes_max: Option<u32>,
    /// What offsets and lengths must be multiples of, a power of two.
    pub(crate) alignment: u32,
    /// The form of replies.
    pub(super) style: ReplyStyle,
    /// The context that tells what is allocated, when there is one.
    pub(super) allocation: Option<u32>,
}

/// A stream during the handshake, with what came and is not yet read.
pub(super) struct Handshake<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<S> {
    /// Takes the greeting and answers it.
    pub(super) async fn begin(stream: S) -> Result<Self, NbdError> {
        let mut handshake = Self::over(stream);
        let flags = handshake.take(decode_greeting).await?;
        if flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            return Err(too_old());
        }
        let is_short = flags & handshake_flag::NO_ZEROES != 0;
        let answer = client_flag::FIXED_NEWSTYLE | if is_short { client_flag::NO_ZEROES } else { 0 };
        let mut out = Vec::new();
        encode_client_flags(answer, &mut out);
        handshake.send(&out).await?;
        Ok(handshake)
    }

    /// A stream on which the next thing is an option.
    pub(super) const fn over(stream: S) -> Self {
        Self { stream, input: Vec::new() }
    }

    /// Asks for TLS; all bytes are TLS's from here on.
    pub(super) async fn into_tls_stream(mut self) -> Result<S, NbdError> {
        let mut out = Vec::new();
        encode_option(option::STARTTLS, &[], &mut out);
        self.send(&out).await?;
        if self.replies(option::STARTTLS, |_| Ok(())).await?.is_err() {
            return Err(NbdError::Handshake("the server does not offer TLS, and the address wants it".to_owned()));
        }
        // Somebody between could have put them there.
        if !self.input.is_empty() {
            return Err(broken("bytes come before TLS"));
        }
        Ok(self.stream)
    }

    /// Goes through the options to the export's requests.
    pub(super) async fn enter(mut self, export: &str) -> Result<(S, Facts, Vec<u8>), NbdError> {
        let mut out = Vec::new();
        encode_option(option::STRUCTURED_REPLY, &[], &mut out);
        self.send(&out).await?;
        let is_structured = self.replies(option::STRUCTURED_REPLY, |_| Ok(())).await?.is_ok();
        let allocation = if is_structured { self.select_allocation(export).await? } else { None };
        let mut facts = self.go(export).await?;
        facts.style = if is_structured { ReplyStyle::Structured } else { ReplyStyle::Simple };
        facts.allocation = allocation;
        Ok((self.stream, facts, self.input))
    }

    async fn select_allocation(&mut self, export: &str) -> Result<Option<u32>, NbdError> {
        let mut out = Vec::new();
        encode_meta_context(option::SET_META_CONTEXT, export, &[BASE_ALLOCATION], &mut out);
        self.send(&out).await?;
        let mut id = None;
        let selected = self.replies(option::SET_META_CONTEXT, |reply| {
            let (number, name) =
                reply.data.split_first_chunk::<4>().ok_or_else(|| broken("a context has no number"))?;
            if reply.kind == option_reply::META_CONTEXT && name == BASE_ALLOCATION.as_bytes() {
                id = Some(u32::from_be_bytes(*number));
            }
            Ok(())
        });
        Ok(selected.await?.ok().and(id))
    }

    async fn go(&mut self, export: &str) -> Result<Facts, NbdError> {
        let mut out = Vec::new();
        encode_info(option::GO, export, &[info::BLOCK_SIZE], &mut out);
        self.send(&out).await?;
        let (mut of_export, mut payload_bytes_max, mut alignment) = (None, None, 1);
        let answer = self.replies(option::GO, |reply| {
            let (kind, fact) = reply.data.split_first_chunk::<2>().ok_or_else(|| broken("a fact has no kind"))?;
            match u16::from_be_bytes(*kind) {
                info::EXPORT => of_export = Some(export_fact(fact).ok_or_else(|| broken("a size is cut short"))?),
                info::BLOCK_SIZE => {
                    let least = fact.first_chunk().map(|least| u32::from_be_bytes(*least));
                    let is_sane = |least: &u32| least.is_power_of_two() && *least <= ALIGNMENT_MAX;
                    alignment = least.filter(is_sane).ok_or_else(|| broken("its smallest block is of no sane size"))?;
                    payload_bytes_max = fact.last_chunk().map(|max| u32::from_be_bytes(*max));
                }
                _ => {}
            }
            Ok(())
        });
        if let Err(reply) = answer.await? {
            return Err(NbdError::Handshake(refusal(export, &reply)));
        }
        let (size_bytes, flags) = of_export.ok_or_else(|| broken("an export has no size"))?;
        Ok(Facts {
            size_bytes,
            is_read_only: flags.contains(TransmissionFlags::READ_ONLY),
            has_flush: flags.contains(TransmissionFlags::SEND_FLUSH),
            payload_bytes_max,
            alignment,
            style: ReplyStyle::Simple,
            allocation: None,
        })
    }

    /// Takes the replies to an option up to the last, which is given back when it is an error.
    async fn replies(
        &mut self,
        number: u32,
        mut visit: impl FnMut(&OptionReply) -> Result<(), NbdError>,
    ) -> Result<Result<(), OptionReply>, NbdError> {
        for _ in 0..REPLIES_MAX {
            let reply = self.take(decode_option_reply).await?;
            if reply.option != number {
                return Err(broken("a reply is to another option"));
            }
            match reply.kind {
                option_reply::ACK => return Ok(Ok(())),
                kind if kind & option_reply::ERROR_BIT != 0 => return Ok(Err(reply)),
                _ => visit(&reply)?,
            }
        }
        Err(broken("the replies to an option do not end"))
    }

    async fn take<T>(&mut self, decode: impl Fn(&mut &[u8]) -> Result<Option<T>, Malformed>) -> Result<T, NbdError> {
        loop {
            let mut rest = self.input.as_slice();
            if let Some(taken) = decode(&mut rest).map_err(malformed)? {
                let used = self.input.len() - rest.len();
                self.input.drain(..used);
                return Ok(taken);
            }
            if self.input.len() > INPUT_BYTES_MAX {
                return Err(broken("a reply is too long"));
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(NbdError::Lost("the server hangs up during the handshake".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(NbdError::Lost(error.to_string())),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), NbdError> {
        let lost = |error: std::io::Error| NbdError::Lost(error.to_string());
        self.stream.write_all(bytes).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }
}

/// Size and transmission flags.
fn export_fact(fact: &[u8]) -> Option<(u64, TransmissionFlags)> {
    let (size, rest) = fact.split_first_chunk::<8>()?;
    let flags = rest.first_chunk::<2>()?;
    Some((u64::from_be_bytes(*size), TransmissionFlags::from_wire(u16::from_be_bytes(*flags))))
}

fn refusal(export: &str, reply: &OptionReply) -> String {
    let reason = match reply.kind {
        option_reply::ERR_UNKNOWN => "there is no such export",
        option_reply::ERR_TLS_REQD => "it wants TLS: write nbds for nbd, and name its authority by --tls-ca",
        option_reply::ERR_SHUTDOWN => "it is shutting down",
        option_reply::ERR_POLICY => "it is forbidden",
        option_reply::ERR_UNSUP => "it is too old for NBD_OPT_GO",
        _ => "it gives no reason that is known here",
    };
    format!("the server refuses export {export:?}: {reason}")
}

fn malformed(error: Malformed) -> NbdError {
    match error {
        Malformed::Oldstyle => too_old(),
        Malformed::Magic => NbdError::Handshake(format!("it is no NBD server: {error}")),
        Malformed::Length | Malformed::Type => NbdError::Protocol(error.to_string()),
    }
}

fn too_old() -> NbdError {
    NbdError::Handshake("the server speaks a form of NBD that is too old: it must be fixed newstyle".to_owned())
}

fn broken(what: &str) -> NbdError {
    NbdError::Protocol(what.to_owned())
}
