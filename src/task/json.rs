//! The little that is needed of JSON: an object's members as raw text, read without recursion.

use super::event::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Why bytes are not a JSON object that we read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not UTF-8.
    #[error("not valid JSON")]
    NotJson,
    /// JSON, but another type.
    #[error("not a JSON object")]
    NotAnObject,
    /// More than [`JSON_DEPTH_MAX`] levels.
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
}

/// Calls `on_member` with each member of a JSON object: its key, and its value as JSON text without
/// white space around it. The text is checked whole before this returns `Ok`.
pub(super) fn walk_object<'a>(
    json: &'a [u8],
    on_member: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), JsonError> {
    check_depth(json)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = Walk(on_member).deserialize(&mut deserializer);
    walked
        .and_then(|()| deserializer.end())
        .map_err(|error| if error.is_data() { JsonError::NotAnObject } else { JsonError::NotJson })
}

/// The items of a JSON array, each as JSON text.
///
/// # Errors
/// `NotJson`, `TooDeep`; whatever is no array is `NotAnObject`.
pub fn items(json: &[u8]) -> Result<Vec<&str>, JsonError> {
    check_depth(json)?;
    let items: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| {
        if error.is_data() { JsonError::NotAnObject } else { JsonError::NotJson }
    })?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// Appends a JSON array of JSON values.
pub fn write_items(values: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value.as_ref());
    }
    out.push(b']');
}

/// Refuses deep nesting before anything recursive sees it.
pub(super) fn check_depth(json: &[u8]) -> Result<(), JsonError> {
    // Nearly every event has fewer brackets than the limit; counting them is much cheaper than
    // telling which of them are open and which stand in strings.
    let brackets = json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if brackets > JSON_DEPTH_MAX && depth(json) > JSON_DEPTH_MAX {
        return Err(JsonError::TooDeep);
    }
    Ok(())
}

fn depth(json: &[u8]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => (),
        }
    }
    most
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => (),
        }
    }
}

/// The text of a JSON string; `None` for another type or a lone surrogate.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Appends a JSON string.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string is written to memory");
}

struct Walk<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de str)> DeserializeSeed<'de> for Walk<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Cow<'de, str>, &'de str)> Visitor<'de> for Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key_seed(Key)? {
            let value: &'de RawValue = members.next_value()?;
            (self.0)(key, value.get());
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(json: &[u8]) -> Result<Vec<(String, String)>, JsonError> {
        let mut found = Vec::new();
        walk_object(json, |key, value| found.push((key.into_owned(), value.to_owned())))?;
        Ok(found)
    }

    #[test]
    fn members_come_as_written() {
        let found = members(br#" {"a" : 1000000000000000000000000000000, "\u0062": {"c":[ ]}} "#);
        let expected = [("a", "1000000000000000000000000000000"), ("b", "{\"c\":[ ]}")];
        assert_eq!(found.unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "{", "{}x", "nonsense", "{\"a\":}", "{\"a\":\"\n\"}", "{\"a\":1,}"] {
            assert_eq!(members(bad.as_bytes()), Err(JsonError::NotJson), "{bad}");
        }
        assert_eq!(members(b"{\"a\":\"\xff\"}"), Err(JsonError::NotJson));
        for other in ["null", "1", "[]", "\"x\"", "true"] {
            assert_eq!(members(other.as_bytes()), Err(JsonError::NotAnObject), "{other}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_brackets_in_strings_do_not_count() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(members(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(members(nested(JSON_DEPTH_MAX + 1).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(members("[".repeat(1_000_000).as_bytes()), Err(JsonError::TooDeep));
        let text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(1_000));
        assert!(members(text.as_bytes()).is_ok());
    }

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(string("\"a\\u00e4\\n\"").as_deref(), Some("a\u{e4}\n"));
        assert_eq!(string("\"plain\"").as_deref(), Some("plain"));
        for bad in ["12", "null", "\"\\ud800\"", "[]"] {
            assert_eq!(string(bad), None, "{bad}");
        }
    }
}
