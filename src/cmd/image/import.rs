//! `aljibe image import`: a copy from a file or an NBD export into a new image.
//!
//! The daemon keeps how far the copy is on stable storage. Whatever interrupts it, the same command goes on from there. A
//! source that fails or has changed leaves nothing; one that is silent or gone leaves what is copied.

use super::{Daemon, copy_failure, described, file_failure, path_of};
use crate::client::Client;
use crate::copy::{CopyError, Observer, Progress, copy};
use crate::failure::{Exit, Failure};
use crate::nbd::{Connection, Dialer, NbdError, NbdUri};
use crate::output::Output;
use crate::progress::ProgressBar;
use crate::qemu::{ImageFile, ReadFormat, Server};
use control::{ErrorCode, Image, ImageState, ImportImage, MarkImage, VolumeName};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use units::SECTOR_BYTES;

/// How often it is asked whether a connection that has ended is counted no more, and how long.
const SEAL_TRIES: u32 = 50;
const SEAL_PERIOD: Duration = Duration::from_millis(20);

/// What is copied.
struct Source {
    connection: Arc<Connection>,
    /// What it is called.
    name: String,
    /// Serves it, when it is a file.
    file: Option<(ImageFile, Server)>,
    /// What would be another if the source had changed.
    state: String,
}

/// Tells the daemon and the user how far the copy is.
struct Watch<'a> {
    client: &'a Client,
    image: &'a Image,
    bar: ProgressBar,
    size_bytes: u64,
}

pub(super) fn run(
    daemon: &Daemon,
    output: Output,
    name: &VolumeName,
    (source, format): (&str, Option<ReadFormat>),
) -> Result<(), Failure> {
    let client = &daemon.client;
    let image = client.run(async {
        let source = open(source, format, &daemon.dialer).await?;
        let size_bytes = whole_sectors(source.connection.facts().size_bytes)?;
        let wanted = ImportImage {
            name: name.to_string(),
            size_bytes,
            source: source.name.clone(),
            source_state: source.state.clone(),
        };
        let image: Image = client.post_within("/v1/images", &wanted).await?;
        let watch = Watch { client, image: &image, bar: ProgressBar::new(output), size_bytes };
        let (source, copied) = fill(daemon, source, &image, watch).await;
        let copied = match copied {
            Ok(()) => source.check_unchanged().map_err(|failure| (true, failure)),
            failed => failed,
        };
        if let Err((is_source_bad, failure)) = copied {
            return Err(give_up(client, &image, failure, is_source_bad).await);
        }
        seal(client, &image).await
    })?;
    output.show(&image, || described(&image))
}

/// Opens what is to be copied.
async fn open(text: &str, format: Option<ReadFormat>, dialer: &Dialer) -> Result<Source, Failure> {
    if NbdUri::is_meant(text) {
        let uri: NbdUri = text.parse().map_err(|error: crate::nbd::InvalidUri| Failure::usage(error.to_string()))?;
        if format.is_some_and(|format| format != ReadFormat::Raw) {
            return Err(Failure::usage("an NBD export is the bytes of the disk: leave --format out"));
        }
        let connection = dialer.open(&uri).await.map_err(|error| file_failure(text, &error))?;
        return Ok(Source {
            connection: Arc::new(connection),
            name: text.to_owned(),
            file: None,
            state: String::new(),
        });
    }
    let file = ImageFile::look_at(Path::new(text), format)?;
    let state = file.state()?;
    let (server, connection) = file.serve(dialer).await?;
    let name = file.path.display().to_string();
    Ok(Source { connection: Arc::new(connection), name, file: Some((file, server)), state })
}

/// The size of the image: a server may say anything.
fn whole_sectors(size_bytes: u64) -> Result<u64, Failure> {
    let too_large = || Failure::usage(format!("{size_bytes} bytes is too large for an image"));
    size_bytes.checked_next_multiple_of(SECTOR_BYTES).ok_or_else(too_large)
}

impl Source {
    /// Whether another try would fail of the source too.
    fn is_bad(&self, error: &CopyError) -> bool {
        match error {
            CopyError::Source(NbdError::Silent { .. }) | CopyError::Target(_) | CopyError::Note(_) => false,
            // The server of a file hangs up when it stumbles over what is in it.
            CopyError::Source(error) => error.is_refusal() || self.file.is_some(),
        }
    }

    /// Refuses what was not the same from beginning to end.
    fn check_unchanged(&self) -> Result<(), Failure> {
        match &self.file {
            Some((file, _)) if file.state()? != self.state => {
                let detail = format!("{} has changed while it was copied", self.name);
                Err(Failure::new(Exit::Failure, "source_changed", detail))
            }
            _ => Ok(()),
        }
    }
}

/// Copies from where the image ends. A failure comes with whether the source is at fault.
async fn fill(
    daemon: &Daemon,
    source: Source,
    image: &Image,
    mut watch: Watch<'_>,
) -> (Source, Result<(), (bool, Failure)>) {
    let size_bytes = source.connection.facts().size_bytes;
    if image.state != ImageState::Importing || image.copied_bytes >= size_bytes {
        return (source, Ok(()));
    }
    let target = match daemon.enter(image, superseded).await {
        Ok(target) => Arc::new(target),
        Err(failure) => return (source, Err((false, failure))),
    };
    let copied = copy(&source.connection, &target, image.copied_bytes, &mut watch).await;
    watch.bar.finish();
    // The tasks of a copy that has ended hold it no more.
    if let Some(target) = Arc::into_inner(target) {
        target.close().await;
    }
    let copied = copied.map(drop).map_err(|error| (source.is_bad(&error), copy_failure(&error, true, &source.name)));
    (source, copied)
}

fn superseded(image: &Image) -> Failure {
    let detail = format!("another import of image {} has begun: this one has ended", image.name);
    Failure::new(Exit::Conflict, ErrorCode::ImportSuperseded.as_str(), detail)
}

/// Deletes what a bad source began; says of the rest how to go on.
async fn give_up(client: &Client, image: &Image, failure: Failure, is_source_bad: bool) -> Failure {
    let name = &image.name;
    // The name may be another's by now, and whole.
    let now = client.fetch_within::<Image>(&path_of(name)).await;
    let is_gone = match &now {
        Ok(now) => now.id != image.id,
        Err(failure) => failure.code == "image_not_found",
    };
    if is_gone {
        let detail = format!("image {name} was deleted while it was imported: run the command again to begin anew");
        return Failure::new(Exit::NotFound, "image_not_found", detail);
    }
    if now.as_ref().is_ok_and(|now| now.claim != image.claim) {
        return superseded(image);
    }
    if !is_source_bad || now.is_ok_and(|now| now.state == ImageState::Ready) {
        let detail =
            format!("{}: the same command goes on with the import, `image delete {name}` ends it", failure.detail);
        return Failure { detail, ..failure };
    }
    match client.delete_within(&format!("{}?force=true&claim={}", path_of(name), image.claim)).await {
        Ok(()) => Failure { detail: format!("{}: the image is not made", failure.detail), ..failure },
        Err(error) => {
            let detail = format!("{}; what is copied of it is left: {error}", failure.detail);
            Failure { detail, ..failure }
        }
    }
}

async fn seal(client: &Client, image: &Image) -> Result<Image, Failure> {
    let path = format!("{}/seal?claim={}", path_of(&image.name), image.claim);
    let mut tries = SEAL_TRIES;
    loop {
        match client.post_within(&path, &serde_json::json!({})).await {
            // Its shard may not have seen the end of the last connection yet.
            Err(failure) if failure.code == "volume_in_use" && tries > 0 => tries -= 1,
            sealed => return sealed,
        }
        sleep(SEAL_PERIOD).await;
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: Progress) {
        self.bar.show(progress);
    }

    async fn flushed(&mut self, position: u64) -> Result<(), Failure> {
        let copied_bytes = position.next_multiple_of(SECTOR_BYTES).min(self.size_bytes);
        let path = format!("{}/mark?claim={}", path_of(&self.image.name), self.image.claim);
        self.client.post_within::<Image>(&path, &MarkImage { copied_bytes }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever size a server tells, it is a size or is refused.
    #[test]
    fn a_size_beyond_all_numbers_is_refused() {
        assert_eq!(whole_sectors(u64::MAX).unwrap_err().exit, Exit::Usage);
        assert_eq!(whole_sectors(u64::MAX - 510).unwrap_err().exit, Exit::Usage);
        let sizes = [0, 1, 512, u64::MAX - 511].map(|size_bytes| whole_sectors(size_bytes).unwrap());
        assert_eq!(sizes, [0, 512, 512, u64::MAX - 511]);
    }
}
