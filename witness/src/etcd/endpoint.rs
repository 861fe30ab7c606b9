//! One member of a cluster: connections that are kept, and requests of which it is known whether they were sent.
//!
//! A new connection first asks for the member's status: so a change is only ever sent to who has answered before, has told which
//! cluster it is, and knew a leader.

use super::name::Name;
use super::pin::Pin;
use super::wire::{self, Answer, StatusAnswer};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Most bytes of an answer, and of its head.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Longest time until a new connection's first answer; then another member is tried.
const DIAL_DURATION_MAX: Duration = Duration::from_millis(400);

/// Most connections that are kept for later.
const IDLE_LEN_MAX: usize = 8;

/// Why a connection is of no use.
const GONE: &str = "its connection has gone";

/// A name or address without brackets, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing of the request was sent: it may be sent elsewhere.
    Unsent(String),
    /// It may have been taken.
    Sent(String),
}

/// A member.
pub(super) struct Endpoint {
    at: HostPort,
    name: Name,
    tls: Option<TlsConnector>,
    pin: Arc<Pin>,
    idle: Mutex<Vec<Connection>>,
    /// What was last wrong with it; nothing while it answers.
    complaint: Mutex<Option<String>>,
}

type Connection = SendRequest<Full<Bytes>>;

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How etcd says why it refuses.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Endpoint {
    pub(super) fn new(at: HostPort, tls: Option<TlsConnector>, pin: Arc<Pin>) -> Self {
        let name = Name::new(&at);
        Self { at, name, tls, pin, idle: Mutex::new(Vec::new()), complaint: Mutex::new(None) }
    }

    pub(super) const fn at(&self) -> &HostPort {
        &self.at
    }

    /// Whether it answered when it was last asked.
    pub(super) fn is_well(&self) -> bool {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Asks once, and waits for the answer of the cluster that is believed.
    pub(super) async fn ask<A: Answer>(&self, path: &'static str, body: Bytes, by: Instant) -> Result<A, Fault> {
        let answer = self.exchange(path, body, by).await.and_then(|(answer, connection)| {
            let judged = self.judged(&answer).map_err(Fault::Sent)?;
            // Only now: behind one that said anything else there may be another member, or another cluster.
            self.keep(connection);
            Ok(judged)
        });
        self.note(answer.as_ref().err());
        answer
    }

    /// An answer that says that it is one, not judged yet, with the connection that it came by.
    async fn exchange(
        &self,
        path: &'static str,
        body: Bytes,
        by: Instant,
    ) -> Result<(Bytes, Option<Connection>), Fault> {
        while let Some(connection) = self.take_idle() {
            match post(connection, self.request(path, &body), by).await {
                Posted::Sent(answer, connection) => {
                    return answer.map(|answer| (answer, connection)).map_err(Fault::Sent);
                }
                // A connection that was kept had gone.
                Posted::Unsent => {}
            }
        }
        let dial_by = by.min(Instant::now() + DIAL_DURATION_MAX);
        let dialed = timeout_at(dial_by, self.dial(dial_by)).await;
        let late = |_| Fault::Unsent("no connection in time".to_owned());
        let connection = dialed.map_err(late)?.map_err(Fault::Unsent)?;
        match post(connection, self.request(path, &body), by).await {
            Posted::Sent(answer, connection) => answer.map(|answer| (answer, connection)).map_err(Fault::Sent),
            Posted::Unsent => Err(Fault::Unsent(GONE.to_owned())),
        }
    }

    fn keep(&self, connection: Option<Connection>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_LEN_MAX {
            idle.extend(connection);
        }
    }

    /// Connects, and hears who answers there.
    async fn dial(&self, by: Instant) -> Result<Connection, String> {
        let stream = self.connect().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(ANSWER_BYTES_MAX);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| told(&error))?;
        // Ends when the sender is dropped. An error of the connection reaches the request, too.
        tokio::spawn(connection);
        match post(sender, self.request(wire::STATUS, &wire::nothing()), by).await {
            Posted::Sent(answer, connection) => {
                self.judged::<StatusAnswer>(&answer?)?;
                connection.ok_or_else(|| GONE.to_owned())
            }
            Posted::Unsent => Err(GONE.to_owned()),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let addresses = self.name.addresses().await?;
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.at.host.clone())
            .map_err(|_| format!("{:?} is no name that a certificate could bear", self.at.host))?;
        let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS fails: {error}"))?;
        Ok(Box::new(stream))
    }

    fn request(&self, path: &'static str, body: &Bytes) -> Request<Full<Bytes>> {
        let request = Request::post(path)
            .header(header::HOST, self.at.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()));
        request.expect("the parts are constants and a host that an address was read with")
    }

    /// Reads an answer, and looks at whose it is.
    fn judged<A: Answer>(&self, body: &[u8]) -> Result<A, String> {
        let answer: A = serde_json::from_slice(body).map_err(|error| format!("its answer is not etcd's: {error}"))?;
        // A stranger is told of as one, whatever else is wrong with it; but only who can serve decides who is believed.
        if self.pin.known().is_some() {
            self.pin.check(answer.header().cluster(), &self.at)?;
        }
        answer.check()?;
        self.pin.check(answer.header().cluster(), &self.at)?;
        Ok(answer)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.is_closed());
        idle.pop()
    }

    /// Tells once when it begins to fail, and once when it answers again.
    fn note(&self, fault: Option<&Fault>) {
        let reason = fault.map(|(Fault::Unsent(reason) | Fault::Sent(reason))| reason.clone());
        let before =
            std::mem::replace(&mut *self.complaint.lock().unwrap_or_else(PoisonError::into_inner), reason.clone());
        match (before, reason) {
            (None, Some(reason)) => {
                tracing::warn!(endpoint = %self.at, reason, "a member of the witness does not answer");
            }
            (Some(_), None) => tracing::info!(endpoint = %self.at, "a member of the witness answers again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// What became of a request on one connection.
enum Posted {
    /// It was sent, or part of it may have been. With the connection, when that may be used again.
    Sent(Result<Bytes, String>, Option<Connection>),
    /// Nothing of it was.
    Unsent,
}

async fn post(mut connection: Connection, request: Request<Full<Bytes>>, by: Instant) -> Posted {
    if !matches!(timeout_at(by, connection.ready()).await, Ok(Ok(()))) {
        return Posted::Unsent;
    }
    let answered = timeout_at(by, async {
        // hyper gives the request back when it has not begun to write it, and only then.
        let response = match connection.try_send_request(request).await {
            Ok(response) => response,
            Err(error) if error.message().is_some() => return Posted::Unsent,
            Err(error) => return Posted::Sent(Err(told(error.error())), None),
        };
        let (head, body) = response.into_parts();
        match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
            Ok(body) => Posted::Sent(accepted(head.status, &body.to_bytes()), Some(connection)),
            Err(error) => Posted::Sent(Err(format!("its answer is cut or too long: {error}")), None),
        }
    });
    answered.await.unwrap_or_else(|_| Posted::Sent(Err("no answer in time".to_owned()), None))
}

fn accepted(status: StatusCode, body: &Bytes) -> Result<Bytes, String> {
    if status == StatusCode::OK {
        return Ok(body.clone());
    }
    let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
    let reason = refusal.map_or_else(|| "without a reason".to_owned(), |refusal| refusal.message);
    Err(format!("it answers {status}: {reason}"))
}

/// An error of hyper with what is behind it.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("at", &self.at).field("is_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}
