//! What a handshake asks of its driver, and how it ends.

use super::super::export::{Export, TransmissionFlags};
use super::super::meta_context::MetaContext;
use super::super::reply::ReplyStyle;
use super::super::session::Session;
use std::fmt;

/// What a listener does about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// It is not offered.
    Off,
    /// A client may start it; the driver may refuse an export to those that have not ([`Refusal::TlsRequired`]).
    Optional,
    /// Nothing else is served before it is started.
    Required,
}

/// What the driver is to do next, after sending the output.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Receive more bytes.
    NeedBytes,
    /// Look an export up and answer with [`super::Handshake::answer_export`].
    FindExport {
        /// Its name as the client gave it; empty for the default export.
        name: String,
        /// What for.
        purpose: Purpose,
    },
    /// Look all exports up and answer with [`super::Handshake::answer_list`].
    ListExports,
    /// Send the output, accept TLS on the connection, and report it with [`super::Handshake::tls_started`]. All bytes
    /// received from here on belong to TLS. When TLS fails, close.
    StartTls,
    /// The handshake is over; what is left of the input are requests.
    Transmission(Box<Negotiated>),
    /// Send the output and close.
    Close(CloseReason),
}

/// What an export is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To be described.
    Describe,
    /// To be used: [`Step::Transmission`] follows when it is found.
    Enter,
}

/// Why the driver does not give out an export or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such export.
    Unknown,
    /// It is given out over TLS only.
    TlsRequired,
    /// The client may not have it.
    Policy,
    /// The server is shutting down.
    Shutdown,
}

/// What client and server have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The export, as the driver described it.
    pub export: Export,
    /// The name by which the client asked for it.
    pub requested_name: String,
    /// The abilities that the client was told of.
    pub flags: TransmissionFlags,
    /// The form of headers and replies.
    pub style: ReplyStyle,
    /// Selected metadata contexts, in the export's order. A block status is answered with one chunk for each.
    pub contexts: Vec<MetaContext>,
    /// Whether the connection is on TLS.
    pub tls: bool,
    /// Whether the client wants no zeroes after `NBD_OPT_EXPORT_NAME`.
    pub no_zeroes: bool,
    /// Whether the client asked for the block sizes on entering, and so promised to keep to them.
    pub block_sizes_asked: bool,
}

impl Negotiated {
    /// What the connection's requests are held to.
    #[must_use]
    pub const fn session(&self) -> Session {
        Session {
            size_bytes: self.export.size_bytes,
            flags: self.flags,
            style: self.style,
            block_sizes: self.export.block_sizes,
            fast_zero: self.export.fast_zero,
            has_contexts: !self.contexts.is_empty(),
        }
    }
}

/// Why a handshake ends without an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client gave up, in good order.
    Aborted,
    /// The handshake had ended with [`Step::Transmission`] before.
    Over,
    /// The client set a flag that it was not offered.
    UnknownClientFlags,
    /// An option does not begin with its magic.
    BadOptionMagic,
    /// A client that does not speak fixed newstyle sent another option than `NBD_OPT_EXPORT_NAME`.
    NotFixedNewstyle,
    /// `NBD_OPT_EXPORT_NAME`, which cannot be refused in words, came before TLS.
    TlsRequired,
    /// `NBD_OPT_EXPORT_NAME` came after extended headers were negotiated.
    ExportNameAfterExtendedHeaders,
    /// The name in `NBD_OPT_EXPORT_NAME` is too long or no string.
    BadExportName,
    /// The export named in `NBD_OPT_EXPORT_NAME` was refused.
    ExportRefused,
    /// Bytes in the clear came behind `NBD_OPT_STARTTLS`.
    BytesBeforeTls,
    /// More options than [`super::limit::OPTIONS_MAX`].
    TooManyOptions,
    /// Refused options were longer than [`super::limit::SKIPPED_BYTES_MAX`] in all.
    TooMuchSkipped,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the client aborted the handshake",
            Self::Over => "the handshake is over",
            Self::UnknownClientFlags => "unknown client flags",
            Self::BadOptionMagic => "an option does not begin with its magic",
            Self::NotFixedNewstyle => "an option from a client that does not speak fixed newstyle",
            Self::TlsRequired => "the client asked for an export without starting TLS",
            Self::ExportNameAfterExtendedHeaders => "an option that extended headers exclude",
            Self::BadExportName => "the export name is too long or not UTF-8",
            Self::ExportRefused => "the export is not available",
            Self::BytesBeforeTls => "bytes in the clear behind the request to start TLS",
            Self::TooManyOptions => "too many options",
            Self::TooMuchSkipped => "too many bytes in refused options",
        })
    }
}
