//! What the tests ask by where an answer counts, and not how soon it comes: a machine that stands still, or a disk that is slow, lets
//! the client's second pass without an answer, which tells nothing of the register.

use replication::{ReadAnswer, Record, Revision, Seen, SwapAnswer};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use units::GroupId;
use witness::RegisterClient;

/// What nothing takes that is not broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of which the disk is never waited for, where there is one: all that is done to a server here is `kill -9`.
pub(crate) fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What a read tells, once it tells anything.
pub(crate) async fn seen(client: &RegisterClient, group: GroupId) -> Option<Seen> {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.read(group).await {
            ReadAnswer::Found { seen, is_frail } => {
                assert!(!is_frail, "a register is never frail");
                return Some(seen);
            }
            ReadAnswer::Nothing => return None,
            ReadAnswer::Unreachable => assert!(Instant::now() < until, "the register never answers"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Has a change won that nobody else is in the way of: one of which nobody knows is looked for, and asked for again.
pub(crate) async fn win(client: &RegisterClient, group: GroupId, expected: Option<Revision>, record: &Record) -> Seen {
    let until = Instant::now() + PATIENCE;
    let wanted = Seen { revision: Revision(expected.map_or(0, |revision| revision.0) + 1), record: *record };
    let mut is_unsure = false;
    loop {
        match client.swap(group, expected, record).await {
            SwapAnswer::Won { revision } => assert_eq!(revision, wanted.revision),
            SwapAnswer::Lost { found } => assert!(is_unsure && found == Some(wanted), "lost to {found:?}"),
            SwapAnswer::Unknown => {
                assert!(Instant::now() < until, "the change is never answered");
                is_unsure = true;
                continue;
            }
        }
        return wanted;
    }
}

/// Asks for a change that cannot win, until it is told so; what it lost to.
pub(crate) async fn lose(
    client: &RegisterClient,
    group: GroupId,
    expected: Option<Revision>,
    record: &Record,
) -> Option<Seen> {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.swap(group, expected, record).await {
            SwapAnswer::Lost { found } => return found,
            SwapAnswer::Won { revision } => panic!("won revision {revision:?}"),
            SwapAnswer::Unknown => assert!(Instant::now() < until, "the change is never answered"),
        }
    }
}
