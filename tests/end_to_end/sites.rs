//! Two sites of a mirror on this machine: a daemon each, and three members of etcd between them.

use crate::daemon::Daemon;
use crate::tool::{self, json, wait_until};
use serde_json::Value;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// What the tests of sites need.
pub(crate) const TOOLS: [&str; 5] = ["etcd", "qemu-io", "curl", "fio", "python3-libnbd"];

/// One pair at a time: two daemons and a cluster are load enough for two processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A member of the witness.
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

/// The witness: its processes are killed when it is dropped.
pub(crate) struct Witness {
    members: Vec<Member>,
    folder: TempDir,
}

/// Two sites.
pub(crate) struct Sites {
    /// Site 1 and site 2.
    pub(crate) daemons: [Daemon; 2],
    pub(crate) witness: Witness,
    _turn: MutexGuard<'static, ()>,
}

/// Addresses that nobody listens on.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

impl Witness {
    fn start() -> Self {
        let addresses = free_addresses(6);
        let member = |pair: &[SocketAddr]| Member { client: pair[0], peer: pair[1], process: None };
        let members = addresses.chunks(2).map(member).collect();
        let mut witness = Self { members, folder: tempfile::tempdir().unwrap() };
        (0..3).for_each(|index| witness.restart(index));
        for member in &witness.members {
            let health = format!("http://{}/health", member.client);
            wait_until("the witness has a leader", || {
                TcpStream::connect(member.client).is_ok()
                    && String::from_utf8_lossy(&tool::output_of(tool::command("curl").args(["-s", &health])).stdout)
                        .contains("true")
            });
        }
        witness
    }

    /// How the sites call it.
    fn url(&self) -> String {
        let clients: Vec<String> = self.members.iter().map(|member| member.client.to_string()).collect();
        format!("etcd://{}/test", clients.join(","))
    }

    pub(crate) fn restart(&mut self, index: usize) {
        let cluster: Vec<String> =
            (0..).zip(&self.members).map(|(index, member)| format!("m{index}=http://{}", member.peer)).collect();
        let (folder, member) = (self.folder.path(), &self.members[index]);
        let log = File::options().create(true).append(true).open(folder.join(format!("log{index}"))).unwrap();
        let process = Command::new("etcd")
            .args(["--name", &format!("m{index}"), "--initial-cluster-state", "new", "--log-level", "error"])
            .arg("--data-dir")
            .arg(folder.join(format!("m{index}")))
            .args(["--listen-client-urls", &format!("http://{}", member.client)])
            .args(["--advertise-client-urls", &format!("http://{}", member.client)])
            .args(["--listen-peer-urls", &format!("http://{}", member.peer)])
            .args(["--initial-advertise-peer-urls", &format!("http://{}", member.peer)])
            .args(["--initial-cluster", &cluster.join(",")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[index].process = Some(process);
    }

    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

impl Sites {
    /// Starts the witness and both sites, each with more arguments.
    pub(crate) fn start(more: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let witness = Witness::start();
        let links = free_addresses(2);
        let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("link/tests/pem");
        let at = |name: String| pem.join(name).to_str().unwrap().to_owned();
        let site = |number: usize| {
            let other = 3 - number;
            let (own, peer) = (links[number - 1].to_string(), links[other - 1].to_string());
            let (number, other) = (number.to_string(), other.to_string());
            let (certificate, key) = (at(format!("site-{number}.pem")), at(format!("site-{number}-key.pem")));
            let (authority, witness) = (at("authority.pem".to_owned()), witness.url());
            let arguments = [
                ["--site", &number],
                ["--peer-site", &other],
                ["--mirror-listen", &own],
                ["--mirror-peer", &peer],
                ["--mirror-cert", &certificate],
                ["--mirror-key", &key],
                ["--mirror-ca", &authority],
                ["--witness", &witness],
            ];
            Daemon::start_with(&[arguments.concat().as_slice(), more].concat())
        };
        Self { daemons: [site(1), site(2)], witness, _turn: turn }
    }

    /// A site by its number.
    pub(crate) fn site(&self, number: usize) -> &Daemon {
        &self.daemons[number - 1]
    }

    pub(crate) fn site_mut(&mut self, number: usize) -> &mut Daemon {
        &mut self.daemons[number - 1]
    }

    /// How a mirrored volume is at a site; nothing while that does not answer.
    pub(crate) fn try_mirror_of(&self, number: usize, volume: &str) -> Option<Value> {
        let output = tool::output_of(self.site(number).aljibe(&["why", volume]).arg("--json"));
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// How a mirrored volume is at a site.
    pub(crate) fn mirror_of(&self, number: usize, volume: &str) -> Value {
        json(&mut self.site(number).aljibe(&["why", volume]))
    }

    /// Makes a volume at site 1 that both sites have, and waits until they are in sync.
    pub(crate) fn create_mirrored(&self, volume: &str, size: &str) {
        self.site(1).create_volume(volume, size);
        wait_until("the link is up", || {
            let output = tool::output_of(&mut self.site(1).aljibe(&["volume", "mirror", volume, "--to", "2"]));
            output.status.success()
        });
        self.wait_in_sync(volume);
    }

    /// Waits until both sites are in sync; returns which leads.
    pub(crate) fn wait_in_sync(&self, volume: &str) -> usize {
        let mut leader = 0;
        wait_until("both sites are in sync", || {
            let states = [1, 2].map(|number| self.try_mirror_of(number, volume));
            let is = |state: &Option<Value>, role: &str| {
                state.as_ref().is_some_and(|state| state["role"] == role && state["in_sync"] == true)
            };
            leader = [1, 2].into_iter().find(|number| is(&states[number - 1], "primary")).unwrap_or(0);
            leader > 0 && is(&states[2 - leader], "secondary")
        });
        leader
    }

    /// Which site leads, once one does.
    pub(crate) fn wait_for_leader(&self, volume: &str, among: &[usize]) -> usize {
        let mut leader = None;
        wait_until("a site leads", || {
            let serves =
                |number: &usize| self.try_mirror_of(*number, volume).is_some_and(|state| state["serves"] == true);
            leader = among.iter().copied().find(serves);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Starts the clients that hold each answer against what they know, for some seconds.
    pub(crate) fn start_history(&self, volume: &str, seconds: u32) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mirror/history.py");
        let mut command = Command::new(tool::PYTHON);
        command.arg(script).args([&seconds.to_string(), "4"]);
        command.args([self.site(1).uri(volume), self.site(2).uri(volume)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Stops a process as a whole for a while, as a machine that is frozen.
pub(crate) fn freeze_for(pid: u32, time: Duration) {
    tool::run("kill", ["-STOP", &pid.to_string()]);
    std::thread::sleep(time);
    tool::run("kill", ["-CONT", &pid.to_string()]);
}
