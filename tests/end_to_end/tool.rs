//! Other people's programs: whether they are here, and running them to their end within a time limit.

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No client needs longer; one that hangs fails its test.
const SECONDS_MAX: &str = "300";

/// Longest wait for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Python of the distribution, which has libnbd's module.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A command that is ended when it takes too long.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS_MAX, program]).stdin(Stdio::null()).env("PATH", search_path());
    command
}

/// Runs a program and returns what it printed; it must succeed.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    succeed(command(program).args(arguments))
}

/// Runs a command and returns what it printed; it must succeed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = output_of(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, printed(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command and returns what it printed on both; it must fail.
pub(crate) fn fail(command: &mut Command) -> String {
    let output = output_of(command);
    assert!(!output.status.success(), "{command:?} succeeded:\n{}", printed(&output));
    printed(&output)
}

/// Runs a command of ours and returns the document that it printed; it must succeed.
pub(crate) fn json(command: &mut Command) -> Value {
    let printed = succeed(command.arg("--json"));
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{command:?}: {error}: {printed}"))
}

/// Waits until something is so, for as long as any step takes on a busy machine.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn output_of(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether every tool is here; if not, says loudly which test is skipped for which.
pub(crate) fn are_here(test: &str, tools: &[&str]) -> bool {
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_here(tool)).collect();
    if missing.is_empty() {
        return true;
    }
    let message = format!("SKIPPED: {test}: not installed: {}\n", missing.join(", "));
    assert!(std::env::var_os("CI").is_none(), "{message}");
    announce(&message);
    false
}

/// Prints past the test runner, which swallows what passing tests print.
pub(crate) fn announce(message: &str) {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(message.as_bytes()).and_then(|()| stderr.flush()).expect("stderr takes a line");
}

fn is_here(tool: &str) -> bool {
    if tool == "python3-libnbd" {
        return Command::new(PYTHON).args(["-c", "import nbd"]).output().is_ok_and(|output| output.status.success());
    }
    if tool == "/dev/fuse" {
        return Path::new(tool).exists();
    }
    std::env::split_paths(&search_path()).any(|folder| folder.join(tool).is_file())
}

fn search_path() -> std::ffi::OsString {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(folders).expect("no folder of the search path has a colon")
}

/// A script of `tests/nbd`, to be run by Python.
pub(crate) fn python(script: &str) -> Command {
    let mut command = command(PYTHON);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nbd").join(script));
    // Nothing is written beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Bytes without a pattern, the same for one seed: xorshift64*.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
