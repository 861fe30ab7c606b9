//! libiscsi's suite of 230 cases. What it skips passes there, so `tests/iscsi/must-run.txt` has each case that is to
//! run.

use super::{daemon_with, session::source, url};
use crate::daemon::Daemon;
use crate::tool::{are_here, command, output_of, succeed};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The cases that fail here, for mistakes of their own.
///
/// The first asks for the status of an LBA in the middle of a physical block, and wants the answer to begin with the next
/// physical block, which is right only where a physical block is one logical block. Ours are eight (512e), and clients want it
/// to begin where they asked: SBC-3 5.6.2. The second has blocks of 0xFF written by WRITE SAME with the UNMAP bit, and wants them to
/// read as zeros: what is not zeros is written, so that it is what is read, SBC-3 5.43.
const MISTAKEN: [&str; 2] = ["GetLBAStatus.UnmapSingle", "WriteSame10.UnmapUntilEnd"];

/// Cases that take two paths to the same LUN.
const MULTIPATH: &str = "MultipathIO.";

/// P1, P2, P5. No case of the suite fails, and each that is to run with one path does.
#[test]
fn the_suite_of_libiscsi_passes() {
    if !are_here("the_suite_of_libiscsi_passes", &["iscsi-test-cu", "awk"]) {
        return;
    }
    let mut daemon = daemon_with(&[("suite", "256M")]);
    let verdicts = run_suite(&daemon, &[&url(&daemon, 0)]);
    let must_run = listed("must-run.txt").into_iter().filter(|case| !case.starts_with(MULTIPATH)).collect();
    judge(&verdicts, &must_run);
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P1, P2. So it is by two paths to the same volume, which is what cluster software has.
#[test]
fn the_suite_of_libiscsi_passes_by_two_paths() {
    if !are_here("the_suite_of_libiscsi_passes_by_two_paths", &["iscsi-test-cu", "awk"]) {
        return;
    }
    let mut daemon = daemon_with(&[("suite", "256M")]);
    let url = url(&daemon, 0);
    let verdicts = run_suite(&daemon, &[&url, &url]);
    judge(&verdicts, &listed("must-run.txt"));
    daemon.stop_without_complaint();
    daemon.check_pool();
}

/// P1. What runs against Debian's tgt is the least that is to run here.
#[test]
fn what_runs_against_tgt_must_run() {
    let (ours, theirs) = (listed("must-run.txt"), listed("tgt-runs.txt"));
    assert!(theirs.len() > 100, "tgt-runs.txt has {} cases", theirs.len());
    let missing: Vec<_> = theirs.difference(&ours).filter(|case| !MISTAKEN.contains(&case.as_str())).collect();
    assert!(missing.is_empty(), "not on must-run.txt: {missing:?}");
}

/// What became of each case.
fn run_suite(daemon: &Daemon, urls: &[&str]) -> BTreeMap<String, String> {
    // With -n it would not say which case a line belongs to.
    let output = output_of(command("iscsi-test-cu").args(["-d", "-v", "--test=ALL"]).args(urls));
    let said = daemon.folder().join("suite");
    fs::write(&said, &output.stdout).unwrap();
    let verdicts = succeed(command("awk").arg("-f").arg(source("verdicts.awk")).arg(&said));
    let verdicts: BTreeMap<_, _> = verdicts
        .lines()
        .map(|line| line.split_once(' ').expect("a case and its verdict"))
        .map(|(case, verdict)| (case.to_owned(), verdict.to_owned()))
        .collect();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Run Summary:"), "{}: it did not come to its end:\n{text}", output.status);
    let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict == "FAILED").map(|(case, _)| case).collect();
    let why: Vec<&str> = text.split("  Test: ").filter(|case| case.contains("FAILED\n")).collect();
    assert!(failed == MISTAKEN, "failed: {failed:#?}\n{}", why.join("\n"));
    verdicts
}

fn judge(verdicts: &BTreeMap<String, String>, must_run: &BTreeSet<String>) {
    let did_not: Vec<_> = must_run
        .iter()
        .map(|case| (case, verdicts.get(case).map_or("unknown", String::as_str)))
        .filter(|(_, verdict)| *verdict != "ran")
        .collect();
    assert!(did_not.is_empty(), "these are to run: {did_not:#?}");
}

/// The cases of a list in `tests/iscsi`.
fn listed(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(source(name)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}
