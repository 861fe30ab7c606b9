//! Clients that are between the export that they found and the shard that serves it, while the volume is sealed, rolled
//! back, imported on or deleted: they count as attached, and who is cut off writes nothing.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

use blockd::catalogue::{Catalogue, CatalogueError, SnapshotName};
use blockd::listener::{Address, Client, Entrance, Exports, Found, Listener, Listing, Opening, Service};
use blockd::shard::Message;
use blockd::{ListenerLimits, Serving};
use proto::nbd::client::{decode_greeting, decode_option_reply, encode_client_flags, encode_info, encode_request};
use proto::nbd::constants::{command, option, option_reply};
use proto::nbd::{Cookie, Export, Refusal, ReplyStyle, RequestHeader, TlsPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange};
use volume::request::{Completion, Request};

mod support;

const SIZE_BYTES: u64 = 64 * BLOCK_BYTES;

/// The catalogue, which keeps clients waiting between the export that they found and their answer.
struct Slow {
    catalogue: Arc<Catalogue>,
    arrived: Semaphore,
    may_go: Semaphore,
    /// How often a client was given a volume.
    found: AtomicU64,
}

impl Exports for Slow {
    fn find(&self, name: &str, client: &Client) -> Result<Found, Refusal> {
        self.found.fetch_add(1, Ordering::Relaxed);
        self.catalogue.find(name, client)
    }

    fn describe(&self, name: &str, client: &Client) -> Result<Export, Refusal> {
        self.catalogue.describe(name, client)
    }

    fn open(&self, found: Found) -> Opening<'_> {
        Box::pin(async move {
            self.arrived.add_permits(1);
            self.may_go.acquire().await.unwrap().forget();
            self.catalogue.open(found).await
        })
    }

    fn list(&self, client: &Client) -> Result<Vec<Listing>, Refusal> {
        Exports::list(&*self.catalogue, client)
    }
}

struct Running {
    folder: TempDir,
    serving: Serving,
    exports: Arc<Slow>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Running {
    /// With volume "v" and its snapshot "old".
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serving = support::serve(folder.path()).await;
        let catalogue = serving.catalogue();
        catalogue.create("v", SIZE_BYTES).await.unwrap();
        catalogue.create_snapshots(&[snapshot("old")], None).await.unwrap();
        let address = Address::Unix(folder.path().join("socket"));
        let listener = Listener::bind(&[address], None, ListenerLimits::default()).await.unwrap();
        let exports = Arc::new(Slow {
            catalogue,
            arrived: Semaphore::new(0),
            may_go: Semaphore::new(0),
            found: AtomicU64::new(0),
        });
        let service = Service { exports: Arc::clone(&exports) as Arc<_>, tls_policy: TlsPolicy::Off, tls: None };
        let (stop, stopped) = watch::channel(false);
        let listening = tokio::spawn(listener.serve(Arc::new(service), stopped));
        Self { folder, serving, exports, stop, listening }
    }

    /// Asks to enter "v"; returns when the export is found and the answer is not given.
    async fn knock(&self) -> UnixStream {
        let stream = self.ask(option::GO).await;
        self.exports.arrived.acquire().await.unwrap().forget();
        stream
    }

    /// Sends an option that names "v".
    async fn ask(&self, option: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.path().join("socket")).await.unwrap();
        take(&mut stream, |bytes| decode_greeting(bytes).unwrap()).await;
        let mut hello = Vec::new();
        encode_client_flags(3, &mut hello);
        encode_info(option, "v", &[], &mut hello);
        stream.write_all(&hello).await.unwrap();
        stream
    }

    /// Lets it enter, and writes to block 0; tells whether that was acknowledged.
    async fn enter_and_write(&self, mut stream: UnixStream) -> bool {
        self.exports.may_go.add_permits(1);
        acknowledged(&mut stream).await;
        let (flags, offset, length_bytes) = (0, 0, BLOCK_BYTES);
        let header = RequestHeader { flags, command: command::WRITE, cookie: Cookie(5), offset, length_bytes };
        let mut request = Vec::new();
        encode_request(ReplyStyle::Simple, &header, &mut request);
        request.extend_from_slice(&[0xee; BLOCK_LEN]);
        // Where it was hung up on already, either end tells.
        stream.write_all(&request).await.is_ok() && stream.read(&mut [0; 16]).await.is_ok_and(|len| len > 0)
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.listening.await.unwrap();
        self.serving.stop().await.unwrap();
    }
}

async fn acknowledged(stream: &mut UnixStream) {
    while take(stream, |bytes| decode_option_reply(bytes).unwrap()).await.kind != option_reply::ACK {}
}

/// Takes what is decoded off the stream; nothing else has been sent.
async fn take<T>(stream: &mut UnixStream, mut decode: impl FnMut(&mut &[u8]) -> Option<T>) -> T {
    let mut received = Vec::new();
    loop {
        if let Some(found) = decode(&mut received.as_slice()) {
            return found;
        }
        received.push(stream.read_u8().await.unwrap());
    }
}

fn snapshot(name: &str) -> SnapshotName {
    SnapshotName { volume: "v".to_owned(), snapshot: name.to_owned() }
}

fn client() -> Client {
    Client {
        peer: "test".to_owned(),
        entrance: Entrance::Socket { is_own_user: true },
        is_tls: false,
        certificate: None,
    }
}

/// The bytes of block 0 of an export.
async fn read(catalogue: &Catalogue, name: &str) -> Vec<u8> {
    let found = catalogue.find(name, &client()).unwrap();
    let found = catalogue.open(found).await.unwrap();
    let range = ByteRange::new(0, BLOCK_BYTES).unwrap();
    let (done, answer) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    found.shard.send(Message::Submit { volume: found.volume, request: Request::Read { range }, done }).unwrap();
    let Completion::Read { buffer, skip, len } = answer.await.unwrap().unwrap() else { panic!("no bytes") };
    buffer.as_slice()[skip..skip + len].to_vec()
}

fn is_in_use<T>(result: &Result<T, CatalogueError>) -> bool {
    matches!(result, Err(CatalogueError::InUse { connections: 1, .. }))
}

/// P1. Whoever has found a volume is attached to it, though no shard knows: nothing goes ahead that wants it without
/// clients, and others still find it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_its_handshake_counts() {
    let running = Running::start().await;
    let catalogue = running.serving.catalogue();
    let source = || ("disk.raw".to_owned(), "1".to_owned());
    catalogue.import_image("i", SIZE_BYTES, source()).await.unwrap();
    catalogue.mark_image("i", None, SIZE_BYTES).await.unwrap();

    let of_volume = catalogue.find("v", &client()).unwrap();
    let of_image = catalogue.find("i", &client()).unwrap();
    assert!(is_in_use(&catalogue.rollback(&snapshot("old"), "undo", false).await));
    assert!(is_in_use(&catalogue.delete("v", false).await));
    assert!(is_in_use(&catalogue.seal_image("i", None).await));
    assert!(is_in_use(&catalogue.import_image("i", SIZE_BYTES, source()).await));
    assert!(is_in_use(&catalogue.delete_image("i", None, false).await));
    assert!(catalogue.find("v", &client()).is_ok() && catalogue.find("i", &client()).is_ok(), "they were let in again");

    drop((of_volume, of_image));
    catalogue.import_image("i", SIZE_BYTES, source()).await.unwrap();
    assert!(catalogue.find("i", &client()).is_ok());
    catalogue.seal_image("i", None).await.unwrap();
    catalogue.rollback(&snapshot("old"), "undo", false).await.unwrap();
    assert!(catalogue.find("v", &client()).is_ok() && catalogue.find("i", &client()).is_ok());
    catalogue.delete("v", false).await.unwrap();
    catalogue.delete_image("i", None, false).await.unwrap();
    running.stop().await;
}

/// Whoever only asks what a volume is like is attached to none, at no moment, and keeps nobody from deleting it.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_is_not_attached() {
    let running = Running::start().await;
    let mut stream = running.ask(option::INFO).await;
    acknowledged(&mut stream).await;
    assert_eq!(running.exports.found.load(Ordering::Relaxed), 0);
    let catalogue = running.serving.catalogue();
    let described = catalogue.describe("v", &client()).unwrap();
    assert_eq!(described, catalogue.find("v", &client()).unwrap().export);
    catalogue.delete("v", false).await.unwrap();
    drop(stream);
    running.stop().await;
}

/// P1. A client that was in its handshake when its volume was rolled back by force is cut off as those who were further:
/// what it writes is not acknowledged, and changes neither the volume nor what that was.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_in_the_handshake_does_not_write_to_what_was_rolled_back() {
    let running = Running::start().await;
    let catalogue = running.serving.catalogue();
    let stream = running.knock().await;
    assert!(is_in_use(&catalogue.rollback(&snapshot("old"), "undo", false).await));
    catalogue.rollback(&snapshot("old"), "undo", true).await.unwrap();
    assert!(!running.enter_and_write(stream).await, "a former volume was written to");
    assert!(read(&catalogue, "v").await.iter().all(|byte| *byte == 0));
    assert!(read(&catalogue, "v@undo").await.iter().all(|byte| *byte == 0));
    let stream = running.knock().await;
    assert!(running.enter_and_write(stream).await, "who comes now is served");
    running.stop().await;
}

/// P1. The same where the volume is deleted, and lives on without a name for a clone.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_in_the_handshake_does_not_write_to_what_was_deleted() {
    let running = Running::start().await;
    let catalogue = running.serving.catalogue();
    catalogue.clone_snapshot(&snapshot("old"), "clone").await.unwrap();
    let stream = running.knock().await;
    assert!(is_in_use(&catalogue.delete("v", false).await));
    catalogue.delete("v", true).await.unwrap();
    assert!(!running.enter_and_write(stream).await, "a volume that was deleted was written to");
    assert!(read(&catalogue, "clone").await.iter().all(|byte| *byte == 0));
    running.stop().await;
}

/// A snapshot that a client found before its volume was deleted is not opened after.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_what_was_deleted_is_not_opened() {
    let running = Running::start().await;
    let catalogue = running.serving.catalogue();
    catalogue.clone_snapshot(&snapshot("old"), "clone").await.unwrap();
    let found = catalogue.find("v@old", &client()).unwrap();
    catalogue.delete("v", false).await.unwrap();
    assert_eq!(catalogue.open(found).await.unwrap_err(), Refusal::Unknown);
    running.stop().await;
}
