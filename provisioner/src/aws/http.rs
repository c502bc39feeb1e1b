//! The HTTP client: proxies and certificate authorities from the variables that every AWS tool honours.

use std::path::Path;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::Error;

/// The variable with the path of a PEM file; its certificates replace those of the system (AWS CLI user guide).
const BUNDLE: &str = "AWS_CA_BUNDLE";

/// Creates the client from `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` and `AWS_CA_BUNDLE`.
///
/// # Errors
/// The bundle cannot be read, or is not a PEM file with certificates.
pub(super) fn client() -> Result<SharedHttpClient, Error> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
    // A proxy cannot reach a local AWS on this machine.
    let proxy = if is_loopback(&endpoint) { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
    let roots = match std::env::var_os(BUNDLE).filter(|path| !path.is_empty()) {
        Some(path) => trust_store(Path::new(&path))?,
        None => TrustStore::default(),
    };
    build(proxy, roots)
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    ["127.", "localhost", "[::1]"].iter().any(|prefix| host.starts_with(prefix))
}

/// Reads a bundle. The client would panic at an invalid certificate, so each is checked here.
fn trust_store(path: &Path) -> Result<TrustStore, Error> {
    let help = "set AWS_CA_BUNDLE to a PEM file with certificates, or unset it";
    let name = path.display();
    let pem = std::fs::read(path)
        .map_err(|source| Error::io(format_args!("read the certificate bundle {name}"), help, &source))?;
    let invalid = |why: String| Error::usage(format!("failed to use the certificate bundle {name}: {why}"), help);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        RootCertStore::empty().add(certificate).map_err(|error| invalid(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(invalid("it has no certificate".to_owned()));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

fn build(proxy: ProxyConfig, roots: TrustStore) -> Result<SharedHttpClient, Error> {
    let context = TlsContext::builder().with_trust_store(roots).build();
    let context = context.map_err(|error| Error::internal("set up TLS", error))?;
    // The builder's own `build_https` has no proxy; this constructor differs from it in that alone.
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector
            .proxy_config(proxy.clone())
            .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn endpoint_on_this_machine_is_loopback() {
        for endpoint in ["http://127.0.0.1:4566", "https://localhost:4566/", "http://[::1]:1"] {
            assert!(is_loopback(endpoint), "{endpoint}");
        }
        for endpoint in ["", "https://sqs.us-east-1.amazonaws.com", "https://vpce.example.com/127.0.0.1"] {
            assert!(!is_loopback(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn invalid_certificate_bundle_is_an_error() {
        let error = |text: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(text).expect("written");
            trust_store(file.path()).map(drop).expect_err("an error").to_string()
        };
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [&b""[..], b"not PEM", garbage, b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
            assert!(error(text).contains("failed to use the certificate bundle"), "{}", error(text));
        }
        assert!(trust_store(Path::new("no/such/file")).is_err());
    }
}
