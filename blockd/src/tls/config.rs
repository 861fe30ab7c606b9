//! TLS configurations from PEM files: the server's, and that of a client of ours.

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
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

/// The files of a TLS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClientFiles {
    /// The authorities of servers.
    pub authorities: PathBuf,
    /// The client's certificate chain, its own first, and the key of its certificate, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
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

/// The files do not make a server, or a client.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read, or holds no PEM section of its kind.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the TLS certificate and its key are of no use")]
    Key(#[source] rustls::Error),
    /// The client authorities are of no use.
    #[error("the TLS client authorities are of no use")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// An authority is no certificate of one.
    #[error("an authority in {} is of no use", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file or the fault.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let (chain, key) = (certificates(&self.certificate)?, private_key(&self.key)?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::Key)?;
        let builder = match &self.clients {
            ClientCertificates::Ignored => builder.with_no_client_auth(),
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
                let verifier = match &self.clients {
                    ClientCertificates::Required(_) => verifier,
                    ClientCertificates::Optional(_) | ClientCertificates::Ignored => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(TlsConfigError::Authorities)?)
            }
        };
        builder.with_single_cert(chain, key).map(Arc::new).map_err(TlsConfigError::Key)
    }
}

impl TlsClientFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file or the fault.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::Key)?
            .with_root_certificates(roots(&self.authorities)?);
        Ok(Arc::new(match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(TlsConfigError::Key)?,
        }))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let refused = |source| TlsConfigError::Authority { path: path.to_owned(), source };
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| file_error(path, source))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(file_error(path, pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(source) => Err(file_error(path, source)),
    }
}

fn file_error(path: &Path, source: pem::Error) -> TlsConfigError {
    TlsConfigError::File { path: path.to_owned(), source }
}
