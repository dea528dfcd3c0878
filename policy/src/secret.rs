//! What must not be seen: it has no form that prints, and is overwritten when it is no longer needed.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a secret. Serialised only towards another process of podsec.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "bytes")] Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For the one program that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

mod bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Zeroizing<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // A form for people is a form for files and records (serde's `is_human_readable`); frames are not.
        if serializer.is_human_readable() {
            return Err(serde::ser::Error::custom("a secret is not written down"));
        }
        bytes.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        Vec::deserialize(deserializer).map(Zeroizing::new)
    }
}

/// Why bytes are not a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short to be worth anything, or longer than gpg-agent(1) takes as a passphrase.
    #[error("a password or passphrase has {} to {} bytes", Password::SHORTEST, Password::LONGEST)]
    Length,
    /// What no terminal could type back.
    #[error("a password or passphrase is UTF-8 text")]
    Text,
    /// A newline would be another line for chpasswd(8): another user's.
    #[error("a password or passphrase has no control characters")]
    Control,
}

/// A password, as chpasswd(8) takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Secret", into = "Secret")]
pub struct Password(Secret);

impl Password {
    const SHORTEST: usize = 8;
    const LONGEST: usize = 255;

    /// # Errors
    /// [`PasswordError`], which says nothing of the bytes
    pub fn new(secret: Secret) -> Result<Self, PasswordError> {
        if !(Self::SHORTEST..=Self::LONGEST).contains(&secret.expose().len()) {
            return Err(PasswordError::Length);
        }
        let text = std::str::from_utf8(secret.expose()).map_err(|_| PasswordError::Text)?;
        if text.chars().any(char::is_control) {
            return Err(PasswordError::Control);
        }
        Ok(Self(secret))
    }

    /// See [`Secret::expose`].
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

crate::checked!(Password(Secret), PasswordError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn password(bytes: &[u8]) -> Result<Password, PasswordError> {
        Password::new(Secret::new(bytes.to_vec()))
    }

    #[test]
    fn passwords() {
        for good in ["12345678", "with : colon", "пароль из слов", " leading and trailing "] {
            password(good.as_bytes()).unwrap();
        }
        for (bad, error) in [
            (&b""[..], PasswordError::Length),
            (b":", PasswordError::Length),
            (&[b'x'; 256], PasswordError::Length),
            (b"longenough\xff", PasswordError::Text),
            (b"x\nroot:longenough", PasswordError::Control),
            (b"longenough\r", PasswordError::Control),
            (b"long\0enough", PasswordError::Control),
            ("longenough\u{85}".as_bytes(), PasswordError::Control),
        ] {
            assert_eq!(password(bad), Err(error), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let shown =
            format!("{:?} {:?}", password(b"hunter2 hunter2").unwrap(), Secret::new(b"hunter2".to_vec()));
        assert_eq!(shown, "Password((secret)) (secret)");
        let password = password(b"hunter2 hunter2").unwrap();
        assert_eq!(serde_json::to_string(&password).unwrap_err().to_string(), "a secret is not written down");
        assert_eq!(
            postcard::from_bytes::<Password>(&postcard::to_stdvec(&password).unwrap()).unwrap(),
            password
        );
    }

    proptest! {
        #[test]
        fn a_frame_carries_no_other_password(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let frame = postcard::to_stdvec(&Secret::new(bytes.clone())).unwrap();
            let read = postcard::from_bytes::<Password>(&frame);
            prop_assert_eq!(read.is_ok(), password(&bytes).is_ok());
        }
    }
}
