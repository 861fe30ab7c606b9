//! The thread that writes and syncs for the compactor, so that the store's thread does not wait for the disk.

use super::thread::Command;
use crate::open::PoolFile;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use volume::io::{Action, Event};

/// Starts the thread; it ends when its channel does.
pub(super) fn start(
    pool: Arc<PoolFile>,
    done: mpsc::Sender<Command>,
) -> io::Result<(mpsc::Sender<Action>, JoinHandle<()>)> {
    let (sender, actions) = mpsc::channel::<Action>();
    let thread = thread::Builder::new().name("compactor".to_owned()).spawn(move || {
        for action in actions {
            let Some(event) = carry_out(&pool, action) else { continue };
            if done.send(Command::Disk(event)).is_err() {
                return;
            }
        }
    })?;
    Ok((sender, thread))
}

fn carry_out(pool: &PoolFile, action: Action) -> Option<Event> {
    match action {
        Action::Append { id, pool_offset, buffers } => {
            let mut at = pool_offset;
            let result = buffers.iter().try_for_each(|buffer| {
                pool.write_at(at, buffer.as_slice())?;
                at += buffer.len() as u64;
                Ok(())
            });
            Some(Event::Appended { id, buffers, result })
        }
        Action::Sync { id } => Some(Event::Synced { id, result: pool.sync() }),
        // What only a volume asks for.
        Action::Fetch { .. }
        | Action::Reply(_)
        | Action::LoadPage { .. }
        | Action::LoadPlace { .. }
        | Action::WriteBack { .. }
        | Action::Lease { .. }
        | Action::NoteSegment(_)
        | Action::NoteBoundary(_)
        | Action::Settle(_)
        | Action::Unpinned { .. }
        | Action::Release { .. } => None,
    }
}
