//! TLS at the doors: the provider of this process, and certificates from files.

use std::path::PathBuf;

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::TlsFiles;

/// Chooses the cryptography of everything that speaks TLS here. First of all: without it others fail at run time.
pub fn install_provider() {
    // It fails only where one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// What the doors present to clients.
pub fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let of_cert = |problem: String| TlsError { key: "http.tls_cert", path: files.cert.clone(), problem };
    let of_key = |problem: String| TlsError { key: "http.tls_key", path: files.key.clone(), problem };
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(|error| of_cert(error.to_string()))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| of_cert(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_cert("there is no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| of_key(error.to_string()))?;
    let config = ServerConfig::builder().with_no_client_auth();
    config.with_single_cert(chain, key).map_err(|error| of_cert(error.to_string()))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {problem}; give PEM files of a certificate chain and its key", path.display())]
pub struct TlsError {
    key: &'static str,
    path: PathBuf,
    problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_names_the_file_and_the_key() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty.pem"), "").unwrap();
        std::fs::write(path("odd.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for (cert, key, setting) in [
            ("missing.pem", "empty.pem", "http.tls_cert"),
            ("empty.pem", "empty.pem", "http.tls_cert"),
            ("odd.pem", "missing.pem", "http.tls_key"),
            ("odd.pem", "empty.pem", "http.tls_key"),
        ] {
            let error = server_config(&TlsFiles { cert: path(cert), key: path(key) }).unwrap_err();
            assert_eq!(error.key, setting, "{error}");
            assert!(error.to_string().contains(if setting == "http.tls_cert" { cert } else { key }), "{error}");
        }
    }
}
