//! How the connections of a life are opened: who connects makes the id of the life and opens the control connection, then the others
//! at once; who listens collects them.

mod accept;
mod connect;
mod gather;

pub(crate) use accept::accept;
pub(crate) use connect::connect;

use crate::connection::{lost, why_of};
use crate::link::Shared;
use crate::news::{Peer, Why};
use replication::wire::{Hello, LinkId, OPENING_BYTES_MAX, Opening, Refusal, RefusalCode, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsStream;

/// A connection behind its opening.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) tls: TlsStream<TcpStream>,
    /// What came behind the opening.
    pub(crate) leftover: Vec<u8>,
    /// How many bytes of batches the other site takes on it.
    pub(crate) peer_window: u64,
}

/// All connections of a life: the control connection, then those that carry data.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) peer: Peer,
    pub(crate) streams: Vec<Stream>,
    /// Dropped when the life is over.
    pub(crate) over: Option<oneshot::Sender<()>>,
}

/// Which connection of which life is being opened.
#[derive(Debug, Clone, Copy)]
struct Place {
    link: LinkId,
    connection: u16,
    data_connections: u16,
}

impl Shared {
    fn hello(&self, place: Place) -> Hello {
        let Place { link, connection, data_connections } = place;
        Hello {
            versions: self.config.versions,
            site: self.config.site,
            wants: self.config.peer,
            pool: self.config.pool,
            link,
            connection,
            data_connections,
            window_bytes: self.config.window_bytes,
        }
    }

    /// Whether who says this is the other site and speaks a version that this one does.
    fn judge(&self, hello: &Hello) -> Result<Peer, Refusal> {
        let config = &self.config;
        if (hello.site, hello.wants) != (config.peer, config.site) {
            let text = format!(
                "it is site {} and wants site {}, here is site {} and wants site {}",
                hello.site, hello.wants, config.site, config.peer
            );
            return Err(refusal(RefusalCode::Site, &text));
        }
        let (theirs, ours) = (hello.versions, config.versions);
        let version = theirs.common(ours).ok_or_else(|| {
            let text =
                format!("it speaks versions {} to {}, here {} to {}", theirs.min, theirs.max, ours.min, ours.max);
            refusal(RefusalCode::Version, &text)
        })?;
        Ok(Peer { site: hello.site, pool: hello.pool, version })
    }
}

fn refusal(code: RefusalCode, text: &str) -> Refusal {
    Refusal { code, text: Text::new(text) }
}

/// Reads the other site's opening, and what came behind it.
async fn read_opening(tls: &mut TlsStream<TcpStream>, connection: u16) -> Result<(Hello, Vec<u8>), Why> {
    let mut received = Vec::with_capacity(OPENING_BYTES_MAX);
    loop {
        let mut input = received.as_slice();
        match Opening::decode(&mut input)? {
            Some(Opening::Hello(hello)) => return Ok((hello, input.to_vec())),
            Some(Opening::Refusal(refusal)) => return Err(Why::Refused(refusal)),
            None => {}
        }
        // Not more than an opening: there is always space, since it is whole by then.
        let mut space = (&mut *tls).take((OPENING_BYTES_MAX - received.len()) as u64);
        match space.read_buf(&mut received).await {
            Ok(0) => return Err(lost(connection, "the other site has closed it without a word")),
            Ok(_) => {}
            Err(error) => return Err(why_of(connection, &error)),
        }
    }
}

async fn write_opening(tls: &mut TlsStream<TcpStream>, opening: &Opening) -> std::io::Result<()> {
    tls.write_all(&opening.encode()).await?;
    tls.flush().await
}

/// Tells the other site why it is refused, as far as it listens.
async fn refuse(tls: &mut TlsStream<TcpStream>, refusal: Refusal) -> Why {
    let told = Opening::Refusal(refusal.clone());
    let _ = write_opening(tls, &told).await;
    let _ = tls.shutdown().await;
    Why::Refuses(refusal)
}
