//! The daemon under test: started on sockets in a folder of its own, killed, restarted, stopped.

use crate::tool;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any start or end takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pool large enough for every test; a sparse file.
const POOL_SIZE: &str = "8G";

/// A daemon and its folder, which goes when this is dropped.
pub(crate) struct Daemon {
    folder: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    ready: String,
    started_in: Duration,
}

impl Daemon {
    /// Starts a daemon that serves NBD on a unix socket.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon with more arguments; `FOLDER` in them stands for its folder.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts a daemon in a folder that may hold files for it already.
    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_under(folder, arguments, Vec::new())
    }

    /// Starts a daemon that has some variables in its environment.
    pub(crate) fn start_under(folder: TempDir, arguments: &[&str], environment: Vec<(String, String)>) -> Self {
        let path = folder.path().to_str().unwrap().to_owned();
        let arguments = arguments.iter().map(|argument| argument.replace("FOLDER", &path)).collect();
        let (child, ready, started_in) = (None, String::new(), Duration::ZERO);
        let mut daemon = Self { folder, arguments, environment, child, ready, started_in };
        daemon.restart();
        daemon
    }

    /// Starts a daemon that serves iSCSI too, on a TCP port that stays the same when it is restarted.
    pub(crate) fn start_iscsi(folder: TempDir, extra_flags: &[&str]) -> Self {
        let mut daemon = Self::start_in(folder, &[extra_flags, &["--iscsi", "127.0.0.1:0"]].concat());
        *daemon.arguments.last_mut().expect("it ends with the address") = daemon.iscsi();
        daemon
    }

    /// Starts it again with the same arguments.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let begin = Instant::now();
        let mut child = self.serve_command().stdout(Stdio::piped()).stderr(self.log_file()).spawn().unwrap();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        self.child = Some(child);
        let (tell, told) = mpsc::channel();
        // Goes on reading, so that the daemon never blocks on a full pipe; ends with the daemon.
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no ready line; {}", self.log()));
        assert!(line.starts_with("ready "), "unexpected line on stdout: {line}");
        self.ready = line;
        self.started_in = begin.elapsed();
    }

    /// The command that `restart` runs.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(self.data());
        if !self.arguments.iter().any(|argument| argument == "--nbd") {
            command.arg("--nbd").arg(format!("unix:{}", self.socket().display()));
        }
        if !self.arguments.iter().any(|argument| argument == "--pool-size") {
            command.args(["--pool-size", POOL_SIZE]);
        }
        command.args(["--api", "127.0.0.1:0"]).args(&self.arguments);
        command.stdin(Stdio::null()).env_remove("ALJIBE_DATA").env_remove("ALJIBE_API");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log_file(&self) -> File {
        File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap()
    }

    /// What the daemon said on stderr since the first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    /// The NBD addresses of the ready line.
    pub(crate) fn nbd_addresses(&self) -> Vec<String> {
        let words = self.ready.split_whitespace();
        let nbd = words.filter_map(|word| word.strip_prefix("nbd=")).next().expect("the ready line has nbd=");
        nbd.split(',').map(str::to_owned).collect()
    }

    /// The port of its first TCP address.
    pub(crate) fn nbd_port(&self) -> u16 {
        let addresses = self.nbd_addresses();
        let tcp = addresses.iter().find(|address| !address.starts_with("unix:")).expect("it listens on TCP");
        tcp.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// The iSCSI address of the ready line, HOST:PORT.
    pub(crate) fn iscsi(&self) -> String {
        let words = self.ready.split_whitespace();
        words.filter_map(|word| word.strip_prefix("iscsi=")).next().expect("the ready line has iscsi=").to_owned()
    }

    /// From the start of the process to its ready line.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    pub(crate) fn uri(&self, volume: &str) -> String {
        format!("nbd+unix:///{volume}?socket={}", self.socket().display())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What a client of the API sends with each request.
    pub(crate) fn authorization(&self) -> String {
        let token = fs::read_to_string(self.data().join("token")).unwrap();
        format!("Authorization: Bearer {}", token.trim())
    }

    /// A command that has the token of this daemon's folder.
    pub(crate) fn with_token(&self, mut command: Command) -> Command {
        let token = fs::read_to_string(self.data().join("token")).unwrap();
        command.env("ALJIBE_TOKEN", token.trim());
        command
    }

    /// A command of the program against this daemon, by a token.
    pub(crate) fn aljibe_by(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = tool::command(binary());
        command.args(arguments).arg("--api").arg(format!("unix:{}", self.data().join("api.sock").display()));
        command.env("ALJIBE_TOKEN", token).env_remove("ALJIBE_DATA").env_remove("ALJIBE_API");
        command
    }

    /// Memory in use, from /proc.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A command of the program against this daemon.
    pub(crate) fn aljibe(&self, arguments: &[&str]) -> Command {
        let mut command = tool::command(binary());
        command.args(arguments).arg("--data").arg(self.data()).env_remove("ALJIBE_API").env_remove("ALJIBE_TOKEN");
        command
    }

    pub(crate) fn create_volume(&self, name: &str, size: &str) {
        tool::succeed(&mut self.aljibe(&["volume", "create", name, "--size", size]));
    }

    /// Checks the pool at rest; the daemon must have ended.
    pub(crate) fn check_pool(&self) {
        assert!(self.child.is_none(), "the daemon holds the pool");
        tool::succeed(&mut self.aljibe(&["pool", "check"]));
    }

    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Notes that something else has killed the daemon, and waits for its end.
    pub(crate) fn was_killed(&mut self) {
        let status = self.wait();
        assert!(!status.success(), "it ended by itself; {}", self.log());
    }

    /// Asks it to stop and returns how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        tool::run("kill", ["-TERM", &self.pid().to_string()]);
        self.wait()
    }

    /// Stops it; the end must be clean and the log free of warnings.
    pub(crate) fn stop_without_complaint(&mut self) {
        self.stop_complaining_of_nothing_but(&[]);
    }

    /// Stops it; the end must be clean and the log free of warnings but those that contain one of these.
    pub(crate) fn stop_complaining_of_nothing_but(&mut self, allowed: &[&str]) {
        let status = self.stop();
        assert!(status.success(), "it ended with {status}; {}", self.log());
        let log = self.log();
        let complaints: Vec<&str> = log
            .lines()
            .filter(|line| [" WARN ", " ERROR ", "panicked"].iter().any(|word| line.contains(word)))
            .filter(|line| !allowed.iter().any(|words| line.contains(words)))
            .collect();
        assert!(complaints.is_empty(), "unexpected in the log:\n{}", complaints.join("\n"));
    }

    fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || drop(tell.send(child.wait())));
        told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("process {pid} does not end; {}", self.log())).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the daemon's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The program: this build's, or what ALJIBE_TEST_BINARY names.
pub(crate) fn binary() -> &'static str {
    static BINARY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        std::env::var("ALJIBE_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_aljibe").to_owned())
    });
    &BINARY
}
