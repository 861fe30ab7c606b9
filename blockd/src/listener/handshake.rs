//! The handshake of one connection: bytes between the socket and [`Handshake`], TLS where it is started, and the
//! hand-over to the volume's shard.

use super::exports::{Client, Exports, Found};
use crate::nbd::Permit;
use crate::shard::{Message, NewConnection, ShardEnded};
use proto::iscsi::{FrameError, LoginFailure};
use proto::nbd::{CloseReason, Export, Handshake, Negotiated, Purpose, Refusal, Step, TlsPolicy};
use rustls::{ServerConfig, ServerConnection};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// Why a connection never came to its export.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the handshake took too long")]
    Late,
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Closed(CloseReason),
    #[error(transparent)]
    Shard(#[from] ShardEnded),
    #[error("the login failed: {0:?}")]
    Login(LoginFailure),
    #[error("a PDU that cannot be taken: {0:?}")]
    Frame(FrameError),
}

/// Takes clients in whose connections are accepted.
pub(super) trait Welcomes: Send + Sync + 'static {
    /// Brings a client as far as to its shard.
    fn welcome<S: Stream>(
        &self,
        stream: S,
        client: Client,
        permit: Permit,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A stream whose socket can be taken out.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// The socket, in blocking mode: the ring waits for it in the kernel.
    fn into_socket(self) -> io::Result<OwnedFd>;

    /// Where the client has come to, over TCP.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

impl Stream for TcpStream {
    fn into_socket(self) -> io::Result<OwnedFd> {
        let stream = self.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream.into())
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }
}

impl Stream for UnixStream {
    fn into_socket(self) -> io::Result<OwnedFd> {
        let stream = self.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream.into())
    }
}

/// What all handshakes share.
pub struct Service {
    /// Finds exports.
    pub exports: Arc<dyn Exports>,
    /// What is done about TLS.
    pub tls_policy: TlsPolicy,
    /// The server's side of TLS; without it TLS is off, whatever the policy says.
    pub tls: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service(TLS {:?})", self.policy())
    }
}

impl Service {
    fn policy(&self) -> TlsPolicy {
        if self.tls.is_some() { self.tls_policy } else { TlsPolicy::Off }
    }

    async fn go_on_over_tls<S: Stream>(
        &self,
        session: &mut Session<'_>,
        mut handshake: Handshake,
        stream: S,
    ) -> Result<(Box<Negotiated>, OwnedFd, ServerConnection), Failure> {
        let config = self.tls.as_ref().expect("TLS is offered only when it is configured");
        let mut stream = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
        handshake.tls_started();
        session.client.is_tls = true;
        let chain = stream.get_ref().1.peer_certificates();
        session.client.certificate = chain.and_then(<[_]>::first).map(|certificate| certificate.clone().into_owned());
        match session.drive(&mut handshake, &mut stream).await? {
            Outcome::Transmission(negotiated) => {
                let (stream, tls) = stream.into_inner();
                Ok((negotiated, stream.into_socket()?, tls))
            }
            Outcome::StartTls => Err(Failure::Closed(CloseReason::BytesBeforeTls)),
        }
    }
}

impl Welcomes for Service {
    /// Shakes hands and passes the connection on to its volume's shard.
    async fn welcome<S: Stream>(&self, mut stream: S, client: Client, permit: Permit) -> Result<(), Failure> {
        let mut session = Session { exports: &*self.exports, client, input: Vec::new(), found: None };
        let mut handshake = Handshake::new(self.policy());
        let (negotiated, socket, tls) = match session.drive(&mut handshake, &mut stream).await? {
            Outcome::Transmission(negotiated) => (negotiated, stream.into_socket()?, None),
            Outcome::StartTls => {
                let (negotiated, socket, tls) = self.go_on_over_tls(&mut session, handshake, stream).await?;
                (negotiated, socket, Some(tls))
            }
        };
        let found = session.found.expect("transmission begins with an export that was found");
        let connection = NewConnection {
            socket,
            volume: found.volume,
            negotiated: *negotiated,
            leftover: session.input,
            tls,
            changes: found.changes,
            attachment: found.attachment,
            // A snapshot stays open as long as its clients do.
            permit: Permit::new((permit, found.view)),
        };
        tracing::debug!(client = %session.client.peer, export = connection.negotiated.export.name, "connected");
        Ok(found.shard.send(Message::AddConnection(Box::new(connection)))?)
    }
}

/// What a handshake knows of its client.
struct Session<'a> {
    exports: &'a dyn Exports,
    client: Client,
    /// Received and not used yet.
    input: Vec<u8>,
    /// The export that the client enters.
    found: Option<Found>,
}

/// Where a handshake goes on.
enum Outcome {
    StartTls,
    Transmission(Box<Negotiated>),
}

impl Session<'_> {
    /// Moves bytes and answers questions until the handshake leaves this stream.
    async fn drive(
        &mut self,
        handshake: &mut Handshake,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Outcome, Failure> {
        loop {
            let mut rest = self.input.as_slice();
            let step = handshake.advance(&mut rest);
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            let output = handshake.take_output();
            stream.write_all(&output).await?;
            stream.flush().await?;
            match step {
                Step::NeedBytes => self.read(stream).await?,
                Step::FindExport { name, purpose } => self.find(handshake, &name, purpose).await,
                Step::ListExports => {
                    let list = self.exports.list(&self.client);
                    let list = list.as_ref().map_err(|refusal| *refusal);
                    handshake.answer_list(list.map(|listings| {
                        listings.iter().map(|listing| (listing.name.as_str(), listing.description.as_str()))
                    }));
                }
                Step::StartTls => return Ok(Outcome::StartTls),
                Step::Transmission(negotiated) => return Ok(Outcome::Transmission(negotiated)),
                Step::Close(reason) => return Err(Failure::Closed(reason)),
            }
        }
    }

    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
        let mut bytes = [0; READ_BYTES];
        match stream.read(&mut bytes).await? {
            0 => Err(Failure::Socket(io::ErrorKind::UnexpectedEof.into())),
            len => {
                self.input.extend_from_slice(bytes.get(..len).unwrap_or_default());
                Ok(())
            }
        }
    }

    async fn find(&mut self, handshake: &mut Handshake, name: &str, purpose: Purpose) {
        let export = match purpose {
            Purpose::Describe => self.exports.describe(name, &self.client),
            Purpose::Enter => self.enter(name).await,
        };
        handshake.answer_export(export);
    }

    async fn enter(&mut self, name: &str) -> Result<Export, Refusal> {
        let found = self.exports.find(name, &self.client)?;
        let found = self.found.insert(self.exports.open(found).await?);
        Ok(found.export.clone())
    }
}
