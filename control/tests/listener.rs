//! The listener over real sockets.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the API's tests use the rest")]
mod memory;

use control::Journals;
use control::api::{Options, router};
use control::listener::{Listener, serve};
use memory::MemoryService;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

fn open() -> Options {
    Options { is_authentication_off: true, ..Options::default() }
}

/// Sends `head` and `body` in one piece on a connection of their own.
async fn send(address: std::net::SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// P6. A stop answers what is under way and closes the rest, so that it ends.
#[tokio::test]
async fn a_stop_answers_the_request_under_way_and_ends() {
    let service = Arc::new(MemoryService::new());
    let release = service.hold_changes();
    let folder = tempfile::tempdir().unwrap();
    let journals = Arc::new(Journals::open(folder.path()).unwrap());
    let router = router(Arc::clone(&service) as _, journals, open()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(Listener::Tcp(listener), router, async { drop(stopped.await) }));

    // An idle connection, known to be taken since it has had an answer, and one whose request waits in the service.
    let mut idle = send(address, "GET /v1/health", "").await;
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    let mut waiting = send(address, "POST /v1/volumes", "{\"name\":\"late\",\"size\":\"1G\"}").await;
    service.change_waits.notified().await;

    drop(stop);
    release.send(()).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// P8. Bytes that are no HTTP get an error or nothing, and the next client is served.
#[tokio::test]
async fn rubbish_harms_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let journals = Arc::new(Journals::open(folder.path()).unwrap());
    let router = router(Arc::new(MemoryService::new()), journals, open()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(Listener::Tcp(listener), router, std::future::pending()));
    for rubbish in
        [b"\0\0\0\0NBDMAGICIHAVEOPT\r\n\r\n".to_vec(), b"GET / HTTP/9.9\r\n\r\n".to_vec(), vec![b'A'; 1 << 20]]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be refused before all of it is sent.
        drop(stream.write_all(&rubbish).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut healthy = send(address, "GET /v1/health", "").await;
    let mut first = [0; 15];
    healthy.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    serving.abort();
}
