//! A client that is told what to do line by line, so that a test says what happens between two of its commands.

use crate::daemon::Daemon;
use crate::tool::{self, PYTHON, are_here};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longer than any command takes on a busy machine, and than an initiator waits before it tries again to connect.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running client: `tests/iscsi/initiator.c` or `tests/iscsi/nbd_session.py`, where the verbs and answers are.
pub(super) struct Session {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// Whether both clients can be had; says loudly if not.
pub(super) fn can_run(test: &str) -> bool {
    are_here(test, &["cc", "/usr/include/iscsi/iscsi.h", "python3-libnbd"])
}

impl Session {
    /// An iSCSI session, which does not connect again by itself.
    pub(super) fn iscsi(initiator: &str, url: &str) -> Self {
        Self::entered(&[initiator, url])
    }

    /// An iSCSI session that connects again by itself, as disk drivers do.
    pub(super) fn steady(initiator: &str, url: &str) -> Self {
        Self::entered(&["-r", initiator, url])
    }

    /// An iSCSI session by the same ISID each time: what was registered by one before is this one's.
    pub(super) fn of_one_port(initiator: &str, url: &str) -> Self {
        Self::entered(&["-q", "1", initiator, url])
    }

    /// Why an initiator does not get in.
    pub(super) fn refused(initiator: &str, url: &str) -> String {
        let mut session = Self::spawn(Command::new(initiator_program()).args([initiator, url]));
        let answer = session.hear();
        answer.strip_prefix("refused ").unwrap_or_else(|| panic!("{initiator} was let in: {answer}")).to_owned()
    }

    /// An NBD connection to a volume.
    pub(super) fn nbd(daemon: &Daemon, volume: &str) -> Self {
        let mut command = Command::new(PYTHON);
        command.arg(source("nbd_session.py")).arg(daemon.uri(volume)).env("PYTHONDONTWRITEBYTECODE", "1");
        Self::ready(&mut command)
    }

    fn entered(arguments: &[&str]) -> Self {
        Self::ready(Command::new(initiator_program()).args(arguments))
    }

    fn ready(command: &mut Command) -> Self {
        let mut session = Self::spawn(command);
        assert_eq!(session.hear(), "ready", "{command:?}");
        session
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is a pipe"));
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
        });
        Self { child, orders, answers }
    }

    /// Gives an order without waiting for the answer.
    pub(super) fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().expect("it takes orders"), "{order}").unwrap();
    }

    /// The next line of its answers.
    pub(super) fn hear(&mut self) -> String {
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The lines that it has answered so far.
    pub(super) fn heard(&mut self) -> Vec<String> {
        self.answers.try_iter().collect()
    }

    /// What it answers to an order.
    pub(super) fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    /// Gives an order that is to be answered in one way.
    #[track_caller]
    pub(super) fn expect(&mut self, order: &str, answer: &str) {
        assert_eq!(self.ask(order), answer, "the answer to: {order}");
    }

    /// Ends it in order.
    pub(super) fn leave(mut self) {
        drop(self.orders.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ended with {status}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file of `tests/iscsi`.
pub(super) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/iscsi").join(name)
}

/// `tests/iscsi/initiator.c`, compiled once for all tests of this process.
fn initiator_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("initiator-{}", std::process::id()));
        let mut command = tool::command("cc");
        command.args(["-std=gnu11", "-O2"]).arg(source("initiator.c")).arg("-liscsi").arg("-o").arg(&program);
        tool::succeed(&mut command);
        program
    });
    &PROGRAM
}
