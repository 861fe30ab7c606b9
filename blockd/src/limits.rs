//! Every limit of a shard and of the listener, with its default.

use crate::qos::FairShares;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::time::Duration;

/// Files that the daemon needs beside its connections: the pool, the index, sockets of its own and of the API.
const OTHER_FILES: usize = 512;

/// What a shard's connections may hold and how long it may wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests of a connection under way; then its socket is not read.
    pub connection_requests_max: usize,
    /// Payload and read bytes of a connection under way, from which on its socket is not read: a share of those of the
    /// shard, so that none has them all. One request, of at most
    /// 32 MiB, may go beyond.
    pub connection_bytes_max: u64,
    /// The same for all connections of a shard together.
    pub shard_bytes_max: u64,
    /// What a connection may have under way even when the shard's limit is reached, so that none waits on a few others. At
    /// twice the limit nobody gets more until some client goes on with what it holds, or is closed since it does not.
    pub guaranteed_bytes: u64,
    /// Bytes of unused buffers that a shard keeps.
    pub pooled_bytes_max: usize,
    /// Bytes written to the page cache that are handed to the disk at a time.
    pub writeback_bytes: u64,
    /// Dirty bytes from which on the shard no longer writes by itself, since the kernel might make it wait.
    pub dirty_bytes_max: u64,
    /// How long a shard looks for news before it sleeps, after a wait that was as short.
    pub spin_max: Duration,
    /// While requests wait for the shard's limit: how long a client may neither read of its replies nor send of its payload
    /// before its connection is closed.
    pub client_stall_max: Duration,
    /// Between whom the shard is shared fairly.
    pub fair_shares: FairShares,
    /// How long a stop waits for requests under way and for replies to be read.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_requests_max: 256,
            connection_bytes_max: 32 << 20,
            shard_bytes_max: 128 << 20,
            guaranteed_bytes: 1 << 20,
            pooled_bytes_max: 32 << 20,
            writeback_bytes: 4 << 20,
            dirty_bytes_max: 256 << 20,
            spin_max: Duration::from_micros(50),
            client_stall_max: Duration::from_secs(2),
            fair_shares: FairShares::default(),
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

impl ListenerLimits {
    /// Raises the limit on open files as far as the system allows, and takes as many connections as there are files for.
    #[must_use]
    pub fn of_this_process() -> Self {
        let mut open_files = getrlimit(Resource::Nofile);
        if open_files.current != open_files.maximum {
            let raised = rustix::process::Rlimit { current: open_files.maximum, ..open_files };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => open_files = raised,
                Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
            }
        }
        // No limit is none.
        let limits = Self::for_open_files(open_files.current.unwrap_or(u64::MAX));
        if limits.connections_max < Self::default().connections_max {
            tracing::info!(connections_max = limits.connections_max, "the limit on open files limits connections");
        }
        limits
    }

    /// The default, or less where a process may open no more than `open_files_max` files.
    fn for_open_files(open_files_max: u64) -> Self {
        let open_files_max = usize::try_from(open_files_max).unwrap_or(usize::MAX);
        let default = Self::default();
        // Where files are very few, half of them.
        let left = open_files_max.saturating_sub(OTHER_FILES).max(open_files_max / 2);
        Self { connections_max: default.connections_max.min(left), ..default }
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self { connections_max: 16_384, handshakes_max: 4096, handshake_max: Duration::from_secs(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        let connections_max = |open_files| ListenerLimits::for_open_files(open_files).connections_max;
        assert_eq!([100, 1024, 4096, u64::MAX].map(connections_max), [50, 512, 3584, 16_384]);
    }

    #[test]
    fn the_limit_on_open_files_is_raised_to_what_the_system_allows() {
        let limits = ListenerLimits::of_this_process();
        let open_files = getrlimit(Resource::Nofile);
        assert_eq!(open_files.current, open_files.maximum);
        assert_eq!(limits, ListenerLimits::for_open_files(open_files.current.unwrap_or(u64::MAX)));
    }
}
