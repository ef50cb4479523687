//! Whom a client certificate names.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Names of one certificate that count: the first ones.
const NAMES_MAX: usize = 16;
/// Bytes of a name that counts: a longer one is no gateway's.
const NAME_BYTES_MAX: usize = 253;

/// The DNS names, in lower case, and the URIs that a verified certificate is for (its subject alternative names). Its
/// common name does not count, and a wildcard stands for nothing but itself.
pub(super) fn certificate_names(certificate: &CertificateDer<'_>) -> Arc<[Box<str>]> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Arc::default() };
    let hosts = certificate.valid_dns_names().map(str::to_ascii_lowercase);
    let names = hosts.chain(certificate.valid_uri_names().map(str::to_owned));
    names.filter(|name| name.len() <= NAME_BYTES_MAX).take(NAMES_MAX).map(String::into_boxed_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn names(sans: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate_names(certificate.der()).iter().map(ToString::to_string).collect()
    }

    fn host(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn hosts_in_lower_case_and_uris_as_they_are() {
        let uri = SanType::URI("spiffe://Example/Edge".try_into().unwrap());
        let address = SanType::IpAddress([192, 0, 2, 1].into());
        assert_eq!(names(vec![address, host("EDGE-1.example"), uri]), ["edge-1.example", "spiffe://Example/Edge"]);
        assert_eq!(names(Vec::new()), [""; 0]);
    }

    #[test]
    fn of_many_names_a_few_count() {
        let many = |count| names((0..count).map(|n| host(&format!("edge-{n}.example"))).collect());
        assert_eq!(many(1_000).len(), NAMES_MAX);
        assert_eq!(many(5_000), [""; 0], "a certificate of more than 64 KiB is none");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0_usize..400, put: u8) {
            certificate_names(&CertificateDer::from(bytes));
            let mut whole = CertificateParams::new(["edge-1.example".to_owned()]).unwrap()
                .self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            if let Some(byte) = whole.get_mut(at) { *byte = put; }
            certificate_names(&CertificateDer::from(whole));
        }
    }
}
