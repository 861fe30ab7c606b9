//! One judgement of the other site's certificate for both directions.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Knows the other site's certificate.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    known: Known,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Known {
    /// By who signed it and the name that it bears.
    Signed { server: Arc<WebPkiServerVerifier>, client: Arc<dyn ClientCertVerifier>, name: ServerName<'static> },
    /// By itself.
    Pinned(CertificateDer<'static>),
}

impl PeerVerifier {
    pub(super) fn signed(
        roots: &Arc<RootCertStore>,
        name: ServerName<'static>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
        let client = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { known: Known::Signed { server, client, name }, algorithms })
    }

    pub(super) fn pinned(certificate: CertificateDer<'static>, provider: &CryptoProvider) -> Self {
        Self { known: Known::Pinned(certificate), algorithms: provider.signature_verification_algorithms }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

fn is_pinned(pinned: &CertificateDer<'_>, shown: &CertificateDer<'_>) -> Result<(), Error> {
    if pinned == shown { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
}

/// Only TLS 1.3 is configured.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.known {
            Known::Signed { server, name, .. } => server.verify_server_cert(shown, intermediates, name, ocsp, now),
            Known::Pinned(pinned) => is_pinned(pinned, shown).map(|()| ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: whoever connects has one certificate, and a stranger need not learn whom this site trusts.
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.known {
            Known::Signed { client, name, .. } => {
                let verified = client.verify_client_cert(shown, intermediates, now)?;
                // Signed by the authority is what the own certificate is, too: the name tells the sites apart.
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(verified)
            }
            Known::Pinned(pinned) => is_pinned(pinned, shown).map(|()| ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
