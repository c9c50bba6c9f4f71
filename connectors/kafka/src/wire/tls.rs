//! TLS by rustls, with ring: whom we trust, and who we are.
//!
//! The broker's certificate is always verified, and so is its name; there is no setting against it.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tine_core::failure::Failure;

use super::settings::{Given, wrong};

/// What the user's settings mean: certificates are trusted from `ssl.ca.location`, else from the system.
pub(crate) fn config(given: &Given<'_>) -> Result<Arc<ClientConfig>, Failure> {
    if given.text("enable.ssl.certificate.verification").is_some_and(|value| value != "true") {
        return Err(wrong("enable.ssl.certificate.verification", "certificates are always verified; leave it out"));
    }
    if given.text("ssl.endpoint.identification.algorithm").is_some_and(|value| value != "https") {
        return Err(wrong("ssl.endpoint.identification.algorithm", "names are always verified; leave it out"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::fatal(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots(given.text("ssl.ca.location"))?);
    let own = (given.text("ssl.certificate.location"), given.text("ssl.key.location"));
    let config = match own {
        (None, None) => builder.with_no_client_auth(),
        (Some(chain), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("ssl.key.location", key, &error))?;
            builder
                .with_client_auth_cert(certificates("ssl.certificate.location", chain)?, key)
                .map_err(|error| wrong("ssl.certificate.location", &format!("it does not go with the key: {error}")))?
        }
        (Some(_), None) => return Err(wrong("ssl.key.location", "needed with ssl.certificate.location")),
        (None, Some(_)) => return Err(wrong("ssl.certificate.location", "needed with ssl.key.location")),
    };
    Ok(Arc::new(config))
}

fn roots(location: Option<&str>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let (found, asked) = match location {
        Some(file) => (certificates("ssl.ca.location", file)?, file),
        None => (rustls_native_certs::load_native_certs().certs, "the system's store"),
    };
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(wrong("ssl.ca.location", &format!("there is no usable certificate in {asked}")));
    }
    Ok(roots)
}

fn certificates(setting: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| unreadable(setting, file, &error))
}

fn unreadable(setting: &str, file: &str, error: &rustls::pki_types::pem::Error) -> Failure {
    Failure::fatal(format!("kafka setting {setting}: {file} cannot be read as PEM: {error}"))
}
