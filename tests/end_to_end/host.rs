//! What the host does to a pool: its page cache, its file system that fills.

use crate::daemon::{Daemon, binary};
use crate::tool::{PYTHON, are_here, command, output_of, python, succeed};
use std::path::Path;

/// P2, P6. The kernel reads ahead into the log's end while that is being written, by large and by small appends.
#[test]
fn what_is_read_behind_the_end_of_the_log_is_what_was_written() {
    if !are_here("what_is_read_behind_the_end_of_the_log_is_what_was_written", &["python3-libnbd"]) {
        return;
    }
    for (more, blocks) in [(&[][..], "262144"), (&["--direct"], "65536")] {
        let mut daemon = Daemon::start_with(more);
        daemon.create_volume("tail", "1G");
        succeed(python("tail_readers.py").arg(daemon.uri("tail")).arg(blocks));
        daemon.stop_without_complaint();
        daemon.check_pool();
    }
}

/// P6. When the file system that holds the pool is full, reads, flushes and trims go on; what is there survives a kill, a
/// start says what is wrong, and service resumes once there is space.
#[test]
fn a_full_host_file_system_loses_nothing_and_stops_no_trim() {
    if !are_here("a_full_host_file_system_loses_nothing_and_stops_no_trim", &["unshare", "mount", "python3-libnbd"]) {
        return;
    }
    let namespace = ["--user", "--map-root-user", "--mount"];
    if !output_of(command("unshare").args(namespace).arg("true")).status.success() {
        crate::tool::announce("SKIPPED: a_full_host_file_system_...: no mount namespace is to be had here\n");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nbd/full_host.py");
    let said = succeed(command("unshare").args(namespace).arg(PYTHON).arg(script).arg(binary()).arg(folder.path()));
    assert_eq!(said, "as promised\n");
}
