//! Images: imported from files and exports, interrupted and gone on with, refused, exported.

use crate::daemon::Daemon;
use crate::fake_source::{Behaviour, FakeSource};
use crate::tool::{self, are_here, json, noise, output_of, run, succeed, wait_until};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MIB: usize = 1 << 20;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const DAMAGE: i32 = 7;
const TRY_LATER: i32 = 8;

/// A disk with data, zeros that were written, and holes.
pub(crate) fn disk(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(48 * MIB as u64).unwrap();
    file.write_all_at(&noise(5, 10 * MIB + 512), 512).unwrap();
    file.write_all_at(&vec![0; 4 * MIB], 16 * MIB as u64).unwrap();
    file.write_all_at(&noise(6, 3 * MIB), 40 * MIB as u64 + 1536).unwrap();
}

pub(crate) fn exit_code(command: &mut Command) -> (i32, String) {
    let output = output_of(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it was not killed"), said)
}

pub(crate) fn image(daemon: &Daemon, name: &str) -> Value {
    json(&mut daemon.aljibe(&["image", "show", name]))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn same(daemon: &Daemon, image: &str, raw: &Path) {
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", text(raw), &daemon.uri(image)]);
}

/// An nbdkit that serves a file and logs what is asked of it; it ends when this is dropped.
struct Source {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Source {
    fn start(folder: &Path, filters: &[&str], plugin: &[&str]) -> Self {
        let (socket, log) = (folder.join("source.sock"), folder.join("source.log"));
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--filter=log", "--unix", text(&socket)]);
        command.args(filters.iter().map(|filter| format!("--filter={filter}"))).args(plugin);
        let child =
            command.arg(format!("logfile={}", text(&log))).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let source = Self { child, socket, log };
        wait_until("nbdkit listens", || UnixStream::connect(&source.socket).is_ok());
        source
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", text(&self.socket))
    }

    /// Where reads began.
    fn read_offsets(&self) -> Vec<u64> {
        let log = fs::read_to_string(&self.log).unwrap();
        let reads = log.lines().filter(|line| line.contains(" Read id="));
        let offset = |line: &str| {
            let (_, rest) = line.split_once("offset=0x")?;
            u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
        };
        reads.map(|line| offset(line).expect("a read has an offset")).collect()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// P2. Whatever the format, an image is what the file says; it is sealed, and exports to what it was.
#[test]
fn files_of_every_format_become_images_and_come_back() {
    if !are_here("files_of_every_format_become_images_and_come_back", &["qemu-img", "qemu-nbd", "qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    for format in ["raw", "qcow2", "vmdk", "vhdx"] {
        let file = daemon.folder().join(format!("disk.{format}"));
        if format != "raw" {
            run("qemu-img", ["convert", "-f", "raw", "-O", format, text(&raw), text(&file)]);
        }
        let made = json(&mut daemon.aljibe(&["image", "import", text(&file), format]));
        assert_eq!((made["state"].as_str(), made["size_bytes"].as_u64()), (Some("ready"), Some(48 << 20)), "{made}");
        same(&daemon, format, &raw);
    }
    let (code, _) = exit_code(tool::command("qemu-io").args(["-f", "raw", "-c", "write 0 4k", &daemon.uri("raw")]));
    assert_ne!(code, 0, "an image was written to");
    for format in ["raw", "qcow2"] {
        let file = daemon.folder().join(format!("back.{format}"));
        let export = || daemon.aljibe(&["image", "export", "vhdx", text(&file), "--format", format]);
        succeed(&mut export());
        run("qemu-img", ["compare", "-f", "raw", "-F", format, text(&raw), text(&file)]);
        let (code, said) = exit_code(&mut export());
        assert!(code == CONFLICT && said.contains("exists"), "{code}: {said}");
    }
    // Only what holds data takes space, whether the source tells its holes or not.
    daemon.stop_without_complaint();
    daemon.restart();
    for name in ["raw", "qcow2", "vmdk", "vhdx"] {
        let written = image(&daemon, name)["written_bytes"].as_u64().unwrap();
        assert!((13 << 20..14 << 20).contains(&written), "{written} bytes of {name}");
        same(&daemon, name, &raw);
    }
    assert!(json(&mut daemon.aljibe(&["volume", "list"]))["volumes"].as_array().unwrap().is_empty());
    succeed(&mut daemon.aljibe(&["image", "delete", "raw"]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["image", "show", "raw"])).0, NOT_FOUND);
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "delete", "qcow2"])).0, NOT_FOUND);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P5. What an export tells to be holes is not even read, and one of odd size is filled up with zeros.
#[test]
fn holes_of_an_export_are_not_read() {
    if !are_here("holes_of_an_export_are_not_read", &["nbdkit", "qemu-img", "nbdinfo"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    File::options().write(true).open(&raw).unwrap().set_len(48 * MIB as u64 + 1001).unwrap();
    let source = Source::start(daemon.folder(), &[], &["file", text(&raw)]);
    succeed(&mut daemon.aljibe(&["image", "import", &source.uri(), "sparse"]));
    assert_eq!(image(&daemon, "sparse")["size_bytes"].as_u64(), Some((48 << 20) + 1024));
    let offsets = source.read_offsets();
    assert!(offsets.iter().any(|at| *at < 10 << 20) && offsets.iter().any(|at| *at >= 40 << 20), "{offsets:?}");
    assert!(!offsets.iter().any(|at| (24 << 20..40 << 20).contains(at)), "a hole was read: {offsets:?}");
    // The last bytes of the image, which the source does not have, are zeros.
    File::options().write(true).open(&raw).unwrap().set_len(48 * MIB as u64 + 1024).unwrap();
    same(&daemon, "sparse", &raw);
    daemon.stop_without_complaint();
}

/// P2. A source that takes only requests of whole larger blocks gets such.
#[test]
fn a_source_of_larger_blocks_is_read_in_such() {
    if !are_here("a_source_of_larger_blocks_is_read_in_such", &["nbdkit", "qemu-img"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    let sizes = ["blocksize-minimum=64K", "blocksize-preferred=64K", "blocksize-maximum=32M"];
    let plugin = ["file", text(&raw), "blocksize-error-policy=error"];
    let source = Source::start(daemon.folder(), &["blocksize-policy"], &[&plugin[..], &sizes].concat());
    succeed(&mut daemon.aljibe(&["image", "import", &source.uri(), "large-blocks"]));
    same(&daemon, "large-blocks", &raw);
    daemon.stop_without_complaint();
}

/// P1, P2. An import goes on where it was, after a kill of the command and after one of the daemon.
#[test]
fn an_interrupted_import_goes_on_where_it_was() {
    if !are_here("an_interrupted_import_goes_on_where_it_was", &["qemu-img"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    let content = noise(7, 96 * MIB);
    fs::write(&raw, &content).unwrap();
    let source = FakeSource::start(daemon.folder(), content, Behaviour::Gated);
    // The source ends no import before it is told to, however slow or fast this machine is.
    let import = |daemon: &Daemon| daemon.aljibe(&["image", "import", &source.uri(), "slow", "--timeout", "600"]);
    let copied = |daemon: &Daemon| {
        let shown = output_of(daemon.aljibe(&["image", "show", "slow", "--json"]).stderr(Stdio::null()));
        let shown: Option<Value> = serde_json::from_slice(&shown.stdout).ok();
        shown.and_then(|image| image["copied_bytes"].as_u64()).unwrap_or(0)
    };
    let mut mark = 0;
    for (is_daemon_killed, gate) in [(false, 32 * MIB), (true, 64 * MIB)] {
        source.open_to(gate);
        let mut running = import(&daemon).stdout(Stdio::null()).spawn().unwrap();
        wait_until("the import is further", || {
            assert_eq!(running.try_wait().unwrap(), None, "the import is over");
            copied(&daemon) == gate as u64
        });
        if is_daemon_killed {
            daemon.kill9();
            assert_eq!(running.wait().unwrap().code(), Some(5), "the daemon is gone");
            daemon.restart();
        } else {
            // The command runs under `timeout`, which passes this on to nobody: its child is what is killed.
            let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.id())).unwrap();
            run("kill", ["-9", pid.trim()]);
            running.wait().unwrap();
        }
        assert!(source.take_reads().iter().all(|at| *at >= mark), "it began before {mark}");
        mark = copied(&daemon);
        assert_eq!(mark, gate as u64, "what was told is kept");
        assert_eq!(image(&daemon, "slow")["state"].as_str(), Some("importing"));
        let back = daemon.folder().join("back.raw");
        assert_eq!(exit_code(&mut daemon.aljibe(&["image", "export", "slow", text(&back)])).0, CONFLICT);
    }
    source.open_to(usize::MAX);
    let made = json(&mut import(&daemon));
    assert_eq!(made["state"].as_str(), Some("ready"));
    assert!(source.take_reads().iter().all(|at| *at >= mark), "it began before {mark}");
    same(&daemon, "slow", &raw);
    assert_eq!(exit_code(&mut import(&daemon)).0, CONFLICT);
    assert!(daemon.stop().success());
    daemon.check_pool();
}

/// P2. Nothing of one source is mixed with another, or with another state of it.
#[test]
fn an_import_goes_on_with_the_same_source_only() {
    if !are_here("an_import_goes_on_with_the_same_source_only", &["curl", "qemu-nbd", "qemu-img"]) {
        return;
    }
    let daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    let begun = r#"{"name": "os", "size_bytes": 50331648, "source": "another"}"#;
    let api = daemon.data().join("api.sock");
    let by = daemon.authorization();
    let to = ["--unix-socket", text(&api), "http://localhost/v1/images"];
    run("curl", [&["--silent", "--fail", "--header", &by, "--json", begun], &to[..]].concat());
    let (code, said) = exit_code(&mut daemon.aljibe(&["image", "import", text(&raw), "os"]));
    assert!(code == CONFLICT && said.contains("another"), "{code}: {said}");
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "create", "os", "--size", "1G"])).0, CONFLICT);
    succeed(&mut daemon.aljibe(&["image", "delete", "os"]));
    succeed(&mut daemon.aljibe(&["image", "import", text(&raw), "os"]));
    same(&daemon, "os", &raw);
}

/// P6. A source that is damaged, cut short or fails leaves no image.
#[test]
fn a_bad_source_leaves_no_image() {
    if !are_here("a_bad_source_leaves_no_image", &["nbdkit", "qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    for format in ["qcow2", "vmdk", "vhdx"] {
        let file = daemon.folder().join(format!("cut.{format}"));
        run("qemu-img", ["convert", "-f", "raw", "-O", format, text(&raw), text(&file)]);
        File::options().write(true).open(&file).unwrap().set_len(9 * MIB as u64).unwrap();
        let (code, said) = exit_code(&mut daemon.aljibe(&["image", "import", text(&file), "bad"]));
        assert!([1, DAMAGE].contains(&code) && said.contains("cut."), "{code}: {said}");
    }
    let overlay = daemon.folder().join("overlay.qcow2");
    run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&raw), text(&overlay)]);
    let (code, said) = exit_code(&mut daemon.aljibe(&["image", "import", text(&overlay), "bad"]));
    assert!(code == USAGE && said.contains("disk.raw"), "{code}: {said}");
    let missing = daemon.folder().join("missing.raw");
    assert_eq!(exit_code(&mut daemon.aljibe(&["image", "import", text(&missing), "bad"])).0, NOT_FOUND);
    let failing = ["file", text(&raw), "error-pread=EIO", "error-pread-rate=100%"];
    let source = Source::start(daemon.folder(), &["error"], &failing);
    let (code, said) = exit_code(&mut daemon.aljibe(&["image", "import", &source.uri(), "bad"]));
    assert!(code == 1 && said.contains("Input/output error"), "{code}: {said}");
    assert!(json(&mut daemon.aljibe(&["image", "list"]))["images"].as_array().unwrap().is_empty());
    daemon.stop_without_complaint();
}

/// Answers requests for JSON as the daemon does, but runs `meanwhile` before the first answer is given away.
fn slow_api(daemon: &Daemon, mut meanwhile: Vec<Command>) -> PathBuf {
    let (socket, api) = (daemon.folder().join("slow.sock"), daemon.data().join("api.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut first_line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut first_line).unwrap();
            let mut bearer = String::new();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                if line.to_ascii_lowercase().starts_with("authorization:") {
                    bearer.clone_from(&line);
                }
                line.clear();
            }
            let path = first_line.split(' ').nth(1).unwrap();
            let mut upstream = UnixStream::connect(&api).unwrap();
            // Which hangs up behind its answer.
            write!(upstream, "GET {path} HTTP/1.0\r\n{bearer}\r\n").unwrap();
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).unwrap();
            meanwhile.drain(..).for_each(|mut command| drop(succeed(&mut command)));
            stream.write_all(&answer).unwrap();
        }
    });
    socket
}

/// P2. An export is of the image that had the name when it began: never of another one that took the name since.
#[test]
fn an_export_is_never_of_another_image_of_that_name() {
    if !are_here("an_export_is_never_of_another_image_of_that_name", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let (raw, other) = (daemon.folder().join("disk.raw"), daemon.folder().join("other.raw"));
    disk(&raw);
    fs::write(&other, noise(8, MIB)).unwrap();
    let back = daemon.folder().join("back.raw");
    succeed(&mut daemon.aljibe(&["image", "import", text(&raw), "os"]));
    let made_anew =
        [&["image", "delete", "os"][..], &["image", "import", text(&other), "os"]].map(|words| daemon.aljibe(words));
    let api = format!("unix:{}", text(&slow_api(&daemon, made_anew.into())));
    let mut export = daemon.with_token(tool::command(crate::daemon::binary()));
    let (code, said) = exit_code(export.args(["image", "export", "os", text(&back), "--api", &api]));
    assert!(code == TRY_LATER && said.contains("another"), "{code}: {said}");
    assert!(!back.exists());
    // The other one, by its own right.
    succeed(&mut daemon.aljibe(&["image", "export", "os", text(&back)]));
    run("cmp", [&other, &back]);
    daemon.stop_without_complaint();
}

#[test]
fn a_tool_that_is_missing_is_named_with_its_package() {
    let daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    let import = || {
        let mut command = Command::new(crate::daemon::binary());
        command.args(["image", "import", text(&raw), "os", "--data"]).arg(daemon.data());
        exit_code(command.env("PATH", daemon.folder()))
    };
    let (code, said) = import();
    assert!(code == NOT_FOUND && said.contains("util-linux"), "{code}: {said}");
    let prlimit = output_of(tool::command("sh").args(["-c", "command -v prlimit"])).stdout;
    symlink(String::from_utf8(prlimit).unwrap().trim(), daemon.folder().join("prlimit")).unwrap();
    let (code, said) = import();
    assert!(code == NOT_FOUND && said.contains("qemu-utils"), "{code}: {said}");
}

/// What looks at a file that anybody may have made cannot take the machine: neither its memory nor a processor for long.
#[test]
fn a_tool_that_looks_at_an_image_has_limits() {
    if !are_here("a_tool_that_looks_at_an_image_has_limits", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let daemon = Daemon::start();
    let (qcow2, tools) = (daemon.folder().join("disk.qcow2"), daemon.folder().join("tools"));
    run("qemu-img", ["create", "-q", "-f", "qcow2", text(&qcow2), "1M"]);
    fs::create_dir(&tools).unwrap();
    let path = std::env::var("PATH").unwrap();
    // KiB and seconds, of each call.
    let fake = format!(
        "#!/bin/sh\necho $1 $(ulimit -v) $(ulimit -t) >> {0}/said\nPATH={path} exec qemu-img \"$@\"\n",
        text(&tools)
    );
    fs::write(tools.join("qemu-img"), fake).unwrap();
    fs::set_permissions(tools.join("qemu-img"), Permissions::from_mode(0o755)).unwrap();
    succeed(daemon.aljibe(&["image", "import", text(&qcow2), "os"]).env("PATH", format!("{}:{path}", text(&tools))));
    let said = fs::read_to_string(tools.join("said")).unwrap();
    assert_eq!(said, "info 1048576 30\ncheck 4194304 unlimited\n");
}

/// P1, P2. Volumes begin as an image, as many as are wanted, each on its own; they outlive it.
#[test]
fn volumes_begin_as_an_image_and_outlive_it() {
    if !are_here("volumes_begin_as_an_image_and_outlive_it", &["qemu-img", "qemu-nbd", "qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    succeed(&mut daemon.aljibe(&["image", "import", text(&raw), "os"]));
    for number in 0..50 {
        succeed(&mut daemon.aljibe(&["volume", "create", &format!("vm-{number}"), "--image", "os"]));
    }
    let large = json(&mut daemon.aljibe(&["volume", "create", "large", "--image", "os", "--size", "1G"]));
    assert_eq!(large["size_bytes"].as_u64(), Some(1 << 30), "{large}");
    let (code, said) = exit_code(&mut daemon.aljibe(&["volume", "create", "small", "--image", "os", "--size", "1M"]));
    assert!(code == USAGE && said.contains("cannot hold it"), "{code}: {said}");
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "create", "x", "--image", "none"])).0, NOT_FOUND);
    let write = |volume: &str, pattern: &str| {
        run("qemu-io", ["-f", "raw", "-c", &format!("write -P {pattern} 1M 1M"), &daemon.uri(volume)]);
    };
    write("vm-0", "1");
    write("vm-1", "2");
    for volume in ["vm-2", "vm-49", "os"] {
        same(&daemon, volume, &raw);
    }
    // The rest of a larger one is zeros, and is its own.
    let grown = daemon.folder().join("grown.raw");
    fs::copy(&raw, &grown).unwrap();
    File::options().write(true).open(&grown).unwrap().set_len(1 << 30).unwrap();
    same(&daemon, "large", &grown);
    for refused in [
        ["snapshot", "delete", "os@image"].as_slice(),
        &["snapshot", "create", "os@later"],
        &["volume", "rollback", "os@image"],
        &["volume", "resize", "os", "--size", "1G"],
    ] {
        assert_eq!(exit_code(&mut daemon.aljibe(refused)).0, NOT_FOUND, "{refused:?}");
    }
    succeed(&mut daemon.aljibe(&["image", "delete", "os"]));
    assert_eq!(exit_code(&mut daemon.aljibe(&["volume", "create", "x", "--image", "os"])).0, NOT_FOUND);
    for is_killed in [false, true] {
        if is_killed {
            daemon.kill9();
        } else {
            daemon.stop_without_complaint();
        }
        daemon.restart();
        same(&daemon, "vm-2", &raw);
        for (volume, pattern) in [("vm-0", "1"), ("vm-1", "2")] {
            run("qemu-io", ["-f", "raw", "-c", &format!("read -P {pattern} 1M 1M"), &daemon.uri(volume)]);
        }
    }
    let list = json(&mut daemon.aljibe(&["volume", "list"]));
    assert_eq!(list["volumes"].as_array().unwrap().len(), 51);
    assert!(daemon.stop().success());
    daemon.check_pool();
}
