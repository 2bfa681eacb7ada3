//! What names an attachment: a network, a container, an interface in it.

use crate::json::short;
use std::fmt;

/// The longest name of an interface, in bytes: `IFNAMSIZ` less its 0.
const LONGEST_INTERFACE: usize = 15;
/// The longest of the others, in bytes: a name of a file. Those of runtimes have 64.
const LONGEST: usize = 255;

/// Letters, digits and `_.-`, of which the first is a letter or a digit (SPEC, "Parameters").
fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && text.len() <= LONGEST
}

/// The rule of [`ContainerId`] and [`NetworkName`].
pub(crate) const WORD: &str =
    "must be 1 to 255 letters, digits, '_', '.' and '-', the first a letter or a digit";
/// The rule of [`InterfaceName`].
pub(crate) const INTERFACE: &str =
    "must have 1 to 15 bytes without '/', ':' and spaces, and not be '.', '..' or 'lo'";

/// A container, as its runtime calls it. It may be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A network. It may be part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

/// An interface in a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl ContainerId {
    /// Nothing, if it is none.
    pub fn new(text: &str) -> Option<Self> {
        is_word(text).then(|| Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NetworkName {
    /// Nothing, if it is none.
    pub fn new(text: &str) -> Option<Self> {
        is_word(text).then(|| Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfaceName {
    /// Nothing, if it is none.
    pub fn new(text: &str) -> Option<Self> {
        let is_legal = (1..=LONGEST_INTERFACE).contains(&text.len())
            && ![".", "..", "lo"].contains(&text)
            && !text.contains(|c: char| "/:".contains(c) || c.is_whitespace() || c.is_control());
        is_legal.then(|| Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `CNI_IFNAME "a/b": RULE`
pub(crate) fn broken(field: &str, value: &str, rule: &str) -> String {
    format!("{field} {:?}: {rule}", short(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_part_of_a_path_leave_no_folder() {
        for right in [
            "a",
            "0",
            "cnitool-77383ca0",
            "a.b_c-D",
            &"f".repeat(64),
            &"f".repeat(255),
        ] {
            assert!(ContainerId::new(right).is_some() && NetworkName::new(right).is_some());
        }
        for wrong in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-a",
            "_a",
            "a b",
            "a\0",
            "ä",
            "a\n",
            &"f".repeat(256),
        ] {
            assert!(ContainerId::new(wrong).is_none(), "{wrong:?}");
            assert!(NetworkName::new(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn interfaces_have_names_that_the_kernel_takes() {
        for right in ["eth0", "a", "net1.100", "abcdefghijklmno", "eth-0_x@y"] {
            assert!(InterfaceName::new(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            ".",
            "..",
            "lo",
            "abcdefghijklmnop",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\0",
            "\u{2003}",
        ] {
            assert!(InterfaceName::new(wrong).is_none(), "{wrong:?}");
        }
    }
}
