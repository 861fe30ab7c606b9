//! What an image file names, found out before a tool opens it: a tool opens what is named to describe it, and to open a
//! device is to do something.
//!
//! Spec: QEMU's docs/interop/qcow2.txt, "Header"; VMware's "Virtual Disk Format 5.0". What these formats can name and QEMU
//! tells is refused by what it tells, too.

use super::{ReadFormat, refused, unreadable};
use crate::failure::Failure;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
const QCOW2_BACKING_OFFSET: usize = 8;
const QCOW2_BACKING_LEN: usize = 16;
const QCOW2_INCOMPATIBLE: usize = 72;
/// The data is in another file.
const QCOW2_DATA_FILE: u64 = 1 << 2;
/// Longest name of a backing file.
const QCOW2_NAME_BYTES_MAX: u32 = 1023;

const VMDK_MAGIC: &[u8] = b"KDMV";
const VMDK_CAPACITY: usize = 12;
const VMDK_DESCRIPTOR_SECTOR: usize = 28;
const VMDK_SECTOR_BYTES: u64 = 512;

/// Bytes of a header that are looked at.
const HEADER_BYTES: u64 = 512;

/// Most bytes of a VMDK's descriptor that QEMU reads.
const DESCRIPTOR_BYTES_MAX: u64 = 1 << 20;

/// Refuses an image that names files which do not lie beside it.
pub(super) fn check_alone(path: &Path, format: Option<ReadFormat>) -> Result<(), Failure> {
    let unreadable = |error: io::Error| unreadable(path, &error);
    let mut file = File::open(path).map_err(unreadable)?;
    let header = read_at(&mut file, 0, HEADER_BYTES).map_err(unreadable)?;
    if format == Some(ReadFormat::Raw) {
        return Ok(());
    }
    if header.starts_with(QCOW2_MAGIC) {
        return check_qcow2(path, &header, &mut file);
    }
    let descriptor_at = if header.starts_with(VMDK_MAGIC) {
        // A capacity of nothing says that the descriptor tells where the data is.
        if little_endian(&header, VMDK_CAPACITY) != Some(0) {
            return Ok(());
        }
        little_endian(&header, VMDK_DESCRIPTOR_SECTOR).unwrap_or(0).saturating_mul(VMDK_SECTOR_BYTES)
    } else if format == Some(ReadFormat::Vmdk) || header.windows(8).any(|text| text == b"version=") {
        0
    } else {
        return Ok(());
    };
    let descriptor = read_at(&mut file, descriptor_at, DESCRIPTOR_BYTES_MAX).map_err(unreadable)?;
    check_extents(path, &String::from_utf8_lossy(&descriptor))
}

fn check_qcow2(path: &Path, header: &[u8], file: &mut File) -> Result<(), Failure> {
    let field = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    if let Some(at) = field(QCOW2_BACKING_OFFSET).filter(|at| *at != 0) {
        let len = header.get(QCOW2_BACKING_LEN..).and_then(<[u8]>::first_chunk).map(|len| u32::from_be_bytes(*len));
        let len = len.unwrap_or(0).min(QCOW2_NAME_BYTES_MAX);
        let name = read_at(file, at, len.into()).map_err(|error| unreadable(path, &error))?;
        return Err(refused(path, &format!("is only what differs from {:?}", String::from_utf8_lossy(&name))));
    }
    // Version 2 ends before this field.
    let is_version_2 = header.get(4..8) == Some(&2_u32.to_be_bytes());
    if !is_version_2 && field(QCOW2_INCOMPATIBLE).is_some_and(|bits| bits & QCOW2_DATA_FILE != 0) {
        return Err(refused(path, "has its data in another file"));
    }
    Ok(())
}

/// Bytes of an extent's name that QEMU takes; it cuts a longer one off, and would open another file.
const EXTENT_NAME_BYTES_MAX: usize = 511;

/// Every extent is a file beside the descriptor that has no descriptor of its own.
fn check_extents(path: &Path, descriptor: &str) -> Result<(), Failure> {
    for name in extent_names(descriptor) {
        let elsewhere = || refused(path, &format!("has a part elsewhere, in {name:?}"));
        let extent = path.parent().unwrap_or_else(|| Path::new("/")).join(name);
        let extent = std::fs::canonicalize(extent).map_err(|_| elsewhere())?;
        let is_beside = extent.parent() == path.parent() && extent.is_file();
        if !is_beside || name.len() > EXTENT_NAME_BYTES_MAX {
            return Err(elsewhere());
        }
        let header = File::open(&extent).and_then(|mut file| read_at(&mut file, 0, HEADER_BYTES));
        let header = header.map_err(|error| unreadable(&extent, &error))?;
        if header.starts_with(VMDK_MAGIC) && little_endian(&header, VMDK_CAPACITY) == Some(0) {
            return Err(refused(path, &format!("has a part that names further files, {name:?}")));
        }
    }
    Ok(())
}

/// What stands in quotes behind the type of an extent, as in `RW 4192256 FLAT "disk-flat.vmdk" 0`: more than QEMU takes
/// for extents, never less.
fn extent_names(descriptor: &str) -> impl Iterator<Item = &str> {
    let mut rest = descriptor;
    std::iter::from_fn(move || {
        loop {
            let (before, quoted) = rest.split_once('"')?;
            let is_extent = ["FLAT", "SPARSE", "VMFS", "ZERO"].iter().any(|kind| before.trim_end().ends_with(kind));
            rest = quoted;
            if is_extent {
                return quoted.split(['"', '\r', '\n']).next();
            }
        }
    })
}

fn little_endian(header: &[u8], at: usize) -> Option<u64> {
    header.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn read_at(file: &mut File, at: u64, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at.min(i64::MAX.unsigned_abs())))?;
    file.take(len_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// P2. Whatever form an extent's line takes, its file is looked at.
    #[test]
    fn every_extent_is_found() {
        let names = |text| extent_names(text).collect::<Vec<_>>();
        let text = "# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"a b.vmdk\" 0\n \
                    RW\t8\tSPARSE\t\"/etc/shadow\nRW 8 VMFSSPARSE\n\"c\"\nddb.adapterType = \"ide\"\nRW 8 FLAT\"d\"";
        assert_eq!(names(text), ["a b.vmdk", "/etc/shadow", "c", "d"]);
        assert_eq!(names("RW 8 FLAT"), Vec::<&str>::new());
        assert_eq!(names("RW 8 FLAT \""), [""]);
    }

    /// A file of QEMU's or VMware's that names something is refused by its own bytes, before anything is opened.
    #[test]
    fn a_header_that_names_another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        let refusal = |bytes: &[u8], format| {
            let path = folder.join("image");
            fs::write(&path, bytes).unwrap();
            check_alone(&path, format).err().map(|failure| failure.detail)
        };
        let qcow2 = |version: u8, backing: u8, features: u8| {
            let mut header = vec![0; 112];
            header[..4].copy_from_slice(QCOW2_MAGIC);
            (header[7], header[15], header[19], header[79]) = (version, backing, 11, features);
            header.extend_from_slice(b"/etc/shadow");
            header
        };
        assert_eq!(refusal(&qcow2(3, 0, 1), None), None);
        assert_eq!(refusal(&qcow2(2, 0, 4), None), None);
        assert!(refusal(&qcow2(3, 0, 4), None).unwrap().contains("has its data in"));
        assert!(refusal(&qcow2(2, 112, 0), None).unwrap().contains("differs from \"/etc/shadow\""));
        assert_eq!(refusal(&qcow2(3, 112, 4), Some(ReadFormat::Raw)), None, "bytes of a disk name nothing");
        assert_eq!(refusal(b"QFI\xfb\0\0\0\x03", None), None);

        let text = |extent: &str| format!("# Disk DescriptorFile\nversion=1\nRW 8 FLAT \"{extent}\" 0\n");
        fs::write(folder.join("flat"), [0; 4096]).unwrap();
        fs::create_dir(folder.join("below")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.join("device")).unwrap();
        assert_eq!(refusal(text("flat").as_bytes(), None), None);
        for elsewhere in ["/dev/zero", "../flat", "below", "missing", "device", "json:{}"] {
            assert!(refusal(text(elsewhere).as_bytes(), None).unwrap().contains(elsewhere));
            assert!(refusal(text(elsewhere).as_bytes(), Some(ReadFormat::Vmdk)).unwrap().contains(elsewhere));
        }
        // A binary header whose descriptor tells all, and a part with such a header.
        let mut embedded = vec![0; 512];
        embedded[..4].copy_from_slice(VMDK_MAGIC);
        embedded[VMDK_DESCRIPTOR_SECTOR] = 1;
        embedded.extend_from_slice(text("/dev/zero").as_bytes());
        assert!(refusal(&embedded, None).unwrap().contains("/dev/zero"));
        fs::write(folder.join("part"), &embedded).unwrap();
        assert!(refusal(text("part").as_bytes(), None).unwrap().contains("further files"));
        embedded[VMDK_CAPACITY] = 8;
        assert_eq!(refusal(&embedded, None), None, "its own data is what counts");
    }
}
