//! The configuration's text: JSON, read strictly.

use crate::{Code, Error};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The longest configuration that is read, in bytes.
pub const MAX_CONFIG: usize = 1 << 20;
/// The longest text of somebody else that is shown, in characters.
const SHOWN: usize = 80;

/// Reads an object.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let fault = |what: String| Error::new(Code::Decoding, format!("config: {what}"));
    if bytes.len() > MAX_CONFIG {
        let length = bytes.len();
        return Err(fault(format!(
            "has {length} bytes or more; must have at most {MAX_CONFIG}"
        )));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(fault(
            "begins with a byte order mark; must be JSON in UTF-8 without one".to_owned(),
        ));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(fault(
            "is empty; must be a JSON object on standard input".to_owned(),
        ));
    }
    let read: Result<Strict, _> = serde_json::from_slice(bytes);
    match read {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(Strict(_)) => Err(fault("must be a JSON object".to_owned())),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let text = error.to_string();
            // Without the place, which is told first.
            let what = text
                .rsplit_once(" at line ")
                .map_or(&*text, |(what, _)| what);
            let told = fault(format!("invalid JSON at line {line} column {column}"));
            Err(told.with_details(short(what)))
        }
    }
}

/// A text of somebody else: short, and on one line.
pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A value in which no object has a key twice: who reads the last and who reads the first would disagree.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if values.contains_key(&key) {
                let twice = format!("the key {:?} comes twice", short(&key));
                return Err(serde::de::Error::custom(twice));
            }
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let error = object(bytes).unwrap_err();
        assert_eq!(error.code, Code::Decoding);
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_place() {
        for (text, told) in [
            ("", "config: is empty"),
            (" \n", "config: is empty"),
            ("{", "config: invalid JSON at line 1 column 1"),
            ("{\n \"a\": }", "config: invalid JSON at line 2 column 7"),
            ("[]", "config: must be a JSON object"),
            ("7", "config: must be a JSON object"),
            ("{} {}", "config: invalid JSON at line 1 column 4"),
            ("\u{feff}{}", "config: begins with a byte order mark"),
            (
                "{\"a\": 1, \"a\": 2}",
                "config: invalid JSON at line 1 column 16: the key \"a\" comes twice",
            ),
            (
                "{\"b\": [{\"a\": 1, \"a\": 1}]}",
                "config: invalid JSON at line 1 column",
            ),
        ] {
            let line = refused(text.as_bytes());
            assert!(line.starts_with(told), "{text:?}: {line}");
        }
        refused(b"{\"a\": \"\xff\"}");
        refused(&vec![b' '; MAX_CONFIG + 1]);
        // Deep nesting costs no stack.
        let deep = format!("{{\"a\": {}", "[".repeat(100_000));
        assert!(refused(deep.as_bytes()).contains("recursion limit"));
    }

    #[test]
    fn what_is_one_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, 3.5, null, true, "x"], "b": {"c": {}}}"#;
        let read = object(text.as_bytes()).unwrap();
        assert_eq!(
            Value::Object(read),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn texts_of_others_are_shown_short_and_on_one_line() {
        assert_eq!(short("a\nb\u{1b}[1m"), "a?b?[1m");
        assert_eq!(short(&"ä".repeat(100)), format!("{}...", "ä".repeat(80)));
    }
}
