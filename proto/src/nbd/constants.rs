//! Numbers of the protocol: NBD proto.md, "Values", and the extended headers of its `extension-ext-header` branch.

/// First eight bytes of a server's greeting, "NBDMAGIC".
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Next eight bytes of the greeting, and the start of each option, "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What a server of the oldstyle sends instead; the export's size follows.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Start of each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Start of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Start of an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Start of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Start of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Start of an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Bytes of the greeting: two magics of 8, flags 2.
pub const GREETING_BYTES: usize = 18;
/// Bytes of the client's answer to the greeting.
pub const CLIENT_FLAGS_BYTES: usize = 4;
/// Bytes of an option's header: magic 8, option 4, length 4.
pub const OPTION_HEADER_BYTES: usize = 16;
/// Bytes of an option reply's header: magic 8, option 4, type 4, length 4.
pub const OPTION_REPLY_HEADER_BYTES: usize = 20;
/// Zeroes after the reply to `NBD_OPT_EXPORT_NAME`, unless the client wants none.
pub const EXPORT_NAME_ZEROES: usize = 124;
/// Bytes of a compact request header: magic 4, flags 2, command 2, cookie 8, offset 8, length 4.
pub const REQUEST_HEADER_BYTES: usize = 28;
/// Bytes of an extended request header: as the compact one, with a length of 8.
pub const EXTENDED_REQUEST_HEADER_BYTES: usize = 32;
/// Bytes of a simple reply: magic 4, error 4, cookie 8.
pub const SIMPLE_REPLY_BYTES: usize = 16;
/// Bytes of a structured chunk's header: magic 4, flags 2, type 2, cookie 8, length 4.
pub const STRUCTURED_HEADER_BYTES: usize = 20;
/// Bytes of an extended chunk's header: magic 4, flags 2, type 2, cookie 8, offset 8, length 8.
pub const EXTENDED_HEADER_BYTES: usize = 32;

/// Longest string: export names, descriptions, context names, messages.
pub const STRING_BYTES_MAX: usize = 4096;
/// Longest payload of a request or a read reply that every implementation must cope with, and the longest that we take.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Handshake flags of the server.
pub mod handshake_flag {
    /// Fixed newstyle is spoken.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// The zeroes after `NBD_OPT_EXPORT_NAME` can be left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Flags with which the client answers the greeting.
pub mod client_flag {
    /// Fixed newstyle is spoken.
    pub const FIXED_NEWSTYLE: u32 = 1 << 0;
    /// The zeroes after `NBD_OPT_EXPORT_NAME` are left out.
    pub const NO_ZEROES: u32 = 1 << 1;
}

/// Options of the handshake.
pub mod option {
    /// Choose an export and leave the handshake, without an error reply.
    pub const EXPORT_NAME: u32 = 1;
    /// Give up.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Go on over TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and leave the handshake.
    pub const GO: u32 = 7;
    /// Use structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List an export's metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Select metadata contexts of an export.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Use extended headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of replies to options; errors have bit 31 set.
pub mod option_reply {
    /// The option is accepted, or its list is complete.
    pub const ACK: u32 = 1;
    /// An export's name and description.
    pub const SERVER: u32 = 2;
    /// A fact about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The bit of all error types.
    pub const ERROR_BIT: u32 = 1 << 31;
    /// The option is not known.
    pub const ERR_UNSUP: u32 = ERROR_BIT + 1;
    /// The option is forbidden here.
    pub const ERR_POLICY: u32 = ERROR_BIT + 2;
    /// The option breaks a rule.
    pub const ERR_INVALID: u32 = ERROR_BIT + 3;
    /// TLS must be started first.
    pub const ERR_TLS_REQD: u32 = ERROR_BIT + 5;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = ERROR_BIT + 6;
    /// The server is shutting down.
    pub const ERR_SHUTDOWN: u32 = ERROR_BIT + 7;
    /// The option or its reply is too large.
    pub const ERR_TOO_BIG: u32 = ERROR_BIT + 9;
    /// Extended headers are in use or needed.
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR_BIT + 10;
}

/// Kinds of facts about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The name under which the server knows it.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// Limits on offsets and lengths.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands of the transmission phase.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// Disconnect.
    pub const DISC: u16 = 2;
    /// Make earlier writes durable.
    pub const FLUSH: u16 = 3;
    /// Forget a range.
    pub const TRIM: u16 = 4;
    /// Bring a range near.
    pub const CACHE: u16 = 5;
    /// Zero a range.
    pub const WRITE_ZEROES: u16 = 6;
    /// Tell the state of a range.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
pub mod command_flag {
    /// Wait for stable storage.
    pub const FUA: u16 = 1 << 0;
    /// Leave no hole.
    pub const NO_HOLE: u16 = 1 << 1;
    /// Answer with one content chunk.
    pub const DF: u16 = 1 << 2;
    /// Answer with one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail unless faster than a write.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length counts a payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Flag of reply chunks: the last of its reply.
pub const REPLY_FLAG_DONE: u16 = 1 << 0;

/// Types of reply chunks; errors have bit 15 set.
pub mod chunk {
    /// Nothing but the end of a reply.
    pub const NONE: u16 = 0;
    /// Data and where it is.
    pub const OFFSET_DATA: u16 = 1;
    /// A range of zeros.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents of a metadata context, 32 bits each field.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents of a metadata context, 64 bits each field.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// The bit of all error types.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// An error.
    pub const ERROR: u16 = ERROR_BIT + 1;
    /// An error and where it is.
    pub const ERROR_OFFSET: u16 = ERROR_BIT + 2;
}

/// Status flag of `base:allocation`: nothing is allocated there.
pub const STATE_HOLE: u64 = 1 << 0;
/// Status flag of `base:allocation`: it reads as zeros.
pub const STATE_ZERO: u64 = 1 << 1;
/// Status flag of a dirty bitmap: it has changed.
pub const STATE_DIRTY: u64 = 1 << 0;
/// What the names of metadata contexts begin with that tell what has changed since a point that the rest names.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// The metadata context that every export has.
pub const BASE_ALLOCATION: &str = "base:allocation";
