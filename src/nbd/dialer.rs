//! Connecting to a server: the socket, TLS where the address wants it, and the handshake, each within its time.

use super::handshake::Handshake;
use super::{Connection, Host, NbdError, NbdUri};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Longest wait for a socket to be connected.
const CONNECT_DURATION_MAX: Duration = Duration::from_secs(10);

/// How servers are connected to.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// The client's side of TLS; without it, no server is spoken with over TLS.
    pub(crate) tls: Option<TlsConnector>,
    /// Longest silence of a server that owes an answer, and longest handshake.
    pub(crate) silence_max: Duration,
}

/// What a server is spoken with over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dialer {
    /// Connects to an export.
    ///
    /// # Errors
    /// [`NbdError`]; the server's refusal says why.
    pub(crate) async fn open(&self, uri: &NbdUri) -> Result<Connection, NbdError> {
        let no_connection = |reason: &dyn std::fmt::Display| NbdError::Unreachable(format!("{}: {reason}", uri.host));
        let stream = timeout(CONNECT_DURATION_MAX, connect(&uri.host)).await;
        let late = |_| no_connection(&format_args!("it takes longer than {CONNECT_DURATION_MAX:?}"));
        let stream = stream.map_err(late)?.map_err(|error| no_connection(&error))?;
        let silent = |_| NbdError::Silent { command: "shake hands for NBD", waited: self.silence_max };
        timeout(self.silence_max, self.enter(stream, uri)).await.map_err(silent)?
    }

    async fn enter(&self, stream: Box<dyn Stream>, uri: &NbdUri) -> Result<Connection, NbdError> {
        let mut handshake = Handshake::begin(stream).await?;
        if let Some(name) = &uri.tls_name {
            handshake = self.start_tls(handshake, name).await?;
        }
        let (stream, facts, input) = handshake.enter(&uri.export).await?;
        Ok(Connection::new(stream, facts, input, self.silence_max))
    }

    /// Goes on over TLS; never in clear where TLS is wanted.
    async fn start_tls(
        &self,
        handshake: Handshake<Box<dyn Stream>>,
        name: &str,
    ) -> Result<Handshake<Box<dyn Stream>>, NbdError> {
        let Some(tls) = &self.tls else {
            return Err(NbdError::Handshake("TLS wants an authority: name it by --tls-ca FILE".to_owned()));
        };
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| NbdError::Handshake(format!("{name:?} is no name that a certificate could bear")))?;
        let stream = handshake.into_tls_stream().await?;
        let stream = tls.connect(server, stream).await.map_err(|error| {
            NbdError::Handshake(format!(
                "TLS with the server fails: {error}: is --tls-ca its authority, is its certificate for {name}, does it \
                 want --tls-cert?"
            ))
        })?;
        let stream: Box<dyn Stream> = Box::new(stream);
        Ok(Handshake::over(stream))
    }
}

async fn connect(host: &Host) -> std::io::Result<Box<dyn Stream>> {
    Ok(match host {
        Host::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Host::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Dialer");
        shown.field("is_tls", &self.tls.is_some()).field("silence_max", &self.silence_max).finish()
    }
}
