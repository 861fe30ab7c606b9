//! Trials: a change is asked for, checked as for real, answered as it would be, and not made.
//!
//! Whether a change is a trial goes with its task, past all who hand it on. Each change returns where its checks have passed and
//! its first effect would be, with what it would have made, in which ids are 0. Should one not, the records refuse to be written.

use super::CatalogueError;

tokio::task_local! {
    static TRIAL: ();
}

/// Runs changes of a catalogue as trials.
pub async fn trial<T>(changes: impl Future<Output = T>) -> T {
    TRIAL.scope((), changes).await
}

/// Whether what asks is within [`trial`].
#[must_use]
pub fn is_trial() -> bool {
    TRIAL.try_with(|()| ()).is_ok()
}

/// Keeps a trial from what it must not do.
///
/// # Errors
/// Within a trial.
pub(super) fn refuse_in_trial() -> Result<(), CatalogueError> {
    if is_trial() {
        return Err(CatalogueError::Damaged("a trial was about to change something: report this".to_owned()));
    }
    Ok(())
}
