//! Names that the configuration or a caller may give. Each has one constructor, which refuses and never repairs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a name of an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than 32 bytes (`UT_NAMESIZE`, utmp(5)).
    #[error("a name has 1 to 32 characters, this one has {0}")]
    Length(usize),
    /// First characters are stricter than the rest: a leading `-` would be an option to useradd.
    #[error(
        "character {position} of the name is not allowed there: a-z, 0-9, '_' and '-', and a letter or '_' first"
    )]
    Character {
        /// Starts at 1.
        position: usize,
    },
}

/// The name of a user or of a group: `[a-z_][a-z0-9_-]{0,31}`, the portable subset of useradd(8).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(String);

impl AccountName {
    /// # Errors
    /// [`NameError`] names the position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() || text.len() > 32 {
            return Err(NameError::Length(text.len()));
        }
        for (index, byte) in text.bytes().enumerate() {
            let allowed =
                matches!(byte, b'a'..=b'z' | b'_') || (index > 0 && matches!(byte, b'0'..=b'9' | b'-'));
            if !allowed {
                return Err(NameError::Character { position: index + 1 });
            }
        }
        Ok(Self(text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::checked!(AccountName(String), NameError);

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_the_position() {
        assert_eq!(AccountName::new("wheel").unwrap().as_str(), "wheel");
        assert_eq!(AccountName::new(""), Err(NameError::Length(0)));
        assert_eq!(AccountName::new("a".repeat(33)), Err(NameError::Length(33)));
        for (text, position) in
            [("-rf", 1), ("Wheel", 1), ("wheel ", 6), ("a:b", 2), ("x\n", 2), ("0", 1), ("ünix", 1)]
        {
            assert_eq!(AccountName::new(text), Err(NameError::Character { position }), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn accepts_only_the_documented_subset(text in "\\PC{0,40}") {
            let allowed = (1..=32).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
            prop_assert_eq!(AccountName::new(text).is_ok(), allowed);
        }
    }
}
