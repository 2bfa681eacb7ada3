//! What a certificate says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::time::{Duration, SystemTime};
use x509_parser::extensions::GeneralName;

/// A certificate, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shown {
    /// Its names that are URIs.
    pub uris: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// From then on it holds.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// How many others that sign may stand between it and a leaf; `None`: as many as they like.
    pub path_length: Option<u32>,
    /// The public key with its algorithm (SubjectPublicKeyInfo, DER).
    pub public_key: Vec<u8>,
}

/// Reads the first certificate of a PEM text.
pub fn of_pem(text: &str) -> Option<Shown> {
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
    of_der(&certificate)
}

/// Reads all certificates of a PEM text; there is at least one.
pub fn all_of_pem(text: &str) -> Option<Vec<Shown>> {
    let all = CertificateDer::pem_slice_iter(text.as_bytes());
    let all: Option<Vec<_>> = all.map(|der| of_der(&der.ok()?)).collect();
    all.filter(|all| !all.is_empty())
}

/// A time as RFC 3339 writes it, in UTC.
pub fn time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let Ok(time) = x509_parser::time::ASN1Time::from_timestamp(seconds) else {
        return format!("{seconds} s after 1970");
    };
    let time = time.to_datetime();
    let (date, month) = (time.date(), u8::from(time.month()));
    let (hour, minute, second) = time.to_hms();
    let (year, day) = (date.year(), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a certificate.
pub fn of_der(certificate: &[u8]) -> Option<Shown> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    let names = names.map(|names| names.value.general_names.as_slice());
    let uris = names.unwrap_or_default().iter().filter_map(|name| {
        if let GeneralName::URI(uri) = name {
            Some((*uri).to_owned())
        } else {
            None
        }
    });
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    let constraints = parsed.basic_constraints().ok()?;
    Some(Shown {
        uris: uris.collect(),
        issuer: parsed.issuer().to_string(),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
        is_ca: parsed.is_ca(),
        path_length: constraints.and_then(|it| it.value.path_len_constraint),
        public_key: parsed.public_key().raw.to_vec(),
    })
}

/// A certificate in PEM (RFC 7468, section 3).
pub fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII.
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The certificates of a PEM text, in DER. What is none is left out.
pub fn ders(text: &str) -> Vec<bytes::Bytes> {
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).flatten();
    all.map(|der| bytes::Bytes::copy_from_slice(&der)).collect()
}
