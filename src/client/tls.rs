//! Whom to trust. Always with ring, never with a process-wide default provider.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the authorities that this machine trusts.
    #[default]
    System,
    /// Those of the authorities in a PEM file, and no others.
    File(PathBuf),
    /// Any: the connection is encrypted, but to whom is not known. For `--dev` servers.
    Anyone,
}

/// What proves a client: a certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, the client's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The trust cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of authorities cannot be used.
    #[error("{}: {problem}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The client's own certificate or key cannot be used.
    #[error("{}: {problem}", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// rustls refuses.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// rustls finds nothing to verify with.
    #[error(transparent)]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// A client's side of TLS. HTTP/1.1 only: WebSocket needs it, and SSE costs the server half as much over it.
///
/// # Errors
/// If the authorities, or the client's certificate or key, cannot be read.
pub fn client_config(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anyone => Arc::new(AnyCertificate(provider.clone())),
        Trust::System => verifier(system_roots(), &provider)?,
        Trust::File(path) => verifier(file_roots(path)?, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(identity) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let fault = |path: &Path, problem: String| TlsError::Identity { path: path.to_owned(), problem };
    let of_cert = |error: pem::Error| fault(&identity.cert, error.to_string());
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&identity.cert).map_err(of_cert)?.collect::<Result<_, _>>().map_err(of_cert)?;
    if chain.is_empty() {
        return Err(fault(&identity.cert, "holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| fault(&identity.key, error.to_string()))?;
    Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::client::VerifierBuilderError> {
    if roots.is_empty() {
        // A machine without authorities (a bare container) must still start, and then trust no one.
        return Ok(Arc::new(NoCertificate(provider.clone())));
    }
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(error = %error, "Some of this machine's certificate authorities cannot be read.");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let fault = |problem: String| TlsError::Authorities { path: path.to_owned(), problem };
    let pem = fs::read(path).map_err(|error| fault(error.to_string()))?;
    authorities(&pem).map_err(fault)
}

/// The authorities in a PEM text, of which there must be one; or what is wrong.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(roots) }
}

/// Accepts every certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// Accepts none.
#[derive(Debug)]
struct NoCertificate(Arc<CryptoProvider>);

macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

impl ServerCertVerifier for NoCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    verify_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_a_fault() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = Trust::File(file.path().to_owned());
        assert!(matches!(client_config(&trust, None), Err(TlsError::Authorities { .. })));
        assert!(client_config(&Trust::File("/nowhere".into()), None).is_err());
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_a_fault_that_names_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let identity = Identity { cert: file.path().to_owned(), key: "/nowhere".into() };
        let error = client_config(&Trust::Anyone, Some(&identity)).unwrap_err();
        assert!(matches!(&error, TlsError::Identity { path, .. } if path == file.path()), "{error}");
    }

    #[test]
    fn every_other_trust_can_be_set_up_without_a_default_provider() {
        assert!(client_config(&Trust::Anyone, None).is_ok());
        assert!(client_config(&Trust::System, None).is_ok());
    }
}
