//! How long the mirror waits for what. All are durations on the site's own monotonic clock.

use std::time::Duration;

/// How often a site is to be given [`crate::Event::Tick`], at least.
pub const TICK: Duration = Duration::from_millis(50);

/// How often a site tells the other one that it is there.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// A peer that has been silent for so long (eight heartbeats) is taken for lost.
pub const SILENCE: Duration = Duration::from_secs(2);

/// What the site that is not preferred waits beyond [`SILENCE`] before it takes over.
pub const PREFERENCE: Duration = Duration::from_millis(1500);

/// For how long the secondary gives its word not to take over, counted on its clock from its answer.
pub const LEASE_GIVEN: Duration = Duration::from_millis(1500);

/// For how long the primary relies on that word, counted on its clock from the question. Shorter by a fifth: clocks that are
/// each off by 10 % (0.9 / 1.1 = 0.82) do not make it outlast the word.
pub const LEASE_USED: Duration = Duration::from_millis(1200);

/// For how long writes are held that can neither be acknowledged nor refused; after that they end with an error.
pub const HOLD: Duration = Duration::from_secs(25);

/// A planned switch that the other site is not ready for by then is called off.
pub const SWITCH_ABORT: Duration = Duration::from_millis(250);

/// An answer of the witness that has not come by then counts as lost.
pub const WITNESS_PATIENCE: Duration = Duration::from_secs(1);

/// How often the witness is read when nothing is to be decided.
pub const WITNESS_LOOK: Duration = Duration::from_secs(5);

/// How often it is read while something is.
pub const WITNESS_RETRY: Duration = Duration::from_millis(250);

/// How long a peer that was silent must be well before it joins again, the first time.
pub const REJOIN_AFTER_SILENCE: Duration = Duration::from_secs(1);

/// The same of a peer that was slow or full.
pub const REJOIN_AFTER_SLOWNESS: Duration = Duration::from_secs(10);

/// The most that the pause before a join grows to; a peer in sync for so long begins anew with the least.
pub const REJOIN_MAX: Duration = Duration::from_mins(10);

/// How long a join may make acknowledgements wait for the joining site before it is put off.
pub const JOIN_GATE_MAX: Duration = Duration::from_millis(500);

/// How far a joining site may be behind, in operations, when acknowledgements begin to wait for it.
pub const JOIN_LAG_MAX: u64 = 64;

/// How long an operator's command waits for what it needs before it is dropped.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(30);
