//! Certificates, keys and authorities from PEM files, and the configuration of a TLS client of them.

#![forbid(unsafe_code)]

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// A file is of no use.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read, or holds no PEM section of its kind.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// An authority is no certificate of one.
    #[error("an authority in {} is of no use", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The certificates of a file, at least one: a chain begins with its owner's.
///
/// # Errors
/// [`FileError::File`].
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(file_error(path, pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(source) => Err(file_error(path, source)),
    }
}

/// The private key of a file.
///
/// # Errors
/// [`FileError::File`].
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| file_error(path, source))
}

/// The authorities of a file, at least one.
///
/// # Errors
/// [`FileError`].
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        let refused = |source| FileError::Authority { path: path.to_owned(), source };
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

fn file_error(path: &Path, source: pem::Error) -> FileError {
    FileError::File { path: path.to_owned(), source }
}

/// The files of a TLS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities of servers.
    pub authorities: PathBuf,
    /// The client's certificate chain, its own first, and the key of its certificate, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The files do not make a client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// One of them is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the TLS certificate and its key are of no use")]
    Key(#[source] rustls::Error),
}

impl ClientFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ClientError`] names the file or the fault.
    pub fn load(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ClientError::Key)?
            .with_root_certificates(authorities(&self.authorities)?);
        Ok(Arc::new(match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(chain(certificate)?, private_key(key)?).map_err(ClientError::Key)?
            }
        }))
    }
}
