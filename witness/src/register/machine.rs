//! Which machine a register's directory belongs to, as text:
//!
//! ```text
//! aljibe-machine 1
//! machine-id 3d1219c7c4c5404aaa1f6d2a48adfda4
//! board 4c4c4544-0042-3510-8053-b4c04f565a31
//! ```
//!
//! The machine id alone is not enough: machines that were cloned from one template often share it. The board's, a virtual
//! machine's own, can be read by root alone, and by nobody in some containers: then it is `unknown`, and proves nothing.

use std::fmt;
use std::fs;
use std::path::Path;

const HEAD: &str = "aljibe-machine 1";

const UNKNOWN: &str = "unknown";

/// Longest part of an identity that is looked at.
const PART_BYTES_MAX: usize = 64;

/// What tells machines apart, through restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    machine_id: Option<String>,
    board: Option<String>,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let machine_id = part_in("/etc/machine-id").or_else(|| part_in("/var/lib/dbus/machine-id"));
        Self { machine_id, board: part_in("/sys/class/dmi/id/product_uuid") }
    }

    /// Whether both are surely one machine. What is not known of either is not held against it, but something must be known.
    pub(super) fn is(&self, other: &Self) -> bool {
        let differs = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        let is_known = self.machine_id.is_some() && self.machine_id == other.machine_id;
        is_known && !differs(&self.board, &other.board)
    }

    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut part = |name: &str| {
            let text = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
            if text == UNKNOWN { Some(None) } else { plain(text).map(Some) }
        };
        let machine = Self { machine_id: part("machine-id")?, board: part("board")? };
        (lines.next().is_none() && text.ends_with('\n')).then_some(machine)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &Option<String>| part.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        writeln!(f, "{HEAD}\nmachine-id {}\nboard {}", shown(&self.machine_id), shown(&self.board))
    }
}

fn part_in(path: impl AsRef<Path>) -> Option<String> {
    plain(fs::read_to_string(path).ok()?.trim())
}

/// `uninitialized`, which a template's machine id says, is none.
fn plain(text: &str) -> Option<String> {
    let is_letter = |c: char| c.is_ascii_hexdigit() || c == '-';
    let is_plain = !text.is_empty() && text.len() <= PART_BYTES_MAX && text.chars().all(is_letter);
    is_plain.then(|| text.to_ascii_lowercase())
}

/// Kinds of file systems that several machines can mount at once, by their magic numbers (statfs(2)); FUSE may be anything.
const SHARED: [(u32, &str); 11] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9P"),
    (0x1983_0326, "FhGFS"),
];

/// The kind of the file system that `directory` is on, when several machines can mount it at once.
pub(super) fn shared_kind(directory: &fs::File) -> std::io::Result<Option<&'static str>> {
    let magic = rustix::fs::fstatfs(directory)?.f_type;
    Ok(kind_of(magic.cast_unsigned()))
}

/// The kernel's word is signed, so that a magic number of 32 bits may come with ones in its upper half.
fn kind_of(magic: u64) -> Option<&'static str> {
    let magic = u32::try_from(magic & u64::from(u32::MAX)).ok()?;
    SHARED.iter().find(|(shared, _)| *shared == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(machine_id: &str, board: &str) -> Machine {
        Machine::parse(&format!("{HEAD}\nmachine-id {machine_id}\nboard {board}\n")).unwrap()
    }

    /// P4. Machines that share an id are told apart by their boards; what is not known proves nothing.
    #[test]
    fn machines_are_told_apart() {
        assert!(machine("a1", "b1").is(&machine("a1", "b1")));
        assert!(machine("a1", "b1").is(&machine("a1", "unknown")));
        assert!(!machine("a1", "b1").is(&machine("a1", "b2")));
        assert!(!machine("a1", "b1").is(&machine("a2", "b1")));
        assert!(!machine("unknown", "b1").is(&machine("unknown", "b1")));
    }

    /// P4. An identity is read as it is written, and nothing else is read.
    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for machine in [machine("a1", "b-1"), machine("unknown", "unknown"), Machine::this()] {
            assert_eq!(Machine::parse(&machine.to_string()), Some(machine));
        }
        for text in ["", "aljibe-machine 2\nmachine-id a\nboard b\n", "aljibe-machine 1\nmachine-id a\n"] {
            assert_eq!(Machine::parse(text), None);
        }
        assert_eq!(Machine::parse(&machine("a1", "b1").to_string().replace("a1", "x/1")), None);
        assert_eq!(plain("uninitialized"), None);
    }

    /// P4. What several machines can mount is known as such, whichever sign the kernel gives it.
    #[test]
    fn shared_file_systems_are_known() {
        assert_eq!(kind_of(0x6969), Some("NFS"));
        assert_eq!(kind_of(0xffff_ffff_ff53_4d42), Some("CIFS"));
        assert_eq!(kind_of(0xef53), None);
        let here = fs::File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        shared_kind(&here).unwrap();
    }
}
