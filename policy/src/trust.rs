//! What a request may say of trust in images, of signatures, and of the servers behind both.

use crate::name::AccountName;
use crate::user::{Fingerprint, Scope};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Why a text is not the name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a host is a name of RFC 1123 with a dot in it, in lower case")]
pub struct HostNameError;

/// The name of a host (RFC 1123 §2.1), with a dot, by which a registry is told from a path (distribution/reference).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// # Errors
    /// [`HostNameError`]
    pub fn new(text: impl Into<String>) -> Result<Self, HostNameError> {
        let text = text.into();
        match Scope::new(text.as_str()) {
            Ok(scope) if scope.host() == text => Ok(Self(text)),
            _ => Err(HostNameError),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::checked!(HostName(String), HostNameError);

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint is a host with a dot in its name, and perhaps :PORT")]
pub struct EndpointError;

/// `host` or `host:port` of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Scope);

impl Endpoint {
    /// # Errors
    /// [`EndpointError`]
    pub fn new(text: impl Into<String>) -> Result<Self, EndpointError> {
        let scope = Scope::new(text).map_err(|_| EndpointError)?;
        if scope.as_str().contains('/') { Err(EndpointError) } else { Ok(Self(scope)) }
    }

    /// Without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// `None`: the one of its protocol.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.as_str().split_once(':').and_then(|(_, port)| port.parse().ok())
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;
    fn try_from(text: String) -> Result<Self, EndpointError> {
        Self::new(text)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0.into()
    }
}

/// How images are signed in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureKind {
    /// Simple signing, by OpenPGP keys: `signedBy` of containers-policy.json(5).
    Gpg,
    /// `sigstoreSigned` of the same.
    Sigstore,
}

/// Why a text is no reason for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {} characters, all printed", Why::LONGEST)]
pub struct WhyError;

/// Why somebody changed trust, in his words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Why(String);

impl Why {
    const LONGEST: usize = 200;

    /// # Errors
    /// [`WhyError`]
    pub fn new(text: impl Into<String>) -> Result<Self, WhyError> {
        let text = text.into();
        let odd = |c: char| {
            c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        };
        if text.chars().count() > Self::LONGEST || text.chars().any(odd) {
            return Err(WhyError);
        }
        Ok(Self(text))
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::checked!(Why(String), WhyError);

/// What every change of trust says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustReason {
    /// For the history.
    pub why: Why,
    /// Change nothing.
    pub dry_run: bool,
    /// Even what somebody changed by hand.
    pub overwrite: bool,
}

/// Where images and signatures are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The registry.
    pub registry: Endpoint,
    /// The web server that gives out signatures.
    pub signatures: Endpoint,
    /// Both without TLS.
    pub plain_http: bool,
    /// What `/etc/hosts` shall give to the names; `None`: they are in the DNS.
    pub address: Option<IpAddr>,
    /// Further names for that address.
    pub names: Vec<HostName>,
}

impl Settings {
    /// Further names, at most.
    pub const MOST_NAMES: usize = 8;

    /// Of the lookaside (containers-registries.d(5)).
    #[must_use]
    pub fn lookaside(&self) -> String {
        format!("{}://{}/sigstore", self.scheme(), self.signatures.as_str())
    }

    /// Of its bundle.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("{}://{}/trust/bundle", self.scheme(), self.signatures.as_str())
    }

    /// Of URLs.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.plain_http { "http" } else { "https" }
    }
}

/// `InitTrust`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitTrust {
    /// Where images and signatures are.
    pub settings: Settings,
    /// About the change.
    pub reason: TrustReason,
}

/// `ShowTrust`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowTrust {
    /// `None`: the current.
    pub revision: Option<u64>,
    /// With what is in the files.
    pub files: bool,
}

/// `RollbackTrust`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackTrust {
    /// Whose contents.
    pub revision: u64,
    /// About the change.
    pub reason: TrustReason,
}

/// Most scopes of one request, so that it fits a frame.
pub const MOST_SCOPES: usize = 100;

/// `GrantSigner`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantSigner {
    /// Who signs.
    pub creator: AccountName,
    /// Where: 1 to [`MOST_SCOPES`].
    pub scopes: Vec<Scope>,
    /// How.
    pub kind: SignatureKind,
    /// Beside those who sign there already.
    pub shared: bool,
    /// About the change.
    pub reason: TrustReason,
}

/// `RevokeSigner`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeSigner {
    /// Who signs no more.
    pub creator: AccountName,
    /// Where; empty: wherever he does.
    pub scopes: Vec<Scope>,
    /// What he signed is not trusted any more either.
    pub distrust: bool,
    /// About the change.
    pub reason: TrustReason,
}

/// Why a text is no URL of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bundle's URL is http:// or https://, a host, perhaps :PORT, and a path of a-z, A-Z, 0-9, '.', '_', '-' and '/'"
)]
pub struct BundleUrlError;

/// Where another host's bundle is. Few characters, none that means anything to a URL parser but the path's slashes, so
/// that all programs see the same host in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BundleUrl(String);

impl BundleUrl {
    /// # Errors
    /// [`BundleUrlError`]
    pub fn new(text: impl Into<String>) -> Result<Self, BundleUrlError> {
        let text = text.into();
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (endpoint, path) = rest.and_then(|rest| rest.split_once('/')).ok_or(BundleUrlError)?;
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() > 500 || Endpoint::new(endpoint).is_err() || !path.split('/').all(part) {
            return Err(BundleUrlError);
        }
        Ok(Self(text))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::checked!(BundleUrl(String), BundleUrlError);

/// Why bytes are no bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bundle has 1 to {most} bytes, this one has {0}", most = Bundle::LONGEST)]
pub struct BundleError(usize);

/// Bytes that are said to be another host's bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Bundle(Vec<u8>);

impl Bundle {
    /// Most bytes; compressed, as gpg writes it, that is some ten thousand scopes.
    pub const LONGEST: usize = 128 * 1024;

    /// # Errors
    /// [`BundleError`]
    pub fn new(bytes: Vec<u8>) -> Result<Self, BundleError> {
        if (1..=Self::LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(BundleError(bytes.len()))
        }
    }

    /// As they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

crate::checked!(Bundle(Vec<u8>), BundleError);

/// `SyncTrust`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncTrust {
    /// As it came.
    pub bundle: Bundle,
    /// Where from; `None`: from a file.
    pub url: Option<BundleUrl>,
    /// Of the other host's trust key; `None`: as remembered.
    pub fingerprint: Option<Fingerprint>,
    /// About the change.
    pub reason: TrustReason,
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 hexadecimal digits in lower case")]
pub struct DigestError;

/// Of an image's manifest, as the OCI image specification writes it (descriptor.md, "Digests"); SHA-256 only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// # Errors
    /// [`DigestError`]
    pub fn new(text: impl Into<String>) -> Result<Self, DigestError> {
        let text = text.into();
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() == 64 && digits.bytes().all(hex) { Ok(Self(text)) } else { Err(DigestError) }
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }
}

crate::checked!(Digest(String), DigestError);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Is it a tag? distribution/reference: `[\w][\w.-]{0,127}`
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
        && text.bytes().next().is_some_and(word)
}

/// Why bytes are no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature has 1 to {most} bytes, this one has {0}", most = SignatureBytes::LONGEST)]
pub struct SignatureBytesError(usize);

/// Bytes that are said to be a signature; what they are worth is for a process without rights to find out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct SignatureBytes(Vec<u8>);

impl SignatureBytes {
    /// Most bytes.
    pub const LONGEST: usize = 64 * 1024;

    /// # Errors
    /// [`SignatureBytesError`]
    pub fn new(bytes: Vec<u8>) -> Result<Self, SignatureBytesError> {
        if (1..=Self::LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(SignatureBytesError(bytes.len()))
        }
    }

    /// As they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

crate::checked!(SignatureBytes(Vec<u8>), SignatureBytesError);

/// `SubmitSignature`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitSignature {
    /// Of the image.
    pub repository: Scope,
    /// Of its manifest.
    pub digest: Digest,
    /// As it came.
    pub signature: SignatureBytes,
}

/// A server that podsec configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Of images.
    Registry,
    /// Of signatures and of the trust bundle.
    Signatures,
}

impl ServiceKind {
    /// As the command line, units and the audit write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Signatures => "signatures",
        }
    }
}

/// `DeployService`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployService {
    /// Which.
    pub kind: ServiceKind,
    /// To listen on; `None`: all addresses of the host.
    pub address: Option<IpAddr>,
    /// `None`: of the endpoint that trust names.
    pub port: Option<u16>,
    /// Change nothing.
    pub dry_run: bool,
}

/// `RemoveService`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveService {
    /// Which.
    pub kind: ServiceKind,
    /// With its store.
    pub remove_data: bool,
    /// Change nothing.
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_endpoints() {
        for good in ["registry.local", "a.b", "127.0.0.1"] {
            assert_eq!(HostName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "registry", "a.b:80", "a.b/c", "A.b", "a.b\n", "*.b", "a..b", "rеg.local", "a.b c.d"]
        {
            assert_eq!(HostName::new(bad), Err(HostNameError), "{bad:?}");
        }
        let endpoint = Endpoint::new("registry.local:5000").unwrap();
        assert_eq!((endpoint.host(), endpoint.port()), ("registry.local", Some(5000)));
        assert_eq!(Endpoint::new("registry.local").unwrap().port(), None);
        for bad in ["registry.local/x", "registry.local:99999", "registry.local:", "http://a.b", ""] {
            assert_eq!(Endpoint::new(bad), Err(EndpointError), "{bad:?}");
        }
    }

    #[test]
    fn reasons_are_a_line() {
        assert!(Why::new("отозван: ноутбук украден").is_ok() && Why::new("").is_ok());
        for bad in ["a\nb", "a\u{1b}[0m", "a\u{202e}b", &"x".repeat(201)] {
            assert_eq!(Why::new(bad), Err(WhyError), "{bad:?}");
        }
    }

    #[test]
    fn urls_of_bundles() {
        for good in ["https://sigstore.local/trust/bundle", "http://10.0.0.1:81/trust/bundle"] {
            assert_eq!(BundleUrl::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "ftp://a.b/c",
            "file:///etc/shadow",
            "https://a.b",
            "https://a.b/",
            "https://a.b//c",
            "https://a.b/../c",
            "https://u@a.b/c",
            "https://u:p@a.b/c",
            "https://a.b/c?d",
            "https://a.b/c#d",
            "https://a.b/%2e",
            "https://a.b/c d",
            "https://a.b\\@c.d/e",
            "https://localhost/c",
            "-https://a.b/c",
            "https://a.b/{a,b}",
            "https://a.b/[1-9]",
        ] {
            assert_eq!(BundleUrl::new(bad), Err(BundleUrlError), "{bad:?}");
        }
    }

    #[test]
    fn digests_are_whole() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::new(good.as_str()).unwrap().hex(), "0a".repeat(32));
        for bad in [
            "",
            "sha256:",
            &good.to_uppercase(),
            &good[..70],
            &format!("{good}0"),
            &good.replace("256", "512"),
        ] {
            assert_eq!(Digest::new(bad), Err(DigestError), "{bad:?}");
        }
    }
}
