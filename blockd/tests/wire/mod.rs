//! A service with a socket, and a client on the wire that does what it is told, without a library between.

use blockd::catalogue::Catalogue;
use blockd::listener::{Address, Listener, Service};
use blockd::open::{OpenPool, PoolConfig, PoolShape};
use blockd::{ListenerLimits, Serving, ServingConfig};
use proto::nbd::TlsPolicy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
/// Bytes of an answer without data.
pub(crate) const REPLY_BYTES: usize = 16;

/// A pool of 64 MiB in slots of 1 MiB that is served.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    serving: Serving,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(folder: &Path, how: ServingConfig) -> Self {
        let config = PoolConfig {
            pool: folder.join("pool"),
            index: folder.join("index"),
            shape: PoolShape { pool_bytes: Some(64 << 20), slot_bytes: 1 << 20 },
            is_written_whole: false,
        };
        let pool = OpenPool::open_or_make(&config).unwrap();
        let serving = Serving::start(pool, how).await.unwrap();
        let socket = folder.join("socket");
        let address = Address::Unix(socket.clone());
        let listener = Listener::bind(&[address], None, ListenerLimits::default()).await.unwrap();
        let service = Service { exports: serving.catalogue(), tls_policy: TlsPolicy::Off, tls: None };
        let (stop, stopped) = watch::channel(false);
        let listening = tokio::spawn(listener.serve(Arc::new(service), stopped));
        Self { socket, serving, stop, listening }
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.serving.catalogue()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.listening.await.unwrap();
        self.serving.stop().await.unwrap();
    }
}

/// A client of a volume, in the transmission phase.
pub(crate) async fn connect(socket: &Path, volume: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).await.unwrap();
    let name_bytes = u32::try_from(volume.len()).unwrap();
    let mut hello = vec![0, 0, 0, 3];
    hello.extend_from_slice(b"IHAVEOPT\0\0\0\x07");
    hello.extend_from_slice(&(name_bytes + 6).to_be_bytes());
    hello.extend_from_slice(&name_bytes.to_be_bytes());
    hello.extend_from_slice(volume.as_bytes());
    hello.extend_from_slice(&[0, 0]);
    stream.write_all(&hello).await.unwrap();
    loop {
        let mut header = [0; 20];
        stream.read_exact(&mut header).await.unwrap();
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut data = vec![0; usize::try_from(number(16)).unwrap()];
        stream.read_exact(&mut data).await.unwrap();
        if number(12) == 1 {
            return stream;
        }
    }
}

/// A request of so many bytes at the beginning; what is written are sevens.
pub(crate) fn request(command: u16, len: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13, 0, 0];
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&len.to_be_bytes());
    if command == WRITE {
        bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 7);
    }
    bytes
}

/// Waits for the answer, which must say that all went well.
pub(crate) async fn take_reply(stream: &mut UnixStream, data_bytes: u32) {
    let mut reply = vec![0; REPLY_BYTES + usize::try_from(data_bytes).unwrap()];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
}
