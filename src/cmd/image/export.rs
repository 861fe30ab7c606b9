//! `aljibe image export`: a copy of an image into a new file.
//!
//! The file has its name only when it is whole; until then it is beside it under another one.

use super::{connect, copy_failure, path_of};
use crate::client::Client;
use crate::copy::{Observer, Progress, copy};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress::ProgressBar;
use crate::qemu::{self, WriteFormat};
use anyhow::Context;
use control::{Image, ImageState, VolumeName};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file under a name that it has only until it is whole; it goes when it never is.
struct Part {
    path: PathBuf,
    is_kept: bool,
}

pub(super) fn run(
    client: &Client,
    output: Output,
    name: &VolumeName,
    (file, format): (&Path, WriteFormat),
) -> Result<(), Failure> {
    let image: Image = client.get(&path_of(name))?;
    if image.state == ImageState::Importing {
        let detail = format!("image {name} is still being imported: finish its import first");
        return Err(Failure::new(Exit::Conflict, "image_importing", detail));
    }
    let mut part = Part::beside(file)?;
    let written = client.run(write(client, &image, (&part.path, format), ProgressBar::new(output)))?;
    part.publish(file)?;
    let shown = json!({ "exported": name.as_str(), "file": file, "format": format.name(), "data_bytes": written });
    output.show(&shown, || format!("exported {name} to {} ({})", file.display(), format.name()))
}

async fn write(
    client: &Client,
    image: &Image,
    (path, format): (&Path, WriteFormat),
    mut bar: ProgressBar,
) -> Result<u64, Failure> {
    let source = Arc::new(connect(client, image).await?);
    let (server, target) = qemu::make(path, format, source.facts().size_bytes).await?;
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

/// A file is whole or not there: nothing is noted on the way.
impl Observer for ProgressBar {
    fn progress(&mut self, progress: Progress) {
        self.show(progress);
    }

    async fn flushed(&mut self, _position: u64) -> Result<(), Failure> {
        Ok(())
    }
}

impl Part {
    fn beside(file: &Path) -> Result<Self, Failure> {
        refuse_if_there(file)?;
        let Some(name) = file.file_name() else {
            return Err(Failure::usage(format!("{} is no name of a file", file.display())));
        };
        let mut part = name.to_os_string();
        part.push(format!(".part-{}", std::process::id()));
        Ok(Self { path: file.with_file_name(part), is_kept: false })
    }

    /// Gives the file its name, durably.
    fn publish(&mut self, file: &Path) -> Result<(), Failure> {
        let naming = || format!("cannot name {}", file.display());
        File::open(&self.path).and_then(|part| part.sync_all()).with_context(naming)?;
        refuse_if_there(file)?;
        std::fs::rename(&self.path, file).with_context(naming)?;
        self.is_kept = true;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(naming)?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may not have been made yet.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn refuse_if_there(file: &Path) -> Result<(), Failure> {
    if file.symlink_metadata().is_ok() {
        let detail = format!("{} exists: delete it, or choose another name", file.display());
        return Err(Failure::new(Exit::Conflict, "file_exists", detail));
    }
    Ok(())
}
