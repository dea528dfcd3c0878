//! Why an image does not run, out of what podman and skopeo say.
//!
//! They have no codes for it. The texts are those of containers/image as in podman 4.3 and skopeo 1.9 (Debian 12) and in
//! podman 5.4 and skopeo 1.18 (Debian 13).

use crate::output::clean;

/// Why an image does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has signed it.
    Unsigned,
    /// A key that the policy does not have has signed it.
    Foreign,
    /// The signature is for another name.
    OtherName,
    /// What is there is not what was signed, or not what was asked for.
    Digest,
    /// The key has expired.
    Expired,
    /// The key was revoked.
    Revoked,
    /// The signature is none.
    Damaged,
    /// The policy rejects whatever is there.
    OutOfScope,
    /// Nobody signs in its scope.
    NoSigner,
    /// The registry cannot be reached.
    NoRegistry,
    /// The server of signatures cannot be reached.
    NoSignatures,
    /// Certificates, or none where there should be.
    Tls,
    /// The registry wants to know who asks.
    Login,
    /// The registry has no such image.
    Absent,
    /// This version cannot check such a signature.
    Unsupported,
    /// Anything else, in their words.
    Other(String),
}

impl Refusal {
    /// For programs: `kebab-case`, stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Foreign => "foreign-signature",
            Self::OtherName => "other-name",
            Self::Digest => "digest",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Damaged => "damaged-signature",
            Self::OutOfScope => "out-of-scope",
            Self::NoSigner => "no-signer",
            Self::NoRegistry => "no-registry",
            Self::NoSignatures => "no-signature-server",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Absent => "no-image",
            Self::Unsupported => "unsupported",
            Self::Other(_) => "other",
        }
    }

    /// For a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        let text = match self {
            Self::Unsigned => "it is not signed, or was changed after it was",
            Self::Foreign => "somebody has signed it whose signature does not count there",
            Self::OtherName => {
                "its signature is for another name: an image cannot be renamed and stay signed"
            }
            Self::Digest => {
                "its digest does not match: it is not what was signed, or it was changed on the way"
            }
            Self::Expired => {
                "the key that signed it has expired; its creator publishes it with a later expiry"
            }
            Self::Revoked => "the key that signed it was revoked",
            Self::Damaged => "its signature is damaged",
            Self::OutOfScope => "it is outside of every scope in which somebody signs",
            Self::NoSigner => "nobody's signature counts there: its creators have no key that is good",
            Self::NoRegistry => "the registry does not answer",
            Self::NoSignatures => "the server of signatures does not answer",
            Self::Tls => "the server's certificate is not trusted, or it speaks plain HTTP",
            Self::Login => "the registry gives it only to whoever logs in",
            Self::Absent => "the registry has no such image",
            Self::Unsupported => "podman and skopeo of this host cannot check sigstore signatures",
            Self::Other(text) => text,
        };
        text.to_owned()
    }

    /// Out of the error of skopeo or podman.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        if let Some((_, reasons)) = text.split_once("None of the signatures were accepted, reasons: ") {
            // The one that came nearest says most: the others may be of somebody else.
            let all = reasons.split("; ").map(Self::of_one);
            return all.max_by_key(Self::nearness).unwrap_or(Self::Damaged);
        }
        Self::of_one(text)
    }

    fn nearness(&self) -> u8 {
        match self {
            Self::Expired | Self::Revoked => 4,
            Self::Digest => 3,
            Self::OtherName => 2,
            Self::Foreign => 1,
            _ => 0,
        }
    }

    fn of_one(text: &str) -> Self {
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if has(&["A signature was required, but no signature exists"]) {
            return Self::Unsigned;
        }
        if text.contains("Invalid GPG signature") {
            return gpg(text);
        }
        if text.contains("Signature for digest")
            || has(&["Digest did not match", "does not match provided manifest digest"])
        {
            return Self::Digest;
        }
        if text.contains("Signature for identity") {
            return Self::OtherName;
        }
        if has(&["cryptographic signature verification failed", "is not trusted by any of the keys"]) {
            return Self::Foreign;
        }
        if has(&["is rejected by policy"]) {
            return Self::OutOfScope;
        }
        if has(&["sigstore disabled"]) {
            return Self::Unsupported;
        }
        if has(&["server gave HTTP response to HTTPS client", "x509: ", "tls: "]) {
            return Self::Tls;
        }
        if has(&[
            "unauthorized",
            "authentication required",
            "access to the resource is denied",
            "no basic auth",
        ]) {
            return Self::Login;
        }
        if has(&["manifest unknown", "name unknown", "repository name not known"]) {
            return Self::Absent;
        }
        if has(UNREACHABLE) {
            // The registry is asked first.
            return if text.contains("/signature-") { Self::NoSignatures } else { Self::NoRegistry };
        }
        if has(&[
            "No data",
            "unrecognized signature format",
            "parsing signature",
            "signature contents are invalid",
        ]) {
            return Self::Damaged;
        }
        Self::Other(clean(text))
    }
}

/// What Go's net and net/http say.
const UNREACHABLE: &[&str] = &[
    "connection refused",
    "no such host",
    "server misbehaving",
    "i/o timeout",
    "no route to host",
    "network is unreachable",
    "connection reset by peer",
    "context deadline exceeded",
    "TLS handshake timeout",
    "unexpected EOF",
    ": EOF",
    "Bad Gateway",
    "Service Unavailable",
    "Gateway Time",
    "Internal Server Error",
];

/// `Status:gpgme.Error{err:0x7000099}`: the low 16 bits are the code (libgpg-error, err-codes.h).
fn gpg(text: &str) -> Refusal {
    let code = text.split_once("gpgme.Error{err:0x").and_then(|(_, rest)| rest.split('}').next());
    match code.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(|code| code & 0xffff) {
        // GPG_ERR_NO_PUBKEY: the keyring is the policy's
        Some(9) => Refusal::Foreign,
        // GPG_ERR_KEY_EXPIRED, GPG_ERR_SIG_EXPIRED
        Some(153 | 154) => Refusal::Expired,
        // GPG_ERR_CERT_REVOKED
        Some(94) => Refusal::Revoked,
        _ => Refusal::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What they said, put before what it means; `level=fatal msg=` apart.
    const SAID: &[(&str, &str)] = &[
        ("unsigned", "Source image rejected: A signature was required, but no signature exists"),
        (
            "unsigned",
            "Error: copying system image from manifest list: Source image rejected: A signature was required, but no \
             signature exists",
        ),
        (
            "foreign-signature",
            r#"Source image rejected: Invalid GPG signature: gpgme.Signature{Summary:128, Fingerprint:"52FE9C3E4A47DFC165982FBB22E1E2EA1E4DF25F", Status:gpgme.Error{err:0x9}, Timestamp:time.Date(2026, time.November, 26, 23, 42, 59, 0, time.Local), WrongKeyUsage:false, PKATrust:0x0, ChainModel:false, Validity:0, ValidityReason:error(nil), PubkeyAlgo:303, HashAlgo:8}"#,
        ),
        (
            "expired",
            r#"Source image rejected: Invalid GPG signature: gpgme.Signature{Summary:32, Fingerprint:"647CFAA730EC7827802538C95B1AB68FEFA12D6F", Status:gpgme.Error{err:0x7000099}, Timestamp:time.Date(2024, time.January, 15, 0, 0, 0, 0, time.Local), WrongKeyUsage:false}"#,
        ),
        (
            "revoked",
            "Source image rejected: Invalid GPG signature: gpgme.Signature{Status:gpgme.Error{err:0x700005e}}",
        ),
        ("damaged-signature", "Invalid GPG signature: gpgme.Signature{Status:gpgme.Error{err:0x7000008}}"),
        (
            "foreign-signature",
            "Source image rejected: cryptographic signature verification failed: invalid signature when validating ASN.1 \
             encoded signature",
        ),
        (
            "other-name",
            "Source image rejected: Signature for identity 127.0.0.1:5055/team/else:1 is not accepted",
        ),
        (
            "other-name",
            r#"Source image rejected: Signature for identity "127.0.0.1:5055/team/else:1" is not accepted"#,
        ),
        (
            "digest",
            "Source image rejected: Signature for digest \
             sha256:0e542fb16e9677e74449813e14110470d609390c241ad1ffef19d5634331264c does not match",
        ),
        (
            "digest",
            "writing blob: happened during read: Digest did not match, expected sha256:15673, got sha256:1e81e",
        ),
        (
            "digest",
            "determining manifest MIME type for docker://127.0.0.1:5055/team/blob@sha256:0e54: Manifest does not match \
             provided manifest digest sha256:0e54",
        ),
        (
            "out-of-scope",
            "Source image rejected: Running image docker://127.0.0.1:5055/other/x:1 is rejected by policy.",
        ),
        ("damaged-signature", "Source image rejected: No data"),
        (
            "damaged-signature",
            r#"Source image rejected: parsing signature "/tmp/sigs/team/garbage@sha256=0e54/signature-1": unrecognized signature format, starting with binary 0x67"#,
        ),
        ("unsupported", "Source image rejected: Debian-local change: sigstore disabled"),
        (
            "no-registry",
            r#"initializing source docker://127.0.0.1:5056/team/x:1: pinging container registry 127.0.0.1:5056: Get "http://127.0.0.1:5056/v2/": dial tcp 127.0.0.1:5056: connect: connection refused"#,
        ),
        (
            "no-registry",
            r#"initializing source docker://nosuch.local/x:1: pinging container registry nosuch.local: Get "http://nosuch.local/v2/": dial tcp: lookup nosuch.local on 10.255.255.53:53: no such host"#,
        ),
        (
            "no-signature-server",
            r#"Source image rejected: Get "http://127.0.0.1:5099/sigstore/team/good@sha256=0e54/signature-1": dial tcp 127.0.0.1:5099: connect: connection refused"#,
        ),
        (
            "tls",
            r#"pinging container registry 127.0.0.1:5055: Get "https://127.0.0.1:5055/v2/": http: server gave HTTP response to HTTPS client"#,
        ),
        (
            "no-image",
            "initializing source docker://127.0.0.1:5055/team/nothere:1: reading manifest 1 in \
             127.0.0.1:5055/team/nothere: manifest unknown: manifest unknown",
        ),
        (
            "no-image",
            "initializing source docker://127.0.0.1:5055/team/nothere:1: reading manifest 1 in \
             127.0.0.1:5055/team/nothere: manifest unknown",
        ),
        // several signatures: the nearest counts
        (
            "other-name",
            "Source image rejected: None of the signatures were accepted, reasons: Invalid GPG signature: \
             gpgme.Signature{Summary:128, Status:gpgme.Error{err:0x9}, HashAlgo:8}; Signature for identity \
             127.0.0.1:5055/team/else:1 is not accepted",
        ),
        ("other", "no space left on device\x1b"),
    ];

    #[test]
    fn what_they_say_and_what_it_means() {
        for (name, text) in SAID {
            let refusal = Refusal::from_text(text);
            assert_eq!(refusal.name(), *name, "{text}");
            assert!(!refusal.sentence().is_empty() && !refusal.sentence().contains('\x1b'));
        }
    }
}
