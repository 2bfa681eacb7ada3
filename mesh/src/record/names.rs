//! Names and labels as Kubernetes allows them.

use std::collections::BTreeMap;

/// The most labels that one record can have.
pub const MAX_LABELS: usize = 64;

/// Why a name or a label is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// RFC 1123, section 2.1, as Kubernetes reads it.
    #[error("must be a DNS label: 1 to 63 of a-z, 0-9 and '-', not at the ends")]
    Label,
    /// Labels joined by dots.
    #[error("must be a DNS name in lower case of at most 253 characters")]
    Name,
    /// Kubernetes' rule for keys of labels.
    #[error(
        "must be a label key: an optional DNS name and '/', then 1 to 63 of A-Z, a-z, 0-9, '-', '_' and '.'"
    )]
    LabelKey,
    /// Kubernetes' rule for values of labels.
    #[error("must be a label value: at most 63 of A-Z, a-z, 0-9, '-', '_' and '.'")]
    LabelValue,
    /// See [`MAX_LABELS`].
    #[error("must be at most 64 labels")]
    TooManyLabels,
}

/// Checks a DNS label, such as a namespace's or a service's name.
///
/// # Errors
/// [`NameError::Label`].
pub fn check_label(text: &str) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits { Ok(()) } else { Err(NameError::Label) }
}

/// Checks a DNS name in lower case, such as a node's or a pod's.
///
/// # Errors
/// [`NameError::Name`].
pub fn check_name(text: &str) -> Result<(), NameError> {
    let fits = text.len() <= 253 && text.split('.').all(|label| check_label(label).is_ok());
    if fits { Ok(()) } else { Err(NameError::Name) }
}

/// Checks labels.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), NameError> {
    if labels.len() > MAX_LABELS {
        return Err(NameError::TooManyLabels);
    }
    for (key, value) in labels {
        let (prefix, name) = key
            .rsplit_once('/')
            .map_or((None, key.as_str()), |(p, n)| (Some(p), n));
        if name.is_empty() || !is_label_text(name) || prefix.is_some_and(|p| check_name(p).is_err())
        {
            return Err(NameError::LabelKey);
        }
        if !is_label_text(value) {
            return Err(NameError::LabelValue);
        }
    }
    Ok(())
}

fn is_label_text(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|&b| inner(b)) && end(bytes.first()) && end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for good in ["a", "shop", "a-1", "0a"] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert_eq!(check_label(bad), Err(NameError::Label), "{bad}");
        }
        assert_eq!(check_name("node-1.example.org"), Ok(()));
        for bad in ["", "a..b", ".a", "a.", &"a.".repeat(130)] {
            assert_eq!(check_name(bad), Err(NameError::Name), "{bad}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        let check = |key: &str, value: &str| {
            check_labels(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        assert_eq!(check("app.kubernetes.io/name", "Shop_1.2"), Ok(()));
        assert_eq!(check("app", ""), Ok(()));
        for bad in ["", "/", "a/", "-a", "a_", "A.B/x", "a/b/c", &"a".repeat(64)] {
            assert_eq!(check(bad, "x"), Err(NameError::LabelKey), "{bad}");
        }
        for bad in ["-", "a b", &"a".repeat(64), "ä"] {
            assert_eq!(check("app", bad), Err(NameError::LabelValue), "{bad}");
        }
        let many = (0..65).map(|n| (format!("l{n}"), String::new())).collect();
        assert_eq!(check_labels(&many), Err(NameError::TooManyLabels));
    }
}
