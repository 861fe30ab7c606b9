//! What the witness's tests ask by where an answer counts, and not how soon it comes: a machine that stands still, a disk that is
//! slow or a cluster without a leader lets the client's second pass without an answer, which tells nothing of the witness.
//!
//! Each takes what asks once.

use replication::{ReadAnswer, Seen, SwapAnswer};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use witness::{ListError, Listed};

/// What nothing takes that is not broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a read tells, once it tells anything; and whether the witness is frail.
pub(crate) async fn told<A: Future<Output = ReadAnswer>>(read: impl Fn() -> A) -> (Option<Seen>, bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        match read().await {
            ReadAnswer::Found { seen, is_frail } => return (Some(seen), is_frail),
            ReadAnswer::Nothing => return (None, false),
            ReadAnswer::Unreachable => assert!(Instant::now() < until, "the witness never answers"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Asks for a change that cannot win, until it is told so; what it lost to.
pub(crate) async fn lost<A: Future<Output = SwapAnswer>>(swap: impl Fn() -> A) -> Option<Seen> {
    let until = Instant::now() + PATIENCE;
    loop {
        match swap().await {
            SwapAnswer::Lost { found } => return found,
            SwapAnswer::Won { revision } => panic!("won {revision:?}"),
            SwapAnswer::Unknown => assert!(Instant::now() < until, "the change is never answered"),
        }
    }
}

/// What is listed, once a list comes.
pub(crate) async fn listed<A: Future<Output = Result<Vec<Listed>, ListError>>>(list: impl Fn() -> A) -> Vec<Listed> {
    let until = Instant::now() + PATIENCE;
    loop {
        match list().await {
            Ok(listed) => return listed,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}
