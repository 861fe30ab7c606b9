//! A pool served without clients: made, stopped, started again, and started from what a crash would have left.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

use blockd::catalogue::{Catalogue, CatalogueError, Entry, MeterConfig, SnapshotName};
use blockd::listener::{Client, Entrance, Exports};
use blockd::open::{OpenError, OpenPool, PoolConfig, PoolFile, PoolShape, open_for_check, rebuild_index};
use blockd::shard::{Message, ShardHandle};
use blockd::store::RocksStore;
use blockd::{Limits, Serving, ServingConfig};
use proto::nbd::Refusal;
use smallvec::smallvec;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::oneshot;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, Epoch, Lsn, SegmentId, SlotIndex, SnapshotId, VolumeId};
use volume::buffer::Buffer;
use volume::check::{CheckOptions, check};
use volume::error::Error;
use volume::format::{SlotHeader, SlotUse, Superblock};
use volume::pool::Index;
use volume::request::{Completion, Request};

const SLOT_BYTES: u64 = 1 << 20;

fn config(folder: &Path) -> PoolConfig {
    PoolConfig {
        pool: folder.join("pool"),
        index: folder.join("index"),
        shape: PoolShape { pool_bytes: Some(64 << 20), slot_bytes: SLOT_BYTES },
        is_written_whole: false,
    }
}

async fn try_start(folder: &Path) -> Result<Serving, OpenError> {
    let pool = OpenPool::open_or_make(&config(folder))?;
    let how = ServingConfig {
        shard_count: 2,
        is_direct: false,
        map_cache_bytes: 16 << 20,
        scrub_bytes_per_second: 1 << 30,
        limits: Limits::default(),
        meter: MeterConfig::default(),
        mirror: None,
    };
    Serving::start(pool, how).await
}

async fn start(folder: &Path) -> Serving {
    try_start(folder).await.unwrap()
}

fn client() -> Client {
    Client {
        peer: "test".to_owned(),
        entrance: Entrance::Socket { is_own_user: true },
        is_tls: false,
        certificate: None,
    }
}

fn names(serving: &Serving) -> Vec<String> {
    serving.catalogue().list().into_iter().map(|entry| entry.name).collect()
}

async fn submit(catalogue: &Catalogue, name: &str, request: Request) -> Result<Completion, Error> {
    let found = catalogue.find(name, &client()).unwrap();
    let (done, answer) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    found.shard.send(Message::Submit { volume: found.volume, request, done }).unwrap();
    answer.await.unwrap()
}

async fn write(serving: &Serving, name: &str, block: u64, fill: u8) {
    let range = ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES).unwrap();
    let payload = smallvec![Buffer::copy_of(&[fill; BLOCK_LEN])];
    submit(&serving.catalogue(), name, Request::Write { range, payload, fua: true }).await.unwrap();
}

async fn read(serving: &Serving, name: &str, block: u64) -> u8 {
    let range = ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES).unwrap();
    let answer = submit(&serving.catalogue(), name, Request::Read { range }).await.unwrap();
    let Completion::Read { buffer, skip, len } = answer else { panic!("a read is answered with bytes") };
    let bytes = &buffer.as_slice()[skip..skip + len];
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

/// What a power cut now would leave, as every write here has been made durable.
fn crash_image(folder: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(folder.join(".")).arg(image.path()).status().unwrap();
    assert!(copied.success());
    image
}

/// The slots that hold a segment of `volume`, by the pool alone.
fn slots_of(folder: &Path, volume: VolumeId) -> Vec<u64> {
    let pool = File::open(folder.join("pool")).unwrap();
    let mut block = vec![0; BLOCK_LEN];
    pool.read_exact_at(&mut block, 0).unwrap();
    let geometry = Superblock::decode(&block).unwrap().geometry;
    let offsets = (0..geometry.slot_count).map(|slot| geometry.slot_offset(SlotIndex(slot)));
    let holds = |offset: &u64| {
        pool.read_exact_at(&mut block, *offset).unwrap();
        SlotHeader::decode(&block).is_ok_and(|h| h.volume == volume && h.slot_use == SlotUse::Segment)
    };
    offsets.filter(holds).collect()
}

/// P1, P5. Volumes, sizes and data are there after a stop; what was deleted is not, and its id is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    let first = catalogue.create("first", 1 << 30).await.unwrap();
    catalogue.create("second", 1 << 50).await.unwrap();
    let third = catalogue.create("third", 1 << 20).await.unwrap();
    assert!(
        matches!(catalogue.create("first", 512).await, Err(CatalogueError::Exists { size_bytes, .. }) if size_bytes == 1 << 30)
    );
    write(&serving, "first", 7, 0xa1).await;
    write(&serving, "second", 1 << 30, 0xb2).await;
    catalogue.resize("first", 2 << 30, false).await.unwrap();
    catalogue.delete("third", false).await.unwrap();
    serving.stop().await.unwrap();

    let serving = start(folder.path()).await;
    assert_eq!(names(&serving), ["first", "second"]);
    let catalogue = serving.catalogue();
    let found = catalogue.show("first").unwrap();
    assert_eq!((found.size_bytes, found.created_ms, found.volume), (2 << 30, first.created_ms, first.volume));
    assert_eq!(read(&serving, "first", 7).await, 0xa1);
    assert_eq!(read(&serving, "first", 8).await, 0);
    assert_eq!(read(&serving, "second", 1 << 30).await, 0xb2);
    let fourth = catalogue.create("third", 1 << 20).await.unwrap();
    assert!(fourth.volume > third.volume);
    serving.stop().await.unwrap();
}

/// P1. The same from what a power cut leaves, with the index and without.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_there_after_a_crash_and_without_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    serving.catalogue().create("one", 1 << 30).await.unwrap();
    serving.catalogue().create("two", 1 << 30).await.unwrap();
    for block in 0..400 {
        write(&serving, "one", block % 300, u8::try_from(block % 251).unwrap()).await;
    }
    write(&serving, "two", 5, 0x22).await;
    serving.catalogue().resize("two", 3 << 30, false).await.unwrap();
    let image = crash_image(folder.path());
    serving.stop().await.unwrap();
    for has_index in [true, false] {
        if !has_index {
            fs::remove_dir_all(image.path().join("index")).unwrap();
        }
        let serving = start(image.path()).await;
        assert_eq!(names(&serving), ["one", "two"]);
        assert_eq!(serving.catalogue().show("two").unwrap().size_bytes, 3 << 30);
        for block in [0, 99, 100, 299] {
            let last = if block < 100 { block + 300 } else { block };
            assert_eq!(read(&serving, "one", block).await, u8::try_from(last % 251).unwrap());
        }
        assert_eq!(read(&serving, "two", 5).await, 0x22);
        serving.stop().await.unwrap();
    }
}

/// P2, P6. A volume whose log is damaged where it was durable is listed and not served, nor are its snapshots; the others
/// are.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_volume_is_quarantined_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let victim = serving.catalogue().create("victim", 1 << 30).await.unwrap();
    serving.catalogue().create("bystander", 1 << 30).await.unwrap();
    for block in 0..8 {
        write(&serving, "victim", block, 1).await;
    }
    serving.catalogue().create_snapshots(&[monday("victim")], None).await.unwrap();
    write(&serving, "bystander", 0, 2).await;
    let image = crash_image(folder.path());
    serving.stop().await.unwrap();
    let slots = slots_of(image.path(), victim.volume);
    let pool = OpenOptions::new().write(true).open(image.path().join("pool")).unwrap();
    // The header of the first batch, which later batches show to have been durable.
    pool.write_all_at(&[0x5a; 64], slots[0] + BLOCK_BYTES + 8).unwrap();

    let serving = start(image.path()).await;
    let catalogue = serving.catalogue();
    assert_eq!(read(&serving, "bystander", 0).await, 2);
    assert_eq!(names(&serving), ["bystander", "victim"]);
    assert!(catalogue.show("victim").unwrap().damage.is_some());
    assert_eq!(catalogue.find("victim", &client()).unwrap_err(), Refusal::Unknown);
    assert_eq!(catalogue.find("victim@monday", &client()).unwrap_err(), Refusal::Unknown);
    assert!(catalogue.show_snapshot(&monday("victim")).unwrap().damage.is_some());
    assert!(matches!(catalogue.resize("victim", 2 << 30, false).await, Err(CatalogueError::Quarantined { .. })));
    catalogue.delete("victim", false).await.unwrap();
    serving.stop().await.unwrap();
    assert!(slots_of(image.path(), victim.volume).is_empty());
    let serving = start(image.path()).await;
    assert_eq!(names(&serving), ["bystander"]);
    serving.stop().await.unwrap();
}

/// Changes a byte of every place of the pool that holds `text`.
fn rot(folder: &Path, text: &[u8]) {
    let path = folder.join("pool");
    let bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!found.is_empty());
    let pool = OpenOptions::new().write(true).open(&path).unwrap();
    for at in found {
        pool.write_all_at(b"X", at as u64 + 9).unwrap();
    }
}

/// P2, P6. A rotten record of the catalogue costs one volume its name, and no other anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_record_sets_one_volume_aside() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    for name in ["first", "second", "third"] {
        serving.catalogue().create(name, 1 << 30).await.unwrap();
        write(&serving, name, 0, 7).await;
    }
    serving.catalogue().create_snapshots(&[monday("second")], None).await.unwrap();
    let name = format!("volume-{}", serving.catalogue().show("second").unwrap().volume);
    serving.stop().await.unwrap();
    rot(folder.path(), b"\"name\":\"second\"");
    let serving = start(folder.path()).await;
    assert_eq!(names(&serving), ["first", "third", name.as_str()]);
    let catalogue = serving.catalogue();
    is_set_aside(&catalogue, &name).await;
    assert_eq!((read(&serving, "first", 0).await, read(&serving, "third", 0).await), (7, 7));
    catalogue.delete(&name, false).await.unwrap();
    serving.stop().await.unwrap();
    let serving = start(folder.path()).await;
    assert_eq!(names(&serving), ["first", "third"]);
    serving.stop().await.unwrap();
}

/// A volume shows as damaged, as do its snapshots, and neither is given to clients.
async fn is_set_aside(catalogue: &Catalogue, name: &str) {
    let reason = catalogue.show(name).unwrap().damage;
    assert!(reason.is_some());
    let snapshots = catalogue.list_snapshots(Some(name)).unwrap();
    assert_eq!(snapshots.iter().map(|entry| entry.damage.clone()).collect::<Vec<_>>(), [reason]);
    let is_there = |name: &str| catalogue.find(name, &client()).is_ok();
    assert!(!is_there(name) && !is_there(&format!("{name}@monday")));
    let cloned = catalogue.clone_snapshot(&monday(name), "clone").await;
    assert!(matches!(cloned, Err(CatalogueError::Quarantined { .. })), "{cloned:?}");
}

/// P1. A volume that may be deleted, as the record says so perhaps, is set aside: what was written to it since would go.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_deletion_may_be_recorded_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.create("first", 1 << 30).await.unwrap();
    catalogue.create("second", 1 << 30).await.unwrap();
    write(&serving, "first", 0, 7).await;
    catalogue.create_snapshots(&[monday("first")], None).await.unwrap();
    // The system volume goes.
    let shard = system_shard(&catalogue);
    let (done, closed) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    shard.send(Message::CloseVolume { volume: VolumeId::SYSTEM, done }).unwrap();
    closed.await.unwrap().unwrap();
    assert!(catalogue.delete("first", false).await.is_err());
    is_set_aside(&catalogue, "first").await;
    serving.stop().await.unwrap();
    let serving = start(folder.path()).await;
    assert_eq!((serving.catalogue().show("first").unwrap().damage, read(&serving, "first", 0).await), (None, 7));
    serving.stop().await.unwrap();
}

fn monday(volume: &str) -> SnapshotName {
    SnapshotName { volume: volume.to_owned(), snapshot: "monday".to_owned() }
}

async fn held_bytes(catalogue: &Catalogue, name: &str) -> u64 {
    // As the stored map has it.
    submit(catalogue, name, Request::Checkpoint).await.unwrap();
    catalogue.space(name).await.unwrap().snapshot_bytes.unwrap()
}

async fn wait_until_held(catalogue: &Catalogue, name: &str, bytes: u64) {
    for _ in 0..1000 {
        if held_bytes(catalogue, name).await == bytes {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} bytes are held instead of {bytes}", held_bytes(catalogue, name).await);
}

/// P1. A snapshot that nobody was told of, since a kill came before its record, is given up at the next start, and no
/// other with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_without_a_record_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.create("vm", 1 << 30).await.unwrap();
    write(&serving, "vm", 0, 1).await;
    catalogue.create_snapshots(&[monday("vm")], None).await.unwrap();
    for (block, fill) in [(0, 2), (1, 2)] {
        write(&serving, "vm", block, fill).await;
    }
    submit(&catalogue, "vm", Request::Snapshot { id: SnapshotId(99) }).await.unwrap();
    for (block, fill) in [(0, 3), (1, 3)] {
        write(&serving, "vm", block, fill).await;
    }
    assert_eq!(held_bytes(&catalogue, "vm").await, 3 * BLOCK_BYTES);
    let image = crash_image(folder.path());
    serving.stop().await.unwrap();
    for folder in [folder.path(), image.path()] {
        let serving = start(folder).await;
        let catalogue = serving.catalogue();
        wait_until_held(&catalogue, "vm", BLOCK_BYTES).await;
        assert_eq!(catalogue.list_snapshots(None).unwrap().len(), 1);
        let clone = catalogue.clone_snapshot(&monday("vm"), "clone").await.unwrap();
        assert_eq!(
            (clone.size_bytes, read(&serving, "clone", 0).await, read(&serving, "clone", 1).await),
            (1 << 30, 1, 0)
        );
        serving.stop().await.unwrap();
    }
}

/// P1. While a record cannot be read, which may be that of a clone, no snapshot is deleted that it may need.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_that_a_rotten_record_may_need() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    for name in ["vm", "other"] {
        catalogue.create(name, 1 << 30).await.unwrap();
        write(&serving, name, 0, 1).await;
    }
    catalogue.create_snapshots(&[monday("vm")], None).await.unwrap();
    let rotten = catalogue.clone_snapshot(&monday("vm"), "rotten").await.unwrap();
    let name = format!("volume-{}", rotten.volume);
    write(&serving, "vm", 0, 2).await;
    assert!(
        matches!(catalogue.delete_snapshot(&monday("vm")).await, Err(CatalogueError::HasClones { clones, .. }) if clones == ["rotten"])
    );
    serving.stop().await.unwrap();
    rot(folder.path(), b"\"name\":\"rotten\"");

    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    assert_eq!(names(&serving), ["other", "vm", name.as_str()]);
    assert_eq!(catalogue.delete_snapshot(&monday("vm")).await, Err(CatalogueError::Unsure));
    assert_eq!(catalogue.delete("vm", false).await, Err(CatalogueError::Unsure));
    catalogue.delete("other", false).await.unwrap();
    assert_eq!(held_bytes(&catalogue, "vm").await, BLOCK_BYTES);
    // What is known to be unreadable may be given up; from the next start on everything is known again.
    catalogue.delete(&name, false).await.unwrap();
    serving.stop().await.unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.delete_snapshot(&monday("vm")).await.unwrap();
    wait_until_held(&catalogue, "vm", 0).await;
    serving.stop().await.unwrap();
}

/// The shard of the system volume: the first one, which has some volume too.
fn system_shard(catalogue: &Catalogue) -> ShardHandle {
    let first = catalogue.list().into_iter().find(|entry| entry.shard == 0).unwrap();
    catalogue.find(&first.name, &client()).unwrap().shard
}

/// Changes the record of `volume` behind the catalogue's back.
async fn forge_state(catalogue: &Catalogue, volume: &Entry, state: &str) {
    let shard = system_shard(catalogue);
    let ask = async |request| {
        let (done, answer) = oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        shard.send(Message::Submit { volume: VolumeId::SYSTEM, request, done }).unwrap();
        answer.await.unwrap().unwrap()
    };
    let range = ByteRange::new(volume.volume.0 * BLOCK_BYTES, BLOCK_BYTES).unwrap();
    let Completion::Read { buffer, skip, .. } = ask(Request::Read { range }).await else { panic!("no bytes") };
    let text = String::from_utf8(buffer.as_slice()[skip + 16..].to_vec()).unwrap();
    let text = text.trim_end_matches('\0').replace("\"live\"", &format!("\"{state}\""));
    let mut block = b"ALJCAT\0\0".to_vec();
    block.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    block.extend_from_slice(&crc_fast::crc32_iscsi(text.as_bytes()).to_le_bytes());
    block.extend_from_slice(text.as_bytes());
    block.resize(BLOCK_LEN, 0);
    ask(Request::Write { range, payload: smallvec![Buffer::copy_of(&block)], fua: true }).await;
}

fn is_clean(index: &Index<RocksStore>, file: &PoolFile) -> bool {
    check(index, file, CheckOptions { verify_data: true }).is_clean()
}

/// P2. What the index has begun to erase is not opened, whatever its record says: that may be one which was to give a clone of
/// a moment its name, and was written in spite of an error. It can be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_has_begun_to_erase_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let half = serving.catalogue().create("half", 1 << 30).await.unwrap();
    write(&serving, "half", 0, 3).await;
    serving.stop().await.unwrap();
    let (file, mut opened) = open_for_check(&folder.path().join("pool"), &folder.path().join("index")).unwrap();
    opened.note_erasing(half.volume).unwrap();
    opened.into_store().close().unwrap();
    drop(file);
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    assert!(catalogue.volume_stats(half.volume).await.unwrap().is_none(), "it is open");
    catalogue.delete("half", false).await.unwrap();
    assert_eq!(slots_of(folder.path(), half.volume), [] as [u64; 0]);
    serving.stop().await.unwrap();
}

/// P1. A kill in the midst of the erasing of a volume leaves nothing that is called damage: not by a check, not by a rebuild,
/// and the next start goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_erased_volume_is_no_damage() {
    for state in ["ghost", "deleting"] {
        let folder = tempfile::tempdir().unwrap();
        let serving = start(folder.path()).await;
        let catalogue = serving.catalogue();
        catalogue.create("kept", 1 << 30).await.unwrap();
        let gone = catalogue.create("gone", 1 << 30).await.unwrap();
        for block in 0..600 {
            write(&serving, "gone", block, 3).await;
        }
        write(&serving, "kept", 0, 9).await;
        forge_state(&catalogue, &gone, state).await;
        serving.stop().await.unwrap();

        let (pool, index) = (folder.path().join("pool"), folder.path().join("index"));
        let (file, mut opened) = open_for_check(&pool, &index).unwrap();
        let segments = opened.segments(gone.volume);
        assert!(segments.len() > 2 && is_clean(&opened, &file));
        for row in segments.iter().skip(1) {
            let mut header = vec![0; BLOCK_LEN];
            SlotHeader::void(file.superblock().pool, row.segment, row.volume, row.first_lsn).encode(&mut header);
            let writable = OpenOptions::new().write(true).open(&pool).unwrap();
            writable.write_all_at(&header, file.superblock().geometry.slot_offset(row.a_slot())).unwrap();
        }
        assert!(!is_clean(&opened, &file), "nothing says that it is being erased");
        opened.note_erasing(gone.volume).unwrap();
        assert!(is_clean(&opened, &file));
        opened.into_store().close().unwrap();
        drop(file);

        let image = crash_image(folder.path());
        let mut file = PoolFile::open(&image.path().join("pool")).unwrap();
        let (rebuilt, report) = rebuild_index(&image.path().join("index"), &mut file).unwrap();
        assert!(report.damaged.is_empty() && report.notes.is_empty(), "{report:?}");
        assert!(is_clean(&rebuilt, &file));
        rebuilt.into_store().close().unwrap();
        drop(file);
        for folder in [folder.path(), image.path()] {
            let serving = start(folder).await;
            assert_eq!(names(&serving), ["kept"]);
            for _ in 0..1000 {
                if slots_of(folder, gone.volume).is_empty() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert_eq!(slots_of(folder, gone.volume), [] as [u64; 0]);
            assert_eq!(read(&serving, "kept", 0).await, 9);
            serving.stop().await.unwrap();
            let (file, opened) = open_for_check(&folder.join("pool"), &folder.join("index")).unwrap();
            assert!(is_clean(&opened, &file));
            assert!(!opened.is_being_erased(gone.volume) && !opened.volumes().contains(&gone.volume));
        }
    }
}

/// P1. A volume that is made of an image is made as large as asked for before anybody else has its name: the resize, and
/// the deletion where that fails, concern no other volume that was given the name meanwhile.
#[tokio::test]
async fn a_clone_of_an_image_is_resized_and_no_other_volume_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.import_image("image", 1 << 20, ("disk".to_owned(), String::new())).await.unwrap();
    catalogue.mark_image("image", None, 1 << 20).await.unwrap();
    catalogue.seal_image("image", None).await.unwrap();
    // Each waits for the records' lock in this order.
    let cloned = catalogue.clone_image(&["image"], "vm", Some(4 << 20), None);
    let (cloned, deleted, made) = tokio::join!(cloned, catalogue.delete("vm", false), catalogue.create("vm", 2 << 20));
    assert_eq!((cloned.unwrap().size_bytes, deleted), (4 << 20, Ok(())));
    assert_eq!(catalogue.show("vm").unwrap(), made.unwrap());
    catalogue.delete("vm", false).await.unwrap();
    // A size that no volume can have.
    let cloned = catalogue.clone_image(&["image"], "vm", Some(u64::MAX), None);
    let (cloned, made) = tokio::join!(cloned, catalogue.create("vm", 2 << 20));
    assert!(cloned.is_err());
    assert_eq!(catalogue.show("vm").unwrap(), made.unwrap(), "what was made of the image is gone, and nothing else");
    serving.stop().await.unwrap();
}

/// P1. Ids of records are reserved many at a time, by one write, and after a power cut none is used again.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_reserved_many_at_a_time_and_none_is_used_twice() {
    let mut folder = tempfile::tempdir().unwrap();
    let mut serving = start(folder.path()).await;
    serving.catalogue().create("vm", 1 << 20).await.unwrap();
    let mut ids = BTreeSet::new();
    for run in 0..3 {
        let catalogue = serving.catalogue();
        let system = || catalogue.volume_stats(VolumeId::SYSTEM);
        let before = system().await.unwrap().unwrap().status.applied_lsn.0;
        for number in 0..30 {
            let snapshot = format!("s{run}-{number}");
            let name = SnapshotName { volume: "vm".to_owned(), snapshot };
            let taken = catalogue.create_snapshots(&[name], None).await.unwrap();
            assert!(ids.insert(taken[0].id), "an id was used twice");
        }
        let writes = system().await.unwrap().unwrap().status.applied_lsn.0 - before;
        assert!((30..=32).contains(&writes), "{writes} writes for 30 records");
        let cut = crash_image(folder.path());
        serving.stop().await.unwrap();
        serving = start(cut.path()).await;
        folder = cut;
    }
    serving.stop().await.unwrap();
}

/// P2. What an import says late counts for no other of its name: neither for one that went on with its image, of which the
/// rest was trimmed, nor for an image that was begun anew.
#[tokio::test]
async fn a_former_import_marks_seals_and_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    let source = || ("disk".to_owned(), String::new());
    let import = || catalogue.import_image("image", 1 << 20, source());
    let claim_of = |entry: &Entry| entry.image.as_ref().unwrap().claim;
    let first = import().await.unwrap();
    let mut former = Some(claim_of(&first));
    catalogue.mark_image("image", former, 4096).await.unwrap();
    for is_begun_anew in [false, true] {
        if is_begun_anew {
            catalogue.delete_image("image", None, false).await.unwrap();
        }
        let now = import().await.unwrap();
        assert_eq!(now.volume != first.volume, is_begun_anew);
        let superseded = Err(CatalogueError::Superseded { name: "image".to_owned() });
        assert_eq!(catalogue.mark_image("image", former, 1 << 20).await, superseded);
        assert_eq!(catalogue.seal_image("image", former).await, superseded);
        assert_eq!(catalogue.delete_image("image", former, true).await, superseded.map(drop));
        assert_eq!(catalogue.show_image("image").unwrap(), now);
        former = Some(claim_of(&now));
    }
    // It lasts: the daemon may end between the two.
    serving.stop().await.unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.mark_image("image", former, 1 << 20).await.unwrap();
    catalogue.seal_image("image", former).await.unwrap();
    serving.stop().await.unwrap();
}

/// P5. What the deletion of snapshots gives back is told to the block and at once: also what only memory has, and of the
/// snapshot that a rollback has taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_deletion_gives_back_is_right_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.create("vm", 1 << 30).await.unwrap();
    for block in 0..8 {
        write(&serving, "vm", block, 1).await;
    }
    catalogue.create_snapshots(&[monday("vm")], None).await.unwrap();
    for block in 5..20 {
        write(&serving, "vm", block, 2).await;
    }
    assert_eq!(catalogue.reclaim(&[monday("vm")]).await, Ok(3 * BLOCK_BYTES));
    for round in 0..5 {
        let (_, undo) = catalogue.rollback(&monday("vm"), "undo", false).await.unwrap();
        let expected = if round == 0 { 15 } else { 1 };
        assert_eq!(catalogue.reclaim(&[undo.name]).await, Ok(expected * BLOCK_BYTES), "round {round}");
        write(&serving, "vm", 30, 3).await;
    }
    serving.stop().await.unwrap();
}

/// P5. A deleted volume's slots are free at once.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_gives_the_slots_back() {
    let folder = tempfile::tempdir().unwrap();
    let serving = start(folder.path()).await;
    let catalogue = serving.catalogue();
    catalogue.create("kept", 1 << 30).await.unwrap();
    let free = catalogue.figures().await.unwrap().slots_free;
    // More than once: of a leak of a few slots each time nothing is left in the end.
    for _ in 0..4 {
        let volume = catalogue.create("big", 1 << 30).await.unwrap().volume;
        for block in 0..600 {
            write(&serving, "big", block, 3).await;
        }
        assert!(catalogue.figures().await.unwrap().slots_free < free);
        assert!(!slots_of(folder.path(), volume).is_empty());
        catalogue.delete("big", false).await.unwrap();
        assert!(slots_of(folder.path(), volume).is_empty());
    }
    // The system volume has a slot or two.
    assert!(catalogue.figures().await.unwrap().slots_free + 2 >= free, "{:?}", catalogue.figures().await);
    serving.stop().await.unwrap();
}

/// P1, P6. A pool that has grown keeps what is beyond its old end, whichever superblock is lost; an old superblock that knows
/// nothing of it is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_grown_pool_outlives_either_superblock() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).await.stop().await.unwrap();
    let pool = |folder: &Path| OpenOptions::new().read(true).write(true).open(folder.join("pool")).unwrap();
    let mut small = vec![0; BLOCK_LEN];
    pool(folder.path()).read_exact_at(&mut small, 0).unwrap();
    let grown = PoolConfig {
        shape: PoolShape { pool_bytes: Some(128 << 20), slot_bytes: SLOT_BYTES },
        ..config(folder.path())
    };
    drop(OpenPool::open_or_make(&grown).unwrap());
    for lost in [0, BLOCK_BYTES] {
        let image = crash_image(folder.path());
        pool(image.path()).write_all_at(&[0xee; 512], lost + 512).unwrap();
        let kept = PoolFile::open(&image.path().join("pool")).unwrap();
        assert_eq!(kept.superblock().geometry.slot_count, 127);
    }
    let image = crash_image(folder.path());
    let beyond = Superblock::decode(&small).unwrap();
    let header = SlotHeader {
        slot_use: SlotUse::Segment,
        pool: beyond.pool,
        segment: SegmentId(1),
        volume: VolumeId(1),
        epoch: Epoch(0),
        first_lsn: Lsn(1),
        size_bytes: 0,
        chain: 0,
        opened_ms: 0,
    };
    let mut block = vec![0; BLOCK_LEN];
    header.encode(&mut block);
    let file = pool(image.path());
    file.write_all_at(&small, 0).unwrap();
    file.write_all_at(&[0xee; 512], BLOCK_BYTES + 512).unwrap();
    // As a crash in the middle of growing leaves it.
    assert!(PoolFile::open(&image.path().join("pool")).is_ok());
    file.write_all_at(&block, beyond.geometry.slot_offset(SlotIndex(100))).unwrap();
    let refusal = PoolFile::open(&image.path().join("pool")).unwrap_err();
    assert!(matches!(refusal, OpenError::Damaged(_)) && refusal.to_string().contains("grown"), "{refusal}");
}

/// P1. An index that is of another time than its pool is refused, in words that say what to do.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).await.stop().await.unwrap();
    let old = crash_image(folder.path());
    start(folder.path()).await.stop().await.unwrap();
    start(folder.path()).await.stop().await.unwrap();
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    fs::rename(old.path().join("index"), folder.path().join("index")).unwrap();
    let refusal = try_start(folder.path()).await.unwrap_err();
    assert!(matches!(refusal, OpenError::Index { .. }));
    assert!(refusal.to_string().contains("aljibe pool rebuild"), "{refusal}");
}

/// P1. An index without its pool is not taken for the sign of a new pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_not_made_beside_the_index_of_another() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).await.stop().await.unwrap();
    fs::remove_file(folder.path().join("pool")).unwrap();
    assert!(matches!(try_start(folder.path()).await, Err(OpenError::Setting(_))));
    assert!(!folder.path().join("pool").exists());
}
