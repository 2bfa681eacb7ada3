//! The parser's complaints in one line, with the place and, for a misspelt field, the nearest one.

use super::fault::Syntax;
use serde::de::DeserializeOwned;
use serde_saphyr::Error;

/// Reads one document of YAML into its raw form.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Syntax> {
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| describe(&error))
}

fn describe(error: &Error) -> Syntax {
    let error = error.without_snippet();
    let (line, column) = error
        .location()
        .map_or((0, 0), |location| (location.line(), location.column()));
    Syntax {
        line,
        column,
        what: what(error),
    }
}

fn what(error: &Error) -> String {
    if let Error::SerdeUnknownField {
        field, expected, ..
    } = error
    {
        let hint = nearest(field, expected).map_or_else(
            || format!("known are {}", expected.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        return format!("unknown field {}; {hint}", field.escape_debug());
    }
    if let Error::SerdeMissingField { field, .. } = error {
        return format!("field {field} is missing; add it");
    }
    if let Error::DuplicateMappingKey { key, .. } = error {
        let key = key.as_deref().unwrap_or("a key");
        return format!("field {} is there twice; remove one", key.escape_debug());
    }
    if let Error::Eof { .. } = error {
        return "the file ends too early; write the rest".to_owned();
    }
    if let Error::NullIntoString { .. } = error {
        return "a value is missing; add it".to_owned();
    }
    if let Error::Unexpected { expected, .. } = error {
        return match *expected {
            "string scalar" => "must be one value, neither a list nor a map; correct it".to_owned(),
            "sequence start" => "must be a list; put it in [ ]".to_owned(),
            "mapping start" => "must be a map; write it as { field: value }".to_owned(),
            other => format!("expected {other}; correct it"),
        };
    }
    // The parser adds the place to its text again; ours stands in front already.
    let text = error.to_string();
    let line = text.lines().next().unwrap_or("cannot be parsed");
    let line = line
        .rsplit_once(" at line ")
        .map_or(line, |(before, _)| before);
    format!("{}; correct it", line.trim_end_matches([':', '.', ' ']))
}

/// The known field that was probably meant.
fn nearest<'a>(field: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (field.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|name| (distance(&field.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance: insertions, removals and replacements.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_finds_its_neighbour() {
        assert_eq!(nearest("prefixs", &["name", "prefixes"]), Some("prefixes"));
        assert_eq!(
            nearest("publickey", &["publicKey", "endpoint"]),
            Some("publicKey")
        );
        assert_eq!(nearest("colour", &["publicKey", "endpoint"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
