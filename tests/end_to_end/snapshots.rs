//! Snapshots, clones and rollbacks as clients see them: right at the instant, at any depth, over kills, and gone for good.

use crate::daemon::Daemon;
use crate::tool::{self, are_here, fail, json, output_of, python, run, succeed, wait_until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;

fn exit_code(daemon: &Daemon, arguments: &[&str]) -> i32 {
    output_of(&mut daemon.aljibe(arguments)).status.code().unwrap()
}

fn snapshot_names(daemon: &Daemon) -> Vec<String> {
    let list = json(&mut daemon.aljibe(&["snapshot", "list"]));
    list["snapshots"].as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap().to_owned()).collect()
}

/// Fills the first MiB of an export with a byte.
fn fill(daemon: &Daemon, export: &str, byte: u8) {
    run("qemu-io", ["-f", "raw", "-c", &format!("write -P {byte} 0 1M"), &daemon.uri(export)]);
}

/// The first MiB of an export holds this byte.
fn holds(daemon: &Daemon, export: &str, byte: u8) -> bool {
    let read = format!("read -P {byte} 0 1M");
    let output = output_of(tool::command("qemu-io").args(["-r", "-f", "raw", "-c", &read, &daemon.uri(export)]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && !said.contains("Pattern verification failed") && said.contains("read 1048576/1048576")
}

fn convert(daemon: &Daemon, export: &str, to: &str) -> PathBuf {
    let path = daemon.folder().join(to);
    run("qemu-img", ["convert", "-f", "raw", "-O", "raw", &daemon.uri(export), path.to_str().unwrap()]);
    path
}

/// Waits until the daemon has seen that a volume's clients are gone, which may be after they are.
fn wait_until_alone(daemon: &Daemon, volume: &str) {
    let is_alone = || json(&mut daemon.aljibe(&["volume", "show", volume]))["connections"].as_u64() == Some(0);
    wait_until("its clients have left", is_alone);
}

/// P2. A group of snapshots shows two volumes at one instant while a client writes to one after the other: what it had
/// been answered before, and nothing without that. Copies made later are the same.
#[test]
fn a_group_of_snapshots_shows_one_instant_while_writes_go_on() {
    let tools = ["qemu-img", "python3-libnbd", "cmp"];
    if !are_here("a_group_of_snapshots_shows_one_instant_while_writes_go_on", &tools) {
        return;
    }
    let mut daemon = Daemon::start();
    let volumes = ["vm-a", "vm-b"];
    volumes.iter().for_each(|volume| daemon.create_volume(volume, "16M"));
    let ready = daemon.folder().join("ready");
    let mut writer = python("sequence.py");
    writer.arg("write").args(volumes.map(|volume| daemon.uri(volume))).arg("--ready").arg(&ready);
    let mut writer = writer.stdin(Stdio::piped()).spawn().unwrap();
    wait_until("the writer writes", || ready.exists());
    let mut last = 0;
    for number in 0..5 {
        let names = volumes.map(|volume| format!("{volume}@s{number}"));
        let taken = json(&mut daemon.aljibe(&["snapshot", "create", &names[0], &names[1], "--group", "both"]));
        assert_eq!(taken["snapshots"][1]["group"], "both");
        let copies = names.each_ref().map(|name| convert(&daemon, name, name));
        let highest: u64 = succeed(python("sequence.py").arg("check").args(&copies)).trim().parse().unwrap();
        assert!(highest > last, "{highest} is no more than {last}");
        last = highest;
    }
    for name in snapshot_names(&daemon) {
        let (earlier, now) = (daemon.folder().join(&name), convert(&daemon, &name, "again"));
        run("cmp", [earlier, now]);
    }
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P2. Clones of clones, fifty deep, show what all before them wrote; and go on when their parents are deleted, and over
/// a kill.
#[test]
fn a_clone_of_fifty_clones_outlives_them() {
    if !are_here("a_clone_of_fifty_clones_outlives_them", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("c0", "16M");
    let write = |daemon: &Daemon, number: u32| {
        let step = format!("write -P {} {} 4k", number + 1, number * 64 * 1024);
        run("qemu-io", ["-f", "raw", "-c", &step, &daemon.uri(&format!("c{number}"))]);
    };
    for number in 0..50 {
        write(&daemon, number);
        let (snapshot, next) = (format!("c{number}@s"), format!("c{}", number + 1));
        succeed(&mut daemon.aljibe(&["snapshot", "create", &snapshot]));
        succeed(&mut daemon.aljibe(&["volume", "clone", &snapshot, &next]));
    }
    let is_right = |daemon: &Daemon| {
        let steps = (0..50).map(|number| format!("read -P {} {} 4k", number + 1, number * 64 * 1024));
        let arguments: Vec<String> = steps.flat_map(|step| ["-c".to_owned(), step]).collect();
        let mut command = tool::command("qemu-io");
        let said = succeed(command.args(["-r", "-f", "raw"]).args(arguments).arg(daemon.uri("c50")));
        assert!(!said.contains("verification failed"), "{said}");
    };
    is_right(&daemon);
    let refused = fail(&mut daemon.aljibe(&["snapshot", "delete", "c7@s"]));
    assert!(refused.contains("c8"), "{refused}");
    for number in 0..50 {
        succeed(&mut daemon.aljibe(&["volume", "delete", &format!("c{number}"), "--force"]));
    }
    is_right(&daemon);
    assert_eq!(snapshot_names(&daemon), [""; 0]);
    daemon.kill9();
    daemon.restart();
    is_right(&daemon);
    succeed(&mut daemon.aljibe(&["volume", "delete", "c50", "--force"]));
    let segments = || json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["used"].as_u64().unwrap();
    // The system volume's and the ledger's alone, and one leased ahead of need at most.
    wait_until("all of it is given back", || segments() <= 3);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P5. What only a volume without a name had is given back: of one that was rolled back, when the snapshot that undoes it is
/// deleted; of one that was deleted, though a clone of its snapshot lives. What is needed of them stays.
#[test]
fn what_was_written_after_a_snapshot_goes_with_the_volume() {
    if !are_here("what_was_written_after_a_snapshot_goes_with_the_volume", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("vm", "1G");
    let write = |step: &str| run("qemu-io", ["-f", "raw", "-c", step, &daemon.uri("vm")]);
    let used = || json(&mut daemon.aljibe(&["pool", "show"]))["slots"]["used"].as_u64().unwrap();
    write("write -P 1 0 1M");
    succeed(&mut daemon.aljibe(&["snapshot", "create", "vm@monday"]));
    succeed(&mut daemon.aljibe(&["volume", "clone", "vm@monday", "copy"]));
    let before = used();
    write("write -P 2 0 400M");
    let undo = json(&mut daemon.aljibe(&["volume", "rollback", "vm@monday", "--force"]))["undo"]["name"].clone();
    let undo = undo.as_str().unwrap();
    let filled = used();
    assert!(filled >= before + 12, "{filled} slots, {before} before");
    let reclaim = || json(&mut daemon.aljibe(&["snapshot", "reclaim", "--dry-run", undo]))["reclaim_bytes"].clone();
    wait_until("the snapshot alone holds it", || reclaim() == 400 << 20);
    succeed(&mut daemon.aljibe(&["snapshot", "delete", undo]));
    wait_until("what was undone is given back", || used() <= before + 3);
    write("write -P 3 0 400M");
    succeed(&mut daemon.aljibe(&["volume", "delete", "vm", "--force"]));
    wait_until("what the clone does not need is given back", || used() <= before + 3);
    let is_right = |daemon: &Daemon| {
        let said =
            run("qemu-io", ["-r", "-f", "raw", "-c", "read -P 1 0 1M", "-c", "read -P 0 1M 400M", &daemon.uri("copy")]);
        assert!(!said.contains("verification failed"), "{said}");
    };
    is_right(&daemon);
    daemon.kill9();
    daemon.restart();
    is_right(&daemon);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// A rollback refuses while clients are attached, is undone by another, and leaves every snapshot its name.
#[test]
fn a_rollback_can_be_undone() {
    if !are_here("a_rollback_can_be_undone", &["qemu-io", "python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("vm", "16M");
    fill(&daemon, "vm", 1);
    succeed(&mut daemon.aljibe(&["snapshot", "create", "vm@monday"]));
    assert_eq!(exit_code(&daemon, &["snapshot", "create", "vm@monday"]), CONFLICT);
    assert_eq!(exit_code(&daemon, &["snapshot", "show", "vm@none"]), NOT_FOUND);
    assert_eq!(exit_code(&daemon, &["volume", "rollback", "vm@none"]), NOT_FOUND);
    let refused = fail(tool::command("qemu-io").args(["-f", "raw", "-c", "write 0 4k", &daemon.uri("vm@monday")]));
    assert!(refused.contains("Permission denied"), "{refused}");
    fill(&daemon, "vm", 2);
    assert!(holds(&daemon, "vm@monday", 1) && holds(&daemon, "vm", 2));

    let (mut client, ready) = (python("sequence.py"), daemon.folder().join("ready"));
    client.arg("write").arg(daemon.uri("vm")).arg("--ready").arg(&ready);
    let mut client = client.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("a client is attached", || ready.exists());
    assert_eq!(exit_code(&daemon, &["volume", "rollback", "vm@monday"]), CONFLICT);
    succeed(&mut daemon.aljibe(&["volume", "rollback", "vm@monday", "--force"]));
    drop(client.stdin.take());
    assert!(!client.wait().unwrap().success(), "it was cut off");
    assert!(holds(&daemon, "vm", 1));

    fill(&daemon, "vm", 3);
    wait_until_alone(&daemon, "vm");
    let rolled = json(&mut daemon.aljibe(&["volume", "rollback", "vm@monday"]));
    let undo = rolled["undo"]["name"].as_str().unwrap().to_owned();
    assert!(holds(&daemon, "vm", 1) && holds(&daemon, &undo, 3));
    wait_until_alone(&daemon, "vm");
    succeed(&mut daemon.aljibe(&["volume", "rollback", &undo]));
    assert!(holds(&daemon, "vm", 3) && holds(&daemon, "vm@monday", 1));
    daemon.kill9();
    daemon.restart();
    assert!(holds(&daemon, "vm", 3) && holds(&daemon, "vm@monday", 1));
    // What the volume itself began as may be deleted; its name goes.
    succeed(&mut daemon.aljibe(&["snapshot", "delete", &undo]));
    assert_eq!(exit_code(&daemon, &["snapshot", "show", &undo]), NOT_FOUND);
    assert!(holds(&daemon, "vm", 3));
    succeed(&mut daemon.aljibe(&["volume", "delete", "vm", "--force"]));
    assert_eq!(snapshot_names(&daemon), [""; 0]);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// What a snapshot holds is told to the block, and is what its deletion gives back.
#[test]
fn what_snapshots_hold_is_what_their_deletion_gives_back() {
    if !are_here("what_snapshots_hold_is_what_their_deletion_gives_back", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.create_volume("vm", "16M");
    for (byte, kib) in [(1, 1024), (2, 512), (3, 256), (4, 1024)] {
        run("qemu-io", ["-f", "raw", "-c", &format!("write -P {byte} 0 {kib}k"), &daemon.uri("vm")]);
        if byte < 4 {
            succeed(&mut daemon.aljibe(&["snapshot", "create", &format!("vm@s{byte}")]));
        }
    }
    let reclaim = |names: &[&str]| {
        let arguments: Vec<&str> = ["snapshot", "reclaim", "--dry-run"].iter().chain(names).copied().collect();
        json(&mut daemon.aljibe(&arguments))["reclaim_bytes"].as_u64().unwrap() / 1024
    };
    let held = || json(&mut daemon.aljibe(&["volume", "show", "vm"]))["snapshot_bytes"].as_u64().unwrap() / 1024;
    wait_until("the map is in the index", || held() == 1024 + 512 + 256);
    let list = json(&mut daemon.aljibe(&["snapshot", "list", "vm", "--space"]));
    let unique = list["snapshots"].as_array().unwrap().iter().map(|each| each["unique_bytes"].as_u64().unwrap() / 1024);
    // The second half of the first MiB is in all three.
    assert_eq!(unique.collect::<Vec<_>>(), [512, 256, 256]);
    assert_eq!(reclaim(&["vm@s1", "vm@s2"]), 512 + 256);
    assert_eq!(reclaim(&["vm@s1", "vm@s2", "vm@s3"]), 1024 + 512 + 256);
    assert_eq!(exit_code(&daemon, &["snapshot", "reclaim", "vm@s1"]), 2, "it must say that it only tells");
    for (name, left) in [("vm@s2", 1024 + 512), ("vm@s1", 1024), ("vm@s3", 0)] {
        let told = reclaim(&[name]);
        let before = held();
        succeed(&mut daemon.aljibe(&["snapshot", "delete", name]));
        wait_until("its deletion is over", || held() != before || told == 0);
        assert_eq!((before - held(), held()), (told, left), "{name}");
    }
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// What is known to be there: each export with the byte that it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    volumes: BTreeMap<String, u8>,
    snapshots: BTreeMap<String, u8>,
}

impl Model {
    /// The commands of one step, which is carried out or not, and what it makes of the model.
    fn step(&self, number: u32) -> (Vec<String>, Self) {
        let mut after = self.clone();
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect();
        let byte_of = |name: &str| self.volumes.get(name).copied().unwrap_or(0);
        let (one, other) = (format!("x@s{number}"), format!("y@s{number}"));
        let command = match number % 5 {
            0 => {
                after.snapshots.insert(one.clone(), byte_of("x"));
                after.snapshots.insert(other.clone(), byte_of("y"));
                words(format!("snapshot create {one} {other}"))
            }
            1 => {
                let from = format!("x@s{}", number - 1);
                let name = format!("clone-{number}");
                after.volumes.insert(name.clone(), self.snapshots.get(&from).copied().unwrap_or(0));
                words(format!("volume clone {from} {name}"))
            }
            2 => {
                let to = format!("y@s{}", number - 2);
                after.volumes.insert("y".to_owned(), self.snapshots.get(&to).copied().unwrap_or(0));
                words(format!("volume rollback {to} --force"))
            }
            3 => {
                let name = format!("clone-{}", number - 2);
                after.volumes.remove(&name);
                words(format!("volume delete {name} --force"))
            }
            _ => {
                let name = format!("x@s{}", number - 4);
                after.snapshots.remove(&name);
                words(format!("snapshot delete {name}"))
            }
        };
        (command, after)
    }

    /// Whether all of it, and nothing else but what rollbacks leave, is there.
    fn is_there(&self, daemon: &Daemon) -> bool {
        let list = json(&mut daemon.aljibe(&["volume", "list"]));
        let volumes = list["volumes"].as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap().to_owned());
        let snapshots = snapshot_names(daemon).into_iter().filter(|name| !name.contains("before-rollback"));
        let (mut volumes, mut snapshots): (Vec<_>, Vec<_>) = (volumes.collect(), snapshots.collect());
        volumes.sort_unstable();
        snapshots.sort_unstable();
        volumes.iter().eq(self.volumes.keys()) && snapshots.iter().eq(self.snapshots.keys())
    }

    fn is_right(&self, daemon: &Daemon) -> bool {
        self.volumes.iter().chain(&self.snapshots).all(|(name, byte)| holds(daemon, name, *byte))
    }
}

/// P1. Snapshots of two volumes, clones, rollbacks and deletions, each cut off by a kill somewhere: what was answered is
/// so, and what was not is done altogether or not at all.
#[test]
fn what_a_kill_cuts_off_is_done_or_not() {
    if !are_here("what_a_kill_cuts_off_is_done_or_not", &["qemu-io"]) {
        return;
    }
    let mut daemon = Daemon::start();
    let mut model = Model::default();
    for (name, byte) in [("x", 200), ("y", 201)] {
        daemon.create_volume(name, "16M");
        fill(&daemon, name, byte);
        model.volumes.insert(name.to_owned(), byte);
    }
    let mut number = 0;
    for round in 0..12_u64 {
        let pid = daemon.pid();
        // At another place of another command each time.
        let after = Duration::from_millis(3 + round * 7 % 40);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            run("kill", ["-9", &pid.to_string()]);
        });
        let mut in_doubt = model.clone();
        loop {
            let (command, next) = model.step(number);
            in_doubt.clone_from(&next);
            let output = output_of(&mut daemon.aljibe(&command.iter().map(String::as_str).collect::<Vec<_>>()));
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if said.contains("clients read") {
                    // The daemon has not seen yet that they have left.
                    continue;
                }
                assert!(said.contains("cannot reach"), "{command:?}: {said}");
                break;
            }
            model = next;
            number += 1;
        }
        killer.join().unwrap();
        daemon.was_killed();
        daemon.restart();
        if !model.is_there(&daemon) || !model.is_right(&daemon) {
            assert!(in_doubt.is_there(&daemon), "step {number}: neither {model:?} nor {in_doubt:?}");
            assert!(in_doubt.is_right(&daemon), "step {number}: not as after it");
            model = in_doubt;
            number += 1;
        }
        let byte = u8::try_from(round).unwrap() + 1;
        for (name, byte) in [("x", byte), ("y", byte + 100)] {
            fill(&daemon, name, byte);
            model.volumes.insert(name.to_owned(), byte);
        }
    }
    daemon.stop_without_complaint();
    daemon.check_pool();
    check_after_rebuild(&mut daemon, &model);
}

/// P1. The pool alone tells of every snapshot and clone.
fn check_after_rebuild(daemon: &mut Daemon, model: &Model) {
    remove_index(&daemon.data());
    succeed(&mut daemon.aljibe(&["pool", "rebuild"]));
    daemon.check_pool();
    daemon.restart();
    assert!(model.is_there(daemon) && model.is_right(daemon), "after the rebuild not {model:?}");
    daemon.stop_without_complaint();
}

fn remove_index(data: &Path) {
    for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}
