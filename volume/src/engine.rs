//! The volume: events in, actions out (stub of the words).
use crate::buffer::BufferPool;
use crate::io::{Action, Event};
use units::{Monotonic, VolumeId};

/// What a volume needs from its driver while it handles an event.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Monotonic,
    /// Where buffers come from and go to.
    pub buffers: &'a mut BufferPool,
    /// What the volume wants done is added here, in the order it must begin.
    pub actions: &'a mut Vec<Action>,
}

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    id: VolumeId,
}

impl Volume {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> VolumeId {
        self.id
    }

    /// Its size in bytes now.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        0
    }

    /// Advances the volume by one event; what it wants done goes to the context's actions.
    pub fn handle(&mut self, context: &mut Context<'_>, event: Event) {
        let _ = (context, event);
    }

    /// Gives out what has gathered since the last call as one append. The driver calls it when it has handed over every
    /// event it has, so that what arrived together shares a batch.
    pub fn poll_append(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// Whether nothing is under way: no request unanswered, no action outstanding.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        true
    }
}
