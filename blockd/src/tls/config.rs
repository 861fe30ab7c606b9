//! The server's TLS configuration from PEM files.

use certificates::{FileError, authorities, chain, private_key};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain, its own first.
    pub certificate: PathBuf,
    /// The key of its certificate.
    pub key: PathBuf,
    /// What is asked of clients.
    pub clients: ClientCertificates,
}

/// What is asked of clients in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    Ignored,
    /// One that it presents must be signed by an authority in the file; it may present none.
    Optional(PathBuf),
    /// It must present one that is signed by an authority in the file.
    Required(PathBuf),
}

/// The files do not make a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// One of them is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the TLS certificate and its key are of no use")]
    Key(#[source] rustls::Error),
    /// The client authorities are of no use.
    #[error("the TLS client authorities are of no use")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file or the fault.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let (own, key) = (chain(&self.certificate)?, private_key(&self.key)?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::Key)?;
        let builder = match &self.clients {
            ClientCertificates::Ignored => builder.with_no_client_auth(),
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider);
                let verifier = match &self.clients {
                    ClientCertificates::Required(_) => verifier,
                    ClientCertificates::Optional(_) | ClientCertificates::Ignored => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(TlsConfigError::Authorities)?)
            }
        };
        builder.with_single_cert(own, key).map(Arc::new).map_err(TlsConfigError::Key)
    }
}
