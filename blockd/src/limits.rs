//! Every limit of a shard and of the listener, with its default.

use std::time::Duration;

/// What a shard's connections may hold and how long it may wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests of a connection under way; then its socket is not read.
    pub connection_requests_max: usize,
    /// Payload and read bytes of a connection under way, from which on its socket is not read. One request, of at most
    /// 32 MiB, may go beyond.
    pub connection_bytes_max: u64,
    /// The same for all connections of a shard together.
    pub shard_bytes_max: u64,
    /// What a connection may have under way even when the shard's limit is reached, so that none waits on others for ever.
    pub guaranteed_bytes: u64,
    /// Bytes of unused buffers that a shard keeps.
    pub pooled_bytes_max: usize,
    /// Bytes written to the page cache that are handed to the disk at a time.
    pub writeback_bytes: u64,
    /// Dirty bytes from which on the shard no longer writes by itself, since the kernel might make it wait.
    pub dirty_bytes_max: u64,
    /// How long a shard looks for news before it sleeps, after a wait that was as short.
    pub spin_max: Duration,
    /// While requests that hold memory wait for the shard's limit: how long a client may read none of its replies before
    /// its connection is closed.
    pub send_stall_max: Duration,
    /// How long a stop waits for requests under way and for replies to be read.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_requests_max: 256,
            connection_bytes_max: 64 << 20,
            shard_bytes_max: 128 << 20,
            guaranteed_bytes: 256 << 10,
            pooled_bytes_max: 32 << 20,
            writeback_bytes: 4 << 20,
            dirty_bytes_max: 256 << 20,
            spin_max: Duration::from_micros(50),
            send_stall_max: Duration::from_secs(10),
            drain_max: Duration::from_secs(10),
        }
    }
}

/// What clients in the handshake may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Most connections in all; one more is closed at once.
    pub connections_max: usize,
    /// Most connections whose handshake is not over; one more is closed at once.
    pub handshakes_max: usize,
    /// How long a handshake may take, TLS included.
    pub handshake_max: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self { connections_max: 16_384, handshakes_max: 4096, handshake_max: Duration::from_secs(10) }
    }
}
