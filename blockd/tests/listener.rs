//! The listener with real sockets: who gets in, who does not, and what is left when it stops.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a surprise is a failed test")]

use blockd::listener::{Address, BindError, Client, Exports, Found, Listener, Listing, Service};
use blockd::{Limits, ListenerLimits, shard};
use proto::nbd::{Refusal, TlsPolicy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use units::VolumeId;

const GREETING_BYTES: usize = 18;

struct NoStore;

impl shard::StorePort for NoStore {
    fn ask(&mut self, ask: shard::StoreAsk) {
        panic!("no volume asks: {ask:?}");
    }
}

/// An export named "gone", whose volume is not open, and nothing else.
struct Gone(shard::ShardHandle);

impl Exports for Gone {
    fn find(&self, name: &str, _: &Client) -> Result<Found, Refusal> {
        if name != "gone" {
            return Err(Refusal::Unknown);
        }
        let export = blockd::listener::describe(name, 1 << 30, false);
        Ok(Found::new(export, VolumeId(9), self.0.clone()))
    }

    fn list(&self, _: &Client) -> Result<Vec<Listing>, Refusal> {
        Ok(vec![Listing { name: "gone".into(), description: "left".into() }])
    }
}

struct Running {
    folder: TempDir,
    addresses: Vec<Address>,
    shard: shard::ShardThread,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(limits: ListenerLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pool"), b"").unwrap();
        let shard = start_shard(folder.path()).unwrap();
        let addresses = [Address::Tcp("127.0.0.1:0".into()), Address::Unix(folder.path().join("socket"))];
        let listener = Listener::bind(&addresses, None, limits).await.unwrap();
        let addresses = listener.addresses();
        let exports = Arc::new(Gone(shard.handle()));
        let service = Service { exports, tls_policy: TlsPolicy::Optional, tls: None };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(Arc::new(service), stopped));
        Self { folder, addresses, shard, stop, serving }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    async fn connect(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let mut greeting = [0; GREETING_BYTES];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        stream
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.serving.await.unwrap();
        self.shard.handle().send(shard::Message::Stop).unwrap();
        tokio::task::spawn_blocking(|| self.shard.join()).await.unwrap().unwrap();
    }
}

fn start_shard(folder: &Path) -> Result<shard::ShardThread, shard::StartError> {
    shard::ShardThread::start(shard::ShardConfig {
        name: "shard".into(),
        pool: folder.join("pool"),
        is_direct: false,
        core: None,
        origin: Instant::now(),
        limits: Limits::default(),
        map_cache_bytes: 16 << 20,
        store: Box::new(NoStore),
        throttle: Arc::default(),
        meter_times: blockd::MeterTimes::default(),
        registrar: blockd::Registrar::none(),
    })
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The type of the next reply to an option.
async fn reply_type(stream: &mut UnixStream) -> u32 {
    let mut header = [0; 20];
    stream.read_exact(&mut header).await.unwrap();
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let mut data = vec![0; usize::try_from(number(16)).unwrap()];
    stream.read_exact(&mut data).await.unwrap();
    number(12)
}

#[tokio::test]
async fn clients_come_over_tcp_and_unix_sockets() {
    let running = Running::start(ListenerLimits::default()).await;
    let Address::Tcp(address) = &running.addresses[0] else { panic!() };
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let mut greeting = [0; GREETING_BYTES];
    tcp.read_exact(&mut greeting).await.unwrap();
    let mut unix = running.connect().await;
    unix.write_all(&3_u32.to_be_bytes()).await.unwrap();
    unix.write_all(&option(3, &[])).await.unwrap();
    assert_eq!(reply_type(&mut unix).await, 2);
    assert_eq!(reply_type(&mut unix).await, 1);
    running.stop().await;
}

#[tokio::test]
async fn an_export_that_is_not_there_is_refused_in_words_and_the_connection_lives() {
    let running = Running::start(ListenerLimits::default()).await;
    let mut stream = running.connect().await;
    stream.write_all(&3_u32.to_be_bytes()).await.unwrap();
    for _ in 0..2 {
        stream.write_all(&option(7, b"\0\0\0\x04none\0\0")).await.unwrap();
        assert_eq!(reply_type(&mut stream).await, (1 << 31) + 6);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_connection_whose_volume_is_not_open_is_closed() {
    let running = Running::start(ListenerLimits::default()).await;
    let mut stream = running.connect().await;
    stream.write_all(&3_u32.to_be_bytes()).await.unwrap();
    stream.write_all(&option(7, b"\0\0\0\x04gone\0\0")).await.unwrap();
    assert_eq!(reply_type(&mut stream).await, 3);
    assert_eq!(reply_type(&mut stream).await, 1);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    running.stop().await;
}

#[tokio::test]
async fn silent_clients_harm_nobody_and_are_let_go_when_their_time_is_up() {
    let limits = ListenerLimits { handshake_max: Duration::from_millis(300), ..ListenerLimits::default() };
    let running = Running::start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(running.connect().await);
    }
    let mut other = running.connect().await;
    other.write_all(&3_u32.to_be_bytes()).await.unwrap();
    other.write_all(&option(2, &[])).await.unwrap();
    assert_eq!(reply_type(&mut other).await, 1);
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }
    running.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once_and_room_is_made_by_those_that_end() {
    let limits = ListenerLimits { handshakes_max: 2, ..ListenerLimits::default() };
    let running = Running::start(limits).await;
    let first = running.connect().await;
    let _second = running.connect().await;
    let mut third = UnixStream::connect(running.socket()).await.unwrap();
    assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0);
    drop(first);
    // The server sees the end in its own time.
    loop {
        let mut stream = UnixStream::connect(running.socket()).await.unwrap();
        if stream.read(&mut [0; 1]).await.unwrap() == 1 {
            break;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_stop_ends_handshakes_and_removes_the_socket() {
    let running = Running::start(ListenerLimits::default()).await;
    let path = running.socket();
    let mut stream = running.connect().await;
    assert!(path.exists());
    let Running { stop, serving, shard, folder, .. } = running;
    stop.send(true).unwrap();
    serving.await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(!path.exists());
    drop((shard, folder));
}

async fn bind(path: &Path) -> Result<Listener, BindError> {
    Listener::bind(&[Address::Unix(path.to_owned())], None, ListenerLimits::default()).await
}

#[tokio::test]
async fn the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _living = bind(&path).await.unwrap();
    let error = bind(&path).await.unwrap_err();
    assert!(matches!(error, BindError::Served { .. }), "{error}");
    assert!(error.to_string().contains("socket"), "{error}");
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, b"data").unwrap();
    assert!(matches!(bind(&path).await, Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_shard_whose_pool_is_missing_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = start_shard(folder.path()).unwrap_err();
    assert!(matches!(&error, shard::StartError::Pool { .. }), "{error}");
    assert!(error.to_string().contains("pool"));
}

#[test]
fn a_stopped_shard_says_that_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pool"), b"").unwrap();
    let thread = start_shard(folder.path()).unwrap();
    let handle = thread.handle();
    handle.send(shard::Message::Stop).unwrap();
    thread.join().unwrap();
    assert_eq!(handle.send(shard::Message::Stop), Err(shard::ShardEnded));
}
