//! What has changed since snapshots, as clients are told of it: on the wire, and by real clients where they are installed.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a surprise is a failed test")]

use blockd::catalogue::{Catalogue, CatalogueError, Diff, DiffExtent, DiffTo, SnapshotName};
use blockd::listener::{Address, Client, Entrance, Exports, Found, Listener, Listing, Service};
use blockd::shard::Message;
use blockd::{ListenerLimits, Serving};
use proto::nbd::client::{
    Body, OptionReply, decode_greeting, decode_option_reply, decode_reply, encode_client_flags, encode_info,
    encode_meta_context, encode_option, encode_request,
};
use proto::nbd::constants::{command, option, option_reply};
use proto::nbd::{Cookie, Refusal, ReplyStyle, RequestHeader, TlsPolicy};
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange};
use volume::buffer::Buffer;
use volume::error::Error;
use volume::pool::Parent;
use volume::request::{Completion, Request};

mod support;

/// The catalogue, and a snapshot of its volume "v" that is none.
struct WithStranger {
    serving: Arc<Serving>,
    stranger: Mutex<Option<Parent>>,
}

impl Exports for WithStranger {
    fn find(&self, name: &str, client: &Client) -> Result<Found, Refusal> {
        let found = self.serving.catalogue().find(name, client)?;
        Ok(match *self.stranger.lock().unwrap() {
            Some(since) => found.with_snapshot("gone", since),
            None => found,
        })
    }

    fn list(&self, client: &Client) -> Result<Vec<Listing>, Refusal> {
        Exports::list(&*self.serving.catalogue(), client)
    }
}

struct Running {
    folder: TempDir,
    exports: Arc<WithStranger>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

async fn serve(folder: &Path) -> (Arc<Serving>, Listener) {
    let serving = support::serve(folder).await;
    let address = Address::Unix(folder.join("socket"));
    let listener = Listener::bind(&[address], None, ListenerLimits::default()).await.unwrap();
    (Arc::new(serving), listener)
}

impl Running {
    async fn start(folder: TempDir) -> Self {
        let (serving, listener) = serve(folder.path()).await;
        let exports = Arc::new(WithStranger { serving, stranger: Mutex::new(None) });
        let service = Service { exports: Arc::clone(&exports) as Arc<_>, tls_policy: TlsPolicy::Off, tls: None };
        let (stop, stopped) = watch::channel(false);
        let listening = tokio::spawn(listener.serve(Arc::new(service), stopped));
        Self { folder, exports, stop, listening }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.exports.serving.catalogue()
    }

    async fn submit(&self, request: Request) -> Result<Completion, Error> {
        let client = Client {
            peer: "test".to_owned(),
            entrance: Entrance::Socket { is_own_user: true },
            is_tls: false,
            certificate: None,
        };
        let found = self.catalogue().find("v", &client).unwrap();
        let (done, answer) = oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        found.shard.send(Message::Submit { volume: found.volume, request, done }).unwrap();
        answer.await.unwrap()
    }

    async fn write(&self, block: u64) {
        let range = ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES).unwrap();
        let payload = smallvec![Buffer::copy_of(&[9; BLOCK_LEN])];
        self.submit(Request::Write { range, payload, fua: false }).await.unwrap();
    }

    async fn snapshot(&self, name: &str) {
        self.catalogue().create_snapshots(&[named(name)], None).await.unwrap();
    }

    async fn stop(self) -> TempDir {
        self.stop.send(true).unwrap();
        self.listening.await.unwrap();
        self.exports.serving.stop().await.unwrap();
        self.folder
    }
}

fn named(snapshot: &str) -> SnapshotName {
    SnapshotName { volume: "v".to_owned(), snapshot: snapshot.to_owned() }
}

/// A client by hand.
struct Wire {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Wire {
    async fn connect(socket: PathBuf) -> Self {
        let mut wire = Self { stream: UnixStream::connect(socket).await.unwrap(), received: Vec::new() };
        wire.take(|bytes| decode_greeting(bytes).unwrap()).await;
        let mut hello = Vec::new();
        encode_client_flags(3, &mut hello);
        encode_option(option::STRUCTURED_REPLY, &[], &mut hello);
        wire.stream.write_all(&hello).await.unwrap();
        assert_eq!(wire.option_reply().await.kind, option_reply::ACK);
        wire
    }

    async fn take<T>(&mut self, mut decode: impl FnMut(&mut &[u8]) -> Option<T>) -> T {
        loop {
            let mut rest = self.received.as_slice();
            if let Some(found) = decode(&mut rest) {
                let used = self.received.len() - rest.len();
                self.received.drain(..used);
                return found;
            }
            assert!(self.stream.read_buf(&mut self.received).await.unwrap() > 0, "closed");
        }
    }

    async fn option_reply(&mut self) -> OptionReply {
        self.take(|bytes| decode_option_reply(bytes).unwrap()).await
    }

    /// The contexts that an option is answered with: ids and names.
    async fn contexts(&mut self, number: u32, queries: &[&str]) -> Vec<(u32, String)> {
        let mut asked = Vec::new();
        encode_meta_context(number, "v", queries, &mut asked);
        self.stream.write_all(&asked).await.unwrap();
        let mut found = Vec::new();
        loop {
            let OptionReply { kind, data, .. } = self.option_reply().await;
            if kind != option_reply::META_CONTEXT {
                assert_eq!(kind, option_reply::ACK);
                return found;
            }
            let (id, name) = data.split_first_chunk::<4>().unwrap();
            found.push((u32::from_be_bytes(*id), String::from_utf8(name.to_vec()).unwrap()));
        }
    }

    async fn enter(&mut self) {
        let mut go = Vec::new();
        encode_info(option::GO, "v", &[], &mut go);
        self.stream.write_all(&go).await.unwrap();
        while self.option_reply().await.kind != option_reply::ACK {}
    }

    /// What each context tells of the first blocks: lengths in blocks, and flags.
    async fn status(&mut self, blocks: u64) -> Vec<(u32, Vec<(u64, u64)>)> {
        let cookie = Cookie(5);
        let header = RequestHeader {
            flags: 0,
            command: command::BLOCK_STATUS,
            cookie,
            offset: 0,
            length_bytes: blocks * BLOCK_BYTES,
        };
        let mut request = Vec::new();
        encode_request(ReplyStyle::Structured, &header, &mut request);
        self.stream.write_all(&request).await.unwrap();
        let mut told = Vec::new();
        loop {
            let reply = self.take(|bytes| decode_reply(ReplyStyle::Structured, |_| 0, bytes).unwrap()).await;
            match reply.body {
                Body::Status { context_id, extents } => {
                    let blocks = extents.iter().map(|extent| (extent.len_bytes / BLOCK_BYTES, extent.status));
                    told.push((context_id, blocks.collect()));
                }
                Body::Error { error, .. } => told.push((u32::MAX, vec![(0, u64::from(error))])),
                other @ (Body::Simple { .. } | Body::None | Body::Data { .. } | Body::Hole { .. }) => {
                    panic!("{other:?}")
                }
            }
            if reply.is_last {
                return told;
            }
        }
    }
}

/// Volume "v" of 64 blocks: blocks 0 to 3 before "monday", 2 and 5 before "tuesday", then 2 again, and 3 is trimmed.
async fn with_two_snapshots() -> Running {
    let running = Running::start(tempfile::tempdir().unwrap()).await;
    running.exports.serving.catalogue().create("v", 64 * BLOCK_BYTES).await.unwrap();
    for block in 0..4 {
        running.write(block).await;
    }
    running.snapshot("monday").await;
    running.write(2).await;
    running.write(5).await;
    running.snapshot("tuesday").await;
    running.write(2).await;
    let third = ByteRange::new(3 * BLOCK_BYTES, BLOCK_BYTES).unwrap();
    running.submit(Request::Trim { range: third, fua: false }).await.unwrap();
    running
}

const SINCE_MONDAY: [(u64, u64); 5] = [(2, 0), (2, 1), (1, 0), (1, 1), (58, 0)];
const SINCE_TUESDAY: [(u64, u64); 3] = [(2, 0), (2, 1), (60, 0)];
const DATA: [(u64, u64); 4] = [(3, 0), (2, 3), (1, 0), (58, 3)];

/// P2. What was written is told at once, also what only memory has, and after a restart the same.
#[tokio::test(flavor = "multi_thread")]
async fn several_contexts_are_told_in_one_answer() {
    let running = with_two_snapshots().await;
    let (monday, tuesday) = ("qemu:dirty-bitmap:monday", "qemu:dirty-bitmap:tuesday");
    let names = |found: Vec<(u32, String)>| found.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let mut wire = Wire::connect(running.socket()).await;
    assert_eq!(names(wire.contexts(option::LIST_META_CONTEXT, &[]).await), ["base:allocation", monday, tuesday]);
    assert_eq!(names(wire.contexts(option::LIST_META_CONTEXT, &["qemu:dirty-bitmap:"]).await), [monday, tuesday]);
    let selected = wire.contexts(option::SET_META_CONTEXT, &[tuesday, "base:allocation", monday]).await;
    let id = |name: &str| selected.iter().find(|(_, found)| found == name).unwrap().0;
    let (data, monday, tuesday) = (id("base:allocation"), id(monday), id(tuesday));
    wire.enter().await;
    let expected = [(data, DATA.to_vec()), (monday, SINCE_MONDAY.to_vec()), (tuesday, SINCE_TUESDAY.to_vec())];
    assert_eq!(wire.status(64).await, expected);
    drop(wire);

    let folder = running.stop().await;
    let running = Running::start(folder).await;
    let mut wire = Wire::connect(running.socket()).await;
    wire.contexts(option::SET_META_CONTEXT, &["qemu:dirty-bitmap:monday"]).await;
    wire.enter().await;
    assert_eq!(wire.status(64).await, [(monday, SINCE_MONDAY.to_vec())]);
    drop(wire);
    running.stop().await;
}

/// P2. A snapshot that is deleted while a client looks at it tells an error, not that nothing has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_gone_is_an_error_of_that_request() {
    let running = with_two_snapshots().await;
    let volume = running.exports.serving.catalogue().show("v").unwrap().volume;
    *running.exports.stranger.lock().unwrap() = Some(Parent { volume, generation: 77 });
    let mut wire = Wire::connect(running.socket()).await;
    wire.contexts(option::SET_META_CONTEXT, &["qemu:dirty-bitmap:gone", "base:allocation"]).await;
    wire.enter().await;
    assert_eq!(wire.status(64).await, [(u32::MAX, vec![(0, 22)])]);
    assert_eq!(wire.status(64).await.len(), 1, "the connection lives");
    drop(wire);
    running.stop().await;
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// What real clients make of it; nothing where they are not installed.
#[tokio::test(flavor = "multi_thread")]
async fn real_clients_see_what_has_changed() {
    let running = with_two_snapshots().await;
    let socket = running.socket().to_str().unwrap().to_owned();
    let uri = format!("nbd+unix:///v?socket={socket}");
    let told = tokio::task::spawn_blocking(move || {
        let map = run("nbdinfo", &["--map=qemu:dirty-bitmap:monday", &uri]);
        let image = format!(
            "driver=nbd,export=v,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:tuesday"
        );
        (map, run("qemu-img", &["map", "--output=json", "--image-opts", &image]))
    });
    let (by_nbdinfo, by_qemu) = told.await.unwrap();
    let dirty = |map: &str| -> Vec<String> {
        let fields = map.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        fields.map(|fields| fields[..3].join(" ")).collect()
    };
    if let Some(map) = by_nbdinfo {
        assert_eq!(dirty(&map), ["0 8192 0", "8192 8192 1", "16384 4096 0", "20480 4096 1", "24576 237568 0"]);
    }
    if let Some(map) = by_qemu {
        // It shows what has changed as a part without data.
        let parts: Vec<&str> = map.lines().map(str::trim).filter(|line| line.contains("\"data\": false")).collect();
        assert!(parts.len() == 1 && parts[0].contains("\"start\": 8192, \"length\": 8192"), "{map}");
    }
    running.stop().await;
}

/// A state of the volume: its blocks, and which write each has from.
#[derive(Clone, Default)]
struct State {
    blocks: u64,
    written: BTreeMap<u64, u64>,
    /// The snapshots that it came from.
    behind: BTreeSet<String>,
}

impl State {
    /// What differs from an earlier state: each block, and whether it is data.
    fn since(&self, before: &Self) -> BTreeMap<u64, bool> {
        let differs = |block: &u64| self.written.get(block) != before.written.get(block);
        (0..self.blocks).filter(differs).map(|block| (block, self.written.contains_key(&block))).collect()
    }
}

/// Numbers without a pattern, the same each time: xorshift64*.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// All parts of what differs.
async fn whole_diff(catalogue: &Catalogue, since: &str, to: &DiffTo) -> Result<Vec<Diff>, CatalogueError> {
    let mut parts = vec![catalogue.diff(&named(since), to, 0).await?];
    while let Some(from) = parts.last().and_then(|part| part.next_offset) {
        parts.push(catalogue.diff(&named(since), to, from).await?);
    }
    Ok(parts)
}

fn blocks_of(parts: &[Diff]) -> BTreeMap<u64, bool> {
    let extents = parts.iter().flat_map(|part| &part.extents);
    let blocks = |extent: &DiffExtent| extent.offset / BLOCK_BYTES..(extent.offset + extent.len) / BLOCK_BYTES;
    extents.flat_map(|extent| blocks(extent).map(|block| (block, extent.is_data))).collect()
}

/// Random changes of the volume, with what they make of its state.
struct Author {
    noise: Noise,
    state: State,
    taken: BTreeMap<String, State>,
    writes: u64,
}

impl Author {
    async fn step(&mut self, running: &Running) {
        let first = self.noise.below(self.state.blocks);
        let count = (1 + self.noise.below(40)).min(self.state.blocks - first);
        let range = ByteRange::new(first * BLOCK_BYTES, count * BLOCK_BYTES).unwrap();
        match self.noise.below(12) {
            0..5 => {
                self.writes += 1;
                // The same bytes each time: a rewrite is a change. Now and then a part of a block.
                let offset = first * BLOCK_BYTES + self.noise.below(2) * 512;
                let bytes = range.end() - offset;
                let payload = smallvec![Buffer::copy_of(&vec![9; usize::try_from(bytes).unwrap()])];
                let range = ByteRange::new(offset, bytes).unwrap();
                running.submit(Request::Write { range, payload, fua: false }).await.unwrap();
                self.state.written.extend((first..first + count).map(|block| (block, self.writes)));
            }
            kind @ 5..8 => {
                let request = match kind {
                    5 => Request::WriteZeroes { range, fua: false },
                    _ => Request::Trim { range, fua: false },
                };
                running.submit(request).await.unwrap();
                self.state.written.retain(|block, _| !(first..first + count).contains(block));
            }
            8 => {
                let blocks = 2000 + self.noise.below(4000);
                running.catalogue().resize("v", blocks * BLOCK_BYTES, true).await.unwrap();
                self.state.blocks = blocks;
                self.state.written.retain(|block, _| *block < blocks);
            }
            9 if !self.taken.is_empty() => {
                let which = self.noise.below(self.taken.len() as u64);
                let (name, state) = self.taken.iter().nth(usize::try_from(which).unwrap()).unwrap();
                let (state, undo) = (state.clone(), format!("undo-{}", self.taken.len()));
                let (_, undo) = running.catalogue().rollback(&named(name), &undo, false).await.unwrap();
                self.note(undo.name.snapshot);
                self.state = state;
            }
            _ => {
                let name = format!("s{}", self.taken.len());
                running.snapshot(&name).await;
                self.note(name);
            }
        }
    }

    fn note(&mut self, name: String) {
        self.state.behind.insert(name.clone());
        self.taken.insert(name, self.state.clone());
    }
}

/// P2. What differs between any two snapshots, and between each and the volume now, is what a comparison of all their blocks
/// finds, over trims, resizes and rollbacks; of those that lie on different sides of a rollback, an error is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_what_a_comparison_of_every_block_finds() {
    let running = Running::start(tempfile::tempdir().unwrap()).await;
    running.catalogue().create("v", 4000 * BLOCK_BYTES).await.unwrap();
    let state = State { blocks: 4000, ..State::default() };
    let mut author = Author { noise: Noise(0x5EED), state, taken: BTreeMap::new(), writes: 0 };
    for _ in 0..150 {
        author.step(&running).await;
    }
    let Author { state: now, taken, .. } = author;
    let ends = taken.iter().map(|(name, state)| (DiffTo::Snapshot(named(name)), state));
    let ends: Vec<_> = ends.chain([(DiffTo::Volume("v".to_owned()), &now)]).collect();
    let (mut related, mut unrelated) = (0, 0);
    for (since, before) in &taken {
        for (to, state) in &ends {
            let found = whole_diff(&running.catalogue(), since, to).await;
            if state.behind.contains(since) {
                let parts = found.unwrap();
                assert_eq!(blocks_of(&parts), state.since(before), "{since} to {to}");
                assert!(parts.iter().all(|part| part.size_bytes == state.blocks * BLOCK_BYTES));
                related += 1;
            } else {
                assert!(matches!(found, Err(CatalogueError::Unrelated { .. })), "{since} to {to}: {found:?}");
                unrelated += 1;
            }
        }
    }
    assert!(related > 100 && unrelated > 100, "{related} related, {unrelated} not");
    running.stop().await;
}

/// P2. More than one answer holds comes part by part, each no larger than it may be, and nothing is told twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_differs_in_many_places_comes_part_by_part() {
    let running = Running::start(tempfile::tempdir().unwrap()).await;
    running.catalogue().create("v", 16384 * BLOCK_BYTES).await.unwrap();
    running.snapshot("monday").await;
    for block in (0..9000).step_by(2) {
        running.write(block).await;
    }
    let parts = whole_diff(&running.catalogue(), "monday", &DiffTo::Volume("v".to_owned())).await.unwrap();
    assert!(parts.len() > 1 && parts.iter().all(|part| part.extents.len() <= 4096), "{} parts", parts.len());
    let told: Vec<u64> =
        parts.iter().flat_map(|part| &part.extents).map(|extent| extent.offset / BLOCK_BYTES).collect();
    assert!(told.into_iter().eq((0..9000).step_by(2)));
    let beyond = running.catalogue().diff(&named("monday"), &DiffTo::Volume("v".to_owned()), u64::MAX).await.unwrap();
    assert_eq!((beyond.extents.len(), beyond.next_offset), (0, None));
    running.stop().await;
}
