//! The meter of the real program, whose process is killed: what its registers said is never taken back, bytes by time are exact to
//! the last unit, and requests are counted within the bound that docs/metering.md tells.

use crate::daemon::Daemon;
use crate::tool::{self, announce, are_here, python, succeed};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const ROUNDS: u32 = 20;

/// As `tests/nbd/metered_load.py` knows them.
const VOLUMES: [(&str, &str); 3] = [("busy", "64M"), ("still", "32M"), ("changing", "128M")];

/// What the meter said, as it was shown one time after the other.
struct Shown {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl Shown {
    fn new(daemon: &Daemon) -> Self {
        let folder = daemon.folder().join("shown");
        fs::create_dir(&folder).unwrap();
        Self { folder, files: Vec::new() }
    }

    fn keep(&mut self, stage: &str, readings: &[u8]) {
        let file = self.folder.join(format!("{:04}-{stage}", self.files.len()));
        fs::write(&file, readings).unwrap();
        self.files.push(file);
    }

    /// Keeps what it says now; a daemon that is being killed says nothing.
    fn keep_now(&mut self, daemon: &Daemon) {
        let output = tool::output_of(&mut readings(daemon));
        if output.status.success() {
            self.keep("meanwhile", &output.stdout);
        }
    }

    /// Waits until each volume was read after now, and keeps that.
    fn keep_next(&mut self, daemon: &Daemon) {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let mut next = String::new();
        tool::wait_until("readings", || {
            next = succeed(&mut readings(daemon));
            let all = next.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let later = all.filter(|reading| reading["wall_ms"].as_u64() > Some(now));
            later.map(|reading| reading["resource"].as_u64()).collect::<BTreeSet<_>>().len() == VOLUMES.len()
        });
        self.keep("next", next.as_bytes());
    }
}

fn readings(daemon: &Daemon) -> Command {
    let month = tool::run("date", ["-u", "+%Y-%m"]);
    daemon.aljibe(&["usage", "readings", "--month", month.trim()])
}

/// P7. Through twenty kills under load no register goes back, or behind what was shown; bytes by time are those of a model, to the
/// last unit where nothing changes and else within what the client cannot know; of requests at most those of the last two seconds
/// before a kill are missing, and none is counted twice. While the daemon is down, what is there is metered.
#[test]
fn the_meter_loses_nothing_and_counts_nothing_twice_through_twenty_kills() {
    if !are_here("the_meter_loses_nothing_and_counts_nothing_twice_through_twenty_kills", &["python3-libnbd"]) {
        return;
    }
    let mut daemon = Daemon::start_with(&["--reading-period", "1"]);
    for (volume, size) in VOLUMES {
        daemon.create_volume(volume, size);
    }
    let (socket, state, mut shown) = (daemon.socket(), daemon.folder().join("state"), Shown::new(&daemon));
    let load = |verb: &str| {
        let mut script = python("metered_load.py");
        script.arg(verb).arg(&socket).arg(&state);
        script
    };
    succeed(&mut load("begin"));
    shown.keep_next(&daemon);
    for round in 0..ROUNDS {
        let mut loading = load("load").args(["--kill", &daemon.pid().to_string()]).spawn().unwrap();
        while loading.try_wait().unwrap().is_none() {
            shown.keep_now(&daemon);
        }
        assert!(loading.wait().unwrap().success());
        daemon.was_killed();
        if round % 4 == 3 {
            // It is down for a while.
            daemon.check_pool();
        }
        daemon.restart();
        shown.keep_now(&daemon);
        succeed(&mut load("settle"));
        shown.keep_next(&daemon);
    }
    let judged = succeed(python("metered_load.py").arg("judge").arg(&state).args(&shown.files));
    announce(&judged);
    daemon.stop_without_complaint();
    daemon.check_pool();
}
