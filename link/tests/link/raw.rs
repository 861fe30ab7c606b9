//! Somebody who holds a site's certificate and says whatever a test wants.

use crate::site::pem;
use replication::wire::{Hello, LinkId, Opening, VERSIONS};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use units::{PoolId, SiteId};

pub(crate) fn hello(link: u8, connection: u16) -> Hello {
    Hello {
        versions: VERSIONS,
        site: SiteId(1),
        wants: SiteId(2),
        pool: PoolId([1; 16]),
        link: LinkId([link; 16]),
        connection,
        data_connections: 1,
        window_bytes: 1 << 20,
    }
}

/// Connects as site 1, and says nothing yet.
pub(crate) async fn connect(address: &str) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("authority.pem")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(pem("site-1.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("site-1-key.pem")).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("site-2.aljibe").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// Says who it is, and reads the answer.
pub(crate) async fn open(address: &str, hello: Hello) -> (TlsStream<TcpStream>, Opening) {
    let mut stream = connect(address).await;
    stream.write_all(&Opening::Hello(hello).encode()).await.unwrap();
    stream.flush().await.unwrap();
    let mut received = Vec::new();
    loop {
        stream.read_buf(&mut received).await.unwrap();
        if let Some(opening) = Opening::decode(&mut received.as_slice()).unwrap() {
            return (stream, opening);
        }
    }
}

/// A whole link of a control connection and one that carries data.
pub(crate) async fn link(address: &str, number: u8) -> [TlsStream<TcpStream>; 2] {
    let (control, _) = open(address, hello(number, 0)).await;
    let (data, _) = open(address, hello(number, 1)).await;
    [control, data]
}
