//! The configurations of both directions from PEM files.

use super::site_name;
use super::verify::PeerVerifier;
use certificates::{FileError, authorities, chain, private_key};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use units::SiteId;

/// The files of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate chain, its own first. It serves for both directions.
    pub certificate: PathBuf,
    /// The key of its certificate.
    pub key: PathBuf,
    /// How the other site's certificate is known.
    pub trust: Trust,
}

/// How the other site's certificate is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Signed by an authority in the file, and named after the site ([`site_name`]).
    Authority(PathBuf),
    /// It is the one in the file.
    Pinned(PathBuf),
}

/// The files are of no use.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// One of them is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the link's certificate and its key are of no use")]
    Key(#[source] rustls::Error),
    /// The authorities are of no use.
    #[error("the authorities in {} are of no use", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// Both directions.
#[derive(Debug, Clone)]
pub(crate) struct TlsConfigs {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    /// The name that a client asks for.
    pub(crate) name: ServerName<'static>,
}

/// Reads the files of a site of which `peer` is the other one.
pub(crate) fn load(files: &TlsFiles, peer: SiteId) -> Result<TlsConfigs, TlsConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let name = ServerName::try_from(site_name(peer)).expect("the name of a site is one of DNS");
    let verifier = Arc::new(verifier(&files.trust, &name, &provider)?);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsConfigError::Key)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<PeerVerifier>::clone(&verifier));
    let mut client = client
        .with_client_auth_cert(chain(&files.certificate)?, private_key(&files.key)?)
        .map_err(TlsConfigError::Key)?;
    client.resumption = rustls::client::Resumption::disabled();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsConfigError::Key)?
        .with_client_cert_verifier(verifier);
    let mut server =
        server.with_single_cert(chain(&files.certificate)?, private_key(&files.key)?).map_err(TlsConfigError::Key)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(TlsConfigs { client: Arc::new(client), server: Arc::new(server), name })
}

fn verifier(
    trust: &Trust,
    name: &ServerName<'static>,
    provider: &Arc<CryptoProvider>,
) -> Result<PeerVerifier, TlsConfigError> {
    match trust {
        Trust::Authority(path) => {
            let roots = Arc::new(authorities(path)?);
            let refused = |source| TlsConfigError::Authorities { path: path.clone(), source };
            PeerVerifier::signed(&roots, name.clone(), provider).map_err(refused)
        }
        Trust::Pinned(path) => {
            let mut found = chain(path)?;
            Ok(PeerVerifier::pinned(found.swap_remove(0), provider))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pem(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pem").join(name)
    }

    fn refused(certificate: &str, key: &str, trust: Trust) -> String {
        let files = TlsFiles { certificate: pem(certificate), key: pem(key), trust };
        load(&files, SiteId(2)).unwrap_err().to_string()
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let authority = |name| Trust::Authority(pem(name));
        let trust = || authority("authority.pem");
        assert!(refused("none.pem", "site-1-key.pem", trust()).contains("none.pem"));
        assert!(refused("site-1.pem", "site-1.pem", trust()).contains("site-1.pem"));
        assert!(refused("site-1.pem", "site-2-key.pem", trust()).contains("certificate and its key"));
        assert!(refused("site-1.pem", "site-1-key.pem", authority("site-1-key.pem")).contains("site-1-key.pem"));
        assert!(refused("site-1.pem", "site-1-key.pem", Trust::Pinned(pem("none.pem"))).contains("none.pem"));
    }
}
