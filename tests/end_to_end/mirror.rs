//! Volumes that two sites have: acknowledged at both, moved between them, and taken over when one is lost.

use crate::daemon::Daemon;
use crate::sites::{Sites, TOOLS, freeze_for};
use crate::tool::{self, are_here, fail, succeed};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn qemu_io(daemon: &Daemon, volume: &str, commands: &[&str]) -> String {
    let mut command = tool::command("qemu-io");
    for line in commands {
        command.args(["-c", line]);
    }
    succeed(command.args(["-f", "raw", &daemon.uri(volume)]))
}

/// Waits for the clients' end, which must have found nothing wrong.
fn end_of(history: Child) -> String {
    let output = history.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {printed}", output.status);
    printed
}

/// P1, P4. What is acknowledged is at both sites, one of which serves; a planned switch loses nothing.
#[test]
fn a_volume_is_at_both_sites_and_moves_between_them() {
    if !are_here("a_volume_is_at_both_sites_and_moves_between_them", &TOOLS) {
        return;
    }
    let mut sites = Sites::start(&["--mirror-pass-on"]);
    sites.create_mirrored("vm", "64M");
    assert_eq!(sites.wait_in_sync("vm"), 1);
    qemu_io(sites.site(1), "vm", &["write -P 7 0 1M", "write -P 9 1M 64k", "flush"]);
    // The other site passes on what is asked there, of any length.
    qemu_io(
        sites.site(2),
        "vm",
        &["read -P 7 0 1M", "write -P 5 3M 512", "write -P 6 4M 20M", "write -z 1M 4k", "flush"],
    );
    qemu_io(sites.site(1), "vm", &["read -P 5 3M 512", "read -P 0 3146240 512", "read -P 6 4M 20M", "read -P 0 1M 4k"]);
    qemu_io(sites.site(1), "vm", &["write -P 9 1M 64k"]);
    let map = |number: usize| {
        succeed(tool::command("qemu-img").args(["map", "--output=json", &sites.site(number).uri("vm")]))
    };
    assert_eq!(map(2), map(1));
    let mut beyond = tool::command("qemu-io");
    fail(beyond.args(["-f", "raw", "-c", "write 64M 4k", &sites.site(2).uri("vm")]));
    let state = sites.mirror_of(2, "vm");
    assert_eq!((&state["primary"], &state["role"]), (&1.into(), &"secondary".into()), "{state}");
    succeed(&mut sites.site(2).aljibe(&["site", "status"]));
    fail(&mut sites.site(1).aljibe(&["site", "status"]));
    fail(&mut sites.site(2).aljibe(&["volume", "move", "vm", "--to", "2"]));

    succeed(&mut sites.site(1).aljibe(&["volume", "move", "vm", "--to", "2"]));
    assert_eq!(sites.wait_for_leader("vm", &[1, 2]), 2);
    qemu_io(sites.site(2), "vm", &["read -P 7 0 1M", "read -P 9 1M 64k", "write -P 3 2M 64k"]);
    assert_eq!(sites.wait_in_sync("vm"), 2);
    succeed(&mut sites.site(2).aljibe(&["volume", "move", "vm", "--to", "1"]));
    qemu_io(sites.site(1), "vm", &["read -P 3 2M 64k", "read -P 7 0 1M"]);
    assert_eq!(sites.wait_in_sync("vm"), 1);

    // Both are stopped and started in order, one after the other.
    for number in [2, 1] {
        let status = sites.site_mut(number).stop();
        assert!(status.success(), "{}", sites.site(number).log());
        sites.site_mut(number).restart();
        sites.wait_in_sync("vm");
    }
    let leader = sites.wait_for_leader("vm", &[1, 2]);
    qemu_io(sites.site(leader), "vm", &["read -P 3 2M 64k", "read -P 7 0 1M", "read -P 9 1M 64k"]);
    for number in [1, 2] {
        let status = sites.site_mut(number).stop();
        assert!(status.success(), "{}", sites.site(number).log());
        sites.site(number).check_pool();
    }
}

/// P1, P6. A client of one site alone is served through everything but the loss of that: its requests are passed on while the other
/// one leads, and carried out here once this one does. None of them fails, and it reads what it has written.
#[test]
fn a_client_of_one_site_is_served_whichever_leads() {
    if !are_here("a_client_of_one_site_is_served_whichever_leads", &TOOLS) {
        return;
    }
    let mut sites = Sites::start(&["--mirror-pass-on"]);
    sites.create_mirrored("vm", "64M");
    let load = Command::new("fio")
        .args(["--name=w", "--ioengine=nbd", "--rw=randrw", "--bs=4k", "--iodepth=8", "--size=32M", "--fsync=32"])
        .args(["--time_based", "--runtime=45", "--verify=crc32c", "--verify_backlog=64", "--verify_state_save=0"])
        .arg(format!("--uri={}", sites.site(2).uri("vm")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    // A switch is called off where the other site is slow just then.
    let move_to = |sites: &Sites, from: usize, to: usize| {
        let to_name = to.to_string();
        tool::wait_until("the volume moves", || {
            let output = tool::output_of(&mut sites.site(from).aljibe(&["volume", "move", "vm", "--to", &to_name]));
            output.status.success() || sites.mirror_of(to, "vm")["serves"] == true
        });
        assert_eq!(sites.wait_for_leader("vm", &[to]), to);
    };
    move_to(&sites, 1, 2);
    std::thread::sleep(Duration::from_secs(1));
    move_to(&sites, 2, 1);
    // The site that leads is lost with what was passed on to it.
    std::thread::sleep(Duration::from_secs(1));
    sites.site_mut(1).kill9();
    assert_eq!(sites.wait_for_leader("vm", &[2]), 2);
    sites.site_mut(1).restart();
    assert_eq!(sites.wait_in_sync("vm"), 2);
    move_to(&sites, 2, 1);
    // It is frozen, and knows nothing of what came after.
    freeze_for(sites.site(1).pid(), Duration::from_secs(6));
    sites.wait_in_sync("vm");
    let output = load.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {printed}", output.status);
}

/// P1, P4, P6. Sites are killed, frozen and come back, and members of the witness too, while clients hold each answer against what
/// they know: nothing that was acknowledged is lost, and no two sites serve.
#[test]
fn neither_kills_nor_freezes_lose_what_was_acknowledged() {
    if !are_here("neither_kills_nor_freezes_lose_what_was_acknowledged", &TOOLS) {
        return;
    }
    let mut sites = Sites::start(&["--mirror-pass-on"]);
    sites.create_mirrored("vm", "16M");
    let history = sites.start_history("vm", 45);
    std::thread::sleep(Duration::from_secs(3));
    // The primary is lost, and comes back to what it lacks.
    let first = sites.wait_for_leader("vm", &[1, 2]);
    sites.site_mut(first).kill9();
    assert_eq!(sites.wait_for_leader("vm", &[3 - first]), 3 - first);
    sites.site_mut(first).restart();
    let second = sites.wait_in_sync("vm");
    assert_eq!(second, 3 - first);
    // It is frozen for longer than anybody waits for it, and knows nothing of that.
    sites.witness.kill(0);
    freeze_for(sites.site(second).pid(), Duration::from_secs(6));
    let third = sites.wait_in_sync("vm");
    sites.witness.restart(0);
    // The secondary is lost: the primary goes on alone.
    sites.site_mut(3 - third).kill9();
    std::thread::sleep(Duration::from_secs(4));
    sites.site_mut(3 - third).restart();
    sites.wait_in_sync("vm");
    let printed = end_of(history);
    assert!(printed.contains("operations="), "{printed}");
    sites.wait_in_sync("vm");
    for number in [1, 2] {
        sites.site_mut(number).kill9();
        sites.site(number).check_pool();
    }
}

/// P4. What cannot be mirrored is refused in words, and what a mirrored volume cannot do yet.
#[test]
fn what_cannot_be_mirrored_is_refused_in_words() {
    if !are_here("what_cannot_be_mirrored_is_refused_in_words", &TOOLS) {
        return;
    }
    let alone = Daemon::start();
    alone.create_volume("vm", "16M");
    assert!(fail(&mut alone.aljibe(&["volume", "mirror", "vm", "--to", "2"])).contains("--site"));
    assert!(fail(&mut alone.aljibe(&["why", "vm"])).contains("not mirrored"));
    let sites = Sites::start(&[]);
    let one = sites.site(1);
    sites.create_mirrored("vm", "16M");
    assert!(fail(&mut one.aljibe(&["volume", "mirror", "vm", "--to", "2"])).contains("mirrored already"));
    one.create_volume("other", "16M");
    assert!(fail(&mut one.aljibe(&["volume", "mirror", "other", "--to", "3"])).contains("site 2"));
    for arguments in [
        ["snapshot", "create", "vm@a"].as_slice(),
        &["volume", "resize", "vm", "--size", "32M"],
        &["volume", "delete", "vm"],
        &["volume", "unmirror", "vm"],
        &["volume", "set", "vm", "--history", "1h"],
    ] {
        let refused = fail(&mut one.aljibe(arguments));
        assert!(refused.contains("mirror"), "{arguments:?}: {refused}");
    }
    // Nor is anything passed on that nobody asked to be.
    let mut elsewhere = tool::command("qemu-io");
    fail(elsewhere.args(["-f", "raw", "-c", "read 0 4k", &sites.site(2).uri("vm")]));
    succeed(&mut one.aljibe(&["snapshot", "create", "other@a"]));
    assert!(fail(&mut one.aljibe(&["volume", "mirror", "other", "--to", "2"])).contains("snapshots"));
    // The name is taken there.
    sites.site(2).create_volume("taken", "16M");
    one.create_volume("taken", "16M");
    assert!(fail(&mut one.aljibe(&["volume", "mirror", "taken", "--to", "2"])).contains("exists"));
}

/// P4. A mirror ends without two sites that serve: the copy goes first. Begun again, nothing of before counts: the new copy is not taken
/// for one that has what the volume holds.
#[test]
fn a_mirror_ends_and_begins_anew() {
    if !are_here("a_mirror_ends_and_begins_anew", &TOOLS) {
        return;
    }
    let mut sites = Sites::start(&[]);
    sites.create_mirrored("vm", "64M");
    qemu_io(sites.site(1), "vm", &["write -P 5 0 1M", "flush"]);
    assert!(fail(&mut sites.site(2).aljibe(&["volume", "unmirror", "vm"])).contains("volume delete"));
    succeed(&mut sites.site(2).aljibe(&["volume", "delete", "vm"]));
    tool::wait_until("the site that is left leads alone", || sites.mirror_of(1, "vm")["role"] == "primary_alone");
    succeed(&mut sites.site(1).aljibe(&["volume", "unmirror", "vm"]));
    assert!(fail(&mut sites.site(1).aljibe(&["why", "vm"])).contains("not mirrored"));
    qemu_io(sites.site(1), "vm", &["read -P 5 0 1M", "write -P 6 1M 32M", "flush"]);
    // The copy has nothing yet when the primary is lost: it must not lead.
    succeed(&mut sites.site(1).aljibe(&["volume", "mirror", "vm", "--to", "2"]));
    sites.site_mut(1).kill9();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(sites.mirror_of(2, "vm")["serves"], false);
    sites.site_mut(1).restart();
    assert_eq!(sites.wait_in_sync("vm"), 1);
    succeed(&mut sites.site(1).aljibe(&["volume", "move", "vm", "--to", "2"]));
    assert_eq!(sites.wait_for_leader("vm", &[1, 2]), 2);
    qemu_io(sites.site(2), "vm", &["read -P 5 0 1M", "read -P 6 1M 32M"]);
}

/// P1. A volume is mirrored while clients write to it: none of them fails, and nothing is lost.
#[test]
fn a_volume_in_use_is_mirrored() {
    if !are_here("a_volume_in_use_is_mirrored", &TOOLS) {
        return;
    }
    let sites = Sites::start(&[]);
    let one = sites.site(1);
    one.create_volume("vm", "64M");
    tool::wait_until("the link is up", || one.log().contains("the link to the other site is up"));
    let mut load = Command::new("fio")
        .args([
            "--name=w",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=16k",
            "--iodepth=8",
            "--size=64M",
            "--fsync=8",
            "--rate=,4m",
        ])
        .args(["--time_based", "--runtime=8", "--verify=crc32c", "--verify_backlog=64", "--verify_state_save=0"])
        .arg(format!("--uri={}", one.uri("vm")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    succeed(&mut one.aljibe(&["volume", "mirror", "vm", "--to", "2"]));
    let status = load.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(sites.wait_in_sync("vm"), 1);
    succeed(&mut one.aljibe(&["volume", "move", "vm", "--to", "2"]));
    assert_eq!(sites.wait_for_leader("vm", &[1, 2]), 2);
}

/// P6. A full pool at a site is told to whoever writes, and neither hangs others nor ends the daemon; what is mirrored is there.
#[test]
fn a_full_pool_of_a_site_is_told_to_who_writes() {
    if !are_here("a_full_pool_of_a_site_is_told_to_who_writes", &TOOLS) {
        return;
    }
    let mut sites = Sites::start(&["--pool-size", "512M"]);
    sites.create_mirrored("vm", "16M");
    qemu_io(sites.site(1), "vm", &["write -P 4 0 1M", "flush"]);
    sites.site(1).create_volume("big", "1G");
    let mut fill = tool::command("qemu-io");
    let told = fail(fill.args(["-f", "raw", "-c", "write -P 1 0 700M", &sites.site(1).uri("big")]));
    assert!(told.contains("No space left on device"), "{told}");
    let leader = sites.wait_for_leader("vm", &[1, 2]);
    qemu_io(sites.site(leader), "vm", &["read -P 4 0 1M"]);
    succeed(&mut sites.site(1).aljibe(&["volume", "delete", "big"]));
    tool::wait_until("the mirrored volume is written again", || {
        let leader = sites.wait_for_leader("vm", &[1, 2]);
        let mut write = tool::command("qemu-io");
        let uri = sites.site(leader).uri("vm");
        tool::output_of(write.args(["-f", "raw", "-c", "write -P 5 1M 1M", &uri])).status.success()
    });
    for number in [1, 2] {
        let status = sites.site_mut(number).stop();
        assert!(status.success(), "{}", sites.site(number).log());
        sites.site(number).check_pool();
    }
}
