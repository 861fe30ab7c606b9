//! QEMU's tools as children: they know the formats of disk images, and serve or make one over NBD.
//!
//! A file is never what it says it is before it was looked at: one that names other files (a backing file, an extent
//! elsewhere) is refused, since whoever made it would choose what is read of this machine.

mod header;

use crate::failure::{Exit, Failure};
use crate::nbd::{Connection, Dialer, Host, NbdError, NbdUri};
use anyhow::Context;
use serde::Deserialize;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// What `qemu-img info` may take of memory and of a processor: whoever made the file may have made it to take all.
const INFO_LIMITS: Limits = Limits { memory_bytes: 1 << 30, cpu_seconds: Some(30) };

/// What `qemu-img check` may take. It counts every cluster in memory, 32 MiB for each TiB as a rule.
const CHECK_LIMITS: Limits = Limits { memory_bytes: 4 << 30, cpu_seconds: None };

/// With this prlimit tells that there is no such tool.
const NO_TOOL: i32 = 127;

/// Most bytes kept of what a tool says.
const SAID_BYTES_MAX: u64 = 64 << 10;

/// Longest wait for a server to listen, and for it to end.
const SERVER_DURATION_MAX: Duration = Duration::from_secs(20);

/// How often it is looked whether a server listens.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReadFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
}

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WriteFormat {
    /// The bytes of the disk; the file is sparse.
    Raw,
    /// QEMU's.
    Qcow2,
}

/// What a tool may take of this machine.
#[derive(Debug, Clone, Copy)]
struct Limits {
    memory_bytes: u64,
    cpu_seconds: Option<u32>,
}

/// An image file that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) format: ReadFormat,
    /// The files that hold parts of it, where it is made of several.
    parts: Vec<PathBuf>,
}

/// A child that serves an image file.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    name: String,
    /// Gives what it says on stderr.
    said: Option<JoinHandle<Vec<u8>>>,
}

impl ImageFile {
    /// Looks at a file: what it is, and that it is whole and on its own.
    pub(crate) fn look_at(path: &Path, format: Option<ReadFormat>) -> Result<Self, Failure> {
        // An absolute path is no protocol of QEMU's, whatever characters are in it.
        let path = std::fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let kind = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.file_type();
        if !(kind.is_file() || kind.is_block_device()) {
            // To open a pipe would wait for somebody who writes.
            let detail = format!("{} is no file and no disk", path.display());
            return Err(Failure::new(Exit::Usage, "source_refused", detail));
        }
        header::check_alone(&path, format)?;
        let mut command = qemu_img(INFO_LIMITS);
        command.args(["info", "--output=json"]).args(format.map(|format| format!("--format={}", format.name())));
        let said = run(command.arg("--").arg(&path)).map_err(|failure| {
            let detail = format!("cannot read {}: {}", path.display(), failure.detail);
            Failure { detail, ..failure }
        })?;
        let info: Info = serde_json::from_slice(&said).context("qemu-img describes an image in an unknown way")?;
        let found = ReadFormat::from_name(&info.format).ok_or_else(|| {
            let detail =
                format!("{} is of format {}: raw, qcow2, vmdk and vhdx can be read", path.display(), info.format);
            Failure::new(Exit::Usage, "format_unknown", detail)
        })?;
        let parts = info.check_alone(&path)?;
        if found != ReadFormat::Raw {
            check(&path, found)?;
        }
        Ok(Self { path, format: found, parts })
    }

    /// What would be another if any of its files had changed: the length of all, the newest time of change, the numbers.
    pub(crate) fn state(&self) -> Result<String, Failure> {
        let (mut bytes, mut changed, mut inodes) = (0_u64, (0, 0), 0_u64);
        for path in std::iter::once(&self.path).chain(&self.parts) {
            let metadata = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
            bytes = bytes.wrapping_add(metadata.len());
            changed = changed.max((metadata.mtime(), metadata.mtime_nsec()));
            inodes = inodes.wrapping_add(metadata.ino());
        }
        Ok(format!("{bytes}-{}.{:09}-{inodes}", changed.0, changed.1))
    }

    /// Serves it read-only, and connects.
    pub(crate) async fn serve(&self, dialer: &Dialer) -> Result<(Server, Connection), Failure> {
        serve(&self.path, &["--read-only", self.format.name()], dialer).await
    }
}

/// Makes an image file of `size_bytes` out of an empty file, and serves it to be written.
pub(crate) async fn make(
    path: &Path,
    format: WriteFormat,
    size_bytes: u64,
    dialer: &Dialer,
) -> Result<(Server, Connection), Failure> {
    let path = std::path::absolute(path).context("there is no current folder")?;
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", format.name(), "--"]).arg(&path).arg(size_bytes.to_string());
    run(&mut command)?;
    serve(&path, &["--discard=unmap", format.name()], dialer).await
}

/// Serves a file on a socket in a folder of its own, which goes as soon as there is a connection: a command that is
/// killed leaves no file, and no server, since that ends with its last connection.
async fn serve(path: &Path, [option, format]: &[&str; 2], dialer: &Dialer) -> Result<(Server, Connection), Failure> {
    let folder = TempDir::with_prefix("aljibe-").context("cannot make a temporary folder")?;
    let socket = folder.path().join("nbd.sock");
    let mut command = Command::new("qemu-nbd");
    command.arg(option).arg(format!("--format={format}")).arg("--socket").arg(&socket).arg("--").arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started("qemu-nbd", &error))?;
    let said = Some(keep(child.stderr.take()));
    let mut server = Server { child, name: path.display().to_string(), said };
    let until = Instant::now() + SERVER_DURATION_MAX;
    let uri = NbdUri { host: Host::Unix(socket.clone()), export: String::new(), tls_name: None };
    loop {
        if let Some(status) = server.child.try_wait().context("cannot wait for qemu-nbd")? {
            return Err(server.failed(status));
        }
        let opened = if socket.exists() { Some(dialer.open(&uri).await) } else { None };
        let reason = match opened {
            Some(Ok(connection)) => return Ok((server, connection)),
            Some(Err(NbdError::Unreachable(_) | NbdError::Lost(_))) | None if Instant::now() < until => {
                sleep(LOOK_PERIOD).await;
                continue;
            }
            Some(Err(error)) => error.to_string(),
            None => format!("it does not listen within {SERVER_DURATION_MAX:?}"),
        };
        return Err(source_failed(format!("qemu-nbd does not serve {}: {reason}", path.display())));
    }
}

impl Server {
    /// Waits for the end of a server whose connection was closed; what it wrote is in the file then.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        let until = Instant::now() + SERVER_DURATION_MAX;
        while Instant::now() < until {
            match self.child.try_wait().context("cannot wait for qemu-nbd")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(status)),
                None => sleep(LOOK_PERIOD).await,
            }
        }
        let detail = format!("qemu-nbd of {} does not end within {SERVER_DURATION_MAX:?}", self.name);
        Err(Failure::new(Exit::Failure, "failed", detail))
    }

    fn failed(&mut self, status: ExitStatus) -> Failure {
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        source_failed(failed("qemu-nbd", status, &said))
    }
}

/// A server that nobody needs any more ends.
impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks what the format's own tables tell: a file that was cut short is found out before it is copied.
fn check(path: &Path, format: ReadFormat) -> Result<(), Failure> {
    let mut command = qemu_img(CHECK_LIMITS);
    command.args(["check", "--output=json", &format!("--format={}", format.name()), "--"]).arg(path);
    let (status, _, said) = output_of(&mut command)?;
    // 3: space is lost, and nothing else; 63: the format has nothing to check.
    if matches!(status.code(), Some(0 | 3 | 63)) {
        return Ok(());
    }
    let detail = format!("{} is damaged or was cut short: {}", path.display(), first_line(&said));
    Err(Failure::new(Exit::Damage, "source_damaged", detail))
}

/// What `qemu-img info` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: String,
    #[serde(default)]
    backing_filename: Option<String>,
    #[serde(default)]
    format_specific: Option<Specific>,
}

#[derive(Debug, Deserialize)]
struct Specific {
    #[serde(default)]
    data: SpecificData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    #[serde(default)]
    data_file: Option<String>,
    #[serde(default)]
    extents: Vec<ExtentFile>,
}

#[derive(Debug, Deserialize)]
struct ExtentFile {
    filename: String,
}

impl Info {
    /// Refuses an image that is made of files which do not lie beside it. Returns those that do.
    fn check_alone(&self, path: &Path) -> Result<Vec<PathBuf>, Failure> {
        if let Some(name) = &self.backing_filename {
            return Err(refused(path, &format!("is only what differs from {name:?}")));
        }
        let data = self.format_specific.as_ref().map(|specific| &specific.data);
        if let Some(name) = data.and_then(|data| data.data_file.as_ref()) {
            return Err(refused(path, &format!("has its data in {name:?}")));
        }
        let folder = path.parent();
        let is_beside = |name: &str| {
            let extent = folder.unwrap_or_else(|| Path::new("/")).join(name);
            std::fs::canonicalize(extent).is_ok_and(|extent| extent.parent() == folder)
        };
        match data.and_then(|data| data.extents.iter().find(|extent| !is_beside(&extent.filename))) {
            Some(extent) => Err(refused(path, &format!("has a part elsewhere, in {:?}", extent.filename))),
            None => {
                let folder = folder.unwrap_or_else(|| Path::new("/"));
                let extents = data.map(|data| data.extents.as_slice()).unwrap_or_default();
                let parts = extents.iter().map(|extent| folder.join(&extent.filename));
                Ok(parts.filter(|part| part != path).collect())
            }
        }
    }
}

impl ReadFormat {
    /// QEMU's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhdx].into_iter().find(|format| format.name() == name)
    }
}

impl WriteFormat {
    /// QEMU's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// One that keeps to limits: prlimit sets them and becomes qemu-img.
fn qemu_img(limits: Limits) -> Command {
    let mut command = Command::new("prlimit");
    command.arg("--core=0").arg(format!("--as={}", limits.memory_bytes));
    command.args(limits.cpu_seconds.map(|seconds| format!("--cpu={seconds}"))).args(["--", "qemu-img"]);
    command
}

/// Runs qemu-img to its end and returns what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let (status, printed, said) = output_of(command)?;
    if status.success() {
        return Ok(printed);
    }
    Err(source_failed(failed("qemu-img", status, &said)))
}

/// How qemu-img ended, what it printed, and what it said.
fn output_of(command: &mut Command) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(command.get_program(), &error))?;
    let (printed, said) = (keep(child.stdout.take()), keep(child.stderr.take()));
    let status = child.wait().context("cannot wait for a child")?;
    if status.code() == Some(NO_TOOL) {
        return Err(not_started("qemu-img", &io::ErrorKind::NotFound.into()));
    }
    Ok((status, printed.join().unwrap_or_default(), said.join().unwrap_or_default()))
}

/// Reads a pipe to its end, so that its writer never waits, and keeps the first bytes.
fn keep(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            // What cannot be read is told by the exit code.
            let _ = pipe.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut kept);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        kept
    })
}

fn failed(tool: &str, status: ExitStatus, said: &[u8]) -> String {
    match first_line(said) {
        line if line.is_empty() => format!("{tool} failed: {status}"),
        line => line,
    }
}

fn first_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

/// The file names another.
fn refused(path: &Path, what: &str) -> Failure {
    let detail = format!("{} {what}: make one file of it first, by qemu-img convert", path.display());
    Failure::new(Exit::Usage, "source_refused", detail)
}

fn source_failed(detail: String) -> Failure {
    Failure::new(Exit::Failure, "source_failed", detail)
}

fn not_started(tool: impl AsRef<OsStr>, error: &io::Error) -> Failure {
    let package = if tool.as_ref() == "prlimit" { "util-linux" } else { "qemu-utils" };
    let tool = tool.as_ref().display();
    if error.kind() == io::ErrorKind::NotFound {
        let detail =
            format!("{tool} is not installed: on Debian it is in package {package} (apt-get install {package})");
        return Failure::new(Exit::NotFound, "tool_not_found", detail);
    }
    Failure::new(Exit::Failure, "failed", format!("cannot start {tool}: {error}"))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
    let code = if exit == Exit::NotFound { "source_not_found" } else { "source_failed" };
    Failure::new(exit, code, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(info: &str, path: &Path) -> Option<String> {
        let info: Info = serde_json::from_str(info).unwrap();
        info.check_alone(path).err().map(|failure| failure.detail)
    }

    #[test]
    fn an_image_that_names_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let path = folder.join("a.vmdk");
        for name in ["a.vmdk", "a-flat.vmdk"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        let with_extent = |name: &str| {
            format!(
                r#"{{"format":"vmdk","format-specific":{{"type":"vmdk","data":{{"extents":[{{"filename":"{name}"}}]}}}}}}"#
            )
        };
        assert_eq!(refusal(r#"{"format":"raw"}"#, &path), None);
        assert_eq!(refusal(&with_extent("a-flat.vmdk"), &path), None);
        assert_eq!(refusal(&with_extent(folder.join("a-flat.vmdk").to_str().unwrap()), &path), None);
        for elsewhere in ["/etc/shadow", "../a", "missing.vmdk"] {
            assert!(refusal(&with_extent(elsewhere), &path).unwrap().contains(elsewhere));
        }
        let backed = r#"{"format":"qcow2","backing-filename":"/etc/shadow"}"#;
        assert!(refusal(backed, &path).unwrap().contains("/etc/shadow"));
        let outside = r#"{"format":"qcow2","format-specific":{"data":{"data-file":"/etc/shadow"}}}"#;
        assert!(refusal(outside, &path).unwrap().contains("/etc/shadow"));
    }

    /// P2. An image of several files has changed when one of them has; what is no file is not opened.
    #[test]
    fn a_part_that_changes_is_another_state() {
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(folder.path()).unwrap();
        let [path, part] = ["disk.vmdk", "disk-s001.vmdk"].map(|name| folder.join(name));
        std::fs::write(&path, "descriptor").unwrap();
        std::fs::write(&part, "data").unwrap();
        let extents = r#"[{"filename":"disk.vmdk"},{"filename":"disk-s001.vmdk"}]"#;
        let info = format!(r#"{{"format":"vmdk","format-specific":{{"data":{{"extents":{extents}}}}}}}"#);
        let info: Info = serde_json::from_str(&info).unwrap();
        let parts = info.check_alone(&path).unwrap();
        assert_eq!(parts.as_slice(), std::slice::from_ref(&part));
        let file = ImageFile { path, format: ReadFormat::Vmdk, parts };
        let state = file.state().unwrap();
        assert_eq!(file.state().unwrap(), state);
        std::fs::write(&part, "other data").unwrap();
        assert_ne!(file.state().unwrap(), state);
        let pipe = Path::new("/dev/null");
        assert_eq!(ImageFile::look_at(pipe, None).unwrap_err().code, "source_refused");
    }
}
