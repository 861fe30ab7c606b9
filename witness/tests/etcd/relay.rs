//! A relay between a client and a member that loses the answers to changes, and servers that answer as they are told.

use crate::cluster::{host_port, listen};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use witness::HostPort;

const TXN: &str = "POST /v3/kv/txn";

/// What a relay or a server has seen, and is to do.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Connections that came.
    connections: AtomicUsize,
    /// Changes that came.
    pub(crate) changes: AtomicUsize,
    /// The answer to a change is thrown away, and the connection cut, once the member has given it.
    pub(crate) cuts: AtomicBool,
}

/// A relay or a server. Ends when dropped, with all its connections.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) at: HostPort,
    pub(crate) orders: Arc<Orders>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    pub(crate) fn changes(&self) -> usize {
        self.orders.changes.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.orders.connections.load(Ordering::SeqCst)
    }

    /// Passes everything on to `member`.
    pub(crate) fn to(member: SocketAddr) -> Self {
        Self::serve(move |stream, orders| async move {
            let upstream = TcpStream::connect(member).await?;
            relay(stream, upstream, &orders).await
        })
    }

    /// Answers each request with a status and a body: those for a member's state as a healthy member of cluster `cluster` does,
    /// all others as told.
    pub(crate) fn answering(cluster: u64, status: &'static str, body: String) -> Self {
        let body = Arc::new(body);
        Self::serve(move |mut stream, orders| {
            let body = Arc::clone(&body);
            async move {
                while let Some(head) = request(&mut stream, &orders).await? {
                    let well = format!(
                        r#"{{"header":{{"cluster_id":"{cluster}","member_id":"1","revision":"1"}},"leader":"1"}}"#
                    );
                    let (status, body) =
                        if head.contains("/v3/maintenance/status") { ("200 OK", &well) } else { (status, &*body) };
                    let length = body.len();
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await?;
                }
                Ok(())
            }
        })
    }

    /// Answers each request as told, those for a member's state as well.
    pub(crate) fn answering_all(status: &str, body: &str) -> Self {
        let answer = Arc::new(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        Self::serve(move |mut stream, orders| {
            let answer = Arc::clone(&answer);
            async move {
                while request(&mut stream, &orders).await?.is_some() {
                    stream.write_all(answer.as_bytes()).await?;
                }
                Ok(())
            }
        })
    }

    /// Accepts connections, and never says anything.
    pub(crate) fn silent() -> Self {
        Self::serve(|mut stream, orders| async move {
            while request(&mut stream, &orders).await?.is_some() {}
            Ok(())
        })
    }

    fn serve<F, W>(serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<Orders>) -> W + Send + 'static,
        W: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        let at = host_port(listener.local_addr().unwrap());
        let listener = TcpListener::from_std(listener).unwrap();
        let orders = Arc::new(Orders::default());
        let known = Arc::clone(&orders);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                known.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, Arc::clone(&known)));
            }
        });
        Self { at, orders, task }
    }
}

/// Reads one request; its head, or nothing at the end.
async fn request(stream: &mut TcpStream, orders: &Orders) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                orders.changes.fetch_add(usize::from(head.starts_with(TXN)), Ordering::SeqCst);
                return Ok(Some(head.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

async fn relay(mut down: TcpStream, mut up: TcpStream, orders: &Orders) -> std::io::Result<()> {
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    let mut is_change = false;
    loop {
        tokio::select! {
            count = down.read_buf(&mut sent) => {
                if count? == 0 {
                    return Ok(());
                }
                // A request of ours comes in one piece, as it is small and written at once.
                if sent.starts_with(TXN.as_bytes()) {
                    orders.changes.fetch_add(1, Ordering::SeqCst);
                    is_change = true;
                }
                up.write_all(&sent).await?;
                sent.clear();
            }
            count = up.read_buf(&mut answered) => {
                if count? == 0 || is_change && orders.cuts.load(Ordering::SeqCst) {
                    return Ok(());
                }
                is_change = false;
                down.write_all(&answered).await?;
                answered.clear();
            }
        }
    }
}
