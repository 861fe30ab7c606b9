//! Sources of images that are silent, hostile or reached over TLS, and files that want to read this machine.

use crate::daemon::Daemon;
use crate::fake_source::{Behaviour, FakeSource};
use crate::images::{disk, exit_code, image, same, text};
use crate::tls::{daemon_with, folder_with_certificates};
use crate::tool::{self, are_here, json, noise, run, succeed, wait_until};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const MIB: usize = 1 << 20;

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const UNREACHABLE: i32 = 5;
const NO_SPACE: i32 = 6;

const EIO: u32 = 5;
const ESHUTDOWN: u32 = 108;

fn images_of(daemon: &Daemon) -> usize {
    json(&mut daemon.aljibe(&["image", "list"]))["images"].as_array().unwrap().len()
}

fn import(daemon: &Daemon, source: &str, more: &[&str]) -> Command {
    let mut command = daemon.aljibe(&["image", "import", source, "os"]);
    command.args(more);
    command
}

/// As long as nothing needs on a busy machine, and a test can wait.
const IMPATIENT: [&str; 2] = ["--timeout", "3"];

/// P6. What is no server, or one that speaks in no way that is known, makes no image, and is told in words.
#[test]
fn what_does_not_shake_hands_is_told() {
    let mut daemon = Daemon::start();
    let source = FakeSource::start(daemon.folder(), noise(1, 4 * MIB), Behaviour::Mute);
    for (behaviour, code, words) in [
        (Behaviour::Mute, FAILURE, "does not answer within 3s when asked to shake hands"),
        (Behaviour::Greets, FAILURE, "--timeout"),
        (Behaviour::Oldstyle, FAILURE, "too old"),
        (Behaviour::Stranger, FAILURE, "no NBD server"),
        (Behaviour::Sized(u64::MAX), USAGE, "too large"),
        (Behaviour::Sized(1 << 63), USAGE, "too large"),
        (Behaviour::Sized(0), USAGE, "cannot be empty"),
        (Behaviour::NoExtents, FAILURE, "breaks the protocol"),
        (Behaviour::Overflows, FAILURE, "breaks the protocol"),
        (Behaviour::Fails(EIO), FAILURE, "Input/output error"),
    ] {
        source.behave(behaviour);
        let (found, said) = exit_code(&mut import(&daemon, &source.uri(), &IMPATIENT));
        assert!(found == code && said.contains(words), "{behaviour:?}: {found}: {said}");
        assert_eq!(images_of(&daemon), 0, "{behaviour:?}");
    }
    for (uri, code, words) in [
        ("nbd://127.0.0.1:1/x", FAILURE, "there is no connection"),
        ("nbd://host.invalid/x", FAILURE, "there is no connection"),
        ("nbd+unix:///x?socket=/nonexistent", FAILURE, "there is no connection"),
        ("nbd+unix:///x?socket=/a%00b", FAILURE, "there is no connection"),
        ("nbds://127.0.0.1:1/x?socket=/s", USAGE, "nbd+unix"),
        ("nbd://127.0.0.1:1/%zz", USAGE, "badly escaped"),
        ("nbd+ssh://h/x", USAGE, "scheme"),
    ] {
        let (found, said) = exit_code(&mut import(&daemon, uri, &[]));
        assert!(found == code && said.contains(words), "{uri}: {found}: {said}");
    }
    assert_eq!(images_of(&daemon), 0);
    daemon.stop_without_complaint();
}

/// P1, P6. A source that stops in the middle, in whatever way, ends the command in time; the same command goes on.
#[test]
fn an_import_from_a_source_that_stops_can_go_on() {
    if !are_here("an_import_from_a_source_that_stops_can_go_on", &["qemu-img"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let content = noise(2, 64 * MIB);
    let raw = daemon.folder().join("disk.raw");
    fs::write(&raw, &content).unwrap();
    let source = FakeSource::start(daemon.folder(), content, Behaviour::Gated);
    for (number, (behaviour, words)) in [
        (Behaviour::Gated, "does not answer within"),
        (Behaviour::HangsUp, "the connection is lost"),
        (Behaviour::Fails(ESHUTDOWN), "shutdown"),
    ]
    .into_iter()
    .enumerate()
    {
        source.behave(behaviour);
        source.open_to((number + 1) * 8 * MIB);
        let (code, said) = exit_code(&mut import(&daemon, &source.uri(), &IMPATIENT));
        assert!(code == FAILURE && said.contains(words), "{behaviour:?}: {code}: {said}");
        assert!(said.contains("the same command goes on") && said.contains("image delete os"), "{said}");
        assert_eq!(image(&daemon, "os")["state"].as_str(), Some("importing"), "{behaviour:?}");
    }
    source.behave(Behaviour::EndlessExtent);
    source.open_to(usize::MAX);
    let made = json(&mut import(&daemon, &source.uri(), &[]));
    assert_eq!(made["state"].as_str(), Some("ready"), "{made}");
    same(&daemon, "os", &raw);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// Starts an import that waits at the gate, with some of it copied.
fn waiting_import(daemon: &Daemon, source: &FakeSource) -> Child {
    source.take_reads();
    let mut command = daemon.aljibe(&["image", "import", &source.uri(), "os", "--timeout", "600"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it reads beyond the gate", || source.take_reads().iter().any(|at| *at >= 8 << 20));
    child
}

/// P2. One import of a name at a time; and one whose image was deleted under it leaves the next of that name alone.
#[test]
fn an_import_whose_image_is_deleted_leaves_the_next_one_alone() {
    if !are_here("an_import_whose_image_is_deleted_leaves_the_next_one_alone", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    let source = FakeSource::start(daemon.folder(), noise(3, 32 * MIB), Behaviour::Gated);
    source.open_to(8 * MIB);
    let first = waiting_import(&daemon, &source);
    let (code, said) = exit_code(&mut import(&daemon, &source.uri(), &[]));
    assert!(code == CONFLICT && said.contains("os"), "a second import of the same: {code}: {said}");
    assert_eq!(exit_code(&mut import(&daemon, text(&raw), &[])).0, CONFLICT, "from another source");
    assert_eq!(exit_code(&mut daemon.aljibe(&["image", "delete", "os"])).0, CONFLICT, "it is in use");
    succeed(&mut daemon.aljibe(&["image", "delete", "os", "--force"]));
    succeed(&mut import(&daemon, text(&raw), &[]));
    // What the first one reads is an error, for which it would delete its image: that of the name is not its own any more.
    source.behave(Behaviour::Fails(EIO));
    source.open_to(usize::MAX);
    let output = first.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(NOT_FOUND) && said.contains("was deleted while"), "{output:?}: {said}");
    assert_eq!(image(&daemon, "os")["state"].as_str(), Some("ready"));
    same(&daemon, "os", &raw);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// An nbdkit with TLS on a socket or port of its own; it ends when this is dropped.
struct TlsSource(Child);

impl TlsSource {
    fn start(folder: &Path, more: &[&str], file: &Path) -> Self {
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--tls=require", "--unix"]).arg(folder.join("tls.sock"));
        command.arg(format!("--tls-certificates={}", folder.display())).args(more).arg("file").arg(file);
        let source = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let socket = folder.join("tls.sock");
        wait_until("nbdkit listens", || UnixStream::connect(&socket).is_ok());
        source
    }
}

impl Drop for TlsSource {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// P2. A source is spoken with over TLS when its address says so, by the authority that is named; else nothing is imported.
#[test]
fn a_source_with_tls_is_known_by_its_authority() {
    if !are_here("a_source_with_tls_is_known_by_its_authority", &["nbdkit", "certtool", "qemu-img"]) {
        return;
    }
    let mut daemon = Daemon::start_in(folder_with_certificates(), &[]);
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    let at = |name: &str| daemon.folder().join(name).to_str().unwrap().to_owned();
    let (authority, stranger) = (at("ca-cert.pem"), at("stranger-ca-cert.pem"));
    let source = TlsSource::start(daemon.folder(), &["--tls-verify-peer"], &raw);
    let (tls, clear) =
        (format!("nbds+unix:///?socket={}", at("tls.sock")), format!("nbd+unix:///?socket={}", at("tls.sock")));
    let identity = |name: &str| {
        [
            "--tls-cert".to_owned(),
            at(&format!("{name}-cert.pem")),
            "--tls-key".to_owned(),
            at(&format!("{name}-key.pem")),
        ]
    };
    let fails = |uri: &str, more: &[&str], code: i32, words: &str| {
        let (found, said) = exit_code(&mut import(&daemon, uri, more));
        assert!(found == code && said.contains(words), "{more:?}: {found}: {said}");
        assert_eq!(images_of(&daemon), 0);
    };
    fails(&clear, &[], FAILURE, "nbds");
    fails(&tls, &[], FAILURE, "--tls-ca");
    fails(&tls, &["--tls-ca", &at("none.pem")], USAGE, "none.pem");
    fails(&tls, &["--tls-ca", &stranger], FAILURE, "invalid peer certificate");
    fails(&format!("{tls}&tls-hostname=elsewhere"), &["--tls-ca", &authority], FAILURE, "elsewhere");
    // It wants a certificate of its own authority.
    fails(&tls, &["--tls-ca", &authority], FAILURE, "");
    let [cert, cert_file, key, key_file] = identity("stranger");
    fails(&tls, &["--tls-ca", &authority, &cert, &cert_file, &key, &key_file], FAILURE, "");
    let [cert, cert_file, key, key_file] = identity("client");
    succeed(&mut import(&daemon, &tls, &["--tls-ca", &authority, &cert, &cert_file, &key, &key_file]));
    same(&daemon, "os", &raw);
    drop(source);
    // A server that offers no TLS is not spoken with in clear instead.
    let plain = FakeSource::start(daemon.folder(), noise(1, MIB), Behaviour::Gated);
    let (code, said) =
        exit_code(&mut import(&daemon, &plain.uri().replace("nbd+", "nbds+"), &["--tls-ca", &authority]));
    assert!(code == FAILURE && said.contains("does not offer TLS"), "{code}: {said}");
    daemon.stop_without_complaint();
}

/// P2. A daemon whose exports want TLS and certificates takes images in and gives them out.
#[test]
fn images_go_in_and_out_of_a_daemon_that_requires_tls() {
    if !are_here("images_go_in_and_out_of_a_daemon_that_requires_tls", &["certtool", "qemu-img", "qemu-nbd"]) {
        return;
    }
    for address in ["127.0.0.1:0", "0.0.0.0:0", "unix:FOLDER/nbd.sock"] {
        let mut daemon =
            daemon_with(&["--nbd", address], &["--tls", "required", "--tls-client-ca", "FOLDER/ca-cert.pem"]);
        let (raw, back) = (daemon.folder().join("disk.raw"), daemon.folder().join("back.raw"));
        disk(&raw);
        let at = |name: &str| daemon.folder().join(name).to_str().unwrap().to_owned();
        let [authority, certificate, key] = ["ca-cert.pem", "client-cert.pem", "client-key.pem"].map(at);
        let tls = ["--tls-ca", authority.as_str(), "--tls-cert", certificate.as_str(), "--tls-key", key.as_str()];
        let (code, said) = exit_code(&mut import(&daemon, text(&raw), &[]));
        assert!(code == UNREACHABLE && said.contains("--tls-ca"), "{code}: {said}");
        let (code, said) = exit_code(&mut import(&daemon, text(&raw), &["--tls-ca", &at("stranger-ca-cert.pem")]));
        assert!(code == UNREACHABLE && said.contains("invalid peer certificate"), "{code}: {said}");
        succeed(&mut import(&daemon, text(&raw), &tls));
        succeed(daemon.aljibe(&["image", "export", "os", text(&back)]).args(tls));
        run("cmp", [text(&raw), text(&back)]);
        daemon.stop_without_complaint();
    }
}

/// P2. No file of whatever format makes a tool read another file of this machine, or open a device.
#[test]
fn a_file_that_names_files_of_this_machine_is_refused() {
    if !are_here("a_file_that_names_files_of_this_machine_is_refused", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let folder = daemon.folder().join("uploads");
    fs::create_dir(&folder).unwrap();
    let secret = daemon.folder().join("secret.raw");
    fs::write(&secret, noise(4, MIB)).unwrap();
    let at = |name: &str| folder.join(name);
    let refused = |file: &Path, more: &[&str]| {
        let (code, said) = exit_code(&mut import(&daemon, text(file), more));
        assert!([FAILURE, USAGE].contains(&code) && said.contains(text(file)), "{}: {code}: {said}", file.display());
        assert_eq!(images_of(&daemon), 0, "{}", file.display());
    };
    let json_name =
        format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}", text(&secret));
    for (number, backing) in
        [text(&secret), json_name.as_str(), "/dev/zero", "nbd:unix:/nonexistent", "fat:/etc"].iter().enumerate()
    {
        for format in ["qcow2", "qed"] {
            let file = at(&format!("backed-{number}.{format}"));
            let create = ["create", "-q", "-f", format, "-u", "-F", "raw", "-b", backing, text(&file), "1M"];
            run("qemu-img", create);
            refused(&file, &[]);
            refused(&file, &["--format", "qcow2"]);
        }
    }
    let (parent, child) = (at("parent.vmdk"), at("child.vmdk"));
    run("qemu-img", ["create", "-q", "-f", "vmdk", text(&parent), "1M"]);
    run("qemu-img", ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", text(&parent), text(&child)]);
    refused(&child, &[]);
    let outside = at("outside.qcow2");
    let data_file = format!("data_file={},data_file_raw=on", text(&secret));
    run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", &data_file, text(&outside), "1M"]);
    refused(&outside, &[]);
    // Who opened the pipe would wait for a writer.
    run("mkfifo", [text(&at("pipe"))]);
    let extents = [text(&secret), "/etc/passwd", "../secret.raw", "/dev/zero", "pipe", json_name.as_str()];
    for (number, extent) in extents.iter().enumerate() {
        let file = at(&format!("extent-{number}.vmdk"));
        let kind = if *extent == "/dev/zero" { "SPARSE" } else { "FLAT" };
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
             RW 2048 {kind} \"{}\" 0\n",
            extent.replace('"', "'")
        );
        fs::write(&file, descriptor).unwrap();
        refused(&file, &[]);
        refused(&file, &["--format", "vmdk"]);
    }
    let differencing = at("differencing.vhdx");
    run("qemu-img", ["create", "-q", "-f", "vhdx", text(&differencing), "1M"]);
    let mut bytes = fs::read(&differencing).unwrap();
    let metadata = bytes.windows(8).position(|name| name == b"metadata").unwrap();
    // The first of its items is the file's parameters: block size, then "has a parent" among the bits behind it.
    bytes[metadata + (64 << 10) + 4] |= 2;
    fs::write(&differencing, bytes).unwrap();
    refused(&differencing, &[]);
    // The same bytes are those of a disk when it is said so.
    succeed(&mut import(&daemon, text(&at("extent-0.vmdk")), &["--format", "raw"]));
    daemon.stop_without_complaint();
}

/// P2. An image of several files that lie together is imported whole, and not at all when one of them is missing.
#[test]
fn an_image_of_several_files_is_imported_whole() {
    if !are_here("an_image_of_several_files_is_imported_whole", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    // More than one extent.
    File::options().write(true).open(&raw).unwrap().set_len(5 << 30).unwrap();
    File::options().write(true).open(&raw).unwrap().write_all_at(&noise(9, MIB), 4 << 30).unwrap();
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat", "streamOptimized"] {
        let folder = daemon.folder().join(subformat);
        fs::create_dir(&folder).unwrap();
        let file = folder.join("disk.vmdk");
        let convert =
            ["convert", "-f", "raw", "-O", "vmdk", "-o", &format!("subformat={subformat}"), text(&raw), text(&file)];
        run("qemu-img", convert);
        let name = subformat.to_lowercase();
        succeed(&mut daemon.aljibe(&["image", "import", text(&file), &name]));
        same(&daemon, &name, &raw);
        if subformat.starts_with("twoGb") {
            let part = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| *path != file);
            fs::rename(part.unwrap(), daemon.folder().join(format!("{subformat}-part"))).unwrap();
            let (code, said) = exit_code(&mut import(&daemon, text(&file), &[]));
            assert!(code == USAGE && said.contains("elsewhere"), "{code}: {said}");
        }
    }
    daemon.stop_without_complaint();
}

/// P6. An export that cannot end leaves nothing under the file's name, and nothing under any other unless it was killed.
#[test]
fn an_export_that_is_interrupted_leaves_no_file() {
    if !are_here("an_export_that_is_interrupted_leaves_no_file", &["qemu-img", "qemu-nbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    succeed(&mut import(&daemon, text(&raw), &[]));
    let (tools, folder) = (daemon.folder().join("tools"), daemon.folder().join("exports"));
    fs::create_dir(&tools).unwrap();
    fs::create_dir(&folder).unwrap();
    // A server that never listens.
    let path = tools.join("qemu-nbd");
    fs::write(&path, "#!/bin/sh\nexec sleep 60\n").unwrap();
    run("chmod", ["+x", text(&path)]);
    let search = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let files = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for signal in ["-TERM", "-INT", "-KILL"] {
        let mut command = Command::new(crate::daemon::binary());
        command.args(["image", "export", "os", text(&folder.join("back.raw")), "--data"]).arg(daemon.data());
        let mut child = command.env("PATH", &search).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the export has begun", || !files().is_empty());
        run("kill", [signal, &child.id().to_string()]);
        assert!(!child.wait().unwrap().success());
        if signal == "-KILL" {
            assert!(!folder.join("back.raw").exists() && files().len() == 1);
        } else {
            assert!(files().is_empty(), "{signal}: {:?}", files());
        }
    }
    let nowhere = daemon.folder().join("none/back.raw");
    let (code, said) = exit_code(&mut daemon.aljibe(&["image", "export", "os", text(&nowhere)]));
    assert!(code == FAILURE && said.contains("none"), "{code}: {said}");
    let odd = folder.join(OsStr::from_bytes(b"odd \xff\n.raw"));
    succeed(daemon.aljibe(&["image", "export", "os"]).arg(&odd).arg("--json"));
    run("cmp", [raw.as_os_str(), odd.as_os_str()]);
    daemon.stop_without_complaint();
}

/// P6. A file system that is full ends an export, with words for it, and holds nothing of it then.
#[test]
fn an_export_to_a_full_file_system_leaves_nothing() {
    if !are_here("an_export_to_a_full_file_system_leaves_nothing", &["unshare", "mount", "qemu-img", "qemu-nbd"]) {
        return;
    }
    let namespace = ["--user", "--map-root-user", "--mount"];
    if !tool::output_of(tool::command("unshare").args(namespace).arg("true")).status.success() {
        tool::announce("SKIPPED: an_export_to_a_full_...: no mount namespace is to be had here\n");
        return;
    }
    let mut daemon = Daemon::start();
    let raw = daemon.folder().join("disk.raw");
    disk(&raw);
    succeed(&mut import(&daemon, text(&raw), &[]));
    let folder = daemon.folder().join("small");
    fs::create_dir(&folder).unwrap();
    let script = "mount -t tmpfs -o size=4M none \"$1\" || exit 99\n\
                  \"$2\" image export os \"$1/back.$4\" --format \"$4\" --data \"$3\"; code=$?; ls -A \"$1\"; exit $code";
    for format in ["raw", "qcow2"] {
        let mut command = tool::command("unshare");
        command.args(namespace).args(["sh", "-c", script, "sh", text(&folder), crate::daemon::binary()]);
        let output = tool::output_of(command.arg(daemon.data()).arg(format));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(NO_SPACE) && said.contains("no space for"), "{output:?}");
        assert!(said.contains(&format!("back.{format}")) && output.stdout.is_empty(), "{output:?}");
    }
    daemon.stop_without_complaint();
}
