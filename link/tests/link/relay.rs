//! What lies between two sites: passes bytes on, stops doing so without a word in either direction, or cuts. Runs in a runtime of its
//! own, so that the tasks of a test's are those of the links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mode {
    /// Whether nothing is passed on from who connects, and to it.
    is_held: [bool; 2],
    /// After each 16 KiB, in either direction of a connection.
    pause: Duration,
    /// Counts cuts.
    cuts: u64,
}

pub(crate) struct Relay {
    runtime: Option<Runtime>,
    mode: Arc<watch::Sender<Mode>>,
    /// How many bytes still pass, in both directions together, before all is cut.
    left: Arc<AtomicI64>,
    address: SocketAddr,
}

impl Relay {
    pub(crate) fn start(target: String) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::default()));
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let (in_tasks, budget) = (Arc::clone(&mode), Arc::clone(&left));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(0, near_read, far_write, (Arc::clone(&in_tasks), Arc::clone(&budget))));
                tokio::spawn(pump(1, far_read, near_write, (Arc::clone(&in_tasks), Arc::clone(&budget))));
            }
        });
        Self { runtime: Some(runtime), mode, left, address }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Passes nothing on in the directions that are named, or everything again. New connections are taken as the old ones are.
    pub(crate) fn hold(&self, is_held: [bool; 2]) {
        self.mode.send_modify(|mode| mode.is_held = is_held);
    }

    /// Waits so long after each 16 KiB that are passed on.
    pub(crate) fn slow_down(&self, pause: Duration) {
        self.mode.send_modify(|mode| mode.pause = pause);
    }

    /// Cuts all connections that there are.
    pub(crate) fn cut(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// Cuts all once so many more bytes have passed.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn pump(
    direction: usize,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (mode, left): (Arc<watch::Sender<Mode>>, Arc<AtomicI64>),
) {
    let mut modes = mode.subscribe();
    let cuts = modes.borrow().cuts;
    let mut bytes = vec![0; 16 << 10];
    loop {
        let now = *modes.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        let received = tokio::select! {
            biased;
            _ = modes.changed() => continue,
            received = from.read(&mut bytes), if !now.is_held[direction] => received,
        };
        let Ok(count @ 1..) = received else {
            let _ = to.shutdown().await;
            return;
        };
        let before = left.fetch_sub(count as i64, Ordering::SeqCst);
        let passed = count.min(usize::try_from(before).unwrap_or(0));
        let written = tokio::select! {
            _ = modes.wait_for(|mode| mode.cuts != cuts) => return,
            written = to.write_all(&bytes[..passed]) => written,
        };
        if passed < count {
            left.store(i64::MAX, Ordering::SeqCst);
            mode.send_modify(|mode| mode.cuts += 1);
        }
        if written.is_err() {
            return;
        }
        if !now.pause.is_zero() {
            tokio::time::sleep(now.pause).await;
        }
    }
}
