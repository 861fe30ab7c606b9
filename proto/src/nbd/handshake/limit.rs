//! What one handshake may cost, however long the client talks.

/// Most bytes of an option's data that are kept; a longer option is skipped and refused.
pub const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Most bytes of refused options that are skipped in all; beyond that the connection ends.
pub const SKIPPED_BYTES_MAX: u64 = 4 << 20;
/// Most options; beyond that the connection ends.
pub const OPTIONS_MAX: u32 = 1000;
/// Most queries in one meta context option.
pub const QUERIES_MAX: u32 = 1024;
/// Most metadata contexts that a client may select.
pub const CONTEXTS_MAX: usize = 16;
/// About the most bytes that a list of exports takes up; a longer one is cut off and ends with an error.
pub const LIST_BYTES_MAX: usize = 4 << 20;
