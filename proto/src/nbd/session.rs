//! The rules of the transmission phase: which requests a client may send, and the answer to each it may not.
//!
//! Spec: NBD proto.md, "Command flags", "Request types", "Error values". A refused request costs the connection only when
//! its payload is too long to be skipped.

use super::constants::{command, command_flag};
use super::errno::Errno;
use super::export::{BlockSizes, FastZero, TransmissionFlags};
use super::reply::ReplyStyle;
use super::request::{BadMagic, Request, RequestHeader, Span, decode_compact_header, decode_extended_header};

/// What a connection's requests are held to. Made by the handshake; the driver keeps `size_bytes` up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The export's size.
    pub size_bytes: u64,
    /// What the client was told that the export can do.
    pub flags: TransmissionFlags,
    /// The form of headers and replies.
    pub style: ReplyStyle,
    /// Limits on offsets and lengths.
    pub block_sizes: BlockSizes,
    /// When write-zeroes is fast.
    pub fast_zero: FastZero,
    /// Whether the client selected a metadata context.
    pub has_contexts: bool,
}

/// A request that breaks a rule: the answer, and what to do with its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The error to answer with.
    pub errno: Errno,
    /// Which rule, for people.
    pub message: &'static str,
    /// The payload that the client sends all the same.
    pub payload: UnwantedPayload,
}

/// The payload of a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnwantedPayload {
    /// So many bytes follow the header and are to be thrown away; then the connection goes on. Most often 0.
    Skip {
        /// At most the payload limit.
        bytes: u32,
    },
    /// Longer than the payload limit: the connection ends after the answer.
    TooLong,
}

/// Which rule a request breaks, before its payload is looked at.
type Broken = (Errno, &'static str);

impl Session {
    /// Takes one request header of the negotiated form off the front of `input`; `Ok(None)` means more bytes are needed.
    ///
    /// # Errors
    /// [`BadMagic`] ends the connection.
    #[inline]
    pub fn decode_header(&self, input: &mut &[u8]) -> Result<Option<RequestHeader>, BadMagic> {
        if self.is_extended() { decode_extended_header(input) } else { decode_compact_header(input) }
    }

    /// Judges a request. [`Request::payload_bytes`] of payload follow the header of one that is accepted.
    ///
    /// # Errors
    /// [`Rejection`] holds the answer and what becomes of the payload.
    #[inline]
    pub fn parse(&self, header: &RequestHeader) -> Result<Request, Rejection> {
        self.judge(header).map_err(|(errno, message)| Rejection { errno, message, payload: self.unwanted(header) })
    }

    fn judge(&self, header: &RequestHeader) -> Result<Request, Broken> {
        let flags = self.payload_flag_checked(header)?;
        match header.command {
            command::READ => self.read(header, flags),
            command::WRITE => self.write(header, flags),
            // A farewell is heeded whatever it carries, since nothing may follow it.
            command::DISC => Ok(Request::Disconnect),
            command::FLUSH => self.flush(header, flags),
            command::TRIM => self.trim(header, flags),
            command::CACHE => self.cache(header, flags),
            command::WRITE_ZEROES => self.write_zeroes(header, flags),
            command::BLOCK_STATUS => self.block_status(header, flags),
            _ => Err((Errno::Inval, "unknown command")),
        }
    }

    /// The flags other than the one that announces a payload, which only a write of extended form may have.
    ///
    /// It must have it too, but QEMU's client sends the payload without, so a write has a payload either way.
    const fn payload_flag_checked(&self, header: &RequestHeader) -> Result<u16, Broken> {
        let announced = header.flags & command_flag::PAYLOAD_LEN != 0;
        if announced && header.command != command::DISC && !(self.is_extended() && header.command == command::WRITE) {
            return Err((Errno::Inval, "the payload flag does not apply to this request"));
        }
        Ok(header.flags & !command_flag::PAYLOAD_LEN)
    }

    fn read(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        let df = self.flag_if(TransmissionFlags::SEND_DF, command_flag::DF);
        self.check_flags(flags, df)?;
        if header.length_bytes > u64::from(self.block_sizes.payload_bytes_max) {
            // Only a reply that could have come in pieces may be refused for its length.
            let errno = if self.style == ReplyStyle::Simple { Errno::Inval } else { Errno::Overflow };
            return Err((errno, "the read is longer than the payload limit"));
        }
        let span = self.span(header, Errno::Inval)?;
        Ok(Request::Read { span, dont_fragment: flags & command_flag::DF != 0 })
    }

    fn write(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        self.check_flags(flags, 0)?;
        if header.length_bytes > u64::from(self.block_sizes.payload_bytes_max) {
            return Err((Errno::Inval, "the write is longer than the payload limit"));
        }
        self.check_writable()?;
        let span = self.span(header, Errno::NoSpc)?;
        Ok(Request::Write { span, fua: flags & command_flag::FUA != 0 })
    }

    fn flush(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        self.check_offered(TransmissionFlags::SEND_FLUSH)?;
        self.check_flags(flags, 0)?;
        if header.offset != 0 || header.length_bytes != 0 {
            return Err((Errno::Inval, "offset and length of a flush are reserved"));
        }
        Ok(Request::Flush)
    }

    fn trim(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        self.check_offered(TransmissionFlags::SEND_TRIM)?;
        self.check_flags(flags, 0)?;
        self.check_writable()?;
        let span = self.span(header, Errno::Inval)?;
        Ok(Request::Trim { span, fua: flags & command_flag::FUA != 0 })
    }

    fn cache(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        self.check_offered(TransmissionFlags::SEND_CACHE)?;
        self.check_flags(flags, 0)?;
        Ok(Request::Cache { span: self.span(header, Errno::Inval)? })
    }

    fn write_zeroes(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        self.check_offered(TransmissionFlags::SEND_WRITE_ZEROES)?;
        let fast = self.flag_if(TransmissionFlags::SEND_FAST_ZERO, command_flag::FAST_ZERO);
        self.check_flags(flags, command_flag::NO_HOLE | fast)?;
        self.check_writable()?;
        let span = self.span(header, Errno::NoSpc)?;
        let no_hole = flags & command_flag::NO_HOLE != 0;
        let fast_zero = flags & command_flag::FAST_ZERO != 0;
        let is_fast = match self.fast_zero {
            FastZero::Never => false,
            FastZero::WithHole => !no_hole,
            FastZero::Always => true,
        };
        if fast_zero && !is_fast {
            return Err((Errno::NotSup, "no faster than writing zeros"));
        }
        Ok(Request::WriteZeroes { span, fua: flags & command_flag::FUA != 0, no_hole, fast_zero })
    }

    fn block_status(&self, header: &RequestHeader, flags: u16) -> Result<Request, Broken> {
        if !self.has_contexts {
            return Err((Errno::Inval, "no metadata context was selected"));
        }
        self.check_flags(flags, command_flag::REQ_ONE)?;
        let span = self.span(header, Errno::Inval)?;
        if span.len_bytes == 0 {
            return Err((Errno::Inval, "block status of no bytes"));
        }
        Ok(Request::BlockStatus { span, one_extent: flags & command_flag::REQ_ONE != 0 })
    }

    /// `flag` when the client was offered `ability`, else no flag.
    const fn flag_if(&self, ability: TransmissionFlags, flag: u16) -> u16 {
        if self.flags.contains(ability) { flag } else { 0 }
    }

    /// Lets pass the flags in `known`, and FUA on any command once it is offered.
    const fn check_flags(&self, flags: u16, known: u16) -> Result<(), Broken> {
        let known = known | self.flag_if(TransmissionFlags::SEND_FUA, command_flag::FUA);
        if flags & !known == 0 { Ok(()) } else { Err((Errno::Inval, "unknown or unoffered command flag")) }
    }

    const fn check_offered(&self, ability: TransmissionFlags) -> Result<(), Broken> {
        if self.flags.contains(ability) {
            Ok(())
        } else {
            Err((Errno::Inval, "the export does not offer this command"))
        }
    }

    const fn check_writable(&self) -> Result<(), Broken> {
        let is_read_only = self.flags.contains(TransmissionFlags::READ_ONLY);
        if is_read_only { Err((Errno::Perm, "the export is read-only")) } else { Ok(()) }
    }

    /// The bytes that a request concerns; one that ends beyond the export is refused with `beyond`.
    fn span(&self, header: &RequestHeader, beyond: Errno) -> Result<Span, Broken> {
        let min_bytes = u64::from(self.block_sizes.min_bytes);
        let is_aligned = |bytes: u64| min_bytes <= 1 || bytes.is_multiple_of(min_bytes);
        if !is_aligned(header.offset) || !is_aligned(header.length_bytes) {
            return Err((Errno::Inval, "offset or length is not a multiple of the minimum block size"));
        }
        match header.offset.checked_add(header.length_bytes) {
            Some(end) if end <= self.size_bytes => Ok(Span { offset: header.offset, len_bytes: header.length_bytes }),
            _ => Err((beyond, "the request ends beyond the export")),
        }
    }

    fn unwanted(&self, header: &RequestHeader) -> UnwantedPayload {
        let announced = self.is_extended() && header.flags & command_flag::PAYLOAD_LEN != 0;
        let has_payload = announced || header.command == command::WRITE;
        let len_bytes = if has_payload { header.length_bytes } else { 0 };
        match u32::try_from(len_bytes) {
            Ok(bytes) if bytes <= self.block_sizes.payload_bytes_max => UnwantedPayload::Skip { bytes },
            _ => UnwantedPayload::TooLong,
        }
    }

    const fn is_extended(&self) -> bool {
        matches!(self.style, ReplyStyle::Extended)
    }
}
