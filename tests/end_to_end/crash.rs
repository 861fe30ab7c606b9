//! The real program on a real kernel, killed in the middle of its work. The host lives on, so what was acknowledged is in
//! the kernel's page cache or on the disk; power loss is the simulator's business.

use crate::daemon::Daemon;
use crate::tool::{self, announce, are_here, python, succeed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 20;

/// P1, P3. Every acknowledged write is there after each of twenty kills in a row, whole and on its block.
#[test]
fn acknowledged_writes_survive_twenty_kills_in_a_row() {
    if !are_here("acknowledged_writes_survive_twenty_kills_in_a_row", &["python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("crash", "1G");
    let state = daemon.folder().join("state");
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let mut writer = python("verifying_writer.py");
        writer.arg("write").arg(daemon.uri("crash")).arg(&state);
        // Every time at another place: early in a segment, across a seal, with hardly a write behind it.
        let after = [5000, 1, 20_000, 300, 9000][round as usize % 5] + round * 37;
        succeed(writer.args(["--kill", &daemon.pid().to_string(), "--after", &after.to_string()]));
        daemon.was_killed();
        daemon.restart();
        slowest = slowest.max(daemon.started_in());
        succeed(python("verifying_writer.py").arg("check").arg(daemon.uri("crash")).arg(&state));
    }
    announce(&format!("slowest start after kill -9 under load: {} ms\n", slowest.as_millis()));
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P1. What was acknowledged before a kill is in the pool alone: the index can be made anew.
#[test]
fn a_rebuilt_index_has_every_acknowledged_write() {
    if !are_here("a_rebuilt_index_has_every_acknowledged_write", &["python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("rebuilt", "1G");
    let state = daemon.folder().join("state");
    let mut writer = python("verifying_writer.py");
    writer.arg("write").arg(daemon.uri("rebuilt")).arg(&state);
    succeed(writer.args(["--kill", &daemon.pid().to_string(), "--after", "30000"]));
    daemon.was_killed();
    for entry in fs::read_dir(daemon.data()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    succeed(&mut daemon.aljibe(&["pool", "rebuild"]));
    daemon.check_pool();
    daemon.restart();
    succeed(python("verifying_writer.py").arg("check").arg(daemon.uri("rebuilt")).arg(&state));
}

/// P1. A daemon that is told to stop answers what is under way and loses nothing of it.
#[test]
fn a_stop_under_load_drains() {
    if !are_here("a_stop_under_load_drains", &["python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("drained", "1G");
    let (state, ready) = (daemon.folder().join("state"), daemon.folder().join("writes"));
    let mut writer = python("verifying_writer.py");
    writer.arg("write").arg(daemon.uri("drained")).arg(&state).arg("--ready").arg(&ready);
    let mut writer = writer.stdout(Stdio::null()).spawn().unwrap();
    wait_until("the writer writes", || ready.exists());
    let status = daemon.stop();
    assert!(status.success(), "{status}; {}", daemon.log());
    assert!(writer.wait().unwrap().success());
    daemon.restart();
    succeed(python("verifying_writer.py").arg("check").arg(daemon.uri("drained")).arg(&state));
}

/// P1, P3. An ext4 file system whose server is killed twenty times while files are written keeps every synced file.
#[test]
fn ext4_survives_twenty_kills_in_a_row() {
    let tools = ["nbdfuse", "fuse2fs", "mkfs.ext4", "e2fsck", "debugfs", "umount", "/dev/fuse"];
    if !are_here("ext4_survives_twenty_kills_in_a_row", &tools) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("ext4", "96M");
    Device::attach(&daemon, "ext4").run("mkfs.ext4", &["-q", "-F"]);
    let state = daemon.folder().join("state");
    for round in 1..=ROUNDS {
        {
            let device = Device::attach(&daemon, "ext4");
            let mounted = FileSystem::mount(&device, daemon.folder());
            let mut writer = python("file_writer.py");
            writer.arg(&mounted.mountpoint).arg(&state).args(["--round", &round.to_string()]);
            let after = (3 + round % 7).to_string();
            succeed(writer.args(["--kill", &daemon.pid().to_string(), "--after", &after]));
        }
        daemon.was_killed();
        daemon.restart();
        let device = Device::attach(&daemon, "ext4");
        // fuse2fs writes no journal, so counts may need mending; 1 says they were, above that is damage.
        device.run_with_exit("e2fsck", &["-f", "-y"], 1);
        device.run_with_exit("e2fsck", &["-f", "-n"], 0);
        check_files(&device, daemon.folder(), &state);
    }
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// Every file of the state file is in the file system and has its checksum.
fn check_files(device: &Device, folder: &Path, state: &Path) {
    let out = folder.join("out");
    drop(fs::remove_dir_all(&out));
    fs::create_dir(&out).unwrap();
    device.run("debugfs", &["-R", &format!("rdump / {}", out.display())]);
    let expected = fs::read_to_string(state).unwrap();
    assert!(expected.lines().count() >= 3, "hardly a file was written");
    for line in expected.lines() {
        let (name, checksum) = line.split_once(' ').unwrap();
        let found = tool::run("sha256sum", [out.join(name)]);
        assert!(found.starts_with(checksum), "{name}: {found} instead of {checksum}");
    }
}

/// A volume as a file, by nbdfuse.
struct Device {
    mountpoint: PathBuf,
    process: Child,
}

impl Device {
    fn attach(daemon: &Daemon, volume: &str) -> Self {
        let mountpoint = daemon.folder().join("device");
        fs::create_dir_all(&mountpoint).unwrap();
        let mut command = Command::new("nbdfuse");
        command.arg(&mountpoint).arg(daemon.uri(volume)).stdin(Stdio::null()).stderr(Stdio::null());
        let device = Self { process: command.spawn().unwrap(), mountpoint };
        wait_until("nbdfuse serves", || device.file().exists());
        device
    }

    fn file(&self) -> PathBuf {
        self.mountpoint.join("nbd")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        self.run_with_exit(program, arguments, 0);
    }

    /// Runs a program on the device; its exit code may be at most `exit_max`.
    fn run_with_exit(&self, program: &str, arguments: &[&str], exit_max: i32) {
        let output = tool::output_of(tool::command(program).args(arguments).arg(self.file()));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code().is_some_and(|code| code <= exit_max), "{program}: {}\n{said}", output.status);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        unmount(&self.mountpoint);
        drop(self.process.wait());
    }
}

/// The file system on a device, by fuse2fs.
struct FileSystem {
    mountpoint: PathBuf,
    process: Child,
}

impl FileSystem {
    fn mount(device: &Device, folder: &Path) -> Self {
        let mountpoint = folder.join("files");
        fs::create_dir_all(&mountpoint).unwrap();
        let mut command = Command::new("fuse2fs");
        command.arg(device.file()).arg(&mountpoint).args(["-f", "-o", "rw"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mounted = Self { process, mountpoint };
        wait_until("fuse2fs serves", || mounted.mountpoint.join("lost+found").exists());
        mounted
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        unmount(&self.mountpoint);
        drop(self.process.wait());
    }
}

/// Takes a mount away even if who served it is dead.
fn unmount(mountpoint: &Path) {
    let unmounted = tool::output_of(tool::command("umount").arg(mountpoint));
    if !unmounted.status.success() {
        drop(tool::output_of(tool::command("umount").arg("-l").arg(mountpoint)));
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
