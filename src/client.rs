//! Calls a daemon's API over TCP or a unix socket, one request a connection, and waits for the answer.

use crate::address::Address;
use crate::cli::Target;
use crate::failure::{Exit, Failure};
use crate::output::written;
use anyhow::Context;
use control::Problem;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// A daemon's API.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    /// What stands in the requests' `Authorization`.
    bearer: Option<HeaderValue>,
    runtime: Runtime,
}

/// Longest wait for a connection.
const CONNECT_DURATION_MAX: Duration = Duration::from_secs(5);

/// Longest wait for an answer: longer than the daemon lets a request take, so that its own refusal is seen.
const ANSWER_DURATION_MAX: Duration = Duration::from_secs(45);

/// Things that are asked for at once of a list.
const PART_LEN: usize = 1000;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Client {
    /// The daemon that is meant, with the token that is.
    pub(crate) fn of(target: &Target) -> Result<Self, Failure> {
        let environment = |name: &str| std::env::var_os(name);
        let token = target.token(environment)?;
        Self::new(target.address(environment)?, token.as_deref())
    }

    pub(crate) fn new(address: Address, token: Option<&str>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let bearer = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut bearer = bearer.map_err(|_| Failure::usage("the token holds what no token does"))?;
        bearer.iter_mut().for_each(|value| value.set_sensitive(true));
        Ok(Self { address, bearer, runtime: runtime.context("cannot start the client")? })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(&self.call(Method::GET, path, Bytes::new())?)
    }

    /// A whole list, part by part.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{separator}limit={PART_LEN}");
        let mut list: Map<String, Value> = self.get(&first)?;
        while let Some(cursor) = list.remove("next_cursor") {
            let cursor = cursor.as_str().unwrap_or_default();
            let part: Map<String, Value> = self.get(&format!("{first}&cursor={cursor}"))?;
            for (member, more) in part {
                match (list.get_mut(&member), more) {
                    (Some(Value::Array(listed)), Value::Array(mut more)) => listed.append(&mut more),
                    (_, more) => drop(list.insert(member, more)),
                }
            }
        }
        decoded(list.into())
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        decode(&self.call(Method::POST, path, body.into())?)
    }

    /// As [`Self::post`], of what takes as long as it takes.
    pub(crate) fn post_long<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        decode(&self.runtime.block_on(self.send_within(Duration::MAX, self.request(Method::POST, path, body.into())?))?)
    }

    /// As [`Self::post`], of a body that is JSON already.
    pub(crate) fn post_raw<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        decode(&self.call(Method::POST, path, body.into())?)
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        decode(&self.call(Method::PUT, path, body.into())?)
    }

    /// As [`Self::get`], of what is no JSON of ours.
    pub(crate) fn fetch_bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// Writes an answer of any length as it comes.
    pub(crate) fn fetch_to(&self, path: &str, out: &mut impl Write) -> Result<(), Failure> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        self.runtime.block_on(async {
            match &self.address {
                Address::Tcp { host, port } => {
                    let stream = self.connect(TcpStream::connect((host.as_str(), *port))).await?;
                    self.receive(stream, request, out).await
                }
                Address::Unix(path) => {
                    let stream = self.connect(UnixStream::connect(path)).await?;
                    self.receive(stream, request, out).await
                }
            }
        })
    }

    async fn receive<S>(&self, stream: S, request: Request<Full<Bytes>>, out: &mut impl Write) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let silent = || self.unreachable(&format!("no answer within {ANSWER_DURATION_MAX:?}"));
        let broken = |error: hyper::Error| self.unreachable(&format!("{error:#}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let answer = timeout(ANSWER_DURATION_MAX, sender.send_request(request)).await;
        let (head, mut body) = answer.map_err(|_| silent())?.map_err(broken)?.into_parts();
        if !head.status.is_success() {
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
            return Err(self.refused(head.status, &body.to_bytes()));
        }
        while let Some(frame) = timeout(ANSWER_DURATION_MAX, body.frame()).await.map_err(|_| silent())? {
            if let Ok(bytes) = frame.map_err(broken)?.into_data() {
                written(out.write_all(&bytes))?;
            }
        }
        written(out.flush())
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call(Method::DELETE, path, Bytes::new()).map(|_| ())
    }

    /// Where the daemon's API is.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Runs what does more than to call the API, and may call it by [`Self::post_within`].
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// As [`Self::get`], within [`Self::run`].
    pub(crate) async fn fetch_within<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(&self.send(Method::GET, path, Bytes::new()).await?)
    }

    /// As [`Self::post`], within [`Self::run`].
    pub(crate) async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        decode(&self.send(Method::POST, path, body.into()).await?)
    }

    /// As [`Self::delete`], within [`Self::run`].
    pub(crate) async fn delete_within(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        self.runtime.block_on(self.send(method, path, body))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        self.send_within(ANSWER_DURATION_MAX, self.request(method, path, body)?).await
    }

    async fn send_within(&self, limit: Duration, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        match &self.address {
            Address::Tcp { host, port } => {
                let stream = self.connect(TcpStream::connect((host.as_str(), *port))).await?;
                self.exchange(stream, request, limit).await
            }
            Address::Unix(path) => {
                let stream = self.connect(UnixStream::connect(path)).await?;
                self.exchange(stream, request, limit).await
            }
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body));
        let mut request = request.context("cannot make the request")?;
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
        }
        Ok(request)
    }

    async fn connect<S>(&self, connecting: impl Future<Output = std::io::Result<S>>) -> Result<S, Failure> {
        match timeout(CONNECT_DURATION_MAX, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable(&format!("no connection within {CONNECT_DURATION_MAX:?}"))),
        }
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>, limit: Duration) -> Result<Bytes, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (status, body) = match timeout(limit, exchange(stream, request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(&format!("{error:#}"))),
            Err(_) => return Err(self.unreachable(&format!("no answer within {limit:?}"))),
        };
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        serde_json::from_slice::<Problem>(body).map_or_else(
            |_| {
                let detail = format!("{} answers {status} without a reason: is it an aljibe daemon?", self.address);
                Failure::new(Exit::Failure, "bad_answer", detail)
            },
            Failure::from,
        )
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let hint = "is the daemon running, and are --data or --api right?";
        let detail = format!("cannot reach the daemon at {}: {reason}: {hint}", self.address);
        Failure::new(Exit::Unreachable, "daemon_unreachable", detail)
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // An error of the connection reaches the request, too.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((head.status, body.to_bytes()))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| unexpected(&error))
}

/// A part of an answer.
pub(crate) fn decoded<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| unexpected(&error))
}

fn unexpected(error: &serde_json::Error) -> Failure {
    let detail = format!("the daemon's answer is not what this program expects: {error}: do their versions differ?");
    Failure::new(Exit::Failure, "bad_answer", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, MemoryService};
    use control::listener::{Listener, serve};
    use control::{CreateVolume, Service, Volume, VolumeList, VolumeSize};
    use std::sync::Arc;
    use tokio::net::{TcpListener, UnixListener};
    use tokio::sync::oneshot;

    /// Serves the API in a thread of its own until dropped.
    struct Daemon {
        service: Arc<MemoryService>,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
        _folder: tempfile::TempDir,
    }

    impl Daemon {
        fn start(bind: impl FnOnce() -> Listener + Send + 'static) -> Self {
            let service = Arc::new(MemoryService::new());
            let folder = tempfile::tempdir().unwrap();
            let journals = Arc::new(control::Journals::open(folder.path()).unwrap());
            let options = control::api::Options::default();
            let router = control::api::router(Arc::clone(&service) as _, journals, options).unwrap();
            let (stop, stopped) = oneshot::channel();
            let (bound, is_bound) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = bind();
                    bound.send(()).unwrap();
                    serve(listener, router, async { drop(stopped.await) }).await;
                });
            });
            is_bound.recv().unwrap();
            Self { service, stop: Some(stop), thread: Some(thread), _folder: folder }
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn create(name: &str) -> CreateVolume {
        CreateVolume {
            name: name.into(),
            size_bytes: Some(1 << 30),
            size: None,
            image: None,
            history: None,
            class: None,
        }
    }

    #[test]
    fn commands_reach_the_api_over_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let socket = path.clone();
        let daemon = Daemon::start(move || Listener::Unix(UnixListener::bind(socket).unwrap()));
        let client = Client::new(Address::Unix(path), Some(memory::ADMIN)).unwrap();
        let made: Volume = client.post("/v1/volumes", &create("vm-1")).unwrap();
        assert_eq!(made.size_bytes, 1 << 30);
        let conflict = client.post::<Volume>("/v1/volumes", &create("vm-1")).unwrap_err();
        assert_eq!((conflict.exit, conflict.code.as_str()), (Exit::Conflict, "volume_exists"));
        assert!(conflict.request_id.is_some());
        daemon.service.attach("vm-1", 1);
        assert_eq!(client.delete("/v1/volumes/vm-1").unwrap_err().exit, Exit::Conflict);
        client.delete("/v1/volumes/vm-1?force").unwrap();
        assert!(client.get::<VolumeList>("/v1/volumes").unwrap().volumes.is_empty());
        assert_eq!(client.get::<Volume>("/v1/volumes/vm-1").unwrap_err().exit, Exit::NotFound);
    }

    /// A list that is longer than an answer may be is whole.
    #[test]
    fn a_list_is_followed_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let socket = path.clone();
        let daemon = Daemon::start(move || Listener::Unix(UnixListener::bind(socket).unwrap()));
        let client = Client::new(Address::Unix(path), Some(memory::ADMIN)).unwrap();
        let (size, history) = (VolumeSize::from_bytes(512).unwrap(), control::KeepHistory::default());
        for number in 0..=2 * PART_LEN {
            let name = format!("vm-{number:04}").parse().unwrap();
            client.run(daemon.service.create_volume(name, size, history, None)).unwrap();
        }
        let list: VolumeList = client.list("/v1/volumes?tenant=default").unwrap();
        assert_eq!((list.volumes.len(), list.next_cursor), (2 * PART_LEN + 1, None));
        assert!(list.volumes.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn commands_reach_the_api_over_tcp() {
        let (address, is_bound) = std::sync::mpsc::channel();
        let _daemon = Daemon::start(move || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            Listener::Tcp(TcpListener::from_std(listener).unwrap())
        });
        let address = Address::from(is_bound.recv().unwrap());
        let stranger = Client::new(address.clone(), None).unwrap().get::<VolumeList>("/v1/volumes").unwrap_err();
        assert_eq!((stranger.exit, stranger.code.as_str()), (Exit::NotAllowed, "unauthenticated"));
        let client = Client::new(address, Some(memory::ADMIN)).unwrap();
        assert!(client.get::<VolumeList>("/v1/volumes").unwrap().volumes.is_empty());
    }

    #[test]
    fn a_daemon_that_is_not_there_is_unreachable_and_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let failure =
            Client::new(Address::Unix(path.clone()), None).unwrap().get::<VolumeList>("/v1/volumes").unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.detail.contains(path.to_str().unwrap()), "{failure}");
        // Something listens and hangs up without an answer.
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || drop(listener.accept()));
        let failure = Client::new(Address::Unix(path), None).unwrap().get::<VolumeList>("/v1/volumes").unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        thread.join().unwrap();
    }
}
