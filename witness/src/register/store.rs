//! The register itself: a directory of small files, each replaced as a whole.
//!
//! | file | what it is |
//! | --- | --- |
//! | `machine` | whose directory it is ([`super::machine`]) |
//! | `group-N` | the record of group N, with its revision and a checksum |
//! | `group-N.new` | one that was being written; of no use |
//!
//! ```text
//! aljibe-register 1
//! group 7
//! revision 12
//! checksum 1a2b3c4d
//! aljibe-mirror 1
//! ...
//! ```
//!
//! A change is written to a new file, synced, moved over the old one, and the directory is synced; then it is answered. What was
//! answered is therefore there after a crash, and what was not may be. Reads are answered from memory, which is what is durable.
//!
//! The directory itself is locked, and what is written goes by its handle: so nobody can take the lock away, and a directory that
//! was moved is never mistaken for the one that was made in its place. Once another one is there nothing is answered any more.

use super::machine::{Machine, shared_kind};
use replaced_files::{ReplaceError, new_name};
use replication::{RECORD_BYTES_MAX, Record, RecordError, Revision, Seen};
use rustix::fs::AtFlags;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use units::GroupId;

/// Most groups of a register.
pub const GROUPS_MAX: usize = 65_536;

const HEAD: &str = "aljibe-register 1";

/// Longest file that is looked at: the head, four lines of at most 32 bytes, the record.
const FILE_BYTES_MAX: usize = 128 + RECORD_BYTES_MAX;

/// Highest revision that a file may tell: no register counts so far, and there is room for one more change, and the next.
const REVISION_MAX: u64 = u64::MAX / 2;

/// How a register is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegisterOptions {
    /// The operator's word that no other copy of this directory is in use, and that daemons of this machine alone ask it: takes
    /// over a directory that was another machine's, or that several machines could mount.
    pub confirms_single_witness: bool,
}

/// A register that this process holds. Gives it up when dropped.
#[derive(Debug)]
pub struct Register {
    path: PathBuf,
    /// Locked for as long as it is open.
    directory: File,
    records: BTreeMap<GroupId, Seen>,
    /// What is on stable storage is not known any more: nothing is answered.
    is_poisoned: bool,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// It is in force, durably.
    Won(Revision),
    /// It is not and never will be; this is there.
    Lost(Option<Seen>),
}

/// Why a register does not serve.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Another process has it.
    #[error("the register {} is in use by another process: there is one server of a register", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another machine.
    #[error(
        "the register {} belongs to another machine, of {theirs}; this one is of {ours}. A register is a witness for the \
         daemons of one machine: for sites on several machines use etcd. If the directory was moved here for good, and no copy \
         of it is in use, confirm that this is the only witness",
        path.display()
    )]
    OtherMachine {
        /// The directory.
        path: PathBuf,
        /// What it says.
        theirs: String,
        /// What is so here.
        ours: String,
    },
    /// Several machines can mount it.
    #[error(
        "the register {} is on a file system that several machines can mount ({kind}). A register is a witness for the daemons \
         of one machine: for sites on several machines use etcd, else put it on a local disk, or confirm that this is the only \
         witness",
        path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Which kind.
        kind: &'static str,
    },
    /// This machine cannot be told from another one.
    #[error(
        "the register {} cannot be bound to this machine, which has no /etc/machine-id: make one (systemd-machine-id-setup), \
         or confirm that this is the only witness",
        path.display()
    )]
    Nameless {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not what was written.
    #[error(
        "{} is not as the register wrote it: {reason}. Nothing is guessed of who is primary: move the file away, and the sites \
         refuse to change roles until an operator has the record made anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There are as many groups as there may be.
    #[error("the register {} has {GROUPS_MAX} groups, and takes no more", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// A failed sync, or a move of which nobody knows what became.
    #[error("the register {} could not make a change durable, and answers nothing until it is started anew", path.display())]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is not at its path any more.
    #[error(
        "the register {} was moved or removed while it was in use, and answers nothing until it is started anew",
        path.display()
    )]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// The socket is somebody else's.
    #[error("cannot listen on {}: it is there and in use", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} {}", path.display())]
    System {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl RegisterError {
    pub(super) fn system(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::System { action, path, source }
    }
}

impl Register {
    /// Opens a register, making it first when it is missing.
    ///
    /// # Errors
    /// [`RegisterError`] says what is to be done.
    pub fn open(path: &Path, options: RegisterOptions) -> Result<Self, RegisterError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(RegisterError::system("make", path))?;
        let directory = File::open(path).map_err(RegisterError::system("open", path))?;
        lock(path, &directory)?;
        let mut register = Self { path: path.to_owned(), directory, records: BTreeMap::new(), is_poisoned: false };
        register.check()?;
        // Nothing is changed in a directory that may be another machine's.
        let claim = register.may_claim(options)?;
        let left_over = register.load()?;
        register.claim(&claim, options)?;
        for name in left_over {
            let removed = rustix::fs::unlinkat(&register.directory, &name, AtFlags::empty());
            removed.map_err(|error| RegisterError::system("remove", &path.join(&name))(error.into()))?;
        }
        // What a process before this one moved into place may not be durable yet, and is about to be answered with.
        register.directory.sync_all().map_err(RegisterError::system("sync", path))?;
        register.check()?;
        Ok(register)
    }

    /// A group's record.
    ///
    /// # Errors
    /// [`RegisterError::Poisoned`], [`RegisterError::Moved`].
    pub fn read(&self, group: GroupId) -> Result<Option<Seen>, RegisterError> {
        self.check()?;
        Ok(self.records.get(&group).copied())
    }

    /// Puts `record` in place of what has revision `expected`, or of nothing.
    ///
    /// # Errors
    /// Nothing has changed, but after [`RegisterError::Poisoned`] and [`RegisterError::Moved`], when nobody knows.
    pub fn swap(
        &mut self,
        group: GroupId,
        expected: Option<Revision>,
        record: &Record,
    ) -> Result<Swapped, RegisterError> {
        if let Err(error) = self.check() {
            self.is_poisoned = true;
            return Err(error);
        }
        let found = self.records.get(&group).copied();
        if found.map(|seen| seen.revision) != expected {
            return Ok(Swapped::Lost(found));
        }
        if found.is_none() && self.records.len() >= GROUPS_MAX {
            return Err(RegisterError::Full { path: self.path.clone() });
        }
        let revision = Revision(expected.map_or(0, |revision| revision.0) + 1);
        let seen = Seen { revision, record: *record };
        self.replace(&file_name(group), encode(group, &seen).as_bytes())?;
        self.records.insert(group, seen);
        Ok(Swapped::Won(revision))
    }

    /// At most `limit` groups behind `after`, by their numbers; and whether there are more.
    ///
    /// # Errors
    /// [`RegisterError::Poisoned`], [`RegisterError::Moved`].
    pub fn page(&self, after: Option<GroupId>, limit: usize) -> Result<(Vec<(GroupId, Seen)>, bool), RegisterError> {
        self.check()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.records.range((from, Bound::Unbounded)).map(|(group, seen)| (*group, *seen));
        let page = rest.by_ref().take(limit).collect();
        Ok((page, rest.next().is_some()))
    }

    /// Whether what is known is what is there: the directory at the path is still the one that is held.
    fn check(&self) -> Result<(), RegisterError> {
        if self.is_poisoned {
            return Err(RegisterError::Poisoned { path: self.path.clone() });
        }
        let held = self.directory.metadata().map_err(RegisterError::system("look at", &self.path))?;
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(RegisterError::Moved { path: self.path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(RegisterError::Moved { path: self.path.clone() }),
            Err(error) => Err(RegisterError::system("look at", &self.path)(error)),
        }
    }

    /// Reads all records, and tells the names of files that are of no use. A record that is damaged stops the register: to leave
    /// it out would tell that the group is not there.
    fn load(&mut self) -> Result<Vec<String>, RegisterError> {
        let failed = || RegisterError::system("read", &self.path);
        let (mut records, mut left_over) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix("group-") else { continue };
            if rest.ends_with(".new") {
                left_over.push(name);
                continue;
            }
            let damaged = |reason: String| RegisterError::Damaged { path: path.clone(), reason };
            let group = rest.parse().ok().map(GroupId).filter(|group| file_name(*group) == name);
            let group = group.ok_or_else(|| damaged("its name is no group's".to_owned()))?;
            let bytes = replaced_files::read(&self.directory, &name, FILE_BYTES_MAX)
                .map_err(RegisterError::system("read", &path))?;
            records.insert(group, decode(group, &bytes).map_err(damaged)?);
            if records.len() > GROUPS_MAX {
                return Err(RegisterError::Full { path: self.path.clone() });
            }
        }
        self.records = records;
        Ok(left_over)
    }

    /// Sees to it that the directory may be this machine's, and changes nothing. What it says of its machine now.
    fn may_claim(&self, options: RegisterOptions) -> Result<Option<String>, RegisterError> {
        let path = self.path.join("machine");
        let ours = Machine::this();
        let kind = shared_kind(&self.directory).map_err(RegisterError::system("look at", &self.path))?;
        let theirs = match replaced_files::read(&self.directory, "machine", FILE_BYTES_MAX) {
            // What is too long or no text names no machine.
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(RegisterError::system("read", &path)(error)),
        };
        if !options.confirms_single_witness {
            if let Some(kind) = kind {
                return Err(RegisterError::Shared { path: self.path.clone(), kind });
            }
            if !ours.is(&ours) {
                return Err(RegisterError::Nameless { path: self.path.clone() });
            }
            if let Some(text) = &theirs {
                self.compare(&path, text, &ours)?;
            }
        }
        Ok(theirs)
    }

    /// Makes the directory this machine's.
    fn claim(&mut self, theirs: &Option<String>, options: RegisterOptions) -> Result<(), RegisterError> {
        if theirs.is_none() && !self.records.is_empty() && !options.confirms_single_witness {
            let path = self.path.join("machine");
            return Err(RegisterError::Damaged { path, reason: "it is missing".to_owned() });
        }
        let ours = Machine::this().to_string();
        if theirs.as_ref() != Some(&ours) {
            self.replace("machine", ours.as_bytes())?;
        }
        Ok(())
    }

    fn compare(&self, path: &Path, text: &str, ours: &Machine) -> Result<(), RegisterError> {
        let Some(theirs) = Machine::parse(text) else {
            return Err(RegisterError::Damaged { path: path.to_owned(), reason: "it names no machine".to_owned() });
        };
        if theirs.is(ours) {
            return Ok(());
        }
        let shown = |machine: &Machine| machine.to_string().lines().skip(1).collect::<Vec<_>>().join(", ");
        Err(RegisterError::OtherMachine { path: self.path.clone(), theirs: shown(&theirs), ours: shown(ours) })
    }

    /// Replaces a file as a whole, durably. Up to the move a failure leaves everything as it was.
    fn replace(&mut self, name: &str, content: &[u8]) -> Result<(), RegisterError> {
        replaced_files::replace(&self.directory, name, content).map_err(|error| match error {
            ReplaceError::Write(error) => RegisterError::system("write", &self.path.join(new_name(name)))(error),
            ReplaceError::Unsure(error) => {
                let path = self.path.join(name).display().to_string();
                tracing::error!(path, %error, "the register cannot make a change durable, and answers nothing until it is started anew");
                self.is_poisoned = true;
                RegisterError::Poisoned { path: self.path.clone() }
            }
        })?;
        // Moved away meanwhile, another process may serve another one by now.
        self.check().inspect_err(|_| self.is_poisoned = true)
    }
}

fn lock(path: &Path, directory: &File) -> Result<(), RegisterError> {
    match directory.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(RegisterError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(RegisterError::system("lock", path)(error)),
    }
}

fn file_name(group: GroupId) -> String {
    format!("group-{group}")
}

fn encode(group: GroupId, seen: &Seen) -> String {
    let record = seen.record.encode();
    let checksum = checksum(group, seen.revision, &record);
    let mut text = format!("{HEAD}\ngroup {group}\nrevision {}\n", seen.revision.0);
    // Writing to a String cannot fail.
    let _ = write!(text, "checksum {checksum:08x}\n{record}");
    text
}

/// Reads what [`encode`] writes, and nothing else.
fn decode(group: GroupId, bytes: &[u8]) -> Result<Seen, String> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let parts: Vec<&str> = text.splitn(5, '\n').collect();
    let [HEAD, _, revision, _, record] = parts.as_slice() else {
        return Err(format!("it does not begin with {HEAD:?} and three more lines"));
    };
    let revision = revision.strip_prefix("revision ").and_then(|text| text.parse().ok());
    let revision = revision.filter(|revision| (1..=REVISION_MAX).contains(revision)).map(Revision);
    let revision = revision.ok_or("it has no revision, or one that no register comes to")?;
    let decoded = Record::decode(record.as_bytes()).map_err(|error: RecordError| error.to_string())?;
    let seen = Seen { revision, record: decoded };
    if encode(group, &seen).as_bytes() != bytes {
        return Err("its checksum is another, or it is another group's".to_owned());
    }
    Ok(seen)
}

fn checksum(group: GroupId, revision: Revision, record: &str) -> u32 {
    crc_fast::crc32_iscsi(format!("{group} {}\n{record}", revision.0).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::{Epoch, SiteId};

    fn record(epoch: u64) -> Record {
        Record { epoch: Epoch(epoch), primary: SiteId(1), partner: None, is_sole: false, lineage: 1, fork: None }
    }

    fn open(path: &Path) -> Result<Register, RegisterError> {
        Register::open(path, RegisterOptions::default())
    }

    fn seen(revision: u64, epoch: u64) -> Seen {
        Seen { revision: Revision(revision), record: record(epoch) }
    }

    /// P4. Of two changes at one revision one wins, and what was answered is there when the register is opened again.
    #[test]
    fn a_change_names_what_it_replaces_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut register = open(folder.path()).unwrap();
        let group = GroupId(7);
        assert_eq!(register.read(group).unwrap(), None);
        let at = |revision| Some(Revision(revision));
        assert_eq!(register.swap(group, at(1), &record(1)).unwrap(), Swapped::Lost(None));
        assert_eq!(register.swap(group, None, &record(1)).unwrap(), Swapped::Won(Revision(1)));
        assert_eq!(register.swap(group, None, &record(2)).unwrap(), Swapped::Lost(Some(seen(1, 1))));
        assert_eq!(register.swap(group, at(1), &record(2)).unwrap(), Swapped::Won(Revision(2)));
        assert_eq!(register.swap(group, at(1), &record(3)).unwrap(), Swapped::Lost(Some(seen(2, 2))));
        drop(register);
        let register = open(folder.path()).unwrap();
        assert_eq!(register.read(group).unwrap(), Some(seen(2, 2)));
    }

    /// P4. A page is bounded, and says whether there are more.
    #[test]
    fn groups_are_listed_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let mut register = open(folder.path()).unwrap();
        for group in [3, 1, 10] {
            register.swap(GroupId(group), None, &record(group)).unwrap();
        }
        let (page, has_more) = register.page(None, 2).unwrap();
        assert_eq!((page, has_more), (vec![(GroupId(1), seen(1, 1)), (GroupId(3), seen(1, 3))], true));
        let (page, has_more) = register.page(Some(GroupId(3)), 2).unwrap();
        assert_eq!((page, has_more), (vec![(GroupId(10), seen(1, 10))], false));
    }

    /// P4. A register has one server.
    #[test]
    fn a_second_opener_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let register = open(folder.path()).unwrap();
        assert!(matches!(open(folder.path()), Err(RegisterError::InUse { .. })));
        drop(register);
        open(folder.path()).unwrap();
    }

    /// P4. The lock cannot be taken away from its holder, and a directory that was moved away ends all answers: else there would be
    /// two holders, or one would write into what is another's.
    #[test]
    fn a_directory_that_was_moved_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let mut old = open(&path).unwrap();
        old.swap(GroupId(1), None, &record(1)).unwrap();
        assert!(!path.join("lock").exists());
        fs::rename(&path, folder.path().join("old")).unwrap();
        assert!(matches!(old.read(GroupId(1)), Err(RegisterError::Moved { .. })));
        let mut new = open(&path).unwrap();
        assert_eq!(new.swap(GroupId(1), None, &record(2)).unwrap(), Swapped::Won(Revision(1)));
        let error = old.swap(GroupId(1), Some(Revision(1)), &record(3)).unwrap_err();
        assert!(matches!(error, RegisterError::Moved { .. }), "{error}");
        drop(new);
        assert_eq!(open(&path).unwrap().read(GroupId(1)).unwrap(), Some(seen(1, 2)));
        // Moved back it is not believed again.
        fs::rename(&path, folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("old"), &path).unwrap();
        assert!(matches!(old.read(GroupId(1)), Err(RegisterError::Poisoned { .. })));
        drop(old);
        assert_eq!(open(&path).unwrap().read(GroupId(1)).unwrap(), Some(seen(1, 1)));
    }

    /// P4. Who is refused a directory has changed nothing in it.
    #[test]
    fn a_directory_that_is_refused_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().swap(GroupId(1), None, &record(1)).unwrap();
        let (machine, new) = (folder.path().join("machine"), folder.path().join("group-1.new"));
        let ours = fs::read(&machine).unwrap();
        fs::write(&new, "being written").unwrap();
        fs::write(&machine, "aljibe-machine 1\nmachine-id 0123456789abcdef\nboard unknown\n").unwrap();
        assert!(matches!(open(folder.path()), Err(RegisterError::OtherMachine { .. })));
        fs::remove_file(&machine).unwrap();
        assert!(matches!(open(folder.path()), Err(RegisterError::Damaged { .. })));
        assert!(new.exists() && !machine.exists());
        fs::write(&machine, ours).unwrap();
        open(folder.path()).unwrap();
        assert!(!new.exists());
    }

    /// P8. What was written into the files of a register by hand is refused, however long it is and however far it counts.
    #[test]
    fn what_no_register_writes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let group = folder.path().join("group-1");
        for (revision, is_read) in [(REVISION_MAX, true), (REVISION_MAX + 1, false), (u64::MAX, false)] {
            fs::write(&group, encode(GroupId(1), &seen(revision, 1))).unwrap();
            assert_eq!(open(folder.path()).is_ok(), is_read, "{revision}");
        }
        fs::remove_file(&group).unwrap();
        // A sparse file, longer than any memory.
        let machine = File::create(folder.path().join("machine")).unwrap();
        machine.set_len(1 << 42).unwrap();
        assert!(matches!(open(folder.path()), Err(RegisterError::Damaged { .. })));
    }

    /// P4. A register of another machine is refused with what to do, unless an operator confirms that it is the only one;
    /// then it is this machine's.
    #[test]
    fn a_register_of_another_machine_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().swap(GroupId(1), None, &record(1)).unwrap();
        let machine = folder.path().join("machine");
        let ours = fs::read_to_string(&machine).unwrap();
        fs::write(&machine, "aljibe-machine 1\nmachine-id 0123456789abcdef0123456789abcdef\nboard unknown\n").unwrap();
        let told = open(folder.path()).unwrap_err().to_string();
        for part in ["another machine", "0123456789abcdef", "use etcd", "confirm"] {
            assert!(told.contains(part), "{told}");
        }
        let confirmed = RegisterOptions { confirms_single_witness: true };
        let register = Register::open(folder.path(), confirmed).unwrap();
        assert_eq!(register.read(GroupId(1)).unwrap(), Some(seen(1, 1)));
        drop(register);
        assert_eq!(fs::read_to_string(&machine).unwrap(), ours);
        open(folder.path()).unwrap();
        // What says nothing of a machine is not taken for this one's.
        for text in ["", "aljibe-machine 1\nmachine-id unknown\nboard unknown\n"] {
            fs::write(&machine, text).unwrap();
            open(folder.path()).unwrap_err();
        }
        fs::remove_file(&machine).unwrap();
        assert!(matches!(open(folder.path()), Err(RegisterError::Damaged { .. })));
    }

    /// P4. A file that is torn, changed in any bit or another group's stops the register: a group that is left out would be
    /// told not to be there.
    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().swap(GroupId(1), None, &record(1)).unwrap();
        let path = folder.path().join("group-1");
        let whole = fs::read(&path).unwrap();
        let refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let error = open(folder.path()).unwrap_err();
            assert!(matches!(error, RegisterError::Damaged { .. }), "{error}");
        };
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            refused(&flipped);
        }
        refused(&[whole.as_slice(), b"\n"].concat());
        refused(&vec![b'x'; 1 << 20]);
        fs::write(&path, &whole).unwrap();
        fs::copy(&path, folder.path().join("group-2")).unwrap();
        open(folder.path()).unwrap_err();
        fs::rename(folder.path().join("group-2"), folder.path().join("group-02")).unwrap();
        open(folder.path()).unwrap_err();
        fs::remove_file(folder.path().join("group-02")).unwrap();
        // What was being written when the process died is of no use and no harm.
        fs::write(folder.path().join("group-1.new"), b"torn").unwrap();
        assert_eq!(open(folder.path()).unwrap().read(GroupId(1)).unwrap(), Some(seen(1, 1)));
        assert!(!folder.path().join("group-1.new").exists());
    }

    /// P4, P6. While nothing can be written changes fail and leave everything as it was; a move of which nobody knows what became
    /// ends all answers.
    #[test]
    fn a_change_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut register = open(folder.path()).unwrap();
        let group = GroupId(1);
        register.swap(group, None, &record(1)).unwrap();
        let new = folder.path().join("group-1.new");
        fs::create_dir(&new).unwrap();
        let error = register.swap(group, Some(Revision(1)), &record(2)).unwrap_err();
        assert!(matches!(error, RegisterError::System { .. }), "{error}");
        assert_eq!(register.read(group).unwrap(), Some(seen(1, 1)));
        fs::remove_dir(&new).unwrap();
        assert_eq!(register.swap(group, Some(Revision(1)), &record(2)).unwrap(), Swapped::Won(Revision(2)));
        fs::remove_file(folder.path().join("group-1")).unwrap();
        fs::create_dir(folder.path().join("group-1")).unwrap();
        register.swap(group, Some(Revision(2)), &record(3)).unwrap_err();
        assert!(matches!(register.read(group), Err(RegisterError::Poisoned { .. })));
        assert!(matches!(register.page(None, 1), Err(RegisterError::Poisoned { .. })));
        assert!(matches!(register.swap(group, None, &record(3)), Err(RegisterError::Poisoned { .. })));
    }

    proptest! {
        /// P4. What is written is read, for its own group only.
        #[test]
        fn what_is_written_is_read(group: u64, revision in 1..=REVISION_MAX, epoch in 1..=replication::EPOCH_MAX.0) {
            let text = encode(GroupId(group), &seen(revision, epoch));
            prop_assert!(text.len() <= FILE_BYTES_MAX);
            prop_assert_eq!(decode(GroupId(group), text.as_bytes()), Ok(seen(revision, epoch)));
            prop_assert!(decode(GroupId(group ^ 1), text.as_bytes()).is_err());
        }

        /// P4. Bytes of any kind do no harm.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(GroupId(1), &bytes).is_err());
        }
    }
}
