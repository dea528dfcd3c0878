//! The people that podsec makes: their categories, and what a request may say of them.

use crate::name::AccountName;
use crate::secret::Password;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What somebody is to podsec; decides his groups and what is put in his home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Category {
    /// Publishes signed images.
    ImageCreator {
        /// Repositories in which he signs.
        scopes: Scopes,
        /// Others may have them too.
        shared: bool,
    },
    /// Runs signed images.
    ImageUser,
    /// A person of the Kubernetes cluster.
    ClusterUser,
    /// The cluster user of the configuration.
    ClusterAdmin,
}

impl Category {
    /// As the command line and the audit write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ImageCreator { .. } => "image-creator",
            Self::ImageUser => "image-user",
            Self::ClusterUser => "cluster-user",
            Self::ClusterAdmin => "cluster-admin",
        }
    }

    /// The repositories that this one signs in.
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        match self {
            Self::ImageCreator { scopes, .. } => &scopes.0,
            _ => &[],
        }
    }

    /// Does he run containers, and so need subordinate ids?
    #[must_use]
    pub fn has_containers(&self) -> bool {
        !matches!(self, Self::ClusterUser)
    }
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Login name.
    pub name: AccountName,
    /// What he is.
    pub category: Category,
    /// May be empty.
    pub full_name: FullName,
    /// His processes outlive his login.
    pub linger: bool,
    /// A signing key to be made with him.
    pub key: Option<NewKey>,
    /// Change nothing.
    pub dry_run: bool,
}

/// A signing key to be made by gpg as its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Which kind.
    pub algorithm: KeyAlgorithm,
    /// Until it expires.
    pub days: KeyDays,
    /// `None`: the private key is protected by the home alone.
    pub passphrase: Option<Password>,
}

/// Days that a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct KeyDays(u32);

/// Why a number is none of [`KeyDays`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is good for 1 to {} days", KeyDays::MOST)]
pub struct KeyDaysError;

impl KeyDays {
    /// Five years; a key that nobody looks at for longer is a key that nobody looks at.
    const MOST: u32 = 1826;

    /// # Errors
    /// [`KeyDaysError`]
    pub fn new(days: u32) -> Result<Self, KeyDaysError> {
        if (1..=Self::MOST).contains(&days) { Ok(Self(days)) } else { Err(KeyDaysError) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for KeyDays {
    /// Two years.
    fn default() -> Self {
        Self(730)
    }
}

crate::checked!(KeyDays(u32), KeyDaysError);

/// Kinds of keys that podsec makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// EdDSA over Curve25519.
    #[default]
    Ed25519,
    /// For verifiers that know nothing newer.
    Rsa3072,
    /// The same, longer.
    Rsa4096,
}

impl KeyAlgorithm {
    /// As gpg(1) takes it for `--quick-generate-key`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

/// The user id (RFC 9580 §5.11) of a creator's key: whoever signs with `--sign-by` finds it by the address.
#[must_use]
pub fn key_user_id(name: &AccountName, full_name: &FullName, scopes: &[Scope]) -> String {
    let host = scopes.first().map_or("localhost", Scope::host);
    let shown = if full_name.as_str().is_empty() { name.as_str() } else { full_name.as_str() };
    format!("{shown} <{name}@{host}>")
}

/// Why a text is no full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FullNameError {
    /// gpg wants five characters at least together with the address, passwd(5) is read by programs with short lines.
    #[error("a full name has at most {} bytes", FullName::LONGEST)]
    Length,
    /// `:` ends the field, `,` the name in it; `=` would be a setting to PAM (chfn(1)); `<`, `>`, `"` and `\` would end
    /// it in a key's user id.
    #[error("character {0} of the full name is one of : , = < > \" \\ & or not printed")]
    Character(usize),
    /// A name that begins or ends with a blank, or with a digit, which gpg takes for a mistake.
    #[error("a full name begins with a letter and does not end with a blank")]
    Ends,
}

/// The full name in the GECOS field of passwd(5): text that looks as it is (CVE-2023-29383: `\r` or a control
/// character lets a line look like another).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FullName(String);

impl FullName {
    const LONGEST: usize = 120;

    /// # Errors
    /// [`FullNameError`] names the position, from 1.
    pub fn new(text: impl Into<String>) -> Result<Self, FullNameError> {
        let text = text.into();
        if text.len() > Self::LONGEST {
            return Err(FullNameError::Length);
        }
        // The fillers of Hangul are letters to Unicode, and show nothing.
        let is_seen = |c: char| !matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
        let allowed = |c: char| c == ' ' || "-'.()/".contains(c) || (c.is_alphanumeric() && is_seen(c));
        if let Some(position) = text.chars().position(|c| !allowed(c)) {
            return Err(FullNameError::Character(position + 1));
        }
        if text.starts_with(|c: char| !c.is_alphabetic()) || text.ends_with(' ') {
            return Err(FullNameError::Ends);
        }
        Ok(Self(text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::checked!(FullName(String), FullNameError);

/// Why a text is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Nothing, or too much.
    #[error("a scope has 1 to {} bytes", Scope::LONGEST)]
    Length,
    /// A registry is told from a path by its dot (distribution/reference).
    #[error("a scope begins with the registry's host, which has a dot: registry.local/team")]
    Host,
    /// After the host's colon.
    #[error("the port of a scope's registry is 1 to 65535")]
    Port,
    /// More than [`Scope::DEPTH`].
    #[error("a scope has at most {} parts after the registry", Scope::DEPTH)]
    Depth,
    /// A part of the path.
    #[error(
        "part {0} of the scope's path is not made of a-z and 0-9 with single '.', '_', '__' or '-' between"
    )]
    Part(usize),
}

/// A repository or a namespace of repositories, as containers-policy.json(5) takes it for the transport `docker`:
/// `registry.local`, `registry.local:5000/team/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    const LONGEST: usize = 255;
    const DEPTH: usize = 8;

    /// # Errors
    /// [`ScopeError`]
    pub fn new(text: impl Into<String>) -> Result<Self, ScopeError> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(ScopeError::Length);
        }
        let mut parts = text.split('/');
        let registry = parts.next().unwrap_or_default();
        let (host, port) =
            registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
        // RFC 1123 §2.1, with a dot
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !host.contains('.') || !host.split('.').all(label) {
            return Err(ScopeError::Host);
        }
        if let Some(port) = port {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
            if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return Err(ScopeError::Port);
            }
        }
        let path: Vec<_> = parts.collect();
        if path.len() > Self::DEPTH {
            return Err(ScopeError::Depth);
        }
        match path.iter().position(|part| !is_path_component(part)) {
            Some(index) => Err(ScopeError::Part(index + 1)),
            None => Ok(Self(text)),
        }
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The registry's host, without port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split([':', '/']).next().unwrap_or_default()
    }

    /// Is a repository of the one also one of the other?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        within(&self.0, &other.0) || within(&other.0, &self.0)
    }
}

/// `path-component` of distribution/reference: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let ends = part.bytes().next().is_some_and(alphanumeric) && part.bytes().last().is_some_and(alphanumeric);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .into_iter()
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

crate::checked!(Scope(String), ScopeError);

/// In the order of the text.
impl std::borrow::Borrow<str> for Scope {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The repositories of one creator, in order: 1 to 16, of which none contains another, since which of the two he means
/// would decide what is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(Vec<Scope>);

/// Why these are no [`Scopes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopesError {
    /// Each is compared with all others.
    #[error("an image creator has 1 to {most} scopes, here are {0}", most = Scopes::MOST)]
    Count(usize),
    /// Positions, from 0.
    #[error("number {1} overlaps with number {0}")]
    Overlap(usize, usize),
}

impl Scopes {
    /// More than any one team works in.
    pub const MOST: usize = 16;

    /// # Errors
    /// [`ScopesError`]
    pub fn new(mut scopes: Vec<Scope>) -> Result<Self, ScopesError> {
        if !(1..=Self::MOST).contains(&scopes.len()) {
            return Err(ScopesError::Count(scopes.len()));
        }
        for (index, scope) in scopes.iter().enumerate() {
            if let Some(other) = scopes.iter().take(index).position(|other| other.overlaps(scope)) {
                return Err(ScopesError::Overlap(other, index));
            }
        }
        scopes.sort_unstable();
        Ok(Self(scopes))
    }
}

crate::checked!(Scopes(Vec<Scope>), ScopesError);

/// Why bytes are no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 1 to {most} bytes, this one has {0}", most = PublicKey::LONGEST)]
pub struct PublicKeyError(usize);

/// Bytes that are said to be a public key; what they are worth is for a process without rights to find out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Most bytes.
    pub const LONGEST: usize = 64 * 1024;

    /// # Errors
    /// [`PublicKeyError`]
    pub fn new(bytes: Vec<u8>) -> Result<Self, PublicKeyError> {
        if (1..=Self::LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(PublicKeyError(bytes.len()))
        }
    }

    /// As they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

crate::checked!(PublicKey(Vec<u8>), PublicKeyError);

/// Why a text is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint has 40 hexadecimal digits, or 64 for a sigstore key; short key ids can be made to collide"
)]
pub struct FingerprintError;

/// The fingerprint of an OpenPGP key of version 4 (RFC 9580 §5.5.4.2), 40 hexadecimal digits, or of sigstore's public key,
/// SHA-256 of its DER, 64 of them; upper case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// # Errors
    /// [`FingerprintError`]
    pub fn new(text: &str) -> Result<Self, FingerprintError> {
        if !matches!(text.len(), 40 | 64) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FingerprintError);
        }
        Ok(Self(text.to_ascii_uppercase()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;
    fn try_from(text: String) -> Result<Self, FingerprintError> {
        Self::new(&text)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn full_names() {
        for good in ["", "Alice", "Jean-Luc O'Neill", "Анна Петрова", "Team A (builds)", "José"] {
            assert_eq!(FullName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "a:b",
            "a,b",
            "a\nroot2:x:0:0",
            "a\rb",
            "a\u{202e}b",
            "a\u{2028}b",
            "a\u{9b}b",
            "a\u{301}",
            "Eve <root@x>",
            "a\\b",
            "a=b",
            "&",
            "1st",
            " a",
            "a ",
            "a\0",
            "a\u{200b}b",
            "a\u{feff}",
            "\u{3164}",
        ] {
            assert!(FullName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(FullName::new("a".repeat(121)), Err(FullNameError::Length));
        assert_eq!(FullName::new("ab:"), Err(FullNameError::Character(3)));
    }

    #[test]
    fn scopes() {
        for good in [
            "registry.local",
            "registry.local:5000",
            "registry.local/team",
            "a.b/c/d/e/f/g/h/i/j",
            "127.0.0.1:5000/x",
            "registry.local/a.b_c__d--e",
        ] {
            assert_eq!(Scope::new(good).unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", ScopeError::Length),
            ("team", ScopeError::Host),
            ("docker.io/../x", ScopeError::Part(1)),
            ("*.local", ScopeError::Host),
            ("Registry.local", ScopeError::Host),
            ("registry..local", ScopeError::Host),
            ("-a.b", ScopeError::Host),
            ("rеgistry.local", ScopeError::Host),
            ("registry.local:99999", ScopeError::Port),
            ("registry.local:0", ScopeError::Port),
            ("registry.local:05", ScopeError::Port),
            ("registry.local:", ScopeError::Port),
            ("registry.local:5000:1", ScopeError::Port),
            ("registry.local/", ScopeError::Part(1)),
            ("registry.local//a", ScopeError::Part(1)),
            ("registry.local/a/B", ScopeError::Part(2)),
            ("registry.local/a___b", ScopeError::Part(1)),
            ("registry.local/a._b", ScopeError::Part(1)),
            ("registry.local/x\"]=1|.default=[]#", ScopeError::Part(1)),
            ("registry.local/a\n", ScopeError::Part(1)),
            ("a.b/c/d/e/f/g/h/i/j/k", ScopeError::Depth),
        ] {
            assert_eq!(Scope::new(bad), Err(error), "{bad:?}");
        }
        assert_eq!(Scope::new(format!("a.b/{}", "x".repeat(252))), Err(ScopeError::Length));
        assert_eq!(Scope::new("registry.local:5000/team").unwrap().host(), "registry.local");
    }

    #[test]
    fn scopes_that_overlap() {
        let overlap = |a: &str, b: &str| Scope::new(a).unwrap().overlaps(&Scope::new(b).unwrap());
        assert!(overlap("a.b", "a.b/c") && overlap("a.b/c/d", "a.b/c") && overlap("a.b", "a.b"));
        assert!(!overlap("a.b/c", "a.b/cd") && !overlap("a.b", "a.b:5000/c") && !overlap("a.b", "a.bc"));
    }

    #[test]
    fn scopes_of_one_creator() {
        let scopes =
            |texts: &[&str]| Scopes::new(texts.iter().map(|&text| Scope::new(text).unwrap()).collect());
        let sorted = scopes(&["b.local", "a.local/x"]).unwrap();
        assert_eq!(Vec::from(sorted), [Scope::new("a.local/x").unwrap(), Scope::new("b.local").unwrap()]);
        assert_eq!(scopes(&[]), Err(ScopesError::Count(0)));
        assert_eq!(scopes(&["a.b", "c.d", "a.b/x"]), Err(ScopesError::Overlap(0, 2)));
        let many: Vec<_> = (0..17).map(|number| Scope::new(format!("a.b/{number}")).unwrap()).collect();
        assert_eq!(Scopes::new(many), Err(ScopesError::Count(17)));
    }

    #[test]
    fn days_and_bytes_of_keys() {
        assert_eq!([0, 1827].map(KeyDays::new), [Err(KeyDaysError); 2]);
        assert_eq!(KeyDays::new(1826).unwrap().get(), 1826);
        assert!(
            PublicKey::new(Vec::new()).is_err() && PublicKey::new(vec![0; PublicKey::LONGEST + 1]).is_err()
        );
        assert_eq!(PublicKey::new(vec![1]).unwrap().bytes(), [1]);
    }

    #[test]
    fn fingerprints_are_whole() {
        let digits = "0123456789abcdefABCD0123456789abcdefABCD";
        let longer = format!("{digits}{}", &digits[..24]);
        for good in [digits, &longer] {
            assert_eq!(Fingerprint::new(good).unwrap().as_str(), good.to_uppercase());
        }
        let wrong = [&longer[..63], &format!("{longer}0"), &longer.replace('a', "g")];
        for bad in ["", "DEADBEEF", &digits[..39], &format!("{digits}0"), &digits.replace('a', "g")]
            .into_iter()
            .chain(wrong)
        {
            assert!(Fingerprint::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn key_user_ids() {
        let name = AccountName::new("carol").unwrap();
        let scopes = [Scope::new("registry.local:5000/team").unwrap()];
        assert_eq!(key_user_id(&name, &FullName::default(), &scopes), "carol <carol@registry.local>");
        assert_eq!(key_user_id(&name, &FullName::new("Carol C").unwrap(), &[]), "Carol C <carol@localhost>");
    }

    proptest! {
        #[test]
        fn a_full_name_is_one_field_of_one_line(text in "\\PC{0,30}|[\\x00-\\xff]{0,30}") {
            if let Ok(name) = FullName::new(text) {
                prop_assert!(!name.as_str().contains([':', ',', '\n', '\r', '<', '>']));
                prop_assert!(!name.as_str().chars().any(char::is_control));
            }
        }
    }
}
