//! TLS on a connection in the transmission phase: records in, plain bytes out, and the other way round.
//!
//! The handshake is over when this begins. No socket here: the shard brings what it received and sends what is sealed.
//! Also makes a server's configuration of PEM files.

mod config;

pub use config::{ClientCertificates, TlsConfigError, TlsFiles};

use crate::memory::region_of;
use crate::stream::Loan;
use rustls::ServerConnection;
use std::io::{self, IoSlice, Read, Write};
use std::ops::Range;
use uring::{Message, Region};
use volume::buffer::{Buffer, BufferPool};

/// Bytes of ciphertext that one receive takes.
const INCOMING_BYTES: usize = 256 << 10;

/// Bytes of ciphertext that one piece of a sealed message holds.
const SEALED_PIECE_BYTES: usize = 256 << 10;

/// A TLS session whose handshake is over.
pub(crate) struct Tls {
    session: ServerConnection,
    /// Absent while it is lent.
    incoming: Option<Region>,
    /// What was received and not deciphered: `incoming[unread]`.
    unread: Range<usize>,
}

/// What reading plain bytes has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing before more is received.
    NeedBytes,
    /// The peer has said that it sends no more.
    Closed,
}

impl Tls {
    pub(crate) fn new(mut session: ServerConnection) -> Self {
        // What is to be sealed is limited by the connection's limits already.
        session.set_buffer_limit(None);
        Self { session, incoming: Some(Region::zeroed(INCOMING_BYTES)), unread: 0..0 }
    }

    /// Lends the memory for the next receive, or nothing when it is lent already. To be called when
    /// [`Tls::read_plain`] has answered [`Plain::NeedBytes`].
    pub(crate) fn lend(&mut self) -> Option<Loan> {
        let region = self.incoming.take()?;
        let range = 0..region.len();
        Some(Loan { region, range, is_whole: false })
    }

    /// Takes lent memory back, of which the first `received` bytes were filled.
    pub(crate) fn take_back(&mut self, region: Region, received: usize) {
        self.incoming = Some(region);
        self.unread = 0..received;
    }

    /// Deciphers into `out`, which is not empty.
    ///
    /// # Errors
    /// What breaks TLS's rules ends the connection; an alert may wait to be sealed.
    pub(crate) fn read_plain(&mut self, out: &mut [u8]) -> Result<Plain, rustls::Error> {
        loop {
            match self.session.reader().read(out) {
                Ok(0) => return Ok(Plain::Closed),
                Ok(len) => return Ok(Plain::Bytes(len)),
                Err(_) => {}
            }
            let incoming = self.incoming.as_ref().and_then(|region| region.as_slice().get(self.unread.clone()));
            let mut incoming = incoming.unwrap_or_default();
            if incoming.is_empty() {
                return Ok(Plain::NeedBytes);
            }
            let before = incoming.len();
            // Reading from a slice cannot fail, and the session has room, since nothing deciphered is left in it.
            let _ = self.session.read_tls(&mut incoming);
            self.unread.start += before - incoming.len();
            self.session.process_new_packets()?;
        }
    }

    /// Whether the session has something of its own to say.
    pub(crate) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn close(&mut self) {
        self.session.send_close_notify();
    }

    /// Appends to `sealed` the records of `plain`, and what the session has to say.
    pub(crate) fn seal(&mut self, plain: &Message, buffers: &mut BufferPool, sealed: &mut Message) {
        let slices: Vec<IoSlice<'_>> = plain.slices().map(IoSlice::new).collect();
        let written = self.session.writer().write_vectored(&slices).unwrap_or(0);
        assert_eq!(written, plain.len(), "a session without a limit takes everything");
        let mut sink = Sink { buffers, sealed, piece: None, filled: 0 };
        while self.session.wants_write() {
            let _ = self.session.write_tls(&mut sink);
        }
        sink.finish();
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?}, {} bytes unread)", self.session.protocol_version(), self.unread.len())
    }
}

/// Collects records in buffers of the pool. Never fails.
struct Sink<'a> {
    buffers: &'a mut BufferPool,
    sealed: &'a mut Message,
    piece: Option<Buffer>,
    filled: usize,
}

impl Sink<'_> {
    fn finish(&mut self) {
        if let Some(piece) = self.piece.take() {
            self.sealed.push_region(region_of(piece), 0..self.filled);
            self.filled = 0;
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len();
        while !bytes.is_empty() {
            let piece = self.piece.get_or_insert_with(|| self.buffers.take(SEALED_PIECE_BYTES));
            let space = piece.as_mut_slice().get_mut(self.filled..).unwrap_or_default();
            let count = space.len().min(bytes.len());
            let (taken, rest) = bytes.split_at_checked(count).unwrap_or((&[], &[]));
            space.split_at_mut(count).0.copy_from_slice(taken);
            bytes = rest;
            self.filled += count;
            if self.filled == SEALED_PIECE_BYTES {
                self.finish();
            }
        }
        Ok(len)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
