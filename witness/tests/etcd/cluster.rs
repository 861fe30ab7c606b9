//! A real cluster of etcd: its members' processes, and what they say to a client that is not ours.

use crate::asking::PATIENCE;
use certificates::ClientFiles;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use witness::{Etcd, EtcdConfig, HostPort};

/// Prefix of all keys of these tests.
pub(crate) const PREFIX: &str = "test/mirror";

/// One cluster at a time: several on two processors lose their leaders for want of time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Whether the programs of a test are there. Says so where they are not, and fails in CI.
pub(crate) fn are_here(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_here(program)).collect();
    if missing.is_empty() {
        return true;
    }
    let message = format!("SKIPPED: {test}: not installed: {}\n", missing.join(", "));
    assert!(std::env::var_os("CI").is_none(), "{message}");
    // Past the test runner, which swallows what passing tests print.
    std::io::stderr().lock().write_all(message.as_bytes()).unwrap();
    false
}

/// A loopback address of this process alone, where no outgoing connection takes the port of a member that is down.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + (high & 0x3f), middle, low)
}

/// Listens on a port of the kernel's choice.
pub(crate) fn listen() -> TcpListener {
    TcpListener::bind((own_address(), 0)).unwrap()
}

/// Addresses that nobody listens on.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..count).map(|_| listen()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// The files that a member of a cluster over TLS has.
#[derive(Debug, Clone)]
pub(crate) struct MemberTls {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

/// A cluster. Its processes are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
    token: String,
    tls: Option<MemberTls>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts one, and waits until every member knows a leader.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    /// For TLS: the certificate must be for the address that this gives.
    pub(crate) fn address() -> Ipv4Addr {
        own_address()
    }

    pub(crate) fn start_with(count: usize, tls: Option<MemberTls>) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = free_addresses(count * 2);
        let member = |pair: &[SocketAddr]| Member { client: pair[0], peer: pair[1], process: None };
        let members = addresses.chunks(2).map(member).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { members, folder, token: "first".to_owned(), tls, _turn: turn };
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        (0..self.members.len()).for_each(|index| self.spawn(index));
        // Without a client certificate nobody is told; the client's first answer is waited for then.
        if self.tls.is_none() {
            (0..self.members.len()).for_each(|index| self.wait_for_leader(index));
        }
    }

    /// The addresses that clients use.
    pub(crate) fn endpoints(&self) -> Vec<HostPort> {
        self.members.iter().map(|member| host_port(member.client)).collect()
    }

    pub(crate) fn client_address(&self, index: usize) -> SocketAddr {
        self.members[index].client
    }

    /// A client of ours that knows all members.
    pub(crate) fn client(&self) -> Etcd {
        self.client_by(self.endpoints(), None)
    }

    pub(crate) fn client_by(&self, endpoints: Vec<HostPort>, tls: Option<ClientFiles>) -> Etcd {
        Etcd::new(EtcdConfig { endpoints, prefix: PREFIX.to_owned(), tls }, None).unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut process = self.members[index].process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts a member that was killed, with the data that it had.
    pub(crate) fn restart(&mut self, index: usize) {
        self.spawn(index);
    }

    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        let process = self.members[index].process.as_ref().unwrap();
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// Makes another cluster at the same addresses, which knows nothing.
    pub(crate) fn make_anew(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
            fs::remove_dir_all(self.data(index)).unwrap();
        }
        self.token = "second".to_owned();
        self.start_all();
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let is_leader = |member: &Member| {
                let status = post(member.client, "/v3/maintenance/status", "{}").ok();
                status.is_some_and(|status| status["leader"] == status["header"]["member_id"])
            };
            if let Some(index) = self.members.iter().position(is_leader) {
                return index;
            }
            assert!(Instant::now() < until, "no leader: {}", self.log(0));
            std::thread::yield_now();
        }
    }

    /// What a member answers to who is none of ours, once it answers: what is asked may be asked for more than once.
    pub(crate) fn post(&self, index: usize, path: &str, body: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = post(self.members[index].client, path, body);
            // Of a member that has no leader for a while, an error.
            if let Some(answer) = told.as_ref().ok().filter(|answer| answer["error"].is_null()) {
                return answer.clone();
            }
            assert!(Instant::now() < until, "{path}: {told:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Adds a member without a vote, which is nowhere.
    pub(crate) fn add_learner(&self) {
        let peer = free_addresses(1)[0];
        let learner = format!(r#"{{"peerURLs":["http://{peer}"],"isLearner":true}}"#);
        let until = Instant::now() + PATIENCE;
        let is_there = || {
            let told = self.post(0, "/v3/cluster/member/list", "{}");
            told["members"].as_array().is_some_and(|members| members.iter().any(|member| member["isLearner"] == true))
        };
        while !is_there() {
            // One that was added, and of which the answer did not come, is not added again.
            let told = post(self.members[0].client, "/v3/cluster/member/add", &learner);
            assert!(Instant::now() < until, "{told:?}");
        }
    }

    fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("member-{index}"))
    }

    fn log(&self, index: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("member-{index}.log"))).unwrap_or_default()
    }

    fn spawn(&mut self, index: usize) {
        let name = |index: usize| format!("member-{index}");
        let peers: Vec<String> = (0..self.members.len())
            .map(|index| format!("{}=http://{}", name(index), self.members[index].peer))
            .collect();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let member = &self.members[index];
        let (client, peer) = (format!("{scheme}://{}", member.client), format!("http://{}", member.peer));
        let log =
            File::options().create(true).append(true).open(self.folder.path().join(name(index) + ".log")).unwrap();
        let mut command = Command::new("etcd");
        // Nothing that the machine's own etcd is configured with.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--name", &name(index), "--data-dir", path(&self.data(index))]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-token", &self.token]);
        // All that is done to members here is `kill -9`: what the kernel has is there afterwards, and no disk is waited for, which on a
        // busy machine takes longer than a client's second.
        command.arg("--unsafe-no-fsync");
        // A member may be added before all have been connected for five seconds.
        command.arg("--strict-reconfig-check=false");
        if let Some(tls) = &self.tls {
            command.args(["--cert-file", path(&tls.certificate), "--key-file", path(&tls.key)]);
            command.args(["--client-cert-auth", "--trusted-ca-file", path(&tls.authority)]);
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.members[index].process = Some(process);
    }

    fn wait_for_leader(&mut self, index: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = post(self.members[index].client, "/v3/maintenance/status", "{}");
            if status.is_ok_and(|status| status["leader"].is_string()) {
                return;
            }
            let exited = self.members[index].process.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none() && Instant::now() < until, "member {index} does not start: {}", self.log(index));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // One that is stopped is killed as well.
            let _ = process.kill().and_then(|()| process.wait());
        }
    }
}

pub(crate) fn host_port(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: address.port() }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A request on a connection of its own; by HTTP/1.0, which has no chunks.
fn post(at: SocketAddr, path: &str, body: &str) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.0\r\nhost: {at}\r\ncontent-length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(std::io::Error::other)
}
