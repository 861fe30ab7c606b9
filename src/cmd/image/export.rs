//! `aljibe image export`: a copy of an image into a new file.
//!
//! The file has its name only when it is whole; until then it is beside it under another one.

use super::{Daemon, copy_failure, path_of};
use crate::copy::{Observer, Progress, copy};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress::ProgressBar;
use crate::qemu::{self, WriteFormat};
use anyhow::Context;
use control::{Image, ImageState, VolumeName};
use serde_json::json;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run(
    daemon: &Daemon,
    output: Output,
    name: &VolumeName,
    (file, format): (&Path, WriteFormat),
) -> Result<(), Failure> {
    let image: Image = daemon.client.get(&path_of(name.as_str()))?;
    if image.state == ImageState::Importing {
        let detail = format!("image {name} is still being imported: finish its import first");
        return Err(Failure::new(Exit::Conflict, "image_importing", detail));
    }
    let written = daemon.client.run(unless_interrupted(async {
        let part = part_beside(file)?;
        let written = write(daemon, &image, (part.path(), format), ProgressBar::new(output)).await;
        // Nobody knows the file by that name.
        let renamed = |detail: &str| detail.replace(&*part.path().to_string_lossy(), &file.to_string_lossy());
        let written = written.map_err(|failure| Failure { detail: renamed(&failure.detail), ..failure })?;
        publish(part, file)?;
        Ok(written)
    }))?;
    let shown = json!({
        "exported": name.as_str(), "file": file.to_string_lossy(), "format": format.name(), "data_bytes": written
    });
    output.show(&shown, || format!("exported {name} to {} ({})", file.display(), format.name()))
}

async fn write(
    daemon: &Daemon,
    image: &Image,
    (path, format): (&Path, WriteFormat),
    mut bar: ProgressBar,
) -> Result<u64, Failure> {
    let source = Arc::new(daemon.enter(image, changed).await?);
    let (server, target) = qemu::make(path, format, source.facts().size_bytes, &daemon.dialer).await?;
    let target = Arc::new(target);
    let copied = copy(&source, &target, 0, &mut bar).await;
    bar.finish();
    let copied = copied.map_err(|error| copy_failure(&error, false, &path.display().to_string()))?;
    if let Some(target) = Arc::into_inner(target) {
        target.close().await;
    }
    server.end().await?;
    Ok(copied.written_bytes)
}

fn changed(image: &Image) -> Failure {
    let detail = format!("image {} is another one by now than when this began: begin anew", image.name);
    Failure::new(Exit::TryLater, "image_changed", detail)
}

/// Gives work up when the user or the system wants the command to end, so that what it has begun goes.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let listen = |kind| signal(kind).context("cannot wait for signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        done = work => return done,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err(Failure::new(Exit::Failure, "failed", "interrupted: no file is left"))
}

/// A file is whole or not there: nothing is noted on the way.
impl Observer for ProgressBar {
    fn progress(&mut self, progress: Progress) {
        self.show(progress);
    }

    async fn flushed(&mut self, _position: u64) -> Result<(), Failure> {
        Ok(())
    }
}

/// An empty file under a name that it has only until it is whole; it goes when it never is.
fn part_beside(file: &Path) -> Result<NamedTempFile, Failure> {
    if file.symlink_metadata().is_ok() {
        return Err(file_exists(file));
    }
    let Some(name) = file.file_name() else {
        return Err(Failure::usage(format!("{} is no name of a file", file.display())));
    };
    let mut prefix = name.to_os_string();
    prefix.push(".part-");
    // As any new file: the umask says who may read it.
    let permissions = Permissions::from_mode(0o666);
    let part = tempfile::Builder::new().prefix(&prefix).permissions(permissions).tempfile_in(folder_of(file));
    Ok(part.with_context(|| format!("cannot make a file in {}", folder_of(file).display()))?)
}

/// Gives the file its name, durably, unless something else has it by now.
fn publish(part: NamedTempFile, file: &Path) -> Result<(), Failure> {
    let naming = || format!("cannot name {}", file.display());
    part.as_file().sync_all().with_context(naming)?;
    match part.persist_noclobber(file) {
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => return Err(file_exists(file)),
        persisted => persisted.map_err(|refused| refused.error).with_context(naming)?,
    };
    File::open(folder_of(file)).and_then(|folder| folder.sync_all()).with_context(naming)?;
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn file_exists(file: &Path) -> Failure {
    let detail = format!("{} exists: delete it, or choose another name", file.display());
    Failure::new(Exit::Conflict, "file_exists", detail)
}
