//! SCSI, the device server's side: CDBs judged, parameter lists parsed, answers and sense data encoded.
//!
//! Spec: SPC-4, SBC-3 and SAM-5; big-endian throughout. Nothing here knows a volume or a session: a [`Command`] says
//! what is asked, and whoever executes it takes the answer's bytes from the modules below. An answer is always made
//! whole; the transport cuts it to the command's allocation length.

mod cdb;
pub mod copy;
mod decode;
pub mod inquiry;
mod lun;
pub mod mode;
pub mod parameters;
mod reservation;
mod sense;
pub mod table;

pub use cdb::{Access, Command, Compare, PageControl, Span};
pub use copy::{CopyList, CopySegment, CopyState, CopyStatus, CopyTarget};
pub use inquiry::{Identity, Limits};
pub use lun::Lun;
pub use mode::{Mode, ModeQuery};
pub use reservation::{Changed, Kept, KeptRegistration, Nexus, OutCommand, REGISTRATIONS_MAX, Refused, Reservations};
pub use sense::{FieldPointer, Sense, SenseKey, Status};

/// Length of a logical block.
pub const SECTOR_BYTES: u32 = 512;

/// Logical blocks in a physical block, as a power of two: eight, the engine's block of 4 KiB.
pub const SECTORS_PER_BLOCK_EXPONENT: u8 = 3;
