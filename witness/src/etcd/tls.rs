//! The client's side of TLS with etcd, from PEM files.

use super::EtcdError;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The files of TLS with the members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities of the members' certificates.
    pub authorities: PathBuf,
    /// The client's certificate chain, its own first, and the key of its certificate, for clusters that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<TlsConnector, EtcdError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            let refused = |source| EtcdError::Authority { path: self.authorities.clone(), source };
            roots.add(certificate).map_err(refused)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(EtcdError::Tls)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error(key, source))?;
                builder.with_client_auth_cert(certificates(certificate)?, key_der).map_err(EtcdError::Tls)?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(file_error(path, pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(source) => Err(file_error(path, source)),
    }
}

fn file_error(path: &Path, source: pem::Error) -> EtcdError {
    EtcdError::File { path: path.to_owned(), source }
}
